"""Whether the endpoints of a cluster are all alike, so that one balancer is all it takes to pick among them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from meshlib.balance.balancer import Member
from meshlib.balance.endpoint import Health
from meshlib.balance.health import EndpointHealth
from meshlib.balance.settings import LoadBalancing

__all__ = ["any_well", "are_alike", "is_well", "panic_at"]


def are_alike(settings: LoadBalancing, members: Sequence[Member], healthy: Sequence[Member]) -> bool:
    """Whether members differ in nothing but health, and are either healthy or not; none of them is draining."""
    if settings.failover or settings.failover_priority or settings.zone_aware is not None:
        return False
    if settings.locality_weights or settings.distribute or settings.weighted_priority_health:
        return False
    if len(healthy) < len(members) and any(
        member.endpoint.health is Health.DEGRADED or member.health.active_degraded for member in members
    ):
        return False
    return len({member.endpoint.priority for member in members}) < 2


def is_well(health: EndpointHealth) -> bool:
    """Whether neither active checks nor outlier detection are against an endpoint."""
    return not (health.ejected or health.active_failed or health.active_degraded)


def any_well(members: Sequence[Member], rng: Random) -> Member | None:
    """Any member that nobody is against; None if there is none."""
    well = [each for each in members if each.endpoint.health is Health.HEALTHY and is_well(each.health)]
    return rng.choice(well) if well else None


def panic_at(settings: LoadBalancing, count: int) -> float:
    """With fewer healthy members than this, of `count` that are alike, all are used."""
    # As in `meshlib.balance.priority`: not as long as those that are left can carry all.
    return count * min(settings.panic_percent, 10_000.0 / settings.overprovisioning_percent) / 100.0
