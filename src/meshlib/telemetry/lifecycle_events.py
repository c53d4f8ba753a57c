"""Events of a process that serves: how it goes."""

from __future__ import annotations

from typing import ClassVar

from meshlib.dataclass import dataclass
from meshlib.telemetry.event import Event

__all__ = ["DrainingBegan", "DrainingEnded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainingBegan(Event):
    """This process is about to end: it is ready no more, leaves the registry, and goes on serving for `notice_s`."""

    kind: ClassVar[str] = "draining_began"
    family: ClassVar[str] = "draining"
    says: ClassVar[str] = "this process drains: {event.requests} in flight; it takes more for {event.notice_s:g} s"

    in_flight: int
    notice_s: float

    @property
    def requests(self) -> str:
        """How many are in flight, in words."""
        return _requests(self.in_flight)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainingEnded(Event):
    """This process has served what it had, or gave up what is still in flight, and ends."""

    kind: ClassVar[str] = "draining_ended"
    family: ClassVar[str] = "draining"
    says: ClassVar[str] = "this process is drained after {event.took_s:g} s, with {event.requests} in flight"

    in_flight: int
    took_s: float

    @property
    def requests(self) -> str:
        """How many are in flight, in words."""
        return _requests(self.in_flight)


def _requests(count: int) -> str:
    return f"{count} request{'' if count == 1 else 's'}"
