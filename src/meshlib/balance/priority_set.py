"""Who may be picked where not all endpoints are alike: priorities, degraded endpoints, localities.

A pick first chooses a priority, by how loads are shared among them (`meshlib.balance.priority`); in it perhaps a
locality, by weight (`meshlib.balance.locality`) or by where the caller is (`meshlib.balance.zone_aware`); and of the
endpoints there one, by the balancer. Each such group has a balancer of its own, as in Envoy.

How loads are shared is reckoned when the cluster is made, and again when an endpoint is ejected or comes back: from the
numbers of endpoints, never from all of them for each pick. A cluster whose endpoints are all alike has none of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from meshlib.balance.balancer import Member, not_ejected, untried
from meshlib.balance.health import EndpointHealth
from meshlib.balance.locality import LocalityTurns, effective_weight, locality_text
from meshlib.balance.priority import Level, Loads, choose_priority, loads
from meshlib.balance.settings import LoadBalancing
from meshlib.balance.tiers import DEGRADED, HEALTHY, SICK, Group, Here, MakeGroup, sort
from meshlib.balance.zone_aware import ZoneRouting, zone_routing

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["PrioritySet"]

_FIRST_TURNS = 32

_Out: TypeAlias = dict[tuple[int, int, int], int]
"""How many are ejected, by priority, locality (-1 for all of them) and health."""


class _Arrangement:
    """How loads are shared while the same endpoints are ejected.

    Attributes:
        ejected: these.
        loads: of each priority.
        turns: of the localities of a priority, of its healthy and its degraded endpoints, where they have weights.
        zone: whether calls stay in the zone.
        only: the priority that has all the load and whether it is of its degraded ones; then nothing has to be drawn.
    """

    __slots__ = ("ejected", "loads", "only", "turns", "zone")

    def __init__(
        self,
        ejected: Sequence[Member],
        shares: Loads,
        turns: Mapping[tuple[int, int], LocalityTurns],
        zone: ZoneRouting | None,
    ) -> None:
        self.ejected = ejected
        self.loads = shares
        self.turns = turns
        self.zone = zone
        self.only = None
        for kind, percents in enumerate((shares.healthy, shares.degraded)):
            if 100 in percents:
                self.only = percents.index(100), kind


class PrioritySet:
    """The members of one cluster by priority, health and locality. Safe under threads."""

    __slots__ = ("_arrangement", "_here", "_rng", "_settings", "_tiers", "_weighted", "_where")

    def __init__(
        self,
        members: Sequence[Member],
        settings: LoadBalancing,
        here: Here | None,
        make: MakeGroup,
        rng: Random,
        *,
        leave_out: frozenset[EndpointHealth] = frozenset(),
        eager: bool = False,
    ) -> None:
        """Sort the members.

        Args:
            members: none of them draining.
            settings: of the cluster.
            here: what they are compared with; None for nothing.
            make: makes the balancer of a group.
            rng: for where turns begin.
            leave_out: the health of those that count as sick from the first: ejected ones, where the cluster is made
                anew when that changes.
            eager: whether all balancers are made at once, or only those that are needed now.
        """
        self._settings = settings
        self._here = here or Here()
        self._rng = rng
        self._tiers, self._where, self._weighted = sort(members, settings, self._here, make, leave_out)
        self._arrangement = self._arrange(())
        for priority, tier in enumerate(self._tiers):
            if eager or self._arrangement.loads.healthy[priority]:
                likely = [place.groups[HEALTHY] for place in tier.places] or tier.groups[HEALTHY:DEGRADED]
                for group in tier.every_group() if eager else likely:
                    if group.members:
                        group.warm()

    def pick(
        self,
        now: float,
        rng: Random,
        ejected: Sequence[Member],
        tried: Sequence[Member] = (),
        traits: Traits | None = None,
    ) -> tuple[Member | None, bool]:
        """Pick a member; one that was tried only if no other is left.

        Args:
            now: on the monotonic clock.
            rng: the source of all randomness.
            ejected: the members that are out; another object whenever that changes.
            tried: members that the call has tried.
            traits: what was read of the request; its hash chooses the priority, too.

        Returns:
            The member, None if there is none; and whether it is picked in panic.
        """
        at = self._now(ejected)
        if not self._tiers:
            return None, False
        if at.only is not None:
            priority, kind = at.only
        else:
            drawn = traits.hash if traits is not None and traits.hash is not None else int(rng.random() * 100)
            priority, degraded = choose_priority(at.loads, drawn)
            kind = DEGRADED if degraded else HEALTHY
        panic = at.loads.panic[priority]
        if panic and self._settings.fail_on_panic:
            return None, True
        group = self._tiers[priority].all if panic else self._group(at, priority, kind, rng)
        picked = _pick(group, panic, now, rng, ejected, tried, traits)
        if picked is not None:
            return picked, panic
        for other, in_panic in self._groups(at):
            picked = _pick(other, in_panic, now, rng, ejected, tried, traits)
            if picked is not None:
                return picked, in_panic
        return self.pick(now, rng, ejected, (), traits) if tried else (None, False)

    def has_untried(self, ejected: Sequence[Member], tried: Sequence[Member]) -> bool:
        """Whether `pick` would find a member that was not tried. Changes nothing."""
        groups = self._groups(self._now(ejected))
        return any(any(map(untried(tried, None if panic else not_ejected), group.members)) for group, panic in groups)

    def loads(self, ejected: Sequence[Member]) -> Loads:
        """What each priority gets."""
        return self._now(ejected).loads

    def used(self, ejected: Sequence[Member]) -> int:
        """How many members this client picks among: those of its subset, where a balancer has one."""
        at, count = self._now(ejected), 0
        for priority, tier in enumerate(self._tiers):
            if at.loads.panic[priority]:
                count += tier.all.used
                continue
            for kind, shares in ((HEALTHY, at.loads.healthy), (DEGRADED, at.loads.degraded)):
                by_place = self._weighted or (priority == 0 and kind == HEALTHY and at.zone is not None)
                groups = [place.groups[kind] for place in tier.places] if by_place else [tier.groups[kind]]
                count += sum(group.used for group in groups) if shares[priority] else 0
        return count

    def panicking(self, ejected: Sequence[Member]) -> bool:
        """Whether a priority that gets calls is in panic."""
        shares = self._now(ejected).loads
        return any(panic and load for panic, load in zip(shares.panic, shares.healthy, strict=True))

    def how(self, member: Member, ejected: Sequence[Member]) -> str | None:
        """From where a member is picked, in words; None if there is nothing to say."""
        where = self._where.get(member.health)
        if where is None:
            return None
        words = []
        if len(self._tiers) > 1:
            words.append(f"priority {where.priority}")
        if where.place >= 0 or self._settings.failover:
            words.append(f"locality {locality_text(member.endpoint.locality) or 'unknown'}")
        if self._now(ejected).loads.panic[where.priority]:
            words.append("panic")
        elif where.standing == DEGRADED:
            words.append("degraded")
        return ", ".join(words) or None

    def why_not(self, member: Member, ejected: Sequence[Member]) -> str | None:
        """Why a member gets no calls although it is well, in words; None if it does, or is not well."""
        where = self._where.get(member.health)
        if where is None:
            return "its locality gets no share of the calls from here"
        at = self._now(ejected)
        priority, shares = where.priority, at.loads
        if shares.panic[priority]:
            return None if shares.healthy[priority] else f"priority {priority} gets no calls"
        if where.standing == SICK:
            return None
        if where.standing == DEGRADED:
            return None if shares.degraded[priority] else "degraded, and the healthy ones can carry all"
        if not shares.healthy[priority]:
            return f"priority {priority} stands by"
        if where.place >= 0:
            if self._weighted:
                return None if self._tiers[priority].places[where.place].weight else "its locality has no weight"
            if at.zone is not None and not at.zone.may_choose(where.place):
                return "calls go to other zones"
        return None

    def in_panic(self, member: Member, ejected: Sequence[Member]) -> bool:
        """Whether a member is used whatever its health."""
        where = self._where.get(member.health)
        return where is not None and self._now(ejected).loads.panic[where.priority]

    def _now(self, ejected: Sequence[Member]) -> _Arrangement:
        at = self._arrangement
        if at.ejected is not ejected:
            at = self._arrangement = self._arrange(ejected)
        return at

    def _arrange(self, ejected: Sequence[Member]) -> _Arrangement:
        out: _Out = {}
        lighter: dict[tuple[int, int], float] = {}
        for member in ejected:
            where = self._where.get(member.health)
            if where is not None and where.standing != SICK:
                for place in {-1, where.place}:
                    key = (where.priority, place, where.standing)
                    out[key] = out.get(key, 0) + 1
                kind = (where.priority, where.standing)
                lighter[kind] = lighter.get(kind, 0.0) + member.weight
        settings = self._settings
        levels = [self._level(priority, out, lighter) for priority in range(len(self._tiers))]
        shares = Loads((), (), ())
        if levels:
            shares = loads(levels, settings.overprovisioning_percent, settings.panic_percent)
        return _Arrangement(ejected, shares, self._turns(out) if self._weighted else {}, self._zone(out))

    def _level(self, priority: int, out: _Out, lighter: Mapping[tuple[int, int], float]) -> Level:
        tier = self._tiers[priority]
        healthy, degraded = (
            len(tier.groups[kind].members) - out.get((priority, -1, kind), 0) for kind in (HEALTHY, DEGRADED)
        )
        if not self._settings.weighted_priority_health:
            return Level(tier.total, healthy, degraded)
        well, so_so = (
            max(0.0, tier.weights[kind] - lighter.get((priority, kind), 0.0)) for kind in (HEALTHY, DEGRADED)
        )
        return Level(tier.total, healthy, degraded, weights=(tier.weights[2], well, so_so, 0.0))

    def _turns(self, out: _Out) -> dict[tuple[int, int], LocalityTurns]:
        turns = {}
        skip = int(self._rng.random() * _FIRST_TURNS)
        percent = self._settings.overprovisioning_percent
        for priority, tier in enumerate(self._tiers):
            for kind in (HEALTHY, DEGRADED):
                weights = []
                for at, place in enumerate(tier.places):
                    available = len(place.groups[kind].members) - out.get((priority, at, kind), 0)
                    weights.append((at, effective_weight(place.weight, available, place.total, percent)))
                turns[priority, kind] = LocalityTurns(weights, skip)
        return turns

    def _zone(self, out: _Out) -> ZoneRouting | None:
        zone_aware, callers = self._settings.zone_aware, self._here.callers
        if zone_aware is None or callers is None or not self._tiers or callers.panicking(self._settings.panic_percent):
            return None
        upstream = [
            (place.locality, len(place.groups[HEALTHY].members) - out.get((0, at, HEALTHY), 0))
            for at, place in enumerate(self._tiers[0].places)
        ]
        return zone_routing(zone_aware, self._here.locality, upstream, callers)

    def _group(self, at: _Arrangement, priority: int, kind: int, rng: Random) -> Group:
        """Of the priority that was chosen the locality that is to be used, or all of it."""
        tier = self._tiers[priority]
        if self._weighted:
            turn = at.turns[priority, kind].next()
            if turn is not None:
                return tier.places[turn].groups[kind]
        elif priority == 0 and kind == HEALTHY and at.zone is not None and self._settings.zone_aware is not None:
            percent = self._settings.zone_aware.routing_percent
            if percent >= 100 or rng.random() * 100 < percent:
                return tier.places[at.zone.choose(rng)].groups[kind]
        return tier.groups[kind]

    def _groups(self, at: _Arrangement) -> Iterator[tuple[Group, bool]]:
        """All groups from which a member may come, the first choice first, and whether in panic."""
        for kind in (HEALTHY, DEGRADED):
            for priority, tier in enumerate(self._tiers):
                if at.loads.panic[priority]:
                    if kind == HEALTHY and not self._settings.fail_on_panic:
                        yield tier.all, True
                elif self._weighted and at.turns[priority, kind].any:
                    for place in tier.places:
                        if place.weight:
                            yield place.groups[kind], False
                else:
                    yield tier.groups[kind], False


def _pick(
    group: Group,
    panic: bool,
    now: float,
    rng: Random,
    ejected: Sequence[Member],
    tried: Sequence[Member],
    traits: Traits | None,
) -> Member | None:
    allowed = not_ejected if ejected and not panic else None
    return group.pick(now, rng, untried(tried, allowed) if tried else allowed, traits)
