"""From one configuration to the next: what stays as it is."""

from __future__ import annotations

from meshlib.balance.succession import Kept
from meshlib.config.settings import ClusterSettings, MeshSettings, ServiceSettings
from meshlib.config.views import Configuration

__all__ = ["Turn", "kept"]


class Turn:
    """From one configuration to the next.

    Attributes:
        old, new: the configurations.
    """

    def __init__(self, old: Configuration, new: Configuration, fleet: bool) -> None:
        """Compare them.

        Args:
            old, new: the configurations.
            fleet: whether clusters share what they share with other processes in another place from now on.
        """
        self.old = old
        self.new = new
        self._fleet = fleet
        self._same: dict[str, bool] = {}
        self._moved = _place(old.settings) != _place(new.settings)

    def keeps(self, name: str) -> bool:
        """Whether a service in use stays as it is: its settings, and those of all services that it leads to."""
        settings = self.new.service(name)
        return all(map(self._is_same, {name, *_targets(settings)}))

    def looks_at(self, name: str) -> set[str]:
        """The services whose endpoints count for where calls to this one go."""
        settings = self.new.service(name)
        return settings.standbys | settings.callers

    def shares(self, settings: ClusterSettings) -> bool:
        """Whether a cluster shares with other processes what is elsewhere from now on."""
        return self._fleet and settings.fleet is not None

    def moves(self, settings: ServiceSettings) -> bool:
        """Whether a service is balanced by place, and this process has another one from now on."""
        return self._moved and any(_by_place(cluster) for cluster in settings.clusters.values())

    def _is_same(self, name: str) -> bool:
        same = self._same.get(name)
        if same is None:
            settings = self.new.service(name)
            same = self.old.service(name) == settings and not any(map(self.shares, settings.clusters.values()))
            self._same[name] = same
        return same


def kept(was: ClusterSettings, settings: ClusterSettings) -> Kept:
    """Which parts of a cluster's settings have not changed."""
    shadowed = was.shadow is not None or settings.shadow is not None  # what is looked at is another detector
    return Kept(
        balancing=was.load_balancing == settings.load_balancing,
        breaker=was.breaker == settings.breaker,
        outlier=was.outlier == settings.outlier and not shadowed,
        checks=was.health_check == settings.health_check,
        affinity=was.load_balancing.session_affinity == settings.load_balancing.session_affinity,
    )


def _targets(settings: ServiceSettings) -> set[str]:
    """The services that its routes lead to, and those that stand by for it."""
    backends = {backend.service for route in settings.routes for backend in route.backends}
    return backends | settings.standbys | {mirror.service for route in settings.routes for mirror in route.mirrors}


def _place(settings: MeshSettings) -> tuple[object, object]:
    return settings.locality, None if settings.register is None else settings.register.metadata


def _by_place(cluster: ClusterSettings) -> bool:
    balancings = [cluster.load_balancing]
    if cluster.shadow is not None and cluster.shadow.load_balancing is not None:
        balancings.append(cluster.shadow.load_balancing)
    return any(
        each.failover or each.failover_priority or each.distribute or each.zone_aware or each.locality_weights
        for each in balancings
    )
