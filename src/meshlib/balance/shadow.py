"""A cluster with shadows: its picks are looked at by a second outlier detector, and made again by a second balancer.

The live pick is the one that counts. The shadow picks among the same endpoints, at the same moment, with the loads that
the live picks have made, and those tried left out; it draws from random numbers of its own, so that the live picks are
what they would be without. What a balancer that goes by load would have done to the loads themselves it cannot show.

See `meshlib.policy.shadow`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint, Health
from meshlib.balance.known import Known
from meshlib.policy.shadow import Shadows
from meshlib.policy.shadow_outlier import make_watched

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["ShadowedCluster", "ShadowedState"]


class ShadowedState(ClusterState):
    """The live part of a cluster with shadows.

    Attributes:
        beside: what the shadow's balancer has in its place; None where balancing has no shadow.
    """

    __slots__ = ("_well", "beside", "shadows")

    def __init__(self, name: str, *, shadows: Shadows, now: float, **settings: Any) -> None:
        """Begin without members. `settings` are those of `ClusterState`."""
        super().__init__(name, now=now, **settings)
        self.shadow = self.shadows = shadows
        self.beside: ClusterState | None = None
        self._well: frozenset[tuple[str, str, int]] = frozenset()
        if shadows.outlier is not None:
            self.outlier = make_watched(settings.get("outlier"), self._ejected, shadows.outlier)
        if shadows.load_balancing is not None:
            balancing = shadows.load_balancing
            self.beside = ClusterState(name, now=now, load_balancing=balancing, breaker=None, outlier=None)
            self.beside.outlier = self.outlier
            self.beside.refreshes = self.refreshes

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
        cluster = super().view(endpoints, now, rng, known=known, detail=detail, target_of=target_of)
        members, shadows, beside = (*cluster.members, *cluster.draining), self.shadows, None
        well = frozenset(member.endpoint.key for member in members if member.endpoint.health is Health.HEALTHY)
        if shadows.breaker is not None and well - self._well:
            shadows.breaker.breaker.endpoints_changed(now)
        self._well = well
        if self.beside is not None:
            self.beside.here = shadows.here
            beside = Cluster(self.beside, members, now, shadows.rng, known, detail)
        if shadows.picks is not None:
            shadows.picks.keep([member.endpoint.address for member in members])
        return ShadowedCluster.over(cluster, shadows, beside)

    def renew_locks(self) -> None:
        super().renew_locks()
        self.shadows.renew_locks()
        if self.beside is not None:
            self.beside.renew_locks()


class ShadowedCluster(Cluster):
    """A cluster whose picks are compared."""

    __slots__ = ("_beside", "_shadows")

    _beside: Cluster | None
    _shadows: Shadows

    @classmethod
    def over(cls, cluster: Cluster, shadows: Shadows, beside: Cluster | None) -> ShadowedCluster:
        """This cluster, compared with one of another balancer."""
        made = cls.__new__(cls)
        for name in Cluster.__slots__:
            setattr(made, name, getattr(cluster, name))
        made._shadows, made._beside = shadows, beside
        made.usual = None  # every pick is to be compared
        return made

    def part(self, members: Sequence[Member], label: str) -> Cluster:
        beside = None if self._beside is None else self._beside.part(members, label)
        return self.over(super().part(members, label), self._shadows, beside)

    def pick(
        self, now: float, rng: Random, tried: Sequence[Member] = (), traits: Traits | None = None
    ) -> Member | None:
        picked = super().pick(now, rng, tried, traits)
        if picked is None:
            return None
        shadows, address = self._shadows, picked.endpoint.address
        notes: list[str] = []
        if shadows.outlier is not None:
            text = ""
            if shadows.outlier.would_pass_over(picked, now, len(self.healthy), self._panic_at):
                text = f"{address} would have been out"
                notes.append(f"outlier_detection: {text}")
            shadows.outlier.comparison.decided(text)
        if self._beside is not None and shadows.picks is not None:
            other = self._beside.pick(now, shadows.rng, tried, traits)
            text, word = "", "" if other is None else other.endpoint.address
            if other is None or other.node is not picked.node:
                text = f"{word or 'nobody'} would have been picked in place of {address}"
                notes.append(f"load_balancing: {text}")
            shadows.picks.decided(text, word)
        if notes and traits is not None:
            traits.shadow = (*traits.shadow, *notes)
        return picked

    def after_fork(self, now: float, rng: Random) -> None:
        super().after_fork(now, rng)
        self.usual = None
        if self._beside is not None:
            self._beside.after_fork(now, self._shadows.rng)
