"""Reads documents of Istio as a file would be read, and asks what becomes of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import yaml

from meshlib.config.compile import compile_config
from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.merge import translated
from meshlib.config.dialects.resources import resources_in
from meshlib.config.documents import Document, parse
from meshlib.config.load import Loading
from meshlib.config.settings import MeshSettings
from meshlib.routing.match import RequestView
from meshlib.routing.route import Route, find_route

__all__ = ["destination_rule", "draft_of", "effects", "http", "load", "notes", "route_of", "virtual_service"]

API = "networking.istio.io/v1"


def document(kind: str, name: str, spec: Mapping[str, Any], **metadata: Any) -> str:
    """One document, as text."""
    data = {"apiVersion": API, "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
    return "---\n" + yaml.safe_dump(data, sort_keys=False)


def virtual_service(*routes: Mapping[str, Any], name: str = "reviews", **spec: Any) -> str:
    """A VirtualService of `reviews`, unless told otherwise."""
    metadata = spec.pop("metadata", {})
    return document("VirtualService", name, {"hosts": ["reviews"], "http": list(routes), **spec}, **metadata)


def destination_rule(name: str = "reviews", host: str = "reviews", **spec: Any) -> str:
    """A DestinationRule of `reviews`, unless told otherwise."""
    metadata = spec.pop("metadata", {})
    return document("DestinationRule", name, {"host": host, **spec}, **metadata)


def to(host: str = "reviews", subset: str = "", **share: Any) -> dict[str, Any]:
    """A route's destination."""
    return {"destination": {"host": host, **({"subset": subset} if subset else {})}, **share}


def http(*shares: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """An HTTPRoute to `reviews`, unless told otherwise."""
    return {"route": list(shares) or [to()], **fields}


def draft_of(text: str, **native: Any) -> Draft:
    """What documents come to."""
    found = [each for one in parse(text.encode(), ".yaml", "istio.yaml") for each in resources_in(one)]
    return translated(found, native)[0]


def notes(draft: Draft, *effects: str) -> list[str]:
    """What is said of documents, with their places."""
    return [str(note) for note in draft.notes if not effects or note.effect in effects]


def effects(draft: Draft) -> set[tuple[str, str]]:
    """The fields of which something is said, and what becomes of them."""
    found = set()
    for note in draft.notes:
        steps = ["[]" if isinstance(step, int) else step for step in note.place.path]
        found.add((".".join(steps).replace(".[]", "[]"), note.effect))
    return found


def load(text: str, **native: Any) -> MeshSettings:
    """The configuration that documents make, beside native fields."""
    loading = Loading(None)
    loading.add(Document("mesh.yaml", native), ("mesh.yaml",), ())
    for one in parse(text.encode(), ".yaml", "istio.yaml"):
        loading.add(one, ("istio.yaml",), ())
    return compile_config(loading.finish("wrong"))


def route_of(
    settings: MeshSettings, url: str, method: str = "GET", chance: float = 0.0, **headers: str
) -> Route | None:
    """The route that a request takes; the service is the name in the URL."""
    parts = urlsplit(url)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    assert parts.hostname is not None
    service = next(each for each in settings.services.values() if parts.hostname in (each.name, *each.hosts))
    view = RequestView(
        method,
        parts.path or "/",
        parts.query,
        named,
        scheme=parts.scheme,
        host=parts.hostname,
        port=parts.port,
        random=lambda: chance,
    )
    return find_route(service.routes, view)
