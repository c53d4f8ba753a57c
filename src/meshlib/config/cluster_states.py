"""The live part of a cluster, made from its settings, and from what it was under others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import ClusterState
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.load import EndpointNode
from meshlib.balance.settings import LoadBalancing
from meshlib.balance.succession import succeed
from meshlib.config.gates import Fleet, gates_of
from meshlib.config.settings import ClusterSettings
from meshlib.config.turn import kept
from meshlib.config.views import Configuration, ServiceView
from meshlib.policy.settings import BreakerSettings

if TYPE_CHECKING:
    from meshlib.balance.tiers import Here

__all__ = ["ClusterStates", "here_of"]


class ClusterStates:
    """Makes the live parts of clusters.

    Attributes:
        fleet: what clusters share with other processes; None for nothing.
    """

    def __init__(
        self,
        now: Callable[[], float],
        rng: Random,
        target_of: Callable[[ClusterSettings, Endpoint], Any],
        node_of: Callable[[Endpoint], EndpointNode],
        refresh: Callable[[str], None],
        on_ejection: Callable[[str], Callable[[Member, bool], None]] | None = None,
        fleet: Fleet | None = None,
    ) -> None:
        """See `meshlib.config.snapshot.Snapshots`; `node_of` gives what is counted of an endpoint, and `refresh` makes
        the clusters of a service anew.
        """
        self.fleet = fleet
        self._now = now
        self._rng = rng
        self._target_of = target_of
        self._node_of = node_of
        self._refresh = refresh
        self._on_ejection = on_ejection

    def make(
        self,
        settings: ClusterSettings,
        was: ClusterSettings | None = None,
        before: ClusterState | None = None,
        shares: Callable[[ClusterSettings], bool] = lambda settings: False,
    ) -> ClusterState:
        """The live part of a cluster: what it was before goes on as far as its settings are the same.

        Args:
            settings: compiled.
            was, before: its settings and its state until now; None where there was none.
            shares: whether a cluster shares with other processes what has changed.
        """
        if was is None or before is None:
            return self._new(settings, None, None)
        if was == settings and not shares(settings):
            return before
        state = self._new(settings, was, before)
        succeed(before, state, kept(was, settings), lambda endpoint: self._target_of(settings, endpoint))
        return state

    def _new(self, settings: ClusterSettings, was: ClusterSettings | None, before: ClusterState | None) -> ClusterState:
        breaker, gates = settings.breaker, gates_of(settings, self._now(), self._rng, self.fleet, was, before)
        state: Callable[..., ClusterState] = ClusterState
        if settings.shadow is not None:
            from meshlib.config.shadow import shadowed

            state, gates = shadowed(settings, gates, self._now())
        return state(
            settings.name,
            now=self._now(),
            load_balancing=self.seeded(settings.load_balancing),
            breaker=breaker if isinstance(breaker, BreakerSettings) else None,
            outlier=settings.outlier,
            checked=settings.health_check is not None,
            limit=gates.limit,
            before=gates.before,
            after=gates.after,
            node_of=self._node_of,
            on_ejection=self._on_ejection(settings.name) if self._on_ejection is not None else None,
            on_change=lambda: self._refresh(settings.service),
        )

    def seeded(self, balancing: LoadBalancing) -> LoadBalancing:
        """With a seed of its own, where the clients of a fleet are to have different subsets of it."""
        if balancing.subsetting is None:
            return balancing
        from meshlib.balance.subsetting import with_seed

        return with_seed(balancing, self._rng)


def here_of(balancing: LoadBalancing, under: Configuration, services: Mapping[str, ServiceView]) -> Here | None:
    """What the endpoints of a cluster are compared with; None where places do not count.

    Args:
        balancing: of the cluster.
        under: the configuration.
        services: those in use.
    """
    mesh = under.settings
    by_place = balancing.failover or balancing.failover_priority or balancing.distribute
    if not by_place and balancing.zone_aware is None and not balancing.locality_weights:
        return None
    from meshlib.balance.tiers import Here
    from meshlib.balance.zone_aware import Callers

    callers: Callers | None = None
    if balancing.zone_aware is not None:
        callers = Callers.given(balancing.zone_aware.local_counts)
        name = balancing.zone_aware.local_service or ""
        local = services.get(name)
        endpoints = under.known.get(name, ()) if local is None else local.endpoints
        callers = Callers.count(endpoints) if endpoints else callers
    labels = {} if mesh.register is None else mesh.register.metadata
    return Here(mesh.locality, tuple(labels.items()), callers)
