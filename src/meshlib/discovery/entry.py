"""This process's part in the entry of its port: it holds it, or stands by while another process holds it.

All of it runs on the control plane's loop. Where the registrar cannot share entries, or this machine has no directory
for the claim, each process has an entry of its own.
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol, runtime_checkable

from meshlib.dataclass import replace
from meshlib.discovery import local_files
from meshlib.discovery.claim import Claim
from meshlib.discovery.source import Instance, Registrar, SharedRegistrar, TellingRegistrar
from meshlib.errors import RegistrationFailed
from meshlib.telemetry.events import Event, RegistrationLost, RegistrationRestored

__all__ = ["Entry", "KnowsOwnHost"]

_log = logging.getLogger("meshlib")

_LOOK_S = 0.1
_AGAIN_S = 1.0
_TAKEN_OVER_IN_S = 2.0
_WONDER_AFTER_S = 10.0
_PROBE_S = 1.0


@runtime_checkable
class KnowsOwnHost(Protocol):
    """A registrar that can tell under which address others reach this process."""

    async def own_host(self) -> str:
        """Return it.

        Raises:
            RegistrationFailed: if it cannot be told.
        """
        ...


class Entry:
    """The entry of one instance.

    Attributes:
        instance: as it is entered: with its host, and the id that all processes of the port have in common.
        entered: whether this process holds it.
        entered_at: since when, on the monotonic clock.
        lost: why the registry has lost it; empty if it has not, as far as is known.

    Args:
        registrar: the registry.
        instance: what to enter.
        tell: takes events.
    """

    def __init__(self, registrar: Registrar, instance: Instance, tell: Callable[[Event], None] | None = None) -> None:
        self.instance = instance
        self.entered = False
        self.entered_at: float | None = None
        self.lost = ""
        self._tell = tell
        self._registrar = registrar
        self._claim: Claim | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def known(self) -> bool:
        """Whether callers may have heard of the port by it."""
        return self.entered or self._claim is not None

    def begin(self) -> None:
        """Enter as soon as the port answers, and try until it succeeds."""
        task = asyncio.get_running_loop().create_task(self._enter_when_it_answers(), name="meshlib register")
        self._task = task

    async def enter(self) -> None:
        """Enter, or stand by.

        Raises:
            RegistrationFailed: if the registry does not take it; then nothing is held.
        """
        await self._find_host()
        try:
            await self._join()
            if self._claim is None or self._claim.take():
                await self._register()
            else:
                self._task = asyncio.get_running_loop().create_task(self._stand_by(), name="meshlib stand by")
        except BaseException:
            self._give_up()
            raise

    async def leave(self) -> None:
        """Remove the entry, or leave it to the processes that go on serving the port."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        try:
            if self._claim is not None:
                self._claim.leave()
            if self.entered:
                self.entered = False
                await self._remove(self._claim)
        finally:
            self._give_up()

    async def _remove(self, claim: Claim | None) -> None:
        if claim is not None:
            ends_at = time.monotonic() + _TAKEN_OVER_IN_S
            while not claim.close_if_last():
                claim.drop()
                if claim.taken_over():
                    assert isinstance(self._registrar, SharedRegistrar)
                    await self._registrar.hand_over(self.instance)
                    return
                if time.monotonic() > ends_at:
                    break  # nobody is able to: the entry is better gone than stale
                await asyncio.sleep(0.02)
        await self._registrar.deregister(self.instance)
        if claim is not None:
            claim.closed()

    async def _find_host(self) -> None:
        if not self.instance.host:
            if not isinstance(self._registrar, KnowsOwnHost):
                raise RegistrationFailed("this registry needs a `host` to register", service=self.instance.service)
            self.instance = replace(self.instance, host=await self._registrar.own_host())

    async def _join(self) -> None:
        registrar = self._registrar
        if not isinstance(registrar, SharedRegistrar):
            return
        instance = self.instance
        key = f"{socket.gethostname()} {registrar.place} {instance.service} {instance.host} {instance.port}"
        claim = Claim(getattr(registrar, "directory", "") or local_files.default_directory(), key)
        try:
            claim.prepare()
            joined = claim.join(instance.instance_id)
            while joined is None:
                await asyncio.sleep(0.01)
                joined = claim.join(instance.instance_id)
        except OSError as error:
            text = "each process of %s:%d has an entry of its own, as they cannot agree on one: %s"
            _log.warning(text, instance.host, instance.port, error)
            return
        self._claim = claim
        common, left_behind = joined
        self.instance = replace(instance, instance_id=common)
        if left_behind:
            await registrar.clear(replace(instance, instance_id=left_behind))

    async def _register(self) -> None:
        await self._registrar.register(self.instance)
        self.entered, self.entered_at = True, time.monotonic()
        if isinstance(self._registrar, TellingRegistrar):
            standing = self._registrar.standing(self.instance)
            if standing is not None:
                standing.changed = self._changed
        if self._claim is not None:
            self._claim.entered()

    def _changed(self, lost: str) -> None:
        """The registry has lost the entry, or has it again."""
        self.lost = lost
        if self._tell is not None:
            name, where = self.instance.service, f"as {self.instance.host}:{self.instance.port}"
            self._tell(
                RegistrationLost(service=name, detail=lost)
                if lost
                else RegistrationRestored(service=name, detail=where)
            )

    async def _stand_by(self) -> None:
        """Wait for the one that holds the entry to end, then hold it."""
        assert self._claim is not None
        complaint = ""
        while not self.entered:
            await asyncio.sleep(_LOOK_S * random.uniform(0.5, 1.0))
            if self._claim.take():
                try:
                    await self._register()
                except RegistrationFailed as error:
                    complaint = self._complain(error, complaint)
                    await asyncio.sleep(_AGAIN_S)

    async def _enter_when_it_answers(self) -> None:
        complaint = ""
        while True:
            try:
                await self._find_host()
                await self._until_it_answers()
                await self.enter()
                return
            except RegistrationFailed as error:
                complaint = self._complain(error, complaint)
            await asyncio.sleep(_AGAIN_S * random.uniform(0.5, 1.0))

    async def _until_it_answers(self) -> None:
        began = time.monotonic()
        told = False
        while not await _answers(self.instance.host, self.instance.port):
            waited_s = time.monotonic() - began
            if waited_s > _WONDER_AFTER_S and not told:
                told = True
                text = "%s is not registered yet: nothing answers at %s:%d; is that where it serves?"
                _log.warning(text, self.instance.service, self.instance.host, self.instance.port)
            await asyncio.sleep(min(0.5, 0.03 + waited_s / 10))

    def _complain(self, error: RegistrationFailed, before: str) -> str:
        if error.message != before:
            _log.warning("%s is not registered yet: %s", self.instance.service, error.message)
        return error.message

    def _give_up(self) -> None:
        if self._claim is not None:
            self._claim.leave()
            self._claim.drop()
            self._claim = None


async def _answers(host: str, port: int) -> bool:
    """Whether somebody listens. A host may not reach itself by the address that others know it by."""
    try:
        return await _connects(host, port)
    except (OSError, TimeoutError):
        with suppress(OSError, TimeoutError):
            return await _connects("127.0.0.1", port)
        return False


async def _connects(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_PROBE_S):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return False
    writer.transport.abort()
    return True
