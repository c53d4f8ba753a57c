"""The callee's side: what a request being served brings along, and when it is no longer worth serving."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.server.lifecycle import HasLifecycle

__all__ = ["lifespan"]


def lifespan(
    mesh: HasLifecycle, inner: Callable[[Any], AbstractAsyncContextManager[Any]] | None = None
) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """The lifespan of an application whose process is in the mesh: ``FastAPI(lifespan=lifespan(mesh))``.

    When the application has started, the process is registered as soon as its port answers, if ``register:`` says so;
    and when the server is told to end, it drains first. The mesh itself goes on, as an application may start again.

    Args:
        mesh: of the process.
        inner: the application's own, which begins before and ends after.
    """
    from meshlib.server.asgi_lifespan import lifespan

    return lifespan(mesh, inner)
