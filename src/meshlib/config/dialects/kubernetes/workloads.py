"""Pods and Nodes, where they are among the documents: what their endpoints are labelled, and where they run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.resources import Resource
from meshlib.dataclass import dataclass, field

__all__ = ["Workloads", "workloads_of"]

_REGION: Final = "topology.kubernetes.io/region"
_ZONE: Final = "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True)
class Workloads:
    """What documents say of the workloads behind endpoints.

    Attributes:
        labels: of pods, by namespace and name.
        places: region and zone of nodes, by name; empty where unknown.
    """

    labels: Mapping[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)
    places: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def workloads_of(draft: Draft, resources: Iterable[Resource]) -> Workloads:
    """What Pods and Nodes say; the rest of them is nothing that calls go by."""
    labels: dict[tuple[str, str], Mapping[str, str]] = {}
    places: dict[str, tuple[str, str]] = {}
    for resource in resources:
        if resource.kind == "Pod":
            labels[(draft.namespace_of(resource), resource.name)] = resource.labels
        elif resource.kind == "Node":
            places[resource.name] = (resource.labels.get(_REGION, ""), resource.labels.get(_ZONE, ""))
    return Workloads(labels, places)
