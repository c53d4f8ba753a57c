"""EndpointSlices, and the older Endpoints: the addresses that serve a Service, and their condition.

A Service has several slices, which are taken together: by family, by port, and of an address that stands in two, the
better condition. ``ready`` that is not written is true. Endpoints that terminate and still serve are for calls only as
long as nobody is ready. Where each endpoint has hints, those of the caller's own zone come first, if there are any.

Sources: Kubernetes' ``discovery/v1`` EndpointSlice (``staging/src/k8s.io/api/discovery/v1/types.go``), and kube-proxy's
choice among endpoints, ``CategorizeEndpoints`` and ``canUseTopology`` in ``pkg/proxy/topology.go``. What that leaves
out stands by here, with a lower priority.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from meshlib.config.dialects.draft import Draft, Port
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.kubernetes.workloads import Workloads
from meshlib.config.dialects.resources import Place, Resource
from meshlib.dataclass import dataclass

__all__ = ["Address", "Slice", "read_endpoints", "read_slice", "served"]

_SERVICE_NAME: Final = "kubernetes.io/service-name"
_FAMILIES: Final = ("IPv4", "IPv6")
_OLD_REGION: Final = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
_OLD_ZONE: Final = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")


@dataclass(frozen=True, slots=True)
class Address:
    """One endpoint.

    Attributes:
        address: an IP address.
        ready, serving, terminating: its condition.
        region, zone: where it runs; empty where unknown.
        zones: whose callers it is meant for; none if it has no hints.
        pod: the namespace and the name of its pod; empty without one.
        place: of the document.
    """

    address: str
    ready: bool
    serving: bool
    terminating: bool
    region: str
    zone: str
    zones: frozenset[str]
    pod: tuple[str, str]
    place: Place


@dataclass(frozen=True, slots=True)
class Slice:
    """Some endpoints of a Service.

    Attributes:
        service: its namespace and name.
        family: of the addresses: ``IPv4`` or ``IPv6``.
        ports: by name.
        addresses: the endpoints.
    """

    service: tuple[str, str]
    family: str
    ports: dict[str, int]
    addresses: tuple[Address, ...]


def read_slice(draft: Draft, resource: Resource, workloads: Workloads) -> Slice | None:
    """Read an EndpointSlice; None if it is of nobody, or of addresses that are none."""
    reader = Reader(draft, resource)
    reader.skip("apiVersion", "kind", "metadata")
    kind, namespace = reader.text("addressType") or "IPv4", draft.namespace_of(resource)
    given = reader.maps("endpoints")
    ports = _ports(reader.maps("ports"))
    reader.rest()
    if kind not in _FAMILIES:
        text = f"is not honoured: endpoints of the type {kind} are left out"
        draft.note(reader.place("addressType"), text, "ignored")
        return None
    owner = resource.labels.get(_SERVICE_NAME)
    if not owner:
        draft.note(resource.place(), f"is not honoured: it has no label {_SERVICE_NAME}", "ignored")
        return None
    found = [_endpoint(each, namespace, workloads) for each in given]
    return Slice((namespace, owner.lower()), kind, ports, tuple(each for each in found if each is not None))


def _ports(readers: Iterable[Reader]) -> dict[str, int]:
    ports: dict[str, int] = {}
    for reader in readers:
        number, name, protocol = reader.integer("port"), reader.text("name") or "", reader.text("protocol") or "TCP"
        reader.skip("appProtocol")
        reader.rest()
        # A slice without a number speaks of all ports, which nobody but a network policy can mean.
        if number is not None and protocol == "TCP":
            ports[name] = number
    return ports


def _endpoint(reader: Reader, namespace: str, workloads: Workloads) -> Address | None:
    addresses = reader.texts("addresses")
    conditions = reader.map("conditions")
    ready, serving, terminating = _conditions(conditions)
    zone, node = reader.text("zone") or "", reader.text("nodeName") or ""
    old = reader.entries("deprecatedTopology") or reader.entries("topology")
    zones = _hints(reader.map("hints"))
    pod = _target(reader.map("targetRef"), namespace)
    reader.skip("hostname")
    reader.rest()
    if not addresses:
        reader.wrong("addresses", "is empty; an address is expected")
        return None
    region, of_node = workloads.places.get(node, ("", ""))
    region = region or next((old[name] for name in _OLD_REGION if name in old), "")
    zone = zone or of_node or next((old[name] for name in _OLD_ZONE if name in old), "")
    # Only the first address of an endpoint means anything, says the API.
    return Address(addresses[0], ready, serving, terminating, region, zone, zones, pod, reader.place())


def _conditions(reader: Reader | None) -> tuple[bool, bool, bool]:
    if reader is None:
        return True, True, False
    ready = reader.flag("ready") is not False
    serving = reader.flag("serving")
    terminating = reader.flag("terminating") is True
    reader.rest()
    return ready, ready if serving is None else serving, terminating


def _hints(reader: Reader | None) -> frozenset[str]:
    if reader is None:
        return frozenset()
    zones = {name for each in reader.maps("forZones") if (name := each.text("name"))}
    reader.skip("forNodes")
    reader.rest()
    return frozenset(zones)


def _target(reader: Reader | None, namespace: str) -> tuple[str, str]:
    if reader is None or reader.text("kind") != "Pod":
        return ("", "")
    return reader.text("namespace") or namespace, reader.text("name") or ""


def read_endpoints(draft: Draft, resource: Resource, workloads: Workloads) -> list[Slice]:
    """Read an Endpoints document: what EndpointSlices have replaced."""
    reader = Reader(draft, resource)
    reader.skip("apiVersion", "kind", "metadata")
    slices = []
    namespace = draft.namespace_of(resource)
    for subset in reader.maps("subsets"):
        ports = _ports(subset.maps("ports"))
        found = [_old_address(each, namespace, True, workloads) for each in subset.maps("addresses")]
        found += [_old_address(each, namespace, False, workloads) for each in subset.maps("notReadyAddresses")]
        subset.rest()
        for family in _FAMILIES:
            own = tuple(each for each in found if each is not None and (":" in each.address) is (family == "IPv6"))
            if own:
                slices.append(Slice((namespace, resource.name.lower()), family, ports, own))
    reader.rest()
    return slices


def _old_address(reader: Reader, namespace: str, ready: bool, workloads: Workloads) -> Address | None:
    address, node = reader.text("ip"), reader.text("nodeName") or ""
    pod = _target(reader.map("targetRef"), namespace)
    reader.skip("hostname")
    reader.rest()
    if not address:
        reader.wrong("ip", "is needed")
        return None
    region, zone = workloads.places.get(node, ("", ""))
    return Address(address, ready, ready, False, region, zone, frozenset(), pod, reader.place())


def served(
    slices: Sequence[Slice], port: Port, family: str, near: bool, own_zone: str, workloads: Workloads
) -> list[tuple[dict[str, Any] | str, Place]]:
    """The endpoints of one port of a Service, in the native form, and where each is said.

    Args:
        slices: of the Service.
        port: of the Service; slices have it by its name.
        family: the addresses to prefer; empty for IPv4.
        near: whether to prefer those of the own zone where there are no hints.
        own_zone: of this workload; empty if unknown.
        workloads: whose labels are the metadata of endpoints.
    """
    found: dict[tuple[str, int], Address] = {}
    families = {each.family for each in slices if each.addresses}
    chosen = family if family in families else next((each for each in _FAMILIES if each in families), "")
    for each in slices:
        number = each.ports.get(port.name)
        if number is None and len(each.ports) == 1 and not port.name:
            number = next(iter(each.ports.values()))
        if number is None or each.family != chosen:
            continue
        for address in each.addresses:
            before = found.get((address.address, number))
            if before is None or (address.ready, address.serving) > (before.ready, before.serving):
                found[(address.address, number)] = address
    some_ready = any(each.ready for each in found.values())
    preferred = _preferred(list(found.values()), near, own_zone)
    return [
        (_native(address, number, some_ready, preferred, workloads), address.place)
        for (_, number), address in found.items()
    ]


def _preferred(addresses: Sequence[Address], near: bool, own_zone: str) -> frozenset[Address]:
    """Those that calls are to go to as long as any of them works; all, without a preference."""
    usable = [each for each in addresses if each.ready]
    if own_zone and usable and all(each.zones for each in usable):
        first = [each for each in addresses if own_zone in each.zones]
    elif own_zone and near:
        first = [each for each in addresses if each.zone == own_zone]
    else:
        first = []
    return frozenset(first if any(each.ready for each in first) else addresses)


def _native(
    address: Address, number: int, some_ready: bool, preferred: frozenset[Address], workloads: Workloads
) -> dict[str, Any] | str:
    host = f"[{address.address}]" if ":" in address.address else address.address
    native: dict[str, Any] = {"address": f"{host}:{number}"}
    labels = workloads.labels.get(address.pod)
    if labels:
        native["metadata"] = dict(labels)
    where = {"region": address.region, "zone": address.zone}
    if address.region or address.zone:
        native["locality"] = {name: value for name, value in where.items() if value}
    if not address.ready:
        if not address.serving:
            native["health"] = "unhealthy"
        elif some_ready or not address.terminating:
            native["health"] = "draining" if address.terminating else "unhealthy"
    if address not in preferred:
        native["priority"] = 1
    return native if len(native) > 1 else native["address"]
