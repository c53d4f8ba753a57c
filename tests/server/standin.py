"""What the callee's side needs of a mesh, and headers as a caller inside the mesh sends them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshlib.config.settings import MeshSettings, Mode, ServerSettings
from meshlib.context import current_scope, monotonic
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
