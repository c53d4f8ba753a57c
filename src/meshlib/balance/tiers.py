"""The members of a cluster sorted for picking: into priorities, these into localities, these by health."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from meshlib.balance.balancer import Balancer, Member, Usable, kept
from meshlib.balance.endpoint import Health, Locality
from meshlib.balance.failover import priorities
from meshlib.balance.health import EndpointHealth
from meshlib.balance.locality import distribute, locality_text, weight_of
from meshlib.balance.settings import HASH_BALANCERS, LoadBalancing
from meshlib.balance.zone_aware import Callers
from meshlib.dataclass import dataclass

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["DEGRADED", "HEALTHY", "SICK", "Group", "Here", "MakeGroup", "Place", "Tier", "Where", "sort"]

HEALTHY, DEGRADED, SICK = range(3)

MakeGroup: TypeAlias = Callable[[Sequence[Member]], Balancer]
"""Makes the balancer of one group."""

_Sorted: TypeAlias = Sequence[tuple[Member, int]]
"""Members, and how well each is."""


@dataclass(frozen=True, slots=True)
class Here:
    """What endpoints are compared with: where this process runs, its labels, and who else calls.

    Attributes:
        locality, labels: of this process.
        callers: of a service with zone-aware routing; None while they are not known.
    """

    locality: Locality = Locality()
    labels: tuple[tuple[str, str], ...] = ()
    callers: Callers | None = None


@dataclass(frozen=True, slots=True)
class Where:
    """Where a member is: its priority, the index of its locality there (-1 if places do not count), and its health."""

    priority: int
    place: int
    standing: int


class Group:
    """Endpoints that are picked among by one balancer, which is made when it is first needed."""

    __slots__ = ("_balancer", "_make", "members")

    def __init__(self, members: Sequence[Member], make: MakeGroup) -> None:
        self.members = members
        self._make = make
        self._balancer: Balancer | None = None

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None) -> Member | None:
        """Pick one of them, as `Balancer.pick` does; None if there is none."""
        if not self.members:
            return None
        balancer = self._balancer
        return (self.warm() if balancer is None else balancer).pick(now, rng, usable, traits)

    @property
    def used(self) -> int:
        """How many of them this client picks among; none, as long as it has picked none."""
        return 0 if self._balancer is None else kept(self._balancer, self.members)

    def warm(self) -> Balancer:
        """Have the balancer made. Two threads may make two at once; then one of them stays."""
        balancer = self._balancer = self._make(self.members)
        return balancer


class Place:
    """One locality of one priority.

    Attributes:
        locality: its name.
        weight: its share of the calls relative to the others'.
        total: endpoints in it.
        groups: the healthy and the degraded.
    """

    __slots__ = ("groups", "locality", "total", "weight")

    def __init__(self, locality: Locality, members: _Sorted, make: MakeGroup, weight: float) -> None:
        self.locality = locality
        self.weight = weight
        self.total = len(members)
        self.groups = tuple(Group(kind, make) for kind in _by_health(members))


class Tier:
    """One priority.

    Attributes:
        total: endpoints in it.
        groups: the healthy and the degraded.
        all: all of them, for panic.
        weights: of the healthy, of the degraded, and of all together.
        places: its localities, this process's own first; none where they do not count.
    """

    __slots__ = ("all", "groups", "places", "total", "weights")

    def __init__(self, members: _Sorted, make: MakeGroup) -> None:
        kinds = _by_health(members)
        self.total = len(members)
        self.groups = tuple(Group(kind, make) for kind in kinds)
        # The same group where all are healthy, so that it keeps its schedule.
        whole = len(kinds[HEALTHY]) == len(members)
        self.all = self.groups[HEALTHY] if whole else Group([member for member, _ in members], make)
        self.weights = [sum(member.weight for member in kind) for kind in (*kinds, self.all.members)]
        self.places: list[Place] = []

    def weigh(self, weights: Mapping[Locality, float], make: MakeGroup) -> None:
        """Have the weights of localities count within one balancer, so that a hash says the locality, too."""
        self.groups = tuple(Group(_weighted(group.members, weights), make) for group in self.groups)
        self.all = Group(_weighted(self.all.members, weights), make)

    def every_group(self) -> Iterator[Group]:
        """All its groups that have members."""
        groups = (*self.groups, self.all, *(group for place in self.places for group in place.groups))
        return (group for group in groups if group.members)


def sort(
    members: Sequence[Member],
    settings: LoadBalancing,
    here: Here,
    make: MakeGroup,
    leave_out: frozenset[EndpointHealth],
) -> tuple[list[Tier], dict[EndpointHealth, Where], bool]:
    """Sort the members of a cluster.

    Args:
        members: none of them draining.
        settings: of the cluster.
        here: what endpoints are compared with.
        make: makes the balancer of a group.
        leave_out: the health of those that count as sick, whatever else is known.

    Returns:
        The priorities, where each member is, and whether localities have weights.
    """
    kept, weights = _placed(members, settings, here.locality)
    order = priorities([member.endpoint for member in kept], settings, here.locality, dict(here.labels))
    levels: list[list[tuple[Member, int]]] = [[] for _ in range(max(order, default=-1) + 1)]
    for member, priority in zip(kept, order, strict=True):
        levels[priority].append((member, SICK if member.health in leave_out else _standing(member)))
    tiers: list[Tier] = []
    where: dict[EndpointHealth, Where] = {}
    for priority, level in enumerate(levels):
        tier = Tier(level, make)
        tiers.append(tier)
        places: dict[Locality, list[tuple[Member, int]]] = {}
        if weights is not None and settings.policy in HASH_BALANCERS:
            tier.weigh(weights, make)
        elif weights is not None or (priority == 0 and settings.zone_aware is not None):
            for pair in level:
                places.setdefault(pair[0].endpoint.locality, []).append(pair)
        for locality in sorted(places, key=lambda each: (each != here.locality, locality_text(each))):
            weight = 0.0 if weights is None else weights.get(locality, 0.0)
            tier.places.append(Place(locality, places[locality], make, weight))
        index = {place.locality: at for at, place in enumerate(tier.places)}
        for member, standing in level:
            where[member.health] = Where(priority, index.get(member.endpoint.locality, -1), standing)
    return tiers, where, weights is not None and settings.policy not in HASH_BALANCERS


def _weighted(members: Sequence[Member], weights: Mapping[Locality, float]) -> Sequence[Member]:
    """The members again, each with its part of the weight of its locality; all as they are, if none has any."""
    whole = _by_place(members)
    all_weights = sum(weights.get(locality, 0.0) for locality in whole)
    weighted = []
    # In the order of Envoy's localities: which endpoint gets what is left by rounding depends on it.
    for member in sorted(members, key=_by_locality):
        if weight := weights.get(member.endpoint.locality, 0.0):
            copy = Member(member.endpoint, member.node, member.load, member.health, member.target)
            copy.weight = member.weight * (weight / all_weights) / whole[member.endpoint.locality]
            weighted.append(copy)
    return weighted or members


def _by_place(members: Sequence[Member]) -> dict[Locality, float]:
    """What the members in each locality weigh together."""
    whole: dict[Locality, float] = {}
    for member in members:
        whole[member.endpoint.locality] = whole.get(member.endpoint.locality, 0.0) + member.weight
    return whole


def _by_locality(member: Member) -> tuple[str, str, str]:
    locality = member.endpoint.locality
    return locality.region, locality.zone, locality.sub_zone


def _by_health(members: _Sorted) -> tuple[list[Member], list[Member]]:
    healthy = [member for member, standing in members if standing == HEALTHY]
    return healthy, [member for member, standing in members if standing == DEGRADED]


def _standing(member: Member) -> int:
    reported, health = member.endpoint.health, member.health
    if health.active_failed or reported not in (Health.HEALTHY, Health.DEGRADED):
        return SICK
    return DEGRADED if health.active_degraded or reported is Health.DEGRADED else HEALTHY


def _placed(
    members: Sequence[Member], settings: LoadBalancing, here: Locality
) -> tuple[Sequence[Member], Mapping[Locality, float] | None]:
    """The members that get any calls from here, and the weights of their localities if these count."""
    if settings.distribute:
        shares = distribute(_by_place(members), here, settings.distribute)
        if shares is not None:
            return [member for member in members if member.endpoint.locality in shares], shares
    if settings.locality_weights:
        places = {member.endpoint.locality for member in members}
        return members, {place: weight_of(place, settings.locality_weights) for place in places}
    return members, None
