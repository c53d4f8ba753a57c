"""Limits by priority: calls with high priority have places of their own, so that the others cannot take them all.

As with Envoy's circuit breakers, which count for the priorities DEFAULT and HIGH apart. A call has high priority if its
route or its service says ``priority: high``, or if the work that it is part of is CRITICAL_PLUS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.errors import MeshError
from meshlib.policy.keys import is_high, reader_of
from meshlib.policy.limit import InFlightLimit, LimitFull
from meshlib.policy.settings import HighLimitSettings, LimitSettings

if TYPE_CHECKING:
    from meshlib.policy.facts import Ready
    from meshlib.policy.placement import Placement
    from meshlib.policy.traits import Reader

__all__ = ["PriorityLimit"]


class PriorityLimit(InFlightLimit):
    """The limit of one cluster: for ordinary calls itself, for those with high priority `high`."""

    __slots__ = ("high",)

    readers: tuple[Reader, ...] = (reader_of(None),)
    is_plain = False

    def __init__(self, settings: LimitSettings, high: HighLimitSettings, max_pending: int) -> None:
        super().__init__(settings, max_pending)
        self.high = InFlightLimit(_own(settings, high))

    @property
    def in_flight(self) -> int:
        """Calls under way, of both kinds."""
        return super().in_flight + self.high.in_flight

    @property
    def pending(self) -> int:
        """Calls that wait in line, of both kinds."""
        return super().pending + self.high.pending

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        if not is_high(call):
            return super().ask(now, call)
        place = self.high.enter()
        if isinstance(place, LimitFull):
            with self._lock:
                self.rejected += 1
            return self.high.full(call)
        return place

    def left(self, now: float, call: Placement) -> None:
        """Its place falls free."""
        (self.high if is_high(call) else self).exit()

    def change(self, settings: LimitSettings, max_pending: int = 100) -> None:
        """Go by other settings from now on."""
        super().change(settings, max_pending)
        if settings.high is not None:
            self.high.change(_own(settings, settings.high))

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        super().renew_lock()
        self.high.renew_lock()


def _own(settings: LimitSettings, high: HighLimitSettings) -> LimitSettings:
    return LimitSettings(high.max_in_flight, high.max_pending, settings.max_wait_s, settings.order)
