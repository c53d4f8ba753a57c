"""The gates of a cluster, from its settings: its own, and what it shares with other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Final, Protocol

from meshlib.config.settings import ClusterSettings
from meshlib.policy.gates import Gates, make_gates
from meshlib.policy.settings import BreakerSettings

if TYPE_CHECKING:
    from meshlib.balance.cluster import ClusterState
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


def gates_of(
    settings: ClusterSettings,
    now: float,
    rng: Random,
    fleet: Fleet | None = None,
    was: ClusterSettings | None = None,
    before: ClusterState | None = None,
) -> Gates:
    """The gates of a cluster.

    Args:
        settings: of the cluster.
        now: on the monotonic clock.
        rng: for what gates draw.
        fleet: what clusters share with other processes; None for nothing.
        was, before: its settings and its state until now, if there were any: the gates whose part of the settings has
            not changed stay.
    """
    limited = was is not None and (was.limits, was.bulkhead) == (settings.limits, settings.bulkhead)
    first: list[Gate] = []
    last: Sequence[Gate] = ()
    breaker = settings.breaker
    if breaker is not None and not isinstance(breaker, BreakerSettings):
        from meshlib.policy.user_breaker import UserBreakerGate

        first.append(UserBreakerGate(breaker, None if fleet is None else fleet.worker_for(breaker)))
    if fleet is not None and settings.fleet is not None:
        shared, last = fleet.gates(settings)
        first += shared
    limit = None if before is None or limited else before.limit
    gates = make_gates(
        settings.limits, settings.throttle, settings.bulkhead, settings.rate_limit, now, rng, first, last, limit
    )
    if was is None or before is None:
        return gates
    stay = {name for name, part in _PARTS.items() if part(was) == part(settings)}
    known = {gate.name: gate for gate in before.gates or () if gate.name in stay}
    return Gates(
        before.limit if limited else gates.limit,
        tuple(known.get(gate.name, gate) for gate in gates.before),
        tuple(known.get(gate.name, gate) for gate in gates.after),
    )


_PARTS: Final[Mapping[str, Callable[[ClusterSettings], object]]] = {
    "circuit-breaker": lambda settings: settings.breaker,
    "throttle": lambda settings: settings.throttle,
    "adaptive": lambda settings: (settings.limits, settings.bulkhead),
    "rate-limit": lambda settings: settings.rate_limit,
}
"""By the name of a gate, what it is made of."""
