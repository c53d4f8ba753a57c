"""This process's own entry in a registry, from `start` to `close`, and not a moment longer."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import socket
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, runtime_checkable

from meshlib.config.settings import RegisterSettings
from meshlib.dataclass import replace
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.source import Instance, Registrar, Source
from meshlib.errors import ConfigError, MeshClosed, RegistrationFailed

__all__ = ["KnowsOwnHost", "Registration", "find_registrar", "make_instance"]

_log = logging.getLogger("meshlib")


@runtime_checkable
class KnowsOwnHost(Protocol):
    """A registrar that can tell under which address others reach this process."""

    async def own_host(self) -> str:
        """Return it.

        Raises:
            RegistrationFailed: if it cannot be told.
        """
        ...


def find_registrar(sources: Sequence[Source], name: str | None = None) -> Registrar:
    """Return the first of `sources` that takes registrations, or the one called `name`.

    Raises:
        ConfigError: if there is none.
    """
    for source in sources:
        if isinstance(source, Registrar) and name in (None, source.name):
            return source
    there = ", ".join(source.name for source in sources) or "none"
    wanted = f"no discovery source {name!r} takes" if name else "no discovery source takes"
    raise ConfigError(f"{wanted} registrations (there are: {there}); add `consul` or `local` to `discovery`")


def make_instance(settings: RegisterSettings, service: str) -> Instance:
    """Return this process as an instance, with an id of its own.

    Args:
        settings: what the user says. Without a host the registrar is asked for it when the registration starts.
        service: the name, unless the settings give one.

    Raises:
        ConfigError: if there is no name, or the port is none.
    """
    name = settings.service or service
    if not name:
        raise ConfigError("to register, this workload needs a name: set `service`")
    if not 1 <= settings.port <= 65535:
        raise ConfigError(f"register.port is {settings.port}; a port is 1 to 65535")
    # The random part makes the successor of a process, at the same address, another instance with a clean history.
    return Instance(
        service=name,
        host=settings.host or "",
        port=settings.port,
        instance_id=f"{name}-{socket.gethostname()}-{settings.port}-{secrets.token_hex(4)}",
        weight=settings.weight,
        metadata=dict(settings.metadata),
        check_path=settings.check_path,
        check_interval_s=settings.check_interval_s,
    )


class Registration:
    """An entry of this process in a registry. Use it with ``with`` or ``async with``, or `start` and `close`.

    It is removed at `close`, and at exit at the latest. A forked child removes nothing: the entry is its parent's.

    Args:
        control: where it is kept up.
        registrar: the registry.
        instance: what to enter; an empty host is filled in by the registrar.
        timeout_s: how long entering may take when used with ``with``.
    """

    def __init__(
        self, control: ControlPlane, registrar: Registrar, instance: Instance, *, timeout_s: float = 5.0
    ) -> None:
        self.instance = instance
        self._control = control
        self._registrar = registrar
        self._timeout_s = timeout_s
        self._pid: int | None = None

    def __repr__(self) -> str:
        state = "entered" if self.active else "not entered"
        return f"<Registration {self.instance.instance_id} {self.instance.host}:{self.instance.port} [{state}]>"

    @property
    def active(self) -> bool:
        """Whether this process holds the entry."""
        return self._pid == os.getpid()

    def start(self, timeout_s: float | None = None) -> Registration:
        """Enter the instance, and return this registration. Does nothing if it is entered already.

        Args:
            timeout_s: how long it may take, in seconds; None for the one given at construction.

        Raises:
            RegistrationFailed: if it cannot be entered, or not within `timeout_s`.
        """
        if not self.active:
            limit_s = self._timeout_s if timeout_s is None else timeout_s
            self._entered(self._control.run_sync(lambda: self._enter(limit_s), limit_s + 1.0))
        return self

    async def astart(self, timeout_s: float | None = None) -> Registration:
        """Do what `start` does, in an event loop."""
        if not self.active:
            limit_s = self._timeout_s if timeout_s is None else timeout_s
            future = self._control.submit(lambda: self._enter(limit_s), log_errors=False)
            self._entered(await asyncio.wrap_future(future))
        return self

    def close(self, timeout_s: float = 5.0) -> None:
        """Remove the entry. Does nothing the second time, in a forked child, or after the control plane was closed.

        Args:
            timeout_s: how long to wait; a registry that does not answer removes the entry by itself later.
        """
        if self._leave():
            try:
                self._control.run_sync(lambda: self._registrar.deregister(self.instance), timeout_s)
            except (TimeoutError, MeshClosed) as error:
                _log.warning("%s could not be removed from the registry: %s", self.instance.instance_id, error)

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Do what `close` does, in an event loop."""
        if self._leave():
            try:
                future = self._control.submit(lambda: self._registrar.deregister(self.instance), log_errors=False)
                await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
            except (TimeoutError, MeshClosed) as error:
                _log.warning("%s could not be removed from the registry: %s", self.instance.instance_id, error)

    def __enter__(self) -> Registration:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Registration:
        return await self.astart()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _enter(self, timeout_s: float) -> Instance:
        instance = self.instance
        try:
            async with asyncio.timeout(timeout_s):
                if not instance.host:
                    if not isinstance(self._registrar, KnowsOwnHost):
                        raise RegistrationFailed("this registry needs a `host` to register", service=instance.service)
                    instance = replace(instance, host=await self._registrar.own_host())
                await self._registrar.register(instance)
        except TimeoutError as error:
            text = f"the registry did not take the registration within {timeout_s:g} s"
            raise RegistrationFailed(text, service=instance.service) from error
        return instance

    def _entered(self, instance: Instance) -> None:
        self.instance = instance
        self._pid = os.getpid()
        # After the control plane's own handler, so that it runs before it.
        atexit.register(_close_at_exit, weakref.ref(self))

    def _leave(self) -> bool:
        mine = self.active
        self._pid = None
        return mine


def _close_at_exit(reference: weakref.ref[Registration]) -> None:
    registration = reference()
    if registration is not None:
        registration.close(timeout_s=2.0)
