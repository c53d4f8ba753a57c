"""``VirtualService``: the routes of hosts.

Of several for one host one holds: the first of those that only this namespace may see, else the first of all, by their
creation and then in the order in which they are read. One without hosts is for others to delegate to. Sources: Istio's
``virtual_service.proto``, ``virtualservice_controller.go``, and ``SelectVirtualServices`` in ``virtualservice.go``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.istio.delegate import merge_route
from meshlib.config.dialects.istio.hosts import visible
from meshlib.config.dialects.istio.http_route import Rule, read_rule
from meshlib.config.dialects.istio.matching import MESH
from meshlib.config.dialects.resources import Place, Resource
from meshlib.dataclass import dataclass

__all__ = ["VirtualService", "delegates_of", "expanded", "in_order", "read_virtual_service"]


@dataclass(frozen=True, slots=True)
class VirtualService:
    """One document.

    Attributes:
        name, namespace: its own.
        hosts: in full.
        gateways: that it is for.
        rules: in order.
        export_to: who may see it.
        created: when.
        place: of the document.
    """

    name: str
    namespace: str
    hosts: Sequence[str]
    gateways: Sequence[str]
    rules: Sequence[Rule]
    export_to: frozenset[str]
    created: str
    place: Place

    @property
    def is_private(self) -> bool:
        """Whether nobody outside its namespace may see it."""
        return bool(self.export_to) and self.export_to <= {".", self.namespace}


def read_virtual_service(draft: Draft, resource: Resource) -> VirtualService:
    """Read one."""
    reader = Reader(draft, resource, resource.data.get("spec"), ("spec",))
    namespace = draft.namespace_of(resource)
    hosts = [draft.host_of(host, namespace) for host in reader.texts("hosts")]
    gateways = reader.texts("gateways") or [MESH]
    rules = [read_rule(each, namespace) for each in reader.maps("http")]
    export_to = frozenset(reader.texts("exportTo"))
    for name in ("tls", "tcp"):
        reader.ignore(name, "calls are HTTP, and go by the routes under http")
    reader.rest()
    return VirtualService(
        resource.name, namespace, hosts, gateways, rules, export_to, resource.created, resource.place()
    )


def in_order(draft: Draft, services: Iterable[VirtualService]) -> list[VirtualService]:
    """Those that are for this workload, the first ones first."""
    client = draft.context.namespace
    found = []
    for service in services:
        if not service.hosts:
            continue
        if MESH not in service.gateways:
            draft.note(service.place, "is for gateways, and this workload is none", "passed")
        elif not visible(service.export_to, service.namespace, client):
            draft.note(service.place, f"is not exported to the namespace {client!r} of this workload", "passed")
        else:
            found.append(service)
    # Sorting keeps the order in which they were read where the rest is equal.
    return sorted(found, key=lambda service: (not service.is_private, not service.created, service.created))


def delegates_of(services: Iterable[VirtualService]) -> dict[tuple[str, str], VirtualService]:
    """Those to delegate to, by namespace and name."""
    return {(service.namespace, service.name): service for service in services if not service.hosts}


def expanded(draft: Draft, service: VirtualService, delegates: dict[tuple[str, str], VirtualService]) -> Iterator[Rule]:
    """The rules of a VirtualService, those of its delegates in the place of the rules that name them."""
    for rule in service.rules:
        named = rule.fields.get("delegate")
        if named is None:
            yield rule
            continue
        delegate = delegates.get((named["namespace"] or service.namespace, named["name"]))
        if delegate is None:
            text = f"there is no VirtualService {named['name']!r} without hosts; the route is left out, as in Istio"
            draft.note(rule.place, text, "ignored")
            continue
        if not visible(delegate.export_to, delegate.namespace, service.namespace):
            text = f"{delegate.place} is not exported to {service.namespace!r}; the route is left out, as in Istio"
            draft.note(rule.place, text, "ignored")
            continue
        for inner in delegate.rules:
            if "delegate" in inner.fields:
                draft.note(inner.place, "a delegate cannot delegate", "wrong")
                continue
            root = {name: value for name, value in rule.fields.items() if name != "delegate"}
            draft.spend(
                max(1, len(root.get("match") or ())) * max(1, len(inner.fields.get("match") or ())), inner.place
            )
            merged = merge_route(root, inner.fields)
            if merged is None:
                text = f"its conditions contradict those of {rule.place}, so it is left out there, as in Istio"
                draft.note(inner.place, text, "different")
            else:
                yield Rule(merged, inner.place)
