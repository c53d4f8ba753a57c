"""uvicorn, started by the mesh: ``meshlib.server.uvicorn.run(app, mesh=mesh, port=8000)``.

Registers when the port answers, as ``register:`` says, and drains on SIGTERM. Under ``python -m uvicorn`` the same is
done by ``FastAPI(lifespan=meshlib.server.fastapi.lifespan(mesh))``.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.importer import import_from_string

from meshlib.server.asgi_lifespan import Lifespan
from meshlib.server.lifecycle import HasLifecycle

if TYPE_CHECKING:
    from meshlib.server.asgi import ASGIApp

__all__ = ["run"]

_APP = "MESHLIB_UVICORN_APP"


def run(app: ASGIApp | str, *, mesh: HasLifecycle | None = None, **options: Any) -> None:
    """Do what `uvicorn.run` does, for a process that is in the mesh.

    Args:
        app: the application, or where it is (``"shop:app"``), as `uvicorn.run` takes it. For several ``workers``, or to
            ``reload``, it has to be a text.
        mesh: of the process; None for all that the application makes.
        options: those of `uvicorn.run`. ``timeout_graceful_shutdown`` is the `DrainSettings.timeout_s` of `mesh`,
            unless given; without `mesh`, that of the process that serves holds (`meshlib.server.signals`).
    """
    if mesh is not None:
        options.setdefault("timeout_graceful_shutdown", math.ceil(mesh.lifecycle.settings.timeout_s))
    options.setdefault("lifespan", "on")
    if isinstance(app, str):
        if options.pop("factory", False):
            app += "()"
        os.environ[_APP] = app  # workers are started afresh, and know nothing but what is in their environment
        uvicorn.run("meshlib.server.uvicorn:application", factory=True, **options)
    else:
        uvicorn.run(Lifespan(app, mesh), **options)


def application() -> Lifespan:
    """The application that `run` was given as a text, in the process that is to serve it."""
    name = os.environ[_APP]
    app = import_from_string(name.removesuffix("()"))
    return Lifespan(app() if name.endswith("()") else app)
