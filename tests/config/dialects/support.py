"""Documents as a file would hold them: what they come to, and which of them says what."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import yaml

from meshlib.config.compile import compile_config
from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.merge import translated
from meshlib.config.dialects.resources import resources_in
from meshlib.config.documents import parse
from meshlib.config.load import load_mapping
from meshlib.config.settings import MeshSettings, ServiceSettings
from meshlib.routing.match import RequestView
from meshlib.routing.route import Route, find_route

__all__ = ["draft_of", "notes", "route_of", "services_of", "settings_of"]


def draft_of(*documents: Any, **native: Any) -> Draft:
    """What documents come to; each is a map, or text with several."""
    texts = [each if isinstance(each, str) else yaml.safe_dump(each, sort_keys=False) for each in documents]
    found = [
        resource
        for one in parse("\n---\n".join(texts).encode(), ".yaml", "some.yaml")
        for resource in resources_in(one)
    ]
    return translated(found, native)[0]


def services_of(*documents: Any, **native: Any) -> dict[str, Any]:
    """The services in the native form."""
    services: dict[str, Any] = draft_of(*documents, **native).data()[0].get("services", {})
    return services


def settings_of(*documents: Any, **native: Any) -> MeshSettings:
    """Compiled, by way of the native form."""
    draft = draft_of(*documents, **native)
    return compile_config(load_mapping({**native, **draft.data()[0], "discovery": []}, variables=False))


def notes(draft: Draft, *effects: str) -> list[str]:
    """What is told of them: the field and the text of each note of these effects."""
    return [f"{note.place.what}: {note.text}" for note in draft.notes if note.effect in effects]


def route_of(service: ServiceSettings, method: str, url: str, **headers: str) -> Route:
    """The route that a request takes."""
    parts = urlsplit(url)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    request = RequestView(method, parts.path or "/", parts.query, given)
    found = find_route(service.routes, request)
    assert found is not None
    return found
