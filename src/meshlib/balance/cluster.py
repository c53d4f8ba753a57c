"""Clusters: what a call is balanced over.

A `Cluster` is immutable: the members at one moment, and a balancer over them. A call reads it once. What changes with
every call (loads, ejections, the breaker, counts) lives in one `ClusterState` per cluster, which outlasts any change of
endpoints; members that left are remembered for `REMEMBER_S`, so that a flapping registry clears nothing.

Which members may be picked: those that are healthy by the registry and by active checks, and not ejected. With fewer
than `panic_percent` of all left, and too few to carry the load (`meshlib.balance.priority`), all are used (panic):
then the signals are more likely wrong than the endpoints; it is counted. Endpoints that this call has already tried are
left out as long as another is left. Where members differ in priority, or places count, all this is the business of a
`meshlib.balance.priority_set.PrioritySet`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.alike import any_well, are_alike, is_well, panic_at
from meshlib.balance.balancer import OUTSIDE, Balancer, Member, leaves_out, not_ejected, untried
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.balance.health import ActiveHealth, EndpointHealth
from meshlib.balance.known import Known
from meshlib.balance.load import EndpointNode, Load
from meshlib.balance.settings import HASH_BALANCERS, LoadBalancing
from meshlib.balance.table import find_balancer
from meshlib.balance.usual import usual_cost_s, usual_mean_s
from meshlib.policy.breaker import Breaker
from meshlib.policy.limit import InFlightLimit
from meshlib.policy.outlier import make_detector
from meshlib.policy.settings import BreakerSettings, LimitSettings, OutlierSettings

if TYPE_CHECKING:
    from meshlib.balance.affinity import Sessions
    from meshlib.balance.priority_set import PrioritySet
    from meshlib.balance.subset import Subsets
    from meshlib.balance.tiers import Here
    from meshlib.policy.gate import Gate
    from meshlib.policy.shadow import Shadows
    from meshlib.policy.traits import Traits

__all__ = ["REMEMBER_S", "Cluster", "ClusterState", "Known"]

REMEMBER_S = 300.0


class ClusterState:
    """The live part of one cluster.

    Attributes:
        name: ``orders`` or ``orders/v2``.
        breaker, outlier: None where the configuration switched them off.
        shadow: what is compared with them and decides nothing; None for nothing.
        active: what active checks find; None where there are none.
        limit: calls in flight and pending.
        gates: all that is asked whether a call may pass, `limit` among them; None where that is the only one.
        refreshes: whether the cluster has to be made anew when the health of an endpoint changes.
        here: what endpoints are compared with, where places count; None for a process of which nothing is known.
        sessions: what is bound to single endpoints; None without session affinity.
        panics: picks made in panic, for telemetry.
    """

    __slots__ = (
        "_left",
        "_lock",
        "_members",
        "_node_of",
        "_on_change",
        "_on_ejection",
        "active",
        "breaker",
        "gates",
        "here",
        "limit",
        "load_balancing",
        "name",
        "outlier",
        "panics",
        "refreshes",
        "sessions",
        "shadow",
    )

    def __init__(
        self,
        name: str,
        *,
        now: float,
        load_balancing: LoadBalancing = LoadBalancing(),
        breaker: BreakerSettings | None = BreakerSettings(),
        outlier: OutlierSettings | None = OutlierSettings(),
        checked: bool = False,
        limits: LimitSettings = LimitSettings(),
        limit: InFlightLimit | None = None,
        before: Sequence[Gate] = (),
        after: Sequence[Gate] = (),
        node_of: Callable[[Endpoint], EndpointNode] | None = None,
        on_ejection: Callable[[Member, bool], None] | None = None,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        """Begin without members; `view` brings them.

        Args:
            name: for messages.
            now: on the monotonic clock.
            load_balancing, breaker, outlier, limits: the settings of each.
            checked: whether its endpoints are checked actively.
            node_of: gives the counts of an endpoint, shared between clusters; None for counts of this cluster's own.
            limit: to be asked instead of a plain one made of `limits`.
            before, after: gates besides the limit, asked before and after it.
            on_ejection: called with a member and whether it was ejected (or came back).
            on_change: called when the cluster has to be made anew, if it `refreshes`.
        """
        self.name = name
        self.load_balancing = load_balancing
        self.breaker = None if breaker is None else Breaker(breaker, now)
        self.outlier = make_detector(outlier, self._ejected)
        self.limit = InFlightLimit(limits) if limit is None else limit
        plain = self.limit.is_plain and not before and not after
        self.gates: tuple[Gate, ...] | None = None if plain else (*before, self.limit, *after)
        self.active = ActiveHealth() if checked else None
        self.sessions: Sessions | None = None
        if load_balancing.session_affinity is not None:
            from meshlib.balance.affinity import Sessions

            self.sessions = Sessions(load_balancing.session_affinity)
        self.refreshes = checked or load_balancing.policy in HASH_BALANCERS
        self.here: Here | None = None
        self.shadow: Shadows | None = None
        self._on_ejection = on_ejection
        self._on_change = on_change
        self.panics = 0
        self._node_of = node_of
        self._members: dict[tuple[str, str, int], Member] = {}
        self._left: dict[tuple[str, str, int], float] = {}
        self._lock = threading.Lock()

    def view(
        self,
        endpoints: Iterable[Endpoint],
        now: float,
        rng: Random,
        *,
        known: Known = Known.YES,
        detail: str = "",
        target_of: Callable[[Endpoint], object] | None = None,
    ) -> Cluster:
        """The cluster over these endpoints, with what is remembered of each.

        Args:
            endpoints: as discovery reports them; of two with the same key the last counts.
            now: on the monotonic clock.
            rng: for the balancer's starting point.
            known: what discovery knows of the service.
            detail: for messages, what is wrong with discovery.
            target_of: what the wire needs to send to an endpoint.
        """
        with self._lock:
            kept, left = self._members, self._left
            seed_s: float | None = None
            mended = False  # whether there is one that was not there, or not well, when the circuit opened
            present: dict[tuple[str, str, int], Member] = {}
            for endpoint in endpoints:
                key = endpoint.key
                member = kept.get(key)
                # The same object, mostly; to compare the fields of many takes longer than all the rest.
                if member is None or (member.endpoint is not endpoint and member.endpoint != endpoint):
                    if seed_s is None:
                        seed_s = usual_mean_s(self._members.values(), self.load_balancing.default_latency_s)
                    well = member is not None and member.endpoint.health is Health.HEALTHY
                    mended |= endpoint.health is Health.HEALTHY and not well
                    member = self._renew(member, endpoint, now, seed_s)
                    member.target = target_of(endpoint) if target_of is not None else None
                    kept[key] = member
                present[key] = member
            for key in left.keys() & present.keys():
                del left[key]
                mended = True
                present[key].health.joined_at = self._joining(now)
            if len(kept) > len(present) + len(left):
                left.update(dict.fromkeys(kept.keys() - present.keys() - left.keys(), now))
            for key in [key for key, at in left.items() if now - at > REMEMBER_S]:
                del left[key], kept[key]
            cluster = Cluster(self, tuple(present.values()), now, rng, known, detail)
            if self.outlier is not None:
                self.outlier.rebind(cluster.members, now, rng)
            if mended and self.breaker is not None:
                self.breaker.endpoints_changed(now)
            return cluster

    def _renew(self, old: Member | None, endpoint: Endpoint, now: float, seed_s: float) -> Member:
        if old is not None:
            return Member(endpoint, old.node, old.load, old.health)
        node = EndpointNode() if self._node_of is None else self._node_of(endpoint)
        health = EndpointHealth()
        health.joined_at = self._joining(now)
        health.active_failed = self.active is not None and self.active.newcomers_fail
        return Member(endpoint, node, Load(now, seed_s, self.load_balancing.decay_s), health)

    def _joining(self, now: float) -> float | None:
        return None if self.load_balancing.slow_start is None else now

    def health_changed(self) -> None:
        """An endpoint may be picked now that could not before, or the other way round. To be called outside locks."""
        if self.refreshes and self._on_change is not None:
            self._on_change()

    def _ejected(self, member: Member, ejected: bool) -> None:
        if self._on_ejection is not None:
            self._on_ejection(member, ejected)
        self.health_changed()

    def count_panic(self) -> None:
        """A pick was made in panic."""
        with self._lock:
            self.panics += 1

    def renew_locks(self) -> None:
        """After a fork, in the child: the parent's attempts are not ours."""
        self._lock = threading.Lock()
        for gate in self.gates or (self.limit,):
            gate.renew_lock()
        if self.breaker is not None:
            self.breaker.renew_lock()
        if self.outlier is not None:
            self.outlier.renew_lock()
        if self.sessions is not None:
            self.sessions.renew_lock()
        for member in self._members.values():
            member.after_fork()


class Cluster:
    """The members of a cluster at one moment, and a balancer over them. Immutable.

    Attributes:
        members: all that are not draining.
        healthy: those of them that may be picked before any other.
        draining: those that finish what they have; no call and no probe goes there.
        balancer: over the healthy; None where there are none, and where there are priorities.
        priorities: by which members are picked where they are not all alike; None where they are.
        usual: what picks as long as none is ejected, where members are all alike and not in panic; None where more is
            to be considered.
        subsets: by which metadata of calls choose among members, once a call has any; see `meshlib.balance.subset`.
        own: of a part of a cluster the members by their health, since its state has those of others, too.
        label: of a part, in words.
    """

    __slots__ = (
        "_alike",
        "_balancer_of_all",
        "_left_out",
        "_made",
        "_outlier",
        "_panic_at",
        "balancer",
        "detail",
        "draining",
        "healthy",
        "known",
        "label",
        "members",
        "own",
        "priorities",
        "state",
        "subsets",
        "usual",
    )

    def __init__(
        self,
        state: ClusterState,
        members: tuple[Member, ...],
        now: float,
        rng: Random,
        known: Known = Known.YES,
        detail: str = "",
        label: str = "",
    ) -> None:
        self.state = state
        self.label = label
        self.own = frozenset(member.health for member in members) if label else None
        self.subsets: Subsets | None = None
        self.known = known
        self.detail = detail
        if state.sessions is not None and not label:
            state.sessions.rebind(members)
        healthy = [member for member in members if member.endpoint.health is Health.HEALTHY]
        self.draining: tuple[Member, ...] = ()
        if len(healthy) < len(members):
            self.draining = tuple(member for member in members if member.endpoint.health is Health.DRAINING)
            members = tuple(member for member in members if member.endpoint.health is not Health.DRAINING)
        self._left_out: frozenset[EndpointHealth] = frozenset()
        if state.refreshes:
            # It is made anew when that changes, so the balancer need not know of those that are out.
            healthy = [member for member in healthy if is_well(member.health)]
            self._left_out = frozenset(member.health for member in members if not is_well(member.health))
        self.members = members
        self.healthy = members if len(healthy) == len(members) else tuple(healthy)
        self._outlier = state.outlier
        settings = state.load_balancing
        self._panic_at = panic_at(settings, len(self.members))
        self.priorities: PrioritySet | None = None
        self._alike = are_alike(settings, members, healthy)
        self.balancer: Balancer | None
        self._balancer_of_all: Balancer | None
        self.usual: Balancer | None = None
        self._balance(now, rng)

    def _balance(self, now: float, rng: Random) -> None:
        self._made, self.subsets = (now, rng), None
        settings = self.state.load_balancing
        make = find_balancer(settings.policy)
        if not self._alike:
            from meshlib.balance.priority_set import PrioritySet

            self.balancer = self._balancer_of_all = None
            refreshes = self.state.refreshes
            ejected = [member.health for member in self.members if member.health.ejected] if refreshes else ()
            self.priorities = PrioritySet(
                self.members,
                settings,
                self.state.here,
                lambda members: make(members, settings, now, rng),
                rng,
                leave_out=frozenset(ejected),
                eager=refreshes,
            )
            return
        self.balancer = make(self.healthy, settings, now, rng) if self.healthy else None
        self.usual = self.balancer if not self.label and len(self.healthy) >= self._panic_at else None
        # Over all members, for panic; the same one where all are healthy, so that it keeps its schedule.
        self._balancer_of_all = self.balancer
        if self.members and len(self.healthy) < len(self.members):
            self._balancer_of_all = make(self.members, settings, now, rng)

    @property
    def name(self) -> str:
        return self.state.name

    def panicking(self) -> bool:
        """Whether so few members are left that all are used."""
        if self.priorities is not None:
            return self.priorities.panicking(self.ejected)
        outlier = self._outlier
        if outlier is None or not outlier.ejected:
            out = 0
        elif self.state.refreshes or self.own is not None:
            out = sum(1 for member in outlier.ejected if self._had(member))
        else:
            out = outlier.ejected_healthy
        return len(self.healthy) - out < self._panic_at

    def _had(self, member: Member) -> bool:
        """Whether an ejected member is among those that were healthy at first."""
        if self.own is not None and member.health not in self.own:
            return False
        return member.health not in self._left_out and member.endpoint.health is Health.HEALTHY

    def part(self, members: Sequence[Member], label: str) -> Cluster:
        """A cluster over some of the members, which shares everything else with this one."""
        now, rng = self._made
        detail = self.detail or f"the call's metadata: {label}"
        return Cluster(self.state, tuple(members), now, rng, self.known, detail, label)

    @property
    def usable(self) -> bool:
        """Whether it has anyone to be called, while nobody panics."""
        return bool(self.healthy) or any(
            member.endpoint.health is Health.DEGRADED and not member.health.active_failed for member in self.members
        )

    @property
    def ejected(self) -> Sequence[Member]:
        """The members that outlier detection has put out."""
        return () if self._outlier is None else self._outlier.ejected

    def pick(
        self, now: float, rng: Random, tried: Sequence[Member] = (), traits: Traits | None = None
    ) -> Member | None:
        """Pick a member for an attempt; one that was tried only if no other is left.

        Args:
            now: on the monotonic clock.
            rng: the source of all randomness.
            tried: members that this call has tried, whichever cluster they were tried in.
            traits: what was read of the request.

        Returns:
            The member; None if there is none.
        """
        ejected = self._outlier is not None and self._outlier.ejected
        if self.usual is not None and not tried and not ejected:
            return self.usual.pick(now, rng, None, traits)
        if self.priorities is not None:
            picked, panic = self.priorities.pick(now, rng, self.ejected, tried, traits)
            if panic:
                self.state.count_panic()
            return picked
        panic, balancer = self.panicking(), self.balancer
        if panic:
            if self.state.load_balancing.fail_on_panic:
                self.state.count_panic()
                return None
            balancer = self._balancer_of_all
        if balancer is None:
            return None
        allowed = not_ejected if ejected and not panic else None
        picked = balancer.pick(now, rng, untried(tried, allowed) if tried else allowed, traits)
        if picked is None:
            picked = balancer.pick(now, rng, allowed, traits)
        if picked is None and self.state.refreshes:
            # This view is of the past: who was well is not, and who was not may be.
            picked = any_well(self.members, rng)
        if picked is None and self._panic_at > 0:  # all that it knows were ejected since: panic
            picked = balancer.pick(now, rng, None, traits)
        if picked is not None and panic:
            self.state.count_panic()
        return picked

    def has_untried(self, tried: Sequence[Member]) -> bool:
        """Whether `pick` would find a member that was not tried. Looks at few members, and changes nothing."""
        if self.priorities is not None:
            return self.priorities.has_untried(self.ejected, tried)
        panic = self.panicking()
        if panic and self.state.load_balancing.fail_on_panic:
            return False
        usable = untried(tried, None if panic else not_ejected)
        return any(map(usable, self.members if panic else self.healthy))

    def how(self, member: Member) -> str | None:
        """From where a member was picked just now, in words; None if there is nothing to say."""
        if self.priorities is not None:
            where = self.priorities.how(member, self.ejected)
        else:
            where = "panic" if self.panicking() else OUTSIDE if leaves_out(self.balancer, member) else None
        return f"{self.label}, {where}" if self.label and where else where or self.label or None

    def usual_cost(self, rng: Random, without: Member) -> float:
        """The median of what the members but one cost at their last answers, in seconds."""
        return usual_cost_s(self.members, without, self.state.load_balancing.default_latency_s, rng)

    def after_fork(self, now: float, rng: Random) -> None:
        """In the child: another thread of the parent may have been in the middle of a balancer's schedule."""
        self._balance(now, rng)

    def __repr__(self) -> str:
        return f"<Cluster {self.name} [{len(self.healthy)} healthy of {len(self.members)}]>"
