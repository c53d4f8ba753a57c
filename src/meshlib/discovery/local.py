"""The embedded registry of one machine: a directory of the user's, in which each instance holds one locked file.

No server, and nothing to clean up: an instance is there for as long as its process lives, and the kernel takes it away.
How the files work is in `local_files.py`; this file watches them, and keeps this process's own entries. It is there by
default, also where nobody needs a loop, so it loads asyncio only in what runs on one.
"""

from __future__ import annotations

import errno
import logging
import os
import random
import time
from collections.abc import AsyncGenerator, Iterable
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from meshlib.balance.endpoint import Endpoint, Health
from meshlib.config.settings import LocalSettings
from meshlib.discovery import local_files as files
from meshlib.discovery.locality import locality_of
from meshlib.discovery.probe import probe
from meshlib.discovery.source import UNKNOWN, Answer, Instance, Standing
from meshlib.discovery.threads import abandon, renew_in_child
from meshlib.errors import DiscoveryUnavailable, RegistrationFailed

if TYPE_CHECKING:
    from asyncio import Task

__all__ = ["LocalRegistry"]

_log = logging.getLogger("meshlib")

_RESCAN_S = 5.0
"""The whole directory is read again after so long, whatever its time stamp says."""
_UNSETTLED_S = 2.0
"""A directory changed so recently may change again within the same tick of its time stamp."""
_TESTS_PER_POLL = 200
"""Locks tested per look, in turns: a long directory costs no more than a short one, and only sees a death later."""
_KEEP_S = 1.0
_MARGIN_S = 0.4
_STARTING_S = 0.25
_IGNORABLE = frozenset({errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM, errno.EISDIR})


class LocalRegistry:
    """A `Source` and a `Registrar` over a directory.

    Args:
        settings: where it is, and how often it is looked at.
    """

    name = "local"

    def __init__(self, settings: LocalSettings) -> None:
        self.directory = self.place = os.path.abspath(settings.directory or files.default_directory())
        # One look of a caller, and one that came late.
        self.notice_s = 2.0 * settings.poll_interval_s + _MARGIN_S
        self._poll_interval_s = settings.poll_interval_s
        self._kept: dict[tuple[str, str], _Kept] = {}
        renew_in_child(self)

    def __repr__(self) -> str:
        return f"<LocalRegistry {self.directory} [{len(self._kept)} own entries]>"

    async def watch(self, service: str) -> AsyncGenerator[Answer, None]:
        """Yield the live instances of `service` at each change; `UNKNOWN` while there is none.

        Raises:
            DiscoveryUnavailable: if the directory cannot be read, or others than this user can write to it.
        """
        import asyncio

        scan = _Scan(self.directory, service)
        last: Answer | None = None
        while True:
            try:
                if scan.needs_reading():
                    await asyncio.to_thread(scan.read_all)
            except OSError as error:
                text = f"the local registry at {self.directory} cannot be read: {_why(error)}"
                raise DiscoveryUnavailable(text, service=service) from error
            if scan.answer != last:
                last = scan.answer
                yield last
            await asyncio.sleep(self._poll_interval_s)

    async def register(self, instance: Instance) -> None:
        """Enter `instance`, check it, and keep it entered.

        With a `check_path` the instance is unhealthy until the path first answers 2xx; without one it is healthy for as
        long as the process lives.

        Raises:
            RegistrationFailed: if the entry cannot be written.
        """
        if not 0 < instance.weight < float("inf") or not 1 <= instance.port <= 65535:
            raise RegistrationFailed(
                f"port {instance.port}, weight {instance.weight}: a port is 1 to 65535, a weight above 0",
                service=instance.service,
                retryable=False,
            )
        from asyncio import get_running_loop

        await self.deregister(instance)
        kept = _Kept(self.directory, instance)
        await kept.check()
        try:
            kept.write()
        except OSError as error:
            text = f"cannot be entered into the local registry at {self.directory}: {_why(error)}"
            raise RegistrationFailed(text, service=instance.service) from error
        self._kept[instance.service, instance.instance_id] = kept
        kept.task = get_running_loop().create_task(kept.keep(), name=f"meshlib keep {instance.instance_id}")

    async def deregister(self, instance: Instance) -> None:
        """Remove `instance`; one that another process entered is left alone."""
        kept = self._kept.pop((instance.service, instance.instance_id), None)
        if kept is not None:
            await kept.end()

    async def hand_over(self, instance: Instance) -> None:
        """Remove this process's file: the other's is there already."""
        await self.deregister(instance)

    def standing(self, instance: Instance) -> Standing | None:
        """Whether the file of `instance` is still there, which is looked at once a second."""
        kept = self._kept.get((instance.service, instance.instance_id))
        return None if kept is None else kept.standing

    async def clear(self, instance: Instance) -> None:
        """Do nothing: what nobody holds is not there."""

    async def own_host(self) -> str:
        """Return the address under which instances on this machine reach each other."""
        return "127.0.0.1"

    async def aclose(self) -> None:
        """Remove this process's entries."""
        for kept in list(self._kept.values()):
            await kept.end()
        self._kept.clear()

    def _after_fork(self) -> None:
        # The parent's entries are the parent's; their descriptors were closed in `local_files`.
        abandon(*self._kept.values())
        self._kept = {}


class _Scan:
    """What one watch knows of the folder of one service."""

    def __init__(self, directory: str, service: str) -> None:
        self._directory = directory
        self._service = service
        self._folder = files.folder_of(os.path.join(directory, "v1"), service)
        self._entries: dict[str, files.Entry] = {}
        self._ignored: set[str] = set()
        self._stamp: tuple[int, int] | None = None
        self._read_at: float | None = None
        self._turn = 0
        self.answer: Answer = UNKNOWN

    def needs_reading(self) -> bool:
        """Whether anything may have changed; costs one look at the folder and at some locks."""
        stamp = self._look()
        if self._read_at is None or stamp != self._stamp:
            return True
        if stamp is None:
            return False
        if time.monotonic() - self._read_at > _RESCAN_S or abs(time.time_ns() - stamp[1]) < _UNSETTLED_S * 1e9:
            return True
        dead = [name for name in self._next_names() if files.is_dead(os.path.join(self._folder, name))]
        return bool(dead)

    def read_all(self) -> None:
        """Read what is new, and drop what is gone."""
        files.root_of(self._directory)
        for _ in range(4):
            # Until nothing moves meanwhile: an owner that replaces its entry adds the new file before it removes the
            # old one, and a listing under way may miss both.
            self._stamp = self._look()
            if self._read_once() and self._look() == self._stamp:
                break
        self._read_at = time.monotonic()
        self.answer = self._summary()

    def _summary(self) -> Answer:
        newest: dict[str, files.Entry] = {}
        for entry in self._entries.values():
            if entry.service == self._service:
                known = newest.get(entry.instance_id)
                if known is None or known.sequence < entry.sequence:
                    newest[entry.instance_id] = entry
        return tuple(_endpoint(newest[key]) for key in sorted(newest)) or UNKNOWN

    def _look(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def _read_once(self) -> bool:
        try:
            listed = set(files.names(self._folder))
        except FileNotFoundError:
            listed = set()
        complete = True
        for name in listed - self._ignored:
            path = os.path.join(self._folder, name)
            if name in self._entries:
                if not files.is_dead(path):
                    continue
            elif self._take(name, path):
                continue
            listed.discard(name)
            complete = False
        self._entries = {name: entry for name, entry in self._entries.items() if name in listed}
        self._ignored &= listed
        return complete

    def _take(self, name: str, path: str) -> bool:
        """Read one entry. Return False if it is dead."""
        try:
            entry = files.read(path)
        except (ValueError, RecursionError) as error:
            return self._ignore(name, path, error)
        except OSError as error:
            if error.errno not in _IGNORABLE:
                raise
            return self._ignore(name, path, error)
        if entry is None:
            return False
        self._entries[name] = entry
        return True

    def _ignore(self, name: str, path: str, error: Exception) -> bool:
        self._ignored.add(name)
        _log.warning("the local registry ignores %s: %s", path, error)
        return True

    def _next_names(self) -> Iterable[str]:
        if len(self._entries) <= _TESTS_PER_POLL:
            return tuple(self._entries)
        start = self._turn % len(self._entries)
        self._turn = start + _TESTS_PER_POLL
        return tuple(islice(self._entries, start, start + _TESTS_PER_POLL))


class _Kept:
    """An entry of this process, and the task that keeps it."""

    def __init__(self, directory: str, instance: Instance) -> None:
        self._directory = directory
        self._instance = instance
        self._healthy = self._said_healthy = True
        self._held: files.Held | None = None
        self._complaint = ""
        self.standing = Standing()
        self.task: Task[None] | None = None

    async def check(self) -> None:
        """Check the instance, if it has something to check."""
        if self._instance.check_path is None:
            return
        timeout_s = max(0.05, min(self._instance.check_interval_s, 2.0))
        problem = await probe(self._instance.host, self._instance.port, self._instance.check_path, timeout_s)
        self._healthy = problem is None

    def write(self) -> None:
        """Enter the instance as it is now, in place of what was there."""
        instance = self._instance
        entry = files.Entry(
            service=instance.service,
            instance_id=instance.instance_id,
            host=instance.host,
            port=instance.port,
            weight=instance.weight,
            metadata=dict(instance.metadata),
            healthy=self._healthy,
            sequence=time.time_ns(),
            pid=os.getpid(),
        )
        held = self._enter(entry)
        old, self._held = self._held, held
        self._said_healthy = entry.healthy
        if old is not None:
            old.remove()

    def _enter(self, entry: files.Entry) -> files.Held:
        for _ in range(20):
            try:
                return files.enter(files.prepare(self._directory, entry.service), entry)
            except FileNotFoundError:
                continue  # the last one to leave has just removed the folder
        return files.enter(files.prepare(self._directory, entry.service), entry)

    async def keep(self) -> None:
        """Check the instance at its interval, and enter it again if its file was removed."""
        import asyncio

        interval_s = self._instance.check_interval_s
        # Until it first passes, it is starting: looked at more often, so that it is not idle for a whole interval.
        starting = not self._healthy
        while True:
            wait_s = min(_STARTING_S, interval_s) if starting else interval_s
            check_at = time.monotonic() + wait_s * random.uniform(0.9, 1.0)
            while (left_s := check_at - time.monotonic()) > 0:
                await asyncio.sleep(min(left_s, _KEEP_S))
                self._renew()
            await self.check()
            starting = starting and not self._healthy
            self._renew()

    def _renew(self) -> None:
        there = self._held is not None and self._held.exists()
        if there and self._said_healthy is self._healthy:
            return
        if not there:
            self.standing.lost(f"its file in the local registry at {self._directory} is gone")
        try:
            self.write()
            self._complaint = ""
            self.standing.there()
        except OSError as error:
            if self._complaint != (why := _why(error)):
                self._complaint = why
                text = "the entry of %s in the local registry could not be renewed: %s"
                _log.warning(text, self._instance.instance_id, why)

    async def end(self) -> None:
        import asyncio

        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        if self._held is not None:
            self._held.remove()
            self._held = None


def _endpoint(entry: files.Entry) -> Endpoint:
    return Endpoint(
        host=entry.host,
        port=entry.port,
        weight=float(entry.weight),
        instance_id=entry.instance_id,
        locality=locality_of(entry.metadata),
        metadata=MappingProxyType(entry.metadata),
        health=Health.HEALTHY if entry.healthy else Health.UNHEALTHY,
    )


def _why(error: OSError) -> str:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT:
            return f"the disk is full ({error})"
        case errno.EROFS:
            return f"the disk is read-only ({error})"
        case errno.EACCES | errno.EPERM:
            return f"this user may not ({error})"
        case _:
            return str(error)
