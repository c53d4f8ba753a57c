"""How a process that serves comes and goes.

It comes when its port answers, not before: `Lifecycle.begin` enters it into the registry as ``register:`` says. And it
goes in an order in which no call is lost:

1. It is not ready any more (`Serving.draining`), and leaves the registry.
2. It goes on accepting and serving until callers have heard of that, which is `DrainSettings.notice_s`. In the second
   half every response asks for its connection to be closed, so that those who keep one go elsewhere.
3. Only now the server closes its port, finishes what is in flight, and ends.

Servers do the third alone when they are told to end, and so lose the calls of those who have not heard. That is why the
mesh takes the signal first: `meshlib.server.signals`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from meshlib.discovery.living import living
from meshlib.errors import ConfigError, MeshClosed
from meshlib.telemetry.events import DrainingBegan, DrainingEnded

if TYPE_CHECKING:
    from meshlib.config.server_settings import DrainSettings
    from meshlib.discovery.control import ControlPlane
    from meshlib.discovery.registration import Registration
    from meshlib.server.serving import Serving
    from meshlib.telemetry.events import Event

__all__ = ["HasLifecycle", "Lifecycle", "lifecycles"]

_log = logging.getLogger("meshlib.server")

_LEAVE_S = 3.0


class Lifecycle:
    """The coming and going of one process. `Mesh.lifecycle` is the one of a mesh.

    Servers that the mesh knows do all this by themselves. For another: `begin` when it starts, `drain` when it is told
    to end and before it closes its port, `end` when it has finished.

    Args:
        serving: what the process serves.
        control: where registrations are kept up.
        emit: takes events.
        register: makes the registration that the configuration says; None if it says none.
        registrations: all that this process has made.
    """

    def __init__(
        self,
        serving: Serving,
        control: ControlPlane,
        emit: Callable[[Event], None],
        register: Callable[[], Registration | None],
        registrations: Iterable[Registration],
    ) -> None:
        self.control = control
        self._serving = serving
        self._emit = emit
        self._register = register
        self._registrations = registrations
        self._begun_in: int | None = None
        self._drained: asyncio.Task[None] | None = None
        self._at_closing: list[Callable[[], object]] = []
        self._heeded_in: int | None = None
        self._began_at: float | None = None

    @property
    def settings(self) -> DrainSettings:
        """How this process ends."""
        return self._serving.settings.server.drain

    @property
    def in_flight(self) -> int:
        """How many requests are being served."""
        return self._serving.in_flight

    @property
    def begun(self) -> bool:
        """Whether this process was entered into the registry, or somebody sees to it that it will be."""
        return self._begun_in == os.getpid() or bool(tuple(self._registrations))

    @property
    def heeds_signals(self) -> bool:
        """Whether signals drain it: assigned by the one that takes them."""
        return self._heeded_in == os.getpid()

    @heeds_signals.setter
    def heeds_signals(self, heeds: bool) -> None:
        self._heeded_in = os.getpid() if heeds else None

    def when_closing(self, function: Callable[[], object]) -> None:
        """Have `function` called, in another thread, when those who keep a connection are to go elsewhere."""
        self._at_closing.append(function)

    def begin(self) -> None:
        """Enter this process into the registry as soon as its port answers, if ``register:`` says so; does not wait.

        Once more does nothing, except in a forked child, which is a process of its own.
        """
        if self._begun_in == os.getpid():
            return
        self._begun_in, self._drained, self._began_at = os.getpid(), None, None
        self._serving.draining = self._serving.closing = False
        try:
            registration = self._register()
        except ConfigError as error:
            text = "`register` has no effect: %s. In Kubernetes, the Service is the entry, and there is nothing to do"
            _log.warning(text, error)
        else:
            if registration is not None:
                registration.begin()

    def drain(self) -> None:
        """Be ready no more, leave the registry, and go on serving until callers have heard. Blocks."""
        limit_s = 2.0 * _LEAVE_S + self._notice_s()
        try:
            self.control.run_sync(self.adrain_here, limit_s)
        except (TimeoutError, MeshClosed) as error:
            _log.warning("draining ended early: %s", error)

    async def adrain(self) -> None:
        """Do what `drain` does, in an event loop."""
        await asyncio.to_thread(self.drain)

    async def adrain_here(self) -> None:
        """Do what `drain` does, on the control plane's loop; whoever asks second waits for the same."""
        if self._drained is None:
            self._drained = asyncio.get_running_loop().create_task(self._drain(), name="meshlib drain")
        await asyncio.shield(self._drained)

    def end(self) -> None:
        """The server has finished: leave the registry, if that has not happened yet."""
        if self._begun_in != os.getpid() and self._began_at is None:
            return
        self._tell_the_end()
        for registration in tuple(self._registrations):
            registration.close(_LEAVE_S)
        self._begun_in = None

    async def aend(self) -> None:
        """Do what `end` does, in an event loop."""
        await asyncio.to_thread(self.end)

    def _notice_s(self) -> float:
        if self.settings.notice_s is not None:
            return self.settings.notice_s
        return max((each.notice_s for each in self._registrations if each.known), default=0.0)

    async def _drain(self) -> None:
        notice_s = self._notice_s()
        self._began_at = time.monotonic()
        self._serving.draining = True
        self._emit(DrainingBegan(in_flight=self._serving.in_flight, notice_s=notice_s))
        try:
            async with asyncio.timeout(_LEAVE_S):
                await asyncio.gather(*(each.withdraw() for each in tuple(self._registrations)))
        except TimeoutError:
            _log.warning("the registry did not answer within %g s; this process goes without its leave", _LEAVE_S)
        except Exception:
            _log.exception("this process could not leave the registry")
        await asyncio.sleep(notice_s / 2)
        self._serving.closing = True
        for function in self._at_closing:
            function()
        await asyncio.sleep(notice_s / 2)

    def _tell_the_end(self) -> None:
        if self._began_at is not None:
            took_s, self._began_at = time.monotonic() - self._began_at, None
            self._emit(DrainingEnded(in_flight=self._serving.in_flight, took_s=round(took_s, 3)))


@runtime_checkable
class HasLifecycle(Protocol):
    """A mesh, to those who run a server."""

    @property
    def lifecycle(self) -> Lifecycle:
        """How this process comes and goes."""


def lifecycles(mesh: HasLifecycle | None) -> list[Lifecycle]:
    """That of `mesh`; without one, those of all meshes in this process."""
    if mesh is not None:
        return [mesh.lifecycle]
    return [each.lifecycle for each in tuple(living) if isinstance(each, HasLifecycle)]
