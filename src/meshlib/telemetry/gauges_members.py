"""The observable instruments about the members of clusters: how they are, where they are, and which are used."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.balance.balancer import kept
from meshlib.telemetry import semconv
from meshlib.telemetry.gauge import Gauge, Observed, Observing, Reading, of_cluster

__all__ = ["MAX_ENDPOINTS", "MEMBER_GAUGES"]

MAX_ENDPOINTS = 100
"""A cluster with more endpoints than this is not told endpoint by endpoint: each would be a time series of its own."""


def _endpoints(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        states = dict.fromkeys(("healthy", "degraded", "unhealthy", "failed", "ejected"), 0)
        for member in cluster.members:
            states[member.state] += 1
        for state, count in states.items():
            yield (*of_cluster(cluster), ("meshlib.endpoint.state", state)), count


def _endpoint_in_flight(_: Observing, observed: Observed) -> Iterator[Reading]:
    seen: set[int] = set()
    for cluster in observed.clusters():
        if len(cluster.members) > MAX_ENDPOINTS:
            continue
        for member in cluster.members:
            # Clusters of one service share the counts of an endpoint, which is one endpoint all the same.
            if id(member.node) not in seen:
                seen.add(id(member.node))
                service = (semconv.SERVER_ADDRESS, cluster.name.partition("/")[0])
                yield (service, *semconv.peer_attributes(member.endpoint)), member.node.in_flight


def _endpoint_weights(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for member in cluster.members if len(cluster.members) <= MAX_ENDPOINTS else ():
            weight = None if member.load.reported is None else member.load.reported.weight
            if weight is not None and weight.latest > 0.0:
                yield (*of_cluster(cluster), *semconv.peer_attributes(member.endpoint)), weight.latest


def _used(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        settings = cluster.state.load_balancing
        if settings.subsetting is None and settings.policy != "aperture":
            continue
        if cluster.priorities is not None:
            yield of_cluster(cluster), cluster.priorities.used(cluster.ejected)
        else:
            yield of_cluster(cluster), kept(cluster.balancer, cluster.healthy)


def _subsets(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.subsets is not None:
            yield of_cluster(cluster), len(cluster.subsets)


def _warming(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        settings = cluster.state.load_balancing.slow_start
        if settings is not None:
            from meshlib.balance.slow_start import factor

            now = observed.now()
            yield (
                of_cluster(cluster),
                sum(1 for member in cluster.members if factor(settings, member.health.joined_at, now) < 1.0),
            )


def _places(_: Observing, observed: Observed) -> Iterator[Reading]:
    here = observed.locality()
    if here is None:
        return
    for cluster in observed.clusters():
        counts: dict[tuple[str, str], int] = {}
        for member in cluster.members:
            key = semconv.zone_of(here, member.endpoint.locality), member.state
            counts[key] = counts.get(key, 0) + 1
        for (zone, state), count in counts.items():
            yield (*of_cluster(cluster), (semconv.ZONE, zone), ("meshlib.endpoint.state", state)), count


MEMBER_GAUGES = (
    Gauge("meshlib.endpoints", "{endpoint}", "Endpoints of a cluster, by state.", "updown", _endpoints),
    Gauge(
        "meshlib.endpoint.in_flight", "{attempt}", "Attempts under way at an endpoint.", "updown", _endpoint_in_flight
    ),
    Gauge(
        "meshlib.endpoint.weight",
        "1",
        "Weight of an endpoint by its last load report.",
        "gauge",
        _endpoint_weights,
        max,
    ),
    Gauge("meshlib.cluster.places", "{endpoint}", "Endpoints of a cluster, by zone and state.", "updown", _places),
    Gauge("meshlib.cluster.used", "{endpoint}", "Endpoints in this client's subset of them.", "gauge", _used, max),
    Gauge("meshlib.cluster.warming", "{endpoint}", "Endpoints in slow start.", "updown", _warming),
    Gauge("meshlib.cluster.subsets", "{subset}", "Subsets by metadata.", "gauge", _subsets, max),
)
"""In the order of the documentation."""
