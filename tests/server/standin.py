"""What the callee's side needs of a mesh, and headers as a caller inside the mesh sends them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from meshlib.config.settings import MeshSettings, Mode, ServerSettings
from meshlib.context import Criticality, Scope, ServedRequest, current_scope, monotonic, scoped
from meshlib.propagation import inject_trace, outgoing_headers


class StandInMesh:
    """Has settings, as a `Mesh` has."""

    def __init__(self, *, mode: Mode = "on", **server: Any) -> None:
        self.settings = replace(MeshSettings(), mode=mode, server=ServerSettings(**server))


def headers_of_a_call() -> dict[str, str]:
    """The headers that a call made here would carry to the next service."""
    scope = current_scope()
    headers = outgoing_headers(scope, None if scope.deadline is None else scope.deadline - monotonic())
    inject_trace(headers)
    return headers


def serving(
    request: ServedRequest, *, criticality: Criticality | None = None, baggage: Mapping[str, str] | None = None
) -> scoped:
    """The scope of a request being served. What was inherited before it does not count."""
    scope = Scope(None, request, criticality, MappingProxyType(dict(baggage or {})))
    return scoped(lambda _: scope)
