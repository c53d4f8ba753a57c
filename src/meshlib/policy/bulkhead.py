"""A bulkhead: the limit on calls in flight is divided, so that one kind of calls cannot take all of it.

Each part has a share of the limit: ``max(1, ceil(limit * percent / 100))`` calls. As with Netflix's partitioned limiter
(``AbstractPartitionedLimiter`` of concurrency-limits) a part may take more while the whole limit is not taken; once it
is, a call passes only if its part has less than its share, though that is a call above the limit. With ``hard`` a part
never has more than its share, and all together never more than the limit.

Calls of no part (an unknown route, a header that is missing) have no share: they pass only while the whole limit is not
taken; with ``hard``, while the limit has places that belong to nobody. Nobody waits in line here.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from meshlib.errors import LimitExceeded, MeshError
from meshlib.policy.admission_settings import BulkheadSettings
from meshlib.policy.keys import key_of, reader_of
from meshlib.policy.limit import InFlightLimit
from meshlib.policy.settings import LimitSettings

if TYPE_CHECKING:
    from meshlib.policy.facts import Ready
    from meshlib.policy.placement import Placement

__all__ = ["Bulkhead"]

_OTHERS = ""


class Bulkhead(InFlightLimit):
    """The divided limit of one cluster.

    Attributes:
        taken: calls in flight of each part; those of none under the empty name.
    """

    __slots__ = ("parts", "readers", "taken")

    name = "bulkhead"
    is_plain = False

    def __init__(self, settings: LimitSettings, parts: BulkheadSettings) -> None:
        super().__init__(settings, 0)
        self.parts = parts
        self.taken = dict.fromkeys((*parts.percents, _OTHERS), 0)
        self.readers = (reader_of(parts.by),)

    def share(self, part: str) -> int:
        """How many calls of the limit belong to a part."""
        if self.maximum is None:
            return 0
        if part != _OTHERS:
            return max(1, ceil(self.maximum * self.parts.percents[part] / 100.0))
        return max(0, self.maximum - sum(map(self.share, self.parts.percents))) if self.parts.hard else 0

    def take(self, part: str) -> bool:
        """Take a place for a call of this part, if it may have one."""
        with self._lock:
            full = self.maximum is not None and len(self._taken) >= self.maximum
            within = self.maximum is None or self.taken[part] < self.share(part)
            if (full and self.parts.hard) or not (within or (not full and not self.parts.hard)):
                self.rejected += 1
                return False
            self.taken[part] += 1
            self._taken.append(None)
            return True

    def give(self, part: str) -> None:
        """Give it back."""
        with self._lock:
            if self.taken[part]:  # else it was taken in the parent of this process
                self.taken[part] -= 1
                self._give_back()

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        part = self._part(call)
        if self.take(part):
            return None
        kind = f"of {part!r}" if part else "that belong to no part"
        text = (
            f"{self.in_flight} of {self.maximum} calls are in flight, {self.taken[part]} of them {kind}, "
            f"whose share is {self.share(part)}"
        )
        return LimitExceeded(text, gate=self.name, service=call.facts.service)

    def left(self, now: float, call: Placement) -> None:
        """Its place falls free."""
        self.give(self._part(call))

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        super().renew_lock()
        self.taken = dict.fromkeys(self.taken, 0)

    def _part(self, call: Placement) -> str:
        key = key_of(self.parts.by, call)
        return key if key is not None and key in self.parts.percents else _OTHERS
