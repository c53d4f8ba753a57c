"""The life of a process that serves an ASGI application: from its lifespan's startup to its shutdown.

Server by server the same: when the application has started, the mesh takes over the signals that the server listens for
(`meshlib.server.signals`) and registers the process as soon as its port answers; at shutdown it leaves.
"""

from __future__ import annotations

import logging
import multiprocessing
from types import TracebackType
from typing import TYPE_CHECKING

from meshlib.server.lifecycle import HasLifecycle, Lifecycle, lifecycles
from meshlib.server.signals import Signals

if TYPE_CHECKING:
    from meshlib.server.asgi import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Lifespan", "Stay"]

_log = logging.getLogger("meshlib.server")


class Stay:
    """The stay of this process in the mesh, from `begin` to `end`; ``async with`` does both.

    Args:
        mesh: of the process; None for all that it has when it begins.
        take_signals: whether to drain when the server is told to end; False where somebody else sees to that.
    """

    def __init__(self, mesh: HasLifecycle | None, *, take_signals: bool = True) -> None:
        self._mesh = mesh
        self._take_signals = take_signals
        self._lifecycles: list[Lifecycle] = []
        self._signals: Signals | None = None

    def begin(self) -> None:
        """The application has started. In the thread that handles signals."""
        self._lifecycles = lifecycles(self._mesh)
        for lifecycle in self._lifecycles:
            lifecycle.begin()
        if self._take_signals:
            self._signals = Signals(self._lifecycles)
            if _is_worker_of_hypercorn():
                text = "the command hypercorn ends its workers by no signal, so they do not drain: see %s"
                _log.warning(text, "meshlib.server.hypercorn")
            if not self._signals.take():
                self._signals = None
                text = "this process does not drain when it is told to end: its server keeps the signals to itself"
                _log.info(text)

    async def end(self) -> None:
        """The application shuts down: the server has served what it had."""
        for lifecycle in self._lifecycles:
            await lifecycle.aend()
        if self._signals is not None:
            self._signals.give_back()

    async def __aenter__(self) -> None:
        self.begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.end()


def _is_worker_of_hypercorn() -> bool:
    """Whether the command ``hypercorn`` made this process."""
    work = getattr(multiprocessing.current_process(), "_target", None)
    return str(getattr(work, "__module__", "")).startswith("hypercorn.")


class Lifespan:
    """An ASGI application with the life of its process around it, for applications without a lifespan of their own.

    Args:
        app: any ASGI application.
        mesh: of the process; None for all that it has by then.
        take_signals: see `Stay`.
    """

    def __init__(self, app: ASGIApp, mesh: HasLifecycle | None = None, *, take_signals: bool = True) -> None:
        self.app = app
        self._mesh = mesh
        self._take_signals = take_signals

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of `scope`, as ASGI has it."""
        if scope["type"] == "lifespan":
            await _Around(self.app, Stay(self._mesh, take_signals=self._take_signals)).run(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class _Around:
    """One lifespan: that of the application, or ours alone where it has none."""

    def __init__(self, app: ASGIApp, stay: Stay) -> None:
        self._app = app
        self._stay = stay
        self._heard = ""
        self._answered = ""

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def hear() -> Message:
            message = await receive()
            self._heard = message["type"]
            return message

        async def answer(message: Message) -> None:
            self._answered = message["type"]
            if self._answered == "lifespan.startup.complete":
                self._stay.begin()
            elif self._answered.startswith("lifespan.shutdown"):
                await self._stay.end()
            await send(message)

        try:
            await self._app(scope, hear, answer)
        except Exception:
            if self._answered:
                raise
            _log.debug("the application has no lifespan", exc_info=True)
        if self._answered in ("", "lifespan.startup.complete"):
            # As servers do by themselves where an application does not know the protocol, or leaves it half way.
            if not self._heard:
                await hear()
            if not self._answered:
                await answer({"type": "lifespan.startup.complete"})
            while self._heard != "lifespan.shutdown":
                await hear()
            await answer({"type": "lifespan.shutdown.complete"})
