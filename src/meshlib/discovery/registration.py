"""This process's own entry in a registry, from `start` to `close`, and not a moment longer; see `entry`."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import secrets
import socket
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType

from meshlib.config.settings import RegisterSettings
from meshlib.dataclass import dataclass
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.entry import Entry, KnowsOwnHost
from meshlib.discovery.source import Instance, Registrar, SharedRegistrar, Source
from meshlib.durations import format_duration
from meshlib.errors import ConfigError, MeshClosed, RegistrationFailed
from meshlib.telemetry.events import Event

__all__ = ["KnowsOwnHost", "Registration", "RegistrationStatus", "find_registrar", "make_instance"]

_log = logging.getLogger("meshlib")

_NOTICE_S = 1.0


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


@dataclass(frozen=True, slots=True)
class RegistrationStatus:
    """The entry of this process in a registry.

    Attributes:
        service: under which name.
        address: where callers find it; without a host as long as that is not known.
        instance_id: of the entry.
        state: ``registered``, ``lost`` (the registry has lost it, and is given it again), ``standing by`` (another
            process of the port holds it), ``waiting`` (for the port to answer, or the registry), or ``not entered``.
        held_s: for how long this process has held it, in seconds; None if it does not.
        detail: why it is lost; empty otherwise.
    """

    service: str
    address: str
    instance_id: str
    state: str
    held_s: float | None = None
    detail: str = ""

    def __str__(self) -> str:
        since = f" for {format_duration(self.held_s)}" if self.held_s is not None else ""
        why = f" ({self.detail})" if self.detail else ""
        return f"{self.service} at {self.address}: {self.state}{since}{why}, {self.instance_id}"


class Registration:
    """An entry of this process in a registry. Use it with ``with`` or ``async with``, or `start` and `close`.

    It is removed at `close`, and at exit at the latest. Of the processes of this machine that serve the same port
    under the same name, one holds the entry for all; when it ends, however it does, another takes it over, and only the
    last one removes it. A forked child removes nothing: the entry is its parent's.

    Args:
        control: where it is kept up.
        registrar: the registry.
        instance: what to enter; an empty host is filled in by the registrar.
        timeout_s: how long entering may take when used with ``with``.
        tell: takes events, when the registry has lost the entry, and when it has it again.
    """

    def __init__(
        self,
        control: ControlPlane,
        registrar: Registrar,
        instance: Instance,
        *,
        timeout_s: float = 5.0,
        tell: Callable[[Event], None] | None = None,
    ) -> None:
        self._instance = instance
        self._control = control
        self._registrar = registrar
        self._timeout_s = timeout_s
        self._tell = tell
        self._pid: int | None = None
        self._entry: Entry | None = None

    def __repr__(self) -> str:
        state = "entered" if self.held else "stands by" if self.active else "not entered"
        return f"<Registration {self.instance.instance_id} {self.instance.host}:{self.instance.port} [{state}]>"

    @property
    def instance(self) -> Instance:
        """What is entered: with its host and the id in the registry, as far as they are known yet."""
        return self._instance if self._entry is None else self._entry.instance

    @property
    def active(self) -> bool:
        """Whether this process has part in the entry: it holds it, stands by, or waits for its port to answer."""
        return self._pid == os.getpid()

    @property
    def held(self) -> bool:
        """Whether this process holds the entry."""
        return self.active and self._entry is not None and self._entry.entered

    @property
    def known(self) -> bool:
        """Whether callers may have heard of this process by it."""
        return self.active and self._entry is not None and self._entry.known

    @property
    def status(self) -> RegistrationStatus:
        """How things are with it."""
        instance, entry = self.instance, self._entry if self.active else None
        host = f"[{instance.host}]" if ":" in instance.host else instance.host
        state, held_s, lost = "waiting" if self.active else "not entered", None, ""
        if self.held:
            lost = "" if entry is None else entry.lost
            state = "lost" if lost else "registered"
            if entry is not None and entry.entered_at is not None:
                held_s = max(0.0, time.monotonic() - entry.entered_at)
        elif self.known:
            state = "standing by"
        address = f"{host}:{instance.port}"
        return RegistrationStatus(instance.service, address, instance.instance_id, state, held_s, lost)

    @property
    def notice_s(self) -> float:
        """How long it takes until callers have heard that the entry has gone."""
        return self._registrar.notice_s if isinstance(self._registrar, SharedRegistrar) else _NOTICE_S

    def begin(self) -> Registration:
        """Enter the instance as soon as its port answers; does not wait for that. Does nothing if it is active."""
        if not self.active:
            entry = self._take_part()

            async def begin() -> None:
                entry.begin()

            self._control.submit(begin)
        return self

    def start(self, timeout_s: float | None = None) -> Registration:
        """Enter the instance, and return this registration. Does nothing if it is active already.

        Args:
            timeout_s: how long it may take, in seconds; None for the one given at construction.

        Raises:
            RegistrationFailed: if it cannot be entered, or not within `timeout_s`.
        """
        if not self.active:
            limit_s = self._timeout_s if timeout_s is None else timeout_s
            entry = self._new_entry()
            self._control.run_sync(lambda: _enter(entry, limit_s), limit_s + 1.0)
            self._take_part(entry)
        return self

    async def astart(self, timeout_s: float | None = None) -> Registration:
        """Do what `start` does, in an event loop."""
        if not self.active:
            limit_s = self._timeout_s if timeout_s is None else timeout_s
            entry = self._new_entry()
            await asyncio.wrap_future(self._control.submit(lambda: _enter(entry, limit_s), log_errors=False))
            self._take_part(entry)
        return self

    def close(self, timeout_s: float = 5.0) -> None:
        """Remove the entry. Does nothing the second time, in a forked child, or after the control plane was closed.

        Args:
            timeout_s: how long to wait; a registry that does not answer removes the entry by itself later.
        """
        entry = self._leave()
        if entry is not None:
            try:
                self._control.run_sync(entry.leave, timeout_s)
            except (TimeoutError, MeshClosed) as error:
                self._not_removed(error)

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Do what `close` does, in an event loop."""
        entry = self._leave()
        if entry is not None:
            try:
                future = self._control.submit(entry.leave, log_errors=False)
                await asyncio.wait_for(asyncio.wrap_future(future), timeout_s)
            except (TimeoutError, MeshClosed) as error:
                self._not_removed(error)

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

    async def withdraw(self) -> None:
        """Do what `close` does, on the control plane's loop."""
        entry = self._leave()
        if entry is not None:
            await entry.leave()

    def _new_entry(self) -> Entry:
        return Entry(self._registrar, self._instance, self._tell)

    def _take_part(self, entry: Entry | None = None) -> Entry:
        entry = self._new_entry() if entry is None else entry
        self._entry, self._pid = entry, os.getpid()
        # After the control plane's own handler, so that it runs before it.
        atexit.register(_close_at_exit, weakref.ref(self))
        return entry

    def _leave(self) -> Entry | None:
        self._instance = self.instance
        entry = self._entry if self.active else None
        self._pid = self._entry = None
        return entry

    def _not_removed(self, error: Exception) -> None:
        _log.warning("%s could not be removed from the registry: %s", self.instance.instance_id, error)


async def _enter(entry: Entry, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await entry.enter()
    except TimeoutError as error:
        text = f"the registry did not take the registration within {timeout_s:g} s"
        raise RegistrationFailed(text, service=entry.instance.service) from error


def _close_at_exit(reference: weakref.ref[Registration]) -> None:
    registration = reference()
    if registration is not None:
        registration.close(timeout_s=2.0)
