"""Failover: which endpoints are the first choice, and which stand by, from where they are and what they are labelled.

By locality, the nearest first: the same sub-zone, the same zone, the same region, another region; and behind those, if
it is said where a region fails over to, every region that it is not. By labels, in the order in which they are given:
an endpoint is the nearer the more of the first ones it shares with the caller. Both together sort by labels, then by
locality; a priority that an endpoint has of its own comes before either. Source: Istio's ``loadbalancer.go``
(``applyFailoverPriorities``, ``applyLocalityFailover``).

What comes out are priorities without gaps; how load moves between them is in `meshlib.balance.priority`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from meshlib.balance.endpoint import Endpoint, Locality
from meshlib.balance.settings import FailoverRegion, LoadBalancing

__all__ = ["NETWORK", "label_distance", "labels_of", "locality_distance", "priorities"]

NETWORK = "topology.istio.io/network"
_REGION, _ZONE = "topology.kubernetes.io/region", "topology.kubernetes.io/zone"
_SUB_ZONE = "topology.istio.io/subzone"


def priorities(
    endpoints: Sequence[Endpoint],
    settings: LoadBalancing,
    here: Locality = Locality(),
    labels: Mapping[str, str] = {},
) -> list[int]:
    """The priority of each endpoint, from 0 without gaps.

    Args:
        endpoints: in any order.
        settings: its `failover` and `failover_priority` are what the order follows.
        here: where this process runs.
        labels: of this process; those of its locality are added.
    """
    own = {**labels_of(here), **labels}
    by_locality, order = bool(settings.failover), settings.failover_priority
    regions = settings.failover if isinstance(settings.failover, tuple) else ()
    # Many endpoints share a locality, so what is said of it is kept.
    near: dict[Locality, int] = {}
    keys = []
    for endpoint in endpoints:
        there = endpoint.locality
        by_place = near.get(there)
        if by_place is None:
            by_place = near[there] = locality_distance(here, there, regions) if by_locality else 0
        by_label = 0
        if order:
            by_label = label_distance(order, own, {**labels_of(there), **endpoint.metadata})
        keys.append((endpoint.priority, by_label, by_place))
    compact = {key: priority for priority, key in enumerate(sorted(set(keys)))}
    return [compact[key] for key in keys]


def locality_distance(here: Locality, there: Locality, regions: Iterable[FailoverRegion] = ()) -> int:
    """0 for the same sub-zone, 1 zone, 2 region; 3 for another region, 4 for one that is not failed over to."""
    if here.region == there.region:
        if here.zone == there.zone:
            return 0 if here.sub_zone == there.sub_zone else 1
        return 2
    to = next((rule.to for rule in regions if rule.from_ == here.region), None)
    return 3 if to is None or to == there.region else 4


def label_distance(order: Sequence[str], own: Mapping[str, str], theirs: Mapping[str, str]) -> int:
    """How far an endpoint is, by labels: 0 if all agree, else their number less those that agree before the first that
    does not.

    The network, if it is the first label, does not end the comparison: another network is further than anything else.
    """
    distance = 0
    # Read first, as Istio does: a value given for a label holds wherever the label stands.
    given = dict(text.split("=", 1) for text in order if text.count("=") == 1)
    for index, text in enumerate(order):
        label = text.split("=", 1)[0]
        if given.get(label, own.get(label, "")) == theirs.get(label, ""):
            continue
        if index == 0 and label == NETWORK:
            distance = len(order)
            continue
        return distance + len(order) - index
    return distance


def labels_of(locality: Locality) -> dict[str, str]:
    """The labels by which Kubernetes and Istio name a locality."""
    pairs = ((_REGION, locality.region), (_ZONE, locality.zone), (_SUB_ZONE, locality.sub_zone))
    return {label: value for label, value in pairs if value}
