"""Which documents are read, and by what. A new dialect is a new module here and a line in `DIALECTS`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeAlias

from meshlib.config.dialects.draft import Context, Draft, TooMuch
from meshlib.config.dialects.resources import CONSUL, Resource
from meshlib.config.fields import closest
from meshlib.dataclass import dataclass

__all__ = ["DIALECTS", "Dialect", "is_read", "translate"]

Translate: TypeAlias = Callable[[Draft, Sequence[Resource]], None]
"""Writes what the documents of one dialect say into the draft. Called once, with all of them, in the order read."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One dialect.

    Attributes:
        name: its own.
        kinds: of the documents that it reads, each with the group of its API; ``*`` for all of a group.
        function: its `Translate`, loaded when there is such a document.
        annotated: in the names of annotations: it reads Services and routes of others that have one such as well.
    """

    name: str
    kinds: frozenset[tuple[str, str]]
    function: str
    annotated: str = ""

    def reads(self, resource: Resource) -> bool:
        """Whether the document is one of its own."""
        if (resource.group, resource.kind) in self.kinds or (resource.group, "*") in self.kinds:
            return True
        return bool(self.annotated) and resource.kind in _ANNOTATED and self._is_annotated(resource)

    def _is_annotated(self, resource: Resource) -> bool:
        return any(self.annotated in name for name in resource.annotations)


_ANNOTATED: Final = frozenset({"Service", "HTTPRoute", "GRPCRoute"})

_CORE: Final = ("Service", "Endpoints", "Pod", "Node")

_ISTIO: Final = (
    "DestinationRule",
    "Gateway",
    "ServiceEntry",
    "Sidecar",
    "VirtualService",
    "WorkloadEntry",
    "WorkloadGroup",
)

_GATEWAY_API: Final = ("HTTPRoute", "ReferenceGrant", "BackendTLSPolicy", "Gateway", "GatewayClass", "ListenerSet")
"""Of the last three nothing is honoured: they are for calls from outside."""

DIALECTS: Final[tuple[Dialect, ...]] = (
    Dialect(
        "kubernetes",
        frozenset({*(("", kind) for kind in _CORE), ("discovery.k8s.io", "EndpointSlice")}),
        "meshlib.config.dialects.kubernetes.dialect:translate",
    ),
    Dialect(
        "istio",
        frozenset({("networking.istio.io", kind) for kind in _ISTIO} | {("security.istio.io", "*")}),
        "meshlib.config.dialects.istio:translate",
    ),
    Dialect(
        "gateway_api",
        frozenset({*(("gateway.networking.k8s.io", kind) for kind in _GATEWAY_API), ("", "ConfigMap")}),
        "meshlib.config.dialects.gateway_api.dialect:translate",
    ),
    Dialect(
        "linkerd",
        frozenset({("linkerd.io", "*"), ("policy.linkerd.io", "*")}),
        "meshlib.config.dialects.linkerd.read:read",
        annotated="linkerd.io/",
    ),
    Dialect(
        "consul",
        frozenset({(CONSUL, "*"), ("consul.hashicorp.com", "*")}),
        "meshlib.config.dialects.consul.read:read",
    ),
)
"""In the order in which they write: those that declare services come first, since others ask for their ports."""

_OTHERS: Final = frozenset(
    {
        "networking.istio.io",
        "extensions.istio.io",
        "gateway.networking.k8s.io",
        "gateway.networking.x-k8s.io",
        "linkerd.io",
        "policy.linkerd.io",
        "split.smi-spec.io",
        "specs.smi-spec.io",
    }
)
"""Groups of which every kind has to do with how calls are made."""


def is_read(resource: Resource) -> bool:
    """Whether any dialect reads this document."""
    return any(dialect.reads(resource) for dialect in DIALECTS)


def translate(resources: Iterable[Resource], context: Context) -> Draft:
    """What the documents say, in the native form."""
    draft = Draft(context)
    given = list(resources)
    for dialect in DIALECTS:
        own = [resource for resource in given if dialect.reads(resource)]
        if own:
            module, _, name = dialect.function.partition(":")
            function: Translate = getattr(importlib.import_module(module), name)
            try:
                function(draft, own)
            except TooMuch as error:
                draft.note(error.place, str(error), "wrong")
                return draft
    for resource in given:
        if not is_read(resource):
            meshes = resource.group in _OTHERS or resource.group == CONSUL
            known = [kind for dialect in DIALECTS for group, kind in dialect.kinds if group == resource.group]
            nearest = closest(resource.kind, sorted(known))
            hint = f"; did you mean {nearest}?" if nearest else ""
            text = f"is not honoured: documents of the kind {resource.kind} are not read{hint}"
            draft.note(resource.place(), text, "ignored" if meshes else "passed")
    return draft
