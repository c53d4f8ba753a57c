"""Which endpoints a cluster has: those of its subset, and behind them those of the clusters that it fails over to.

What a cluster fails over to stands by in priorities of its own, after all of its own endpoints: the first target in the
next priority, the second in the one after that. How much health it takes to stay with the first choice is a matter of
priorities (`meshlib.balance.priority`), as for endpoints that have them by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshlib.balance.cluster import Known
from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import ClusterSettings
from meshlib.config.views import ServiceView
from meshlib.dataclass import replace

__all__ = ["known_with", "members_of"]


def members_of(
    settings: ClusterSettings, endpoints: tuple[Endpoint, ...], services: Mapping[str, ServiceView]
) -> tuple[Endpoint, ...]:
    """The endpoints of a cluster.

    Args:
        settings: of the cluster.
        endpoints: of its service.
        services: the others, as they are now.
    """
    own = _own(settings, endpoints)
    if not settings.failover_to:
        return own
    chosen = {endpoint.key: endpoint for endpoint in own}
    for target in settings.failover_to:
        behind = 1 + max((endpoint.priority for endpoint in chosen.values()), default=0)
        view = services.get(target.service or settings.service)
        cluster = None if view is None else view.settings.clusters.get(target.subset)
        if view is not None and cluster is not None:
            for endpoint in _own(cluster, view.endpoints):
                chosen.setdefault(endpoint.key, replace(endpoint, priority=endpoint.priority + behind))
    return tuple(chosen.values())


def known_with(settings: ClusterSettings, known: Known, services: Mapping[str, ServiceView]) -> Known:
    """What is known of a cluster without endpoints: as much as of that which is known least of all it may use."""
    views = [services.get(target.service or settings.service) for target in settings.failover_to]
    all_known = {known, *(Known.PENDING if view is None else view.known for view in views)}
    return next((each for each in (Known.PENDING, Known.UNWELL, Known.YES) if each in all_known), Known.NO)


def _own(settings: ClusterSettings, endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    if settings.filter is not None:
        return tuple(filter(settings.filter.holds, endpoints))
    if not settings.selector:
        return endpoints
    chosen = tuple(_with(endpoints, settings.selector))
    if not chosen and settings.otherwise is not None:
        return tuple(_with(endpoints, settings.otherwise))
    return chosen


def _with(endpoints: Iterable[Endpoint], selector: tuple[tuple[str, str], ...]) -> Iterable[Endpoint]:
    return (endpoint for endpoint in endpoints if all(endpoint.metadata.get(key) == value for key, value in selector))
