"""All of Kubernetes' documents together: each Service, with its endpoints, as one service for each of its ports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from meshlib.config.dialects.draft import CLUSTER_DOMAIN, Draft, Port, ServiceEntry
from meshlib.config.dialects.kubernetes.endpoints import Slice, read_endpoints, read_slice, served
from meshlib.config.dialects.kubernetes.service import H2C, KubernetesService, read_service
from meshlib.config.dialects.kubernetes.workloads import Workloads, workloads_of
from meshlib.config.dialects.resources import Place, Resource

__all__ = ["translate"]


def translate(draft: Draft, resources: Sequence[Resource]) -> None:
    """Write the services that documents declare."""
    workloads = workloads_of(draft, resources)
    slices, places = _slices(draft, resources, workloads)
    services: dict[tuple[str, str], KubernetesService] = {}
    for resource in resources:
        if resource.kind == "Service" and (service := read_service(draft, resource)) is not None:
            key = (service.namespace, service.name)
            if key in services:
                draft.note(resource.place(), f"is declared by {services[key].place} as well", "wrong")
                continue
            services[key] = service
            # Before any is written: the name of a port's service depends on what others there are.
            draft.inventory.services[service.host] = service.entry
    for key, service in services.items():
        if service.for_calls:
            _write(draft, service, slices.get(key, []), workloads)
    for key in slices.keys() - services.keys():
        _write_alone(draft, key, slices[key], places[key], workloads)


def _slices(
    draft: Draft, resources: Sequence[Resource], workloads: Workloads
) -> tuple[dict[tuple[str, str], list[Slice]], dict[tuple[str, str], Place]]:
    """The slices of each Service, and where the first of them is said."""
    found: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    places: dict[tuple[str, str], Place] = {}
    for resource in resources:
        if resource.kind == "EndpointSlice" and (own := read_slice(draft, resource, workloads)) is not None:
            found[own.service].append(own)
            places.setdefault(own.service, resource.place())
    sliced = frozenset(found)
    for resource in resources:
        if resource.kind == "Endpoints":
            for old in read_endpoints(draft, resource, workloads):
                # Slices are made of Endpoints, so where there are slices they say it all.
                if old.service not in sliced:
                    found[old.service].append(old)
                    places.setdefault(old.service, resource.place())
    return found, places


def _write(draft: Draft, service: KubernetesService, slices: Sequence[Slice], workloads: Workloads) -> None:
    for port in service.entry.ports or (Port(80),):
        native = draft.port_service(service.host, service.namespace, port.number, service.place)
        if port.protocol == H2C:
            native.put("http2", True, service.place)
        zone, near = draft.context.zone, service.near
        for endpoint, place in served(slices, port, service.family, near, zone, workloads):
            native.add("endpoints", [endpoint], place)
        if "endpoints" not in native.data and not slices and not draft.context.discovery:
            native.put_usual("endpoints", [_address(service, port)], service.place)
    if service.external_name and not service.entry.ports:
        text = "has no ports: 80 is taken, whatever port callers name"
        draft.note(service.place, text, "different")


def _address(service: KubernetesService, port: Port) -> str:
    """Where calls to a Service go whose endpoints nobody names: to its address, as they do without a mesh."""
    if service.external_name:
        return f"{service.external_name}:{port.number}"
    if service.headless:
        return f"{service.host}:{port.target if isinstance(port.target, int) else port.number}"
    address = f"[{service.cluster_ip}]" if ":" in service.cluster_ip else service.cluster_ip
    return f"{address or service.host}:{port.number}"


def _write_alone(
    draft: Draft, key: tuple[str, str], slices: Sequence[Slice], place: Place, workloads: Workloads
) -> None:
    """Endpoints whose Service is not among the documents: its ports are those of its endpoints."""
    namespace, name = key
    host = f"{name}.{namespace}.{CLUSTER_DOMAIN}"
    numbers = {port: number for each in slices for port, number in each.ports.items()}
    ports = tuple(Port(number, port, number) for port, number in numbers.items())
    draft.inventory.services[host] = ServiceEntry(host, namespace, ports, {}, place)
    for port in ports:
        native = draft.port_service(host, namespace, port.number, place)
        for endpoint, where in served(slices, port, "", False, draft.context.zone, workloads):
            native.add("endpoints", [endpoint], where)
