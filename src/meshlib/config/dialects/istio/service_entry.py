"""``ServiceEntry``: hosts beyond what the platform knows, and who serves them.

Source: Istio's ``service_entry.proto``. What ``resolution`` says becomes endpoints: STATIC the addresses given; DNS
the names given, or the hosts themselves; NONE and DYNAMIC_DNS each host that callers name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Final

from meshlib.config.dialects.draft import Draft, Port
from meshlib.config.dialects.draft import ServiceEntry as Declared
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.istio.hosts import is_wildcard, visible
from meshlib.config.dialects.istio.workload_entry import WorkloadEntry, read_workload
from meshlib.config.dialects.resources import Resource
from meshlib.dataclass import dataclass

__all__ = ["ServiceEntry", "declare", "read_service_entry"]

_RESOLUTIONS: Final = ("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS")
_LOCATIONS: Final = ("MESH_EXTERNAL", "MESH_INTERNAL")


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One entry.

    Attributes:
        hosts: in full.
        addresses: by which it is called as well.
        ports: its own.
        resolution: where endpoints come from.
        endpoints: as given.
        selector: labels of the workloads that serve it; None for those given.
        resource: the document.
        namespace: that it is in.
    """

    hosts: Sequence[str]
    addresses: Sequence[str]
    ports: Sequence[Port]
    resolution: str
    endpoints: Sequence[WorkloadEntry]
    selector: Mapping[str, str] | None
    resource: Resource
    namespace: str


def read_service_entry(draft: Draft, resource: Resource) -> ServiceEntry | None:
    """Read one; None if it is not for this workload."""
    reader = Reader(draft, resource, resource.data.get("spec"), ("spec",))
    namespace = draft.namespace_of(resource)
    hosts = [draft.host_of(host, namespace) for host in reader.texts("hosts")]
    if not hosts:
        reader.wrong("hosts", "is required")
    addresses = [address for text in reader.texts("addresses") if (address := _single(reader, text))]
    if addresses and len(hosts) > 1:
        text = "are not honoured: which of several hosts they are of is not said"
        draft.note(reader.place("addresses"), text, "ignored")
    ports = [port for each in reader.maps("ports") if (port := _port(each)) is not None]
    if not ports:
        reader.wrong("ports", "is required")
    resolution = _word(reader, "resolution", _RESOLUTIONS)
    _word(reader, "location", _LOCATIONS)
    endpoints = [entry for each in reader.maps("endpoints") if (entry := read_workload(each)) is not None]
    selector = reader.map("workloadSelector")
    labels = None
    if selector is not None:
        labels = selector.entries("labels")
        selector.narrowing().rest()
        if endpoints:
            reader.wrong(None, "has endpoints and a workloadSelector: one of them is expected")
    export_to = reader.texts("exportTo")
    reader.ignore("subjectAltNames", "one name is verified: sni of the DestinationRule's tls, else the host")
    if resolution == "DNS" and any(map(is_wildcard, hosts)) and not endpoints:
        reader.wrong("hosts", "a host with a wildcard has no address of its own to look up: see NONE and DYNAMIC_DNS")
    if resolution == "DNS_ROUND_ROBIN":
        reader.different("resolution", "all addresses of a name are endpoints")
    reader.rest()
    if not visible(export_to, namespace, draft.context.namespace):
        text = f"is not exported to the namespace {draft.context.namespace!r} of this workload"
        draft.note(resource.place("spec", "exportTo"), text, "passed")
        return None
    return ServiceEntry(hosts, addresses, ports, resolution, endpoints, labels, resource, namespace)


def _word(reader: Reader, name: str, words: Sequence[str]) -> str:
    word = reader.text(name) or words[0]
    if word not in words:
        reader.wrong(name, f"is none of {', '.join(words)}")
        return words[0]
    return word


def _single(reader: Reader, text: str) -> str:
    """The one IPv4 address that a text or a network means; empty if it means none, or several."""
    try:
        network = ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        network = None
    if network is not None and network.num_addresses == 1:
        return str(network.network_address)
    said = f"{text} is not honoured: calls go by names, and by single IPv4 addresses"
    reader.draft.note(reader.place("addresses"), said, "ignored")
    return ""


def _port(reader: Reader) -> Port | None:
    number, name = reader.integer("number"), reader.text("name") or ""
    protocol, target = reader.text("protocol") or "", reader.integer("targetPort")
    reader.rest()
    if number is None or not 1 <= number <= 65535:
        reader.wrong("number", "is needed: a port from 1 to 65535")
        return None
    return Port(number, name, target or 0, protocol)


def declare(draft: Draft, entry: ServiceEntry, workloads: Sequence[tuple[str, WorkloadEntry]]) -> None:
    """Write an entry into the draft.

    Args:
        draft: where to.
        entry: what.
        workloads: the WorkloadEntry documents, each with its namespace.
    """
    place = entry.resource.place("spec")
    served = list(entry.endpoints)
    if entry.selector is not None:
        served = [
            each
            for namespace, each in workloads
            if namespace == entry.namespace and entry.selector.items() <= each.labels.items()
        ]
    for host in entry.hosts:
        if host in draft.inventory.services:
            other = draft.inventory.services[host].place
            draft.note(place, f"{host} is declared by {other} as well; that is who serves it", "different")
            continue
        ports = tuple(entry.ports)
        labels = entry.resource.labels
        draft.inventory.services[host] = Declared(host, entry.namespace, ports, labels, place)
        for port in ports:
            service = draft.port_service(host, entry.namespace, port.number, place)
            service.add("endpoints", _endpoints(entry, host, port, served), place)
            if len(entry.hosts) == 1 and port is ports[0]:
                service.add("hosts", entry.addresses, place)


def _endpoints(entry: ServiceEntry, host: str, port: Port, served: Sequence[WorkloadEntry]) -> list[Any]:
    if served or entry.selector is not None or entry.resolution == "STATIC":
        found = [each.endpoint(port) for each in served]
        return [each["address"] if len(each) == 1 else each for each in found]
    number = port.target or port.number
    return [f"{'*' if is_wildcard(host) else host}:{number}"]
