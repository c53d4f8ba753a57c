"""httpx: its transports and clients of the mesh, for `meshlib.Mesh.client` and what belongs to it."""

from __future__ import annotations

from typing import Any

import httpx

from meshlib.adapters.httpx_clients import AsyncClient, SyncClient, client_of
from meshlib.adapters.httpx_errors import raised_class
from meshlib.adapters.httpx_library import Library
from meshlib.adapters.httpx_transport import AsyncTransport, SyncTransport, attach_client
from meshlib.adapters.plane import DataPlane

__all__ = ["LIBRARY", "AsyncMeshClient", "AsyncMeshTransport", "MeshClient", "MeshTransport", "attach"]

LIBRARY = Library(httpx)


class MeshTransport(SyncTransport, httpx.BaseTransport):
    """The transport of an `httpx.Client` whose calls go through the mesh."""

    library = LIBRARY


class AsyncMeshTransport(AsyncTransport, httpx.AsyncBaseTransport):
    """The transport of an `httpx.AsyncClient` whose calls go through the mesh."""

    library = LIBRARY


@client_of(LIBRARY, httpx.Client, MeshTransport)
class MeshClient(SyncClient, httpx.Client):
    """An `httpx.Client` whose calls go through the mesh. Closing it closes no pool."""


@client_of(LIBRARY, httpx.AsyncClient, AsyncMeshTransport)
class AsyncMeshClient(AsyncClient, httpx.AsyncClient):
    """An `httpx.AsyncClient` whose calls go through the mesh. Closing it closes no pool."""


def attach(plane: DataPlane, client: Any) -> None:
    """Let the calls of an existing client go through the mesh; its own transport serves what stays outside.

    Raises:
        TypeError: if it is no httpx client, or one whose transport cannot be replaced.
    """
    attach_client(plane, client, MeshTransport, AsyncMeshTransport)


def __getattr__(name: str) -> Any:
    # Where pickle looks for the classes of errors.
    return raised_class("httpx", name)
