"""The gates of a cluster, as its settings ask for them, in the order in which a call comes to them.

    breakers      the user's own, and the one that the fleet shares; the cluster's own was asked before all gates
    throttle      spares a service that declines
    adaptive      sets the limit
    limit         calls in flight, divided by priority or by a bulkhead where that is asked for
    rate limit    calls in a time
    fleet's       the same for all processes together

The first ones cost nobody anything when they refuse; those that use something up (a place, a token) come later. The
modules are loaded where they are asked for: most clusters need none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from meshlib.dataclass import dataclass
from meshlib.policy.limit import InFlightLimit
from meshlib.policy.settings import LimitSettings

if TYPE_CHECKING:
    from meshlib.policy.admission_settings import BulkheadSettings, RateLimitSettings, ThrottleAlgorithm
    from meshlib.policy.gate import Gate

__all__ = ["Gates", "make_gates"]


@dataclass(frozen=True, slots=True, eq=False)
class Gates:
    """What a cluster has at its door.

    Attributes:
        limit: of the calls in flight.
        before, after: asked before and after it.
    """

    limit: InFlightLimit
    before: Sequence[Gate] = ()
    after: Sequence[Gate] = ()

    def all(self) -> tuple[Gate, ...] | None:
        """In their order; None where the limit alone is to be asked, and needs to know nothing of the call."""
        if self.limit.is_plain and not self.before and not self.after:
            return None
        return (*self.before, self.limit, *self.after)


def make_gates(
    limits: LimitSettings,
    throttle: ThrottleAlgorithm | None,
    bulkhead: BulkheadSettings | None,
    rate_limit: RateLimitSettings | None,
    now: float,
    rng: Random,
    first: Sequence[Gate] = (),
    last: Sequence[Gate] = (),
    before: InFlightLimit | None = None,
) -> Gates:
    """The gates of one cluster; `first` and `last` are others', to be asked before and after all.

    Where there was a limit with other settings, `before`, it stays if it is of the same kind.
    """
    limit = _limit(limits, bulkhead, before)
    earlier: list[Any] = list(first)
    after: list[Any] = []
    if throttle is not None:
        from meshlib.policy.throttle_gate import ThrottleGate

        earlier.append(ThrottleGate(throttle, now, rng))
    if limits.adaptive is not None:
        from meshlib.policy.adaptive import AdaptiveGate

        earlier.append(AdaptiveGate(limits.adaptive, limit, limits.max_in_flight, now, rng))
    if rate_limit is not None:
        from meshlib.policy.rate_limit_gate import RateLimitGate

        after.append(RateLimitGate(rate_limit, now))
    return Gates(limit, tuple(earlier), (*after, *last))


def _limit(
    limits: LimitSettings, bulkhead: BulkheadSettings | None, before: InFlightLimit | None = None
) -> InFlightLimit:
    if bulkhead is not None:
        from meshlib.policy.bulkhead import Bulkhead

        return Bulkhead(limits, bulkhead)
    max_pending = 100 if limits.adaptive is None else 0
    if before is not None and _is_alike(before, limits):
        before.change(limits, max_pending)
        return before
    if limits.high is not None:
        from meshlib.policy.priority_limit import PriorityLimit

        return PriorityLimit(limits, limits.high, max_pending)
    return InFlightLimit(limits, max_pending)


def _is_alike(limit: InFlightLimit, limits: LimitSettings) -> bool:
    """Whether a limit can go by other settings."""
    if limit.name != InFlightLimit.name:  # a bulkhead
        return False
    # An adaptive gate that is gone still hears of the calls that it let in, and would set the limit by them.
    return limit.settings.adaptive is None and (limit.settings.high is None) is (limits.high is None)
