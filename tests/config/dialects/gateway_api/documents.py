"""Small makers for documents of the Gateway API, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.config.dialects.draft import Context, Draft
from meshlib.config.dialects.resources import Resource, resources_in
from meshlib.config.dialects.table import translate
from meshlib.config.documents import Document
from meshlib.config.settings import DocumentSettings

GROUP = "gateway.networking.k8s.io"


def route(
    *rules: Mapping[str, Any],
    name: str = "orders",
    namespace: str = "shop",
    parent: Mapping[str, Any] | None = None,
    created: str | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """An HTTPRoute whose parent is the Service ``orders`` of ``shop``."""
    refers = {"group": "", "kind": "Service", "name": "orders", "namespace": "shop", **(parent or {})}
    metadata = {"name": name, "namespace": namespace, **({"creationTimestamp": created} if created else {})}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "HTTPRoute",
        "metadata": metadata,
        "spec": {"parentRefs": [refers], "rules": list(rules), **spec},
    }


def to(*names: str, **fields: Any) -> list[dict[str, Any]]:
    """Backends by name."""
    return [{"name": name, "port": 80, **fields} for name in names]


def service(name: str, *ports: int, namespace: str = "shop") -> dict[str, Any]:
    """A Service with these ports, the first without a name."""
    given = [{"port": port, **({"name": f"p{port}"} if len(ports) > 1 else {})} for port in ports or (80,)]
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": given}}


def path(value: str, kind: str = "PathPrefix") -> dict[str, Any]:
    """A match of a path."""
    return {"path": {"type": kind, "value": value}}


def drafted(*documents: Mapping[str, Any], namespace: str = "shop", zone: str = "", **settings: Any) -> Draft:
    """What documents come to."""
    resources: list[Resource] = []
    for each in documents:
        resources += resources_in(Document("given.yaml", dict(each)))
    return translate(resources, Context(namespace, settings=DocumentSettings(**settings), zone=zone))


def routes_of(draft: Draft, name: str = "orders") -> list[dict[str, Any]]:
    """The routes of a service in the native form."""
    return list(draft.services[name].data.get("routes", ()))


def notes_of(draft: Draft, effect: str) -> list[str]:
    """What is noted, with one effect."""
    return [str(note) for note in draft.notes if note.effect == effect]
