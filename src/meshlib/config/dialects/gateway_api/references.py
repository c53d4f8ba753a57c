"""What a route refers to as a backend: whether there is such a thing, and whether the route may refer to it.

A namespace of which the documents have a Service is taken to be complete: a Service of it that they do not have does
not exist. Of other namespaces every Service is believed in.

In a mesh a route may refer to the Services of other namespaces (GEP-1294: the route adds to a Service that its callers
could reach anyway). With ``documents.reference_grants`` it needs a ReferenceGrant, as the routes of gateways do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.resources import Resource
from meshlib.dataclass import dataclass

__all__ = ["CORE", "GROUP", "Grant", "Reference", "References", "read_grants"]

GROUP: Final = "gateway.networking.k8s.io"
CORE: Final = ("", "core")
"""The group of Services: Linkerd's users write the second."""

_HOSTNAME: Final = ("networking.istio.io", "Hostname")
"""Istio's kind of backend: a host, as of a ServiceEntry."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a ReferenceGrant allows.

    Attributes:
        namespace: whose objects may be referred to.
        sources: from where: group, kind and namespace.
        targets: to what: group, kind and name; an empty name is all of them.
    """

    namespace: str
    sources: frozenset[tuple[str, str, str]]
    targets: frozenset[tuple[str, str, str]]


def read_grants(draft: Draft, resources: Iterable[Resource]) -> list[Grant]:
    """Read ReferenceGrants."""
    grants = []
    for resource in resources:
        reader = Reader(draft, resource)
        reader.skip("apiVersion", "kind", "metadata", "status")
        spec = reader.map("spec") or Reader(draft, resource, {}, ("spec",))
        reader.rest()
        sources, targets = set(), set()
        for each in spec.maps("from"):
            sources.add((each.text("group") or "", each.text("kind") or "", each.text("namespace") or ""))
            each.rest()
        for each in spec.maps("to"):
            targets.add((each.text("group") or "", each.text("kind") or "", each.text("name") or ""))
            each.rest()
        spec.rest()
        grants.append(Grant(draft.namespace_of(resource), frozenset(sources), frozenset(targets)))
    return grants


@dataclass(frozen=True, slots=True)
class Reference:
    """A backend that a route refers to.

    Attributes:
        service: the name of the service in the native form; None if it cannot be called.
        why: why not, in words.
    """

    service: str | None
    why: str = ""


class References:
    """Looks up what routes of one kind refer to."""

    def __init__(self, draft: Draft, grants: Sequence[Grant], kind: str) -> None:
        """Prepare.

        Args:
            draft: what there is.
            grants: what may be referred to.
            kind: of the routes.
        """
        self._draft = draft
        self._grants = grants
        self._kind = kind
        self._complete = {
            entry.namespace for entry in draft.inventory.services.values() if entry.place.subject.startswith("Service ")
        }

    def find(self, reader: Reader, namespace: str, parents: frozenset[tuple[str, str]]) -> Reference:
        """The backend that a map refers to.

        Args:
            reader: of the map, whose ``group``, ``kind``, ``name``, ``namespace`` and ``port`` are taken.
            namespace: of the route.
            parents: of the route, by namespace and name: these it may refer to.
        """
        group, kind = reader.text("group") or "", reader.text("kind") or "Service"
        name, its = reader.text("name") or "", reader.text("namespace") or namespace
        port = reader.integer("port")
        if (group, kind) == _HOSTNAME and name:
            return Reference(self._draft.port_service(name, namespace, port, reader.place()).name)
        if group not in CORE or kind != "Service":
            return Reference(None, f"{group or 'core'}/{kind} is no kind of backend that is known (InvalidKind)")
        if not name:
            reader.wrong("name", "is required")
            return Reference(None, "no name is given")
        if self._needs_grant(its, namespace, name, parents):
            return Reference(None, f"no ReferenceGrant in {its!r} allows it (RefNotPermitted)")
        host = self._draft.host_of(name, its)
        entry = self._draft.inventory.services.get(host)
        if entry is None and its in self._complete:
            return Reference(None, f"there is no Service {its}/{name} among the documents (BackendNotFound)")
        if entry is not None and port is not None and all(each.number != port for each in entry.ports):
            return Reference(None, f"the Service {its}/{name} has no port {port} (BackendNotFound)")
        return Reference(self._draft.port_service(name, its, port, reader.place()).name)

    def _needs_grant(self, its: str, namespace: str, name: str, parents: frozenset[tuple[str, str]]) -> bool:
        if its == namespace or (its, name) in parents or not self._draft.context.settings.reference_grants:
            return False
        wanted = (GROUP, self._kind, namespace)
        return not any(
            grant.namespace == its
            and wanted in grant.sources
            and not grant.targets.isdisjoint({("", "Service", name), ("", "Service", "")})
            for grant in self._grants
        )
