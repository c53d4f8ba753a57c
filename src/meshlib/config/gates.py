"""The gates of a cluster, from its settings: its own, and what it shares with other processes."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING, Protocol

from meshlib.config.settings import ClusterSettings
from meshlib.policy.gates import Gates, make_gates
from meshlib.policy.settings import BreakerSettings

if TYPE_CHECKING:
    from meshlib.policy.gate import Gate
    from meshlib.policy.user_breaker import Worker

__all__ = ["Fleet", "gates_of"]


class Fleet(Protocol):
    """What the clusters of this process share with those of others."""

    def gates(self, settings: ClusterSettings) -> tuple[Sequence[Gate], Sequence[Gate]]:
        """The gates that a cluster asks before and after its own."""
        ...

    def worker_for(self, breaker: object) -> Worker | None:
        """Where to ask a breaker of the user's own; None where it answers at once."""
        ...


def gates_of(settings: ClusterSettings, now: float, rng: Random, fleet: Fleet | None = None) -> Gates:
    """The gates of a cluster."""
    first: list[Gate] = []
    last: Sequence[Gate] = ()
    breaker = settings.breaker
    if breaker is not None and not isinstance(breaker, BreakerSettings):
        from meshlib.policy.user_breaker import UserBreakerGate

        first.append(UserBreakerGate(breaker, None if fleet is None else fleet.worker_for(breaker)))
    if fleet is not None and settings.fleet is not None:
        shared, last = fleet.gates(settings)
        first += shared
    return make_gates(settings.limits, settings.throttle, settings.bulkhead, settings.rate_limit, now, rng, first, last)
