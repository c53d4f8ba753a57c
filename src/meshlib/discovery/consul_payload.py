"""What Consul's health endpoint says, as endpoints. No I/O."""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.dataclass import dataclass
from meshlib.discovery.locality import locality_of
from meshlib.discovery.source import is_host

__all__ = ["CHECK_KEY", "WEIGHT_KEY", "Incarnations", "endpoints_of", "whole_weight"]

WEIGHT_KEY = "meshlib-weight"
"""The service metadata that holds the exact weight, because Consul's own weights are whole numbers."""

CHECK_KEY = "consul.check"
"""The endpoint metadata that says ``warning`` of an instance that has such a check, and no critical one."""

_MAX_WEIGHT = 65535
_log = logging.getLogger("meshlib")


def whole_weight(weight: float) -> int:
    """Return the whole number nearest to `weight` that Consul accepts."""
    return min(_MAX_WEIGHT, max(1, round(weight)))


@dataclass(slots=True)
class _Known:
    label: int
    create_index: int
    confirmed: bool


class Incarnations:
    """Tells a new instance at an old address from an old instance in a new registry.

    Consul knows an instance by its node and service id, and many deployments use the same id for every process
    (``orders-1``). Where such an instance was deregistered and registered again, its ``CreateIndex`` is another, and it
    starts with a clean history. But an agent that lost its data registers everything anew, and so gives each instance
    another index although no process was replaced; dropping all history, and all connections, at that moment would
    turn the registry's trouble into the callers'. So a new index counts only while the watch is uninterrupted: what was
    known before an interruption keeps its label when it appears again. Anti-entropy changes no ``CreateIndex``. The
    node goes by its name, because an agent without a data directory gives itself another id at each start.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str, int], _Known] = {}

    @property
    def empty(self) -> bool:
        """Whether nothing is known of any instance."""
        return not self._known

    def interrupted(self) -> None:
        """The watch was cut off, or the index went backwards."""
        for known in self._known.values():
            known.confirmed = False

    def label(self, node: str, service_id: str, host: str, port: int, create_index: int) -> str:
        """Return the instance id of what the registry calls `service_id` on `node`."""
        key = (node, service_id, host, port)
        known = self._known.get(key)
        if known is None or (known.confirmed and known.create_index != create_index):
            known = self._known[key] = _Known(create_index, create_index, True)
        known.create_index, known.confirmed = create_index, True
        return f"{node}/{service_id}#{known.label}"

    def settle(self, present: set[tuple[str, str, str, int]]) -> None:
        """Forget what has left while the watch was uninterrupted."""
        self._known = {key: known for key, known in self._known.items() if key in present or not known.confirmed}


def endpoints_of(body: bytes, incarnations: Incarnations) -> tuple[Endpoint, ...]:
    """Return the endpoints in an answer of ``/v1/health/service/:name``, in a stable order.

    Instances in maintenance are left out; those with a critical check are there, unhealthy. Metadata are the service's
    ``Meta``; a tag ``t`` is there as ``tag.t: "true"``, and a tag ``key=value`` also as that key, unless ``Meta`` has
    it; one with a warning has `CHECK_KEY`. The locality is ``Service.Locality`` or ``Node.Locality`` of newer servers,
    else what the service's or the node's ``Meta`` say.

    Raises:
        ValueError: if it is not what Consul answers.
    """
    try:
        items = json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(items, list):
        raise ValueError(f"a list of instances is expected, not {type(items).__name__}")
    found: dict[tuple[str, str, str, int], Endpoint] = {}
    for item in items:
        _add(item, incarnations, found)
    incarnations.settle(set(found))
    return tuple(found[key] for key in sorted(found))


def _add(item: Any, incarnations: Incarnations, found: dict[tuple[str, str, str, int], Endpoint]) -> None:
    node, service = _table(item, "Node"), _table(item, "Service")
    checks = item.get("Checks") or []
    if not isinstance(checks, list) or not all(isinstance(check, dict) for check in checks):
        raise ValueError("Checks is not a list of checks")
    if any(_is_maintenance(check) for check in checks):
        return
    node_name, service_id = _text(node, "Node"), _text(service, "ID") or _text(service, "Service")
    host = _text(service, "Address") or _text(node, "Address")
    port = service.get("Port", 0)
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise ValueError(f"Port of {service_id} is {port!r}")
    if not is_host(host) or not port:
        # Consul allows it; nobody could call it.
        _log.debug("consul: %r on %r has no address or no port and is left out", service_id, node_name)
        return
    create_index = service.get("CreateIndex", 0)
    if not isinstance(create_index, int):
        raise ValueError(f"CreateIndex of {service_id} is {create_index!r}")
    metadata = _metadata(service)
    if {check.get("Status") for check in checks} - {"passing"} == {"warning"}:
        metadata[CHECK_KEY] = "warning"
    health, weight = _health_and_weight(service, checks, metadata.pop(WEIGHT_KEY, None))
    key = (node_name, service_id, host, port)
    found[key] = Endpoint(
        host=host,
        port=port,
        weight=weight,
        instance_id=incarnations.label(*key, create_index),
        locality=_locality(node, service),
        metadata=MappingProxyType(metadata),
        health=health,
    )


def _is_maintenance(check: dict[str, Any]) -> bool:
    name = check.get("CheckID")
    return name == "_node_maintenance" or (isinstance(name, str) and name.startswith("_service_maintenance:"))


def _health_and_weight(
    service: Mapping[str, Any], checks: list[dict[str, Any]], exact: str | None
) -> tuple[Health, float]:
    statuses = {check.get("Status") for check in checks}
    weights = service.get("Weights") or {}
    if not isinstance(weights, dict):
        raise ValueError("Weights is not a table")
    passing = _weight(weights.get("Passing", 1))
    if exact is not None and whole_weight(_weight_from(exact)) == passing:
        # Only where they agree: an operator who changed Consul's weight meant it.
        passing = _weight_from(exact)
    if not statuses <= {"passing", "warning"}:
        return Health.UNHEALTHY, passing or 1.0
    if "warning" in statuses:
        warning = _weight(weights.get("Warning", 1))
        # No share while it warns means: only if there is nobody better.
        return (Health.HEALTHY, warning) if warning else (Health.UNHEALTHY, passing or 1.0)
    return (Health.HEALTHY, passing) if passing else (Health.UNHEALTHY, 1.0)


def _weight(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise ValueError(f"a weight is {value!r}")
    return float(value)


def _weight_from(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0 < weight < math.inf else 0.0


def _metadata(service: Mapping[str, Any]) -> dict[str, str]:
    metadata: dict[str, str] = {}
    tags = service.get("Tags") or []
    if not isinstance(tags, list):
        raise ValueError("Tags is not a list")
    for tag in tags:
        if isinstance(tag, str):
            key, sign, value = tag.partition("=")
            if sign and key:
                metadata[key] = value
            metadata[f"tag.{tag}"] = "true"
    meta = service.get("Meta") or {}
    if not isinstance(meta, dict):
        raise ValueError("Meta is not a table")
    metadata.update({key: value for key, value in meta.items() if isinstance(value, str)})
    return metadata


def _locality(node: Mapping[str, Any], service: Mapping[str, Any]) -> Locality:
    sources: list[Mapping[str, Any]] = []
    for owner in (service, node):
        given = owner.get("Locality")
        if isinstance(given, dict):
            sources.append({"region": given.get("Region"), "zone": given.get("Zone")})
    for owner in (service, node):
        meta = owner.get("Meta")
        if isinstance(meta, dict):
            sources.append(meta)
    return locality_of(*sources)


def _table(item: Any, name: str) -> dict[str, Any]:
    table = item.get(name) if isinstance(item, dict) else None
    if not isinstance(table, dict):
        raise ValueError(f"an instance has no {name}")
    return table


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name) or ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    return value
