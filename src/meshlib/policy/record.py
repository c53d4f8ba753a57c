"""What happened to a call: the record. Plain, frozen and picklable, so that an error can carry it between processes."""

from __future__ import annotations

from meshlib.dataclass import dataclass
from meshlib.durations import format_duration

__all__ = ["AttemptRecord", "Record", "Wait"]


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One try of a call at one endpoint.

    Attributes:
        number: 1 for the first.
        cluster: over which it was balanced: ``orders`` or ``orders/v2``.
        endpoint: the address.
        started_s: after the call began.
        duration_s: until the headers, or until it failed; for one still under way, so far.
        outcome: ``success``, ``failure``, ``cancelled`` or ``pending``.
        status: of the response, if its headers came.
        error: the name of the error's class, if it failed without a response or in its body.
        phase: how far it had come when it failed: ``pool``, ``connect``, ``tls``, ``write``, ``headers``, ``body``.
        sent: whether any byte of the request may have left this process.
        resent: whether it was silently sent once more, because a kept connection proved stale.
        refused: why the mesh of the service answered in the place of its application: ``overload``, ``expired``,
            ``hopeless``, ``deadline`` (begun, but not done in time); None if it did not.
        probe: whether it tested an ejected endpoint or an open circuit.
        hedge: whether it was started beside another, which had not answered yet.
        how: how its endpoint came to be picked, where that was not the usual way: ``panic``, ``priority 1``.
    """

    number: int
    cluster: str
    endpoint: str
    started_s: float
    duration_s: float
    outcome: str
    status: int | None = None
    error: str | None = None
    phase: str | None = None
    sent: bool = False
    resent: bool = False
    probe: bool = False
    hedge: bool = False
    how: str | None = None
    refused: str | None = None

    def __str__(self) -> str:
        result = self.error or (str(self.status) if self.status is not None else self.outcome)
        phase = f" in {self.phase}" if self.error and self.phase else ""
        hedge = " (hedge)" if self.hedge else ""
        refused = f" (refused: {self.refused})" if self.refused else ""
        said = f"{result}{refused}{phase}"
        return f"#{self.number}{hedge} {self.endpoint} {said} after {format_duration(self.duration_s)}"


@dataclass(frozen=True, slots=True)
class Wait:
    """Time in which nothing was under way.

    `reason`: ``backoff``, ``retry-after``, ``endpoints``, or the gate it waited at (``limit``, ``rate-limit``).
    """

    reason: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Record:
    """What happened to a call.

    Attributes:
        service: the logical name.
        method, path: as called; the path without its query.
        route: the name of the route that matched.
        outcome: ``success`` (any response was delivered), ``failure``, ``cancelled`` or ``pending``.
        status: of the response that was delivered.
        error: the name of the error's class that was raised.
        duration_s: until the headers were delivered, or the call failed; for one still under way, so far.
        attempts: in the order in which they were started.
        waits: between them.
        limit: which limit cut the call or its last attempt: ``timeout``, ``deadline``, ``per-try``, ``client``; None if
            none.
        refused_by: what refused the call at the door of its cluster: ``circuit-breaker``, or the name of a gate
            (``limit``, ``throttle``, ``rate-limit``); None if nothing did.
        fault: the fault that was injected, in words; None if none was.
        reply: what its route answered instead of a backend, in words; None if it was to be called.
        rewritten: the path that was sent instead of `path`, where its route says so; None if it was not.
        mirrored: the clusters that a copy of the request was sent to.
        override: what an override put in the place of the service; with ``(missing)`` where nobody served that, so that
            the service itself was called. None for nothing.
        shadow: what policies that run beside and decide nothing would have decided otherwise, in words.
        no_retry: why a failed attempt was not followed by another, in words; None if that did not come up.
        why: the reasons in full, one line each, when ``explain`` was asked for.
    """

    service: str
    method: str
    path: str
    route: str
    outcome: str
    duration_s: float
    status: int | None = None
    error: str | None = None
    attempts: tuple[AttemptRecord, ...] = ()
    waits: tuple[Wait, ...] = ()
    limit: str | None = None
    no_retry: str | None = None
    refused_by: str | None = None
    fault: str | None = None
    reply: str | None = None
    rewritten: str | None = None
    mirrored: tuple[str, ...] = ()
    override: str | None = None
    shadow: tuple[str, ...] = ()
    why: tuple[str, ...] = ()

    @property
    def retries(self) -> int:
        """Attempts beyond the first, without the hedges."""
        return max(0, len(self.attempts) - 1 - self.hedges)

    @property
    def hedges(self) -> int:
        """Attempts that were started beside another."""
        return sum(attempt.hedge for attempt in self.attempts)

    def __str__(self) -> str:
        result = self.error or (str(self.status) if self.status is not None else self.outcome)
        head = f"{self.method} {self.service}{self.path} ({self.route}): {result} in {format_duration(self.duration_s)}"
        notes = [str(attempt) for attempt in self.attempts]
        if self.fault:
            notes.append(f"injected: {self.fault}")
        if self.reply:
            notes.append(f"answered here: {self.reply}")
        if self.rewritten:
            notes.append(f"sent as {self.rewritten}")
        if self.mirrored:
            notes.append(f"mirrored to {', '.join(self.mirrored)}")
        if self.override:
            notes.append(f"overridden: {self.override}")
        if self.refused_by:
            notes.append(f"refused by the {self.refused_by}")
        if self.no_retry:
            notes.append(f"not retried: {self.no_retry}")
        notes += [f"shadow: {text}" for text in self.shadow]
        return f"{head} [{'; '.join(notes)}]" if notes else head
