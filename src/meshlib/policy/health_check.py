"""Active health checks: whether an endpoint is well, by asking it, and when to ask again. No I/O is done here.

The states are those of Envoy's ``health_checker_base_impl.cc``. An endpoint is failed or it is not, and a check that
speaks against its state moves it only after so many in a row:

    state   check                       then
    failed  passed, its first ever      well at once, so that a start is quick
    failed  passed                      well after `healthy_threshold` in a row
    failed  did not pass                stays; the count of passed ones begins again
    well    passed                      stays; the count of failures begins again
    well    no answer, or a retriable   failed after `unhealthy_threshold` in a row
            status
    well    another wrong answer        failed at once: it has said so itself

The next check is due after `interval_s`, or while such a count runs (on the *edge*) after `healthy_edge_interval_s` or
`unhealthy_edge_interval_s`, of one that is failed after `unhealthy_interval_s`, and as long as a cluster was never
called after `no_traffic_interval_s`.

What is not yet known counts for it or against it, as `initial` says. ``failed`` is Envoy's: a newcomer is left out
until its first check has passed. Envoy holds back a cluster as a whole until each of its endpoints was checked once; a
call through a library should rather be tried than wait for that, so here nobody is left out for want of a check until
a cluster has been checked once through (`FirstRound`).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from random import Random
from types import MappingProxyType
from typing import Literal

from meshlib.dataclass import dataclass, field

__all__ = [
    "Checkup",
    "Finding",
    "FirstRound",
    "HealthCheckSettings",
    "HttpCheck",
    "TcpCheck",
    "Transition",
    "first_delay_s",
    "judge_bytes",
    "judge_response",
    "next_delay_s",
    "says_goodbye",
]


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A request that is to be answered.

    Attributes:
        path: what is asked for, ``/health``.
        method: ``GET`` or another without a body.
        host: the ``Host`` header; None for the one that calls have.
        headers: further ones.
        expected_statuses: ranges, both ends included, of the answers of an endpoint that is well.
        retriable_statuses: ranges of wrong answers that count like none, and not at once.
        port: to ask at, where it is not the endpoint's own.
    """

    path: str = "/"
    method: str = "GET"
    host: str | None = None
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    expected_statuses: tuple[tuple[int, int], ...] = ((200, 200),)
    retriable_statuses: tuple[tuple[int, int], ...] = ()
    port: int | None = None


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """A connection that is to open.

    Attributes:
        send: bytes to write; none to look at the connection alone.
        receive: pieces that the answer has to have, in this order, whatever else is between them.
        port: to connect to, where it is not the endpoint's own.
    """

    send: bytes = b""
    receive: tuple[bytes, ...] = ()
    port: int | None = None


@dataclass(frozen=True, slots=True)
class HealthCheckSettings:
    """Active checks of a service's endpoints.

    Attributes:
        http, tcp: what is asked; exactly one of them.
        interval_s: between checks.
        timeout_s: for one check, from its start to the end of the answer.
        healthy_threshold, unhealthy_threshold: so many checks in a row change the state; see the module.
        unhealthy_interval_s, unhealthy_edge_interval_s, healthy_edge_interval_s: between checks of one that is failed,
            or about to change; None for `interval_s` (the unhealthy edge: for `unhealthy_interval_s`).
        no_traffic_interval_s: between checks as long as no call was made.
        no_traffic_healthy_interval_s: the same, of those that are well; None for as long as the others.
        initial_jitter_s: the first check comes within this time rather than at once.
        interval_jitter_s, interval_jitter_percent: up to this is added to each interval.
        reuse_connection: keep the connection between checks.
        initial: what an endpoint is thought to be before its first check.
        max_concurrent: checks under way at once in a service; further ones wait.
    """

    http: HttpCheck | None = None
    tcp: TcpCheck | None = None
    interval_s: float = 5.0
    timeout_s: float = 1.0
    healthy_threshold: int = 2
    unhealthy_threshold: int = 3
    unhealthy_interval_s: float | None = None
    unhealthy_edge_interval_s: float | None = None
    healthy_edge_interval_s: float | None = None
    no_traffic_interval_s: float = 60.0
    no_traffic_healthy_interval_s: float | None = None
    initial_jitter_s: float = 0.0
    interval_jitter_s: float = 0.0
    interval_jitter_percent: float = 0.0
    reuse_connection: bool = True
    initial: Literal["failed", "passed"] = "failed"
    max_concurrent: int = 64


class Finding(enum.Enum):
    """What one check found."""

    PASSED = "passed"
    DEGRADED = "degraded"
    """It passed, and asks to be used only for want of better ones."""
    NO_ANSWER = "no answer"
    """No connection, a reset, or nothing in time."""
    RETRIABLE = "retriable status"
    WRONG = "wrong answer"


class Transition(enum.Enum):
    """What a check did to the state of its endpoint."""

    UNCHANGED = "unchanged"
    PENDING = "pending"
    """It speaks against the state, and not often enough yet."""
    CHANGED = "changed"


_GOODBYE = b"x-envoy-immediate-health-check-fail"
_WELL = (Finding.PASSED, Finding.DEGRADED)


class Checkup:
    """The state of one endpoint, as its checks have it.

    Attributes:
        failed: whether it is down.
        degraded: whether it is up and has asked to be spared.
        checked: whether any check of it has ended.
        in_a_row: checks that spoke against the state, one after the other.
    """

    __slots__ = ("_settings", "checked", "degraded", "failed", "in_a_row")

    def __init__(self, settings: HealthCheckSettings) -> None:
        self._settings = settings
        self.failed = settings.initial == "failed"
        self.degraded = False
        self.checked = False
        self.in_a_row = 0

    def found(self, finding: Finding) -> Transition:
        """A check has ended."""
        first, self.checked = not self.checked, True
        if (finding not in _WELL) is self.failed:
            self.in_a_row = 0
            return self._grade(finding, Transition.UNCHANGED)
        self.in_a_row += 1
        if self.failed:
            enough = first or self.in_a_row >= self._settings.healthy_threshold
        else:
            enough = finding is Finding.WRONG or self.in_a_row >= self._settings.unhealthy_threshold
        if not enough:
            return self._grade(finding, Transition.PENDING)
        self.failed = not self.failed
        self.in_a_row = 0
        return self._grade(finding, Transition.CHANGED)

    def told_to_go(self) -> Transition:
        """The endpoint itself has said, in answer to a call, that it is to be left alone."""
        return self.found(Finding.WRONG)

    def _grade(self, finding: Finding, transition: Transition) -> Transition:
        degraded = finding is Finding.DEGRADED
        if finding in _WELL and degraded is not self.degraded:
            self.degraded = degraded
            # There is no threshold for this: one answer is enough.
            return Transition.CHANGED if transition is Transition.UNCHANGED else transition
        return transition

    def __repr__(self) -> str:
        state = "failed" if self.failed else "degraded" if self.degraded else "well"
        return f"<Checkup {state}{'' if self.checked else ', not checked'}, {self.in_a_row} against it>"


class FirstRound:
    """Whether a cluster was checked once through; until then nobody is left out for want of a check.

    It begins again when none is left of those that were checked, as after a deploy that replaced them all at once.
    """

    __slots__ = ("over",)

    def __init__(self) -> None:
        self.over = False

    def look(self, checked: int, members: int) -> bool:
        """Reckon with so many endpoints that were checked, of so many; return whether that changes anything."""
        over = checked > 0 if self.over else 0 < members == checked
        changed, self.over = over is not self.over, over
        return changed

    def leaves_out(self, checkup: Checkup) -> bool:
        """Whether an endpoint is to be left out."""
        return checkup.failed and (checkup.checked or self.over)


def next_delay_s(
    settings: HealthCheckSettings, finding: Finding, transition: Transition, traffic: bool, rng: Random
) -> float:
    """How long to wait after a check, in seconds.

    Args:
        settings: the intervals.
        finding, transition: of the check that has just ended.
        traffic: whether the cluster was ever called.
        rng: for the jitter.
    """
    well, edge = finding in _WELL, transition is Transition.PENDING
    interval_s: float | None
    if not traffic:
        interval_s = settings.no_traffic_healthy_interval_s if well and not edge else None
        interval_s = settings.no_traffic_interval_s if interval_s is None else interval_s
    elif well:
        interval_s = settings.healthy_edge_interval_s if edge else None
    else:
        interval_s = settings.unhealthy_edge_interval_s if edge else None
        interval_s = settings.unhealthy_interval_s if interval_s is None else interval_s
    interval_s = settings.interval_s if interval_s is None else interval_s
    interval_s += rng.random() * interval_s * settings.interval_jitter_percent / 100.0
    return max(_LEAST_S, interval_s + rng.random() * settings.interval_jitter_s)


_LEAST_S = 0.001
"""Between two checks of an endpoint, as in Envoy: an interval of nothing would be a loop without end."""


def first_delay_s(settings: HealthCheckSettings, rng: Random) -> float:
    """How long to wait before the first check of an endpoint, in seconds."""
    return rng.random() * settings.initial_jitter_s


def judge_response(check: HttpCheck, status: int, headers: Mapping[bytes, bytes]) -> Finding:
    """What a response says of its endpoint.

    With ``x-envoy-immediate-health-check-fail`` a status that is not expected counts at once, though it be retriable;
    with ``x-envoy-degraded`` an expected one asks to be spared.

    Args:
        check: what was asked.
        status: of the response.
        headers: of the response, with names in lower case.
    """
    if _within(check.expected_statuses, status):
        return Finding.DEGRADED if b"x-envoy-degraded" in headers else Finding.PASSED
    if _within(check.retriable_statuses, status) and _GOODBYE not in headers:
        return Finding.RETRIABLE
    return Finding.WRONG


def says_goodbye(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether an answer to a call asks to leave its endpoint alone, by ``x-envoy-immediate-health-check-fail``.

    Envoy obeys this in answers to calls as well as to checks.
    """
    return any(len(name) == len(_GOODBYE) and name.lower() == _GOODBYE for name, _ in headers)


def judge_bytes(check: TcpCheck, received: bytes) -> bool:
    """Whether what was received so far has all the pieces, in their order."""
    at = 0
    for piece in check.receive:
        found = received.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _within(ranges: tuple[tuple[int, int], ...], status: int) -> bool:
    return any(first <= status <= last for first, last in ranges)
