"""Simulated endpoints: how long each takes to answer, with what, and how it fails. See also `meshlib.sim.server`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import log
from random import Random
from typing import Protocol, TypeAlias

from meshlib.errors import ConnectFailed, MeshError, Reset
from meshlib.policy.classify import ResponseHeaders
from meshlib.sim.clock import VirtualClock

__all__ = [
    "Answer",
    "Exchange",
    "Latency",
    "Network",
    "Serves",
    "SimEndpoint",
    "constant",
    "exponential",
    "lognormal",
    "normal",
    "uniform",
]

Latency: TypeAlias = Callable[[Random], float]

_DEADLINE = b"x-meshlib-deadline-ms"


def constant(seconds: float) -> Latency:
    """Always as long."""
    return lambda rng: seconds


def uniform(low_s: float, high_s: float) -> Latency:
    """Anything in between, each as likely."""
    return lambda rng: rng.uniform(low_s, high_s)


def exponential(mean_s: float) -> Latency:
    """As from a server with many small delays: without memory."""
    return lambda rng: rng.expovariate(1.0 / mean_s)


def normal(mean_s: float, deviation_s: float) -> Latency:
    """Around a mean, to both sides alike; never below nothing."""
    return lambda rng: max(0.0, rng.gauss(mean_s, deviation_s))


def lognormal(median_s: float, sigma: float) -> Latency:
    """As most servers': around a median, with a tail towards long."""
    centre = log(median_s)
    return lambda rng: rng.lognormvariate(centre, sigma)


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes of an attempt: a status or an error, after a time; no time is never."""

    after_s: float | None
    status: int | None = None
    error: MeshError | None = None
    phase: str = "headers"
    retry_after_s: float | None = None
    sent: bool = True
    overloaded: bool = False
    headers: ResponseHeaders = ()


class Exchange:
    """One attempt, as its endpoint sees it.

    Attributes:
        clock, rng: of the simulation.
        path: what is asked for.
        headers: of the attempt, as they go over the wire.
        at: when it came.
        gone: whether the client gave it up; an answer is then of no use to anybody.
    """

    __slots__ = ("_answered", "at", "clock", "gone", "headers", "path", "rng")

    def __init__(
        self,
        clock: VirtualClock,
        rng: Random,
        path: str,
        headers: list[tuple[bytes, bytes]],
        answered: Callable[[Answer], None],
    ) -> None:
        """An attempt that arrives now; `answered` is told its answer, unless it is gone by then."""
        self.clock = clock
        self.rng = rng
        self.path = path
        self.headers = headers
        self.at = clock.now
        self.gone = False
        self._answered = answered

    @property
    def deadline(self) -> float | None:
        """Until when somebody waits for the answer, by the header that says so; None without one."""
        left_ms = self.header(_DEADLINE)
        return None if left_ms is None else self.at + int(left_ms) / 1000.0

    def header(self, name: bytes) -> bytes | None:
        """The first header of this name, in lower case; None without one."""
        return next((value for key, value in self.headers if key == name), None)

    def answer(self, answer: Answer) -> None:
        """Answer in `answer.after_s`; never, if that is None."""
        if answer.after_s is not None:
            self.clock.after(answer.after_s, lambda: self.answer_now(answer))

    def answer_now(self, answer: Answer) -> None:
        """Answer at once."""
        if not self.gone:
            self._answered(answer)


class Serves(Protocol):
    """An endpoint.

    Attributes:
        attempts: how many came here.
    """

    attempts: int

    def serve(self, exchange: Exchange) -> bool:
        """Take an attempt; answer it now or later, or never. Whether its request left the client."""
        ...


@dataclass(slots=True)
class SimEndpoint:
    """One endpoint. Change its attributes while the simulation runs to break and to mend it.

    Attributes:
        latency: from the request to the headers.
        hung: it accepts requests and never answers.
        refuses: it refuses connections, after `failure_s`.
        fail_percent: the share of requests that it fails, with `fail_status` (None: by a reset), after `failure_s`.
        broken: paths of which it fails all.
        retry_after_s: what its failures ask for.
        attempts: how many came here.
    """

    latency: Latency = field(default_factory=lambda: constant(0.02))
    hung: bool = False
    refuses: bool = False
    fail_percent: float = 0.0
    fail_status: int | None = 503
    failure_s: float = 0.001
    broken: frozenset[str] = frozenset()
    retry_after_s: float | None = None
    attempts: int = 0

    def serve(self, exchange: Exchange) -> bool:
        """Take an attempt."""
        answer = self.answer(exchange.rng, exchange.path)
        exchange.answer(answer)
        return answer.sent

    def answer(self, rng: Random, path: str = "/") -> Answer:
        """What comes of an attempt that starts now."""
        self.attempts += 1
        if self.hung:
            return Answer(None)
        if self.refuses:
            return Answer(self.failure_s, error=ConnectFailed("refused"), phase="connect", sent=False)
        if (self.fail_percent and rng.random() * 100.0 < self.fail_percent) or path in self.broken:
            if self.fail_status is None:
                return Answer(self.failure_s, error=Reset("reset"))
            return Answer(self.failure_s, status=self.fail_status, retry_after_s=self.retry_after_s)
        return Answer(self.latency(rng), status=200)


class Network:
    """The endpoints by address. An attempt at an address that nobody has is refused."""

    __slots__ = ("endpoints",)

    def __init__(self, endpoints: Mapping[str, Serves] | None = None) -> None:
        self.endpoints: dict[str, Serves] = {} if endpoints is None else dict(endpoints)

    def send(self, address: str, exchange: Exchange) -> bool:
        """Take an attempt to `address`. Whether its request left the client."""
        endpoint = self.endpoints.get(address)
        if endpoint is not None:
            return endpoint.serve(exchange)
        exchange.answer(Answer(0.001, error=ConnectFailed("nobody is there"), phase="connect", sent=False))
        return False
