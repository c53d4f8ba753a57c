"""Which source's answer is used for one service, and for how long: no I/O, no clock, no tasks.

The theory. Sources are asked in order, and each is in one of these states:

- it has not answered yet: everybody waits for it;
- it **does not know** the service: the next one is asked too, while this one goes on being watched. If it comes to know
  the service it takes over, and the later ones are dropped;
- it **knows** it: its endpoints are used, and no later source is asked;
- it is **unwell** (it raised): that says nothing about the service, so its last answer stands, however old. Nobody
  else is asked instead, because another registry's answer would be a guess. It is asked again after a back-off.

An answer without endpoints that would take away endpoints in use is **doubted** for `empty_hold_s`: a registry that
was just restarted, or that lost its data, says exactly what one says whose service was really shut down (gRPC A57). If
it still says so afterwards, it is believed. A source that falls ill meanwhile has confirmed nothing: the doubt starts
over.

An outcome has no endpoints and a reason, or endpoints and at most a warning (`ResolutionState.STALE`).
"""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence

from meshlib.balance.endpoint import Endpoint
from meshlib.dataclass import dataclass, replace
from meshlib.discovery.source import UNKNOWN, Answer

__all__ = ["Resolution", "ResolutionState", "Resolver", "Retry"]


class ResolutionState(enum.Enum):
    """What is known of a service's endpoints."""

    PENDING = "pending"
    """No source has answered yet."""
    OK = "ok"
    """A source knows the service and has endpoints."""
    EMPTY = "empty"
    """A source knows the service, and nobody serves it now."""
    UNKNOWN = "unknown"
    """Every source was asked, and none knows the service."""
    STALE = "stale"
    """The last good endpoints, while their source is unwell or says something that is not believed yet."""
    UNWELL = "unwell"
    """A source cannot be asked, and there are no good endpoints to fall back on."""


@dataclass(frozen=True, slots=True)
class Resolution:
    """The endpoints of one service, as of now.

    Attributes:
        endpoints: all of them, unhealthy ones included.
        state: how much to believe them.
        source: the name of the source that they come from, or that is waited for.
        error: why the state is not better; None if all is well.
        updated_at: when they were last known to be right, on the directory's clock: the time of the answer, or, while
            the source is unwell, the time at which it was lost.
    """

    endpoints: tuple[Endpoint, ...] = ()
    state: ResolutionState = ResolutionState.PENDING
    source: str = ""
    error: str | None = None
    updated_at: float = 0.0

    @property
    def up_to_date(self) -> bool:
        """Whether a watch is under way that would have reported a change."""
        return self.state in (ResolutionState.OK, ResolutionState.EMPTY, ResolutionState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Retry:
    """Full-jitter back-off, in seconds: the n-th wait is drawn from 0 to ``min(max_s, base_s * 2**(n-1))``.

    The ceiling is low because it bounds how long a registry's return goes unnoticed.
    """

    base_s: float = 0.1
    max_s: float = 1.0

    def delay_s(self, failures: int, rng: random.Random) -> float:
        """Return the wait after that many failures in a row (1 or more)."""
        return rng.uniform(0.0, min(self.max_s, self.base_s * 2.0 ** min(failures - 1, 30)))


class _Asked:
    """What one source has said."""

    __slots__ = (
        "believed",
        "doubt_ends_at",
        "doubted",
        "error",
        "failures",
        "name",
        "retry",
        "retry_at",
        "running",
        "started_at",
        "well_at",
    )

    def __init__(self, name: str, retry: Retry) -> None:
        self.name = name
        self.retry = retry
        self.forget()

    def forget(self) -> None:
        self.believed: Answer | None = None
        self.doubted: Answer | None = None
        self.doubt_ends_at = 0.0
        self.error: str | None = None
        self.well_at = 0.0
        self.failures = 0
        self.running = False
        self.started_at = 0.0
        self.retry_at = 0.0


class Resolver:
    """The state of one service over all sources. Drive it with events; then do what `to_start` and `to_stop` say.

    Args:
        sources: name and back-off of each source, in the order in which they are asked.
        rng: for the back-off.
        empty_hold_s: for how long an answer without endpoints is doubted, in seconds.
        seed: endpoints known from before (a forked child inherits its parent's), kept until their source answers, or
            where it is none of these, until one of these has.
    """

    def __init__(
        self,
        sources: Sequence[tuple[str, Retry]],
        *,
        rng: random.Random,
        empty_hold_s: float = 15.0,
        seed: Resolution | None = None,
    ) -> None:
        self._asked = [_Asked(name, retry) for name, retry in sources]
        self._rng = rng
        self._empty_hold_s = empty_hold_s
        self._to_stop: list[int] = []
        self.resolution = Resolution(source=self._asked[0].name) if self._asked else Resolution()
        if seed is not None and seed.endpoints:
            self._plant(seed)

    # Events

    def started(self, index: int, now: float) -> None:
        """The watch of source `index` has begun."""
        asked = self._asked[index]
        asked.running = True
        asked.started_at = now

    def answered(self, index: int, answer: Answer, now: float) -> None:
        """Source `index` has answered."""
        asked = self._asked[index]
        asked.error = None
        if asked.doubted is None:
            asked.well_at = now  # and while its answer is doubted: when the doubt began
        if answer is UNKNOWN or not answer:
            self._take_nothing(asked, answer, now)
        else:
            asked.believed, asked.doubted, asked.well_at = answer, None, now
        self._settle(now)

    def failed(self, index: int, error: str, now: float) -> None:
        """The watch of source `index` has ended by an error."""
        asked = self._asked[index]
        if asked.error is None and asked.believed is not None:
            asked.well_at = now
            if now - asked.started_at >= asked.retry.max_s:
                # One that answers and breaks at once is not well again: only a watch that lasted resets the back-off.
                asked.failures = 0
        asked.running = False
        asked.error = error
        asked.doubted = None
        asked.failures += 1
        asked.retry_at = now + asked.retry.delay_s(asked.failures, self._rng)
        self._settle(now)

    def tick(self, now: float) -> None:
        """Time has passed (at least until `next_wakeup`)."""
        self._settle(now)

    # What to do

    def to_start(self, now: float) -> list[int]:
        """Return the sources to be watched that are not, and whose back-off is over."""
        return [i for i in range(self._reach()) if not self._asked[i].running and self._asked[i].retry_at <= now]

    def to_stop(self) -> list[int]:
        """Return, once, the sources whose watch is to be cancelled: an earlier source has taken over."""
        stopped, self._to_stop = self._to_stop, []
        return stopped

    def next_wakeup(self) -> float | None:
        """Return when `tick` and `to_start` have something to do again; None if nothing is planned."""
        times = [asked.doubt_ends_at for asked in self._asked if asked.doubted is not None]
        times += [asked.retry_at for asked in self._asked[: self._reach()] if not asked.running]
        return min(times, default=None)

    # How

    def _plant(self, seed: Resolution) -> None:
        for position, asked in enumerate(self._asked):
            if asked.name == seed.source:
                for earlier in self._asked[:position]:
                    earlier.believed = UNKNOWN
                asked.believed = seed.endpoints
                asked.well_at = seed.updated_at
                break
        self.resolution = seed

    def _take_nothing(self, asked: _Asked, answer: Answer, now: float) -> None:
        if asked.believed == answer:
            asked.doubted = None
            return
        # It takes away its own endpoints, or, by knowing of the service at last, those of a later source.
        takes_away = bool(asked.believed) if asked.believed is not UNKNOWN else bool(self.resolution.endpoints)
        if asked.believed is None or not takes_away:
            asked.believed, asked.doubted = answer, None
            return
        if asked.doubted is None:
            asked.doubt_ends_at = now + self._empty_hold_s
        asked.doubted = answer

    def _reach(self) -> int:
        """Return how many sources are asked: up to the first that does not say `UNKNOWN`."""
        for position, asked in enumerate(self._asked):
            if asked.believed is not UNKNOWN:
                return position + 1
        return len(self._asked)

    def _settle(self, now: float) -> None:
        for asked in self._asked:
            if asked.doubted is not None and now >= asked.doubt_ends_at:
                asked.believed, asked.doubted = asked.doubted, None
        reach = self._reach()
        for position in range(reach, len(self._asked)):
            asked = self._asked[position]
            if asked.running:
                self._to_stop.append(position)
            asked.forget()
        self.resolution = self._resolve(reach)

    def _resolve(self, reach: int) -> Resolution:
        unwell: _Asked | None = None
        for asked in self._asked[:reach]:
            if asked.believed is UNKNOWN:
                unwell = unwell or (asked if asked.error is not None else None)
                continue
            if asked.believed is None and asked.error is None:
                if not self.resolution.endpoints:
                    return Resolution(source=asked.name)
                # What was in use stays so until there is something to take its place.
                waiting = self.resolution.error or f"waiting for {asked.name}"
                return replace(self.resolution, state=ResolutionState.STALE, error=waiting)
            if asked.believed:
                return self._in_use(asked, asked.believed)
            if asked.error is not None:
                return _unwell(asked)
            if asked.believed is not None:
                return Resolution(state=ResolutionState.EMPTY, source=asked.name, updated_at=asked.well_at)
        if unwell is not None:
            return _unwell(unwell)
        last = self._asked[-1] if self._asked else None
        return Resolution(
            state=ResolutionState.UNKNOWN,
            source=last.name if last is not None else "",
            updated_at=max((asked.well_at for asked in self._asked), default=0.0),
        )

    def _in_use(self, asked: _Asked, endpoints: tuple[Endpoint, ...]) -> Resolution:
        error = asked.error
        if error is None and asked.doubted is not None:
            said = "does not know the service" if asked.doubted is UNKNOWN else "has no endpoint"
            error = f"{asked.name} now says that it {said}; not believed for {self._empty_hold_s:g} s"
        state = ResolutionState.OK if error is None else ResolutionState.STALE
        return Resolution(endpoints, state, asked.name, error, asked.well_at)


def _unwell(asked: _Asked) -> Resolution:
    return Resolution(state=ResolutionState.UNWELL, source=asked.name, error=asked.error, updated_at=asked.well_at)
