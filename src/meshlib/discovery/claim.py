"""One entry in the registry for one port, however many processes serve it.

The workers of a server share its port, and each would enter it. So they agree by locks on two files, which the kernel
drops with a process, however it ends:

- ``<port>.members``: every process that serves the port holds a shared lock. Who can lock it alone is the first to
  come, or the last to leave. It holds the id of the entry, which all have in common: when one takes over from another,
  callers see the same instance.
- ``<port>.holder``: the one that holds the entry has an exclusive lock. The others try for it; when the holder is
  gone, `kill -9` included, one of them has it. It says who was last to enter.

The files stay, since a file that is removed may be locked by one process and made anew by the next.
"""

from __future__ import annotations

import hashlib
import os
import sys

from meshlib.discovery import local_files as files
from meshlib.discovery.threads import renew_in_child

if sys.platform != "win32":
    import fcntl

__all__ = ["Claim"]

_MAX_BYTES = 512


class Claim:
    """This process's part in the entry of one port. Does no I/O before `prepare`; nothing here waits.

    Attributes:
        held: whether this process holds the entry.

    Args:
        directory: of the user's, on this machine.
        key: what is entered: the registry, the service, the host and the port.
    """

    def __init__(self, directory: str, key: str) -> None:
        self.held = False
        self._directory = directory
        self._path = os.path.join(directory, "claims", hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:32])
        self._member: int | None = None
        self._holder: int | None = None
        renew_in_child(self)

    def prepare(self) -> None:
        """Make the directory.

        Raises:
            OSError: if it cannot be made, or would not be this user's alone.
        """
        files.prepare_folders(self._directory, os.path.dirname(self._path))

    def join(self, instance_id: str) -> tuple[str, str] | None:
        """Become one of those that serve the port.

        Args:
            instance_id: of the entry, if nobody serves the port yet.

        Returns:
            The id of the entry, and that of an entry which those before have left behind, killed all at once ("" for
            none). None while the last one of them is leaving: try again soon.

        Raises:
            OSError: if the file cannot be opened.
        """
        descriptor = files.open_own(f"{self._path}.members", os.O_RDWR | os.O_CREAT)
        left_behind = ""
        if _lock(descriptor, fcntl.LOCK_EX):
            left_behind = _read(descriptor)
            _write(descriptor, instance_id)
        # From exclusive to shared the lock is free for a moment, so what holds is read afterwards.
        joined = _lock(descriptor, fcntl.LOCK_SH)
        common = _read(descriptor) if joined else ""
        if not common:
            files.close_own(descriptor)
            return None
        self._member = descriptor
        return common, left_behind if common == instance_id else ""

    def take(self) -> bool:
        """Hold the entry, if nobody does. Returns whether this process holds it."""
        if not self.held:
            if self._holder is None:
                self._holder = files.open_own(f"{self._path}.holder", os.O_RDWR | os.O_CREAT)
            self.held = _lock(self._holder, fcntl.LOCK_EX)
        return self.held

    def entered(self) -> None:
        """The entry is made, by this process."""
        if self._holder is not None:
            _write(self._holder, self._name)

    def drop(self) -> None:
        """Leave the entry to another."""
        if self._holder is not None:
            files.close_own(self._holder)
            self._holder, self.held = None, False

    def taken_over(self) -> bool:
        """Whether another process has entered, after this one dropped it."""
        descriptor = files.open_own(f"{self._path}.holder", os.O_RDWR | os.O_CREAT)
        try:
            return _read(descriptor) not in ("", self._name) and not _lock(descriptor, fcntl.LOCK_EX)
        finally:
            files.close_own(descriptor)

    def leave(self) -> None:
        """Be one of those that serve the port no more."""
        if self._member is not None:
            files.close_own(self._member)
            self._member = None

    def close_if_last(self) -> bool:
        """Whether nobody serves the port now, after `leave`. Then nobody can join until `closed`."""
        descriptor = files.open_own(f"{self._path}.members", os.O_RDWR | os.O_CREAT)
        if not _lock(descriptor, fcntl.LOCK_EX):
            files.close_own(descriptor)
            return False
        self._member = descriptor
        return True

    def closed(self) -> None:
        """The entry of the last one is removed."""
        if self._member is not None:
            _write(self._member, "")
        self.leave()
        self.drop()

    @property
    def _name(self) -> str:
        return f"{os.getpid()} {id(self)}"

    def _after_fork(self) -> None:
        # The descriptors were closed in `local_files`.
        self._member = self._holder = None
        self.held = False


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _read(descriptor: int) -> str:
    return os.pread(descriptor, _MAX_BYTES, 0).decode("utf-8", "replace")


def _write(descriptor: int, text: str) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, text.encode(), 0)
