"""hypercorn, started by the mesh: ``meshlib.server.hypercorn.run(app, config, mesh=mesh)``.

Registers when the port answers, as ``register:`` says, and drains on SIGTERM. The command ``hypercorn`` tells its
workers to end in its own way, which nobody can put aside; so this starts one process, in the place of the command.
Several can share a port, and then share the entry: give each the same socket (``bind: ["fd://3"]``).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hypercorn.asyncio import serve as serve_by_hypercorn

from meshlib.server.asgi_lifespan import Lifespan
from meshlib.server.lifecycle import HasLifecycle, lifecycles
from meshlib.server.signals import Signals

if TYPE_CHECKING:
    from hypercorn.config import Config

    from meshlib.server.asgi import ASGIApp

__all__ = ["run", "serve"]


def run(app: ASGIApp, config: Config, *, mesh: HasLifecycle) -> None:
    """Serve `app` until this process is told to end.

    Args:
        app: the application.
        config: hypercorn's. Its ``graceful_timeout`` is `DrainSettings.timeout_s`.
        mesh: of the process.
    """
    asyncio.run(serve(app, config, mesh=mesh))


async def serve(app: ASGIApp, config: Config, *, mesh: HasLifecycle) -> None:
    """Do what `run` does, in an event loop of the main thread."""
    loop, told = asyncio.get_running_loop(), asyncio.Event()
    found = lifecycles(mesh)
    config.graceful_timeout = max(lifecycle.settings.timeout_s for lifecycle in found)

    def tell(number: int) -> None:
        loop.call_soon_threadsafe(told.set)

    wrapped: Any = Lifespan(app, mesh, take_signals=False)
    serving = loop.create_task(serve_by_hypercorn(wrapped, config, shutdown_trigger=told.wait, mode="asgi"))
    signals = Signals(found, pass_on=tell, force=lambda: loop.call_soon_threadsafe(serving.cancel))
    try:
        if not signals.take():
            raise RuntimeError("hypercorn has to be started in the main thread: nobody else is told of signals")
        await serving
    except asyncio.CancelledError:
        if not told.is_set():
            raise
    finally:
        serving.cancel()
        signals.give_back()
