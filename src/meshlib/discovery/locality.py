"""Where an endpoint runs, from the keys by which registries and clusters say it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.balance.endpoint import Locality

__all__ = ["locality_of"]

_REGION = ("region", "topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region", "topology_region")
_ZONE = ("zone", "topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone", "topology_zone")
_SUB_ZONE = ("sub_zone", "sub-zone", "topology.istio.io/subzone")


def locality_of(*metadata: Mapping[str, Any]) -> Locality:
    """Return the locality that the metadata name; where several do, the first one counts, key by key.

    The keys are ``region``, ``zone`` and ``sub_zone``, or Kubernetes' labels (``topology.kubernetes.io/zone``);
    ``topology_region`` and ``topology_zone`` stand in where a registry allows neither dots nor slashes in keys.
    """
    return Locality(_first(metadata, _REGION), _first(metadata, _ZONE), _first(metadata, _SUB_ZONE))


def _first(metadata: tuple[Mapping[str, Any], ...], keys: tuple[str, ...]) -> str:
    for mapping in metadata:
        for key in keys:
            value = mapping.get(key)
            if isinstance(value, str) and value:
                return value
    return ""
