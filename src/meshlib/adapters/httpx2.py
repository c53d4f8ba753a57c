"""httpx2: clients and transports of the mesh, as `meshlib.Mesh.client` and its like are for httpx.

from meshlib.adapters import httpx2

orders = httpx2.client(mesh, "orders")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshlib.adapters.attach import plane_of
from meshlib.adapters.httpx_clients import AsyncClient, SyncClient, client_of, make_client
from meshlib.adapters.httpx_errors import raised_class
from meshlib.adapters.httpx_library import Library
from meshlib.adapters.httpx_transport import AsyncTransport, SyncTransport, attach_client
from meshlib.adapters.plane import DataPlane

try:
    import httpx2
except ImportError as error:
    raise ImportError('this adapter needs httpx2: pip install "meshlib-http[httpx2]"', name="httpx2") from error

if TYPE_CHECKING:
    from meshlib.mesh import Mesh

__all__ = ["async_client", "async_transport", "client", "transport"]

LIBRARY = Library(httpx2)

# What both libraries share is typed with httpx's names; at runtime none of them is there.


class MeshTransport(SyncTransport, httpx2.BaseTransport):  # type: ignore[misc]
    """The transport of an `httpx2.Client` whose calls go through the mesh."""

    library = LIBRARY


class AsyncMeshTransport(AsyncTransport, httpx2.AsyncBaseTransport):  # type: ignore[misc]
    """The transport of an `httpx2.AsyncClient` whose calls go through the mesh."""

    library = LIBRARY


@client_of(LIBRARY, httpx2.Client, MeshTransport)
class MeshClient(SyncClient, httpx2.Client):  # type: ignore[misc]
    """An `httpx2.Client` whose calls go through the mesh. Closing it closes no pool."""


@client_of(LIBRARY, httpx2.AsyncClient, AsyncMeshTransport)
class AsyncMeshClient(AsyncClient, httpx2.AsyncClient):  # type: ignore[misc]
    """An `httpx2.AsyncClient` whose calls go through the mesh. Closing it closes no pool."""


def client(mesh: Mesh, service: str | None = None, **options: Any) -> httpx2.Client:
    """An `httpx2.Client` whose calls go through the mesh.

    Args:
        mesh: which.
        service: to which relative URLs go; None for none.
        options: those of `httpx2.Client`, with what they mean to a mesh: see `meshlib.Mesh.client`.

    Raises:
        ValueError: if `service` cannot be a name.
    """
    return make_client(MeshClient, plane_of(mesh), service, options)


def async_client(mesh: Mesh, service: str | None = None, **options: Any) -> httpx2.AsyncClient:
    """An `httpx2.AsyncClient` whose calls go through the mesh; see `client`. It may be used by one event loop after
    another.
    """
    return make_client(AsyncMeshClient, plane_of(mesh), service, options)


def transport(mesh: Mesh, *, fallback: httpx2.BaseTransport | None = None) -> httpx2.BaseTransport:
    """A transport for an `httpx2.Client` of one's own.

    Args:
        mesh: which.
        fallback: for hosts outside the mesh; None for a plain `httpx2.HTTPTransport`.
    """
    return MeshTransport(plane_of(mesh), stock=fallback)


def async_transport(mesh: Mesh, *, fallback: httpx2.AsyncBaseTransport | None = None) -> httpx2.AsyncBaseTransport:
    """A transport for an `httpx2.AsyncClient` of one's own; see `transport`."""
    return AsyncMeshTransport(plane_of(mesh), stock=fallback)


def attach(plane: DataPlane, client: Any) -> None:
    """Let the calls of an existing client go through the mesh; `meshlib.Mesh.attach` calls it.

    Raises:
        TypeError: if it is no httpx2 client, or one whose transport cannot be replaced.
    """
    attach_client(plane, client, MeshTransport, AsyncMeshTransport)


def __getattr__(name: str) -> Any:
    # Where pickle looks for the classes of errors.
    return raised_class("httpx2", name)
