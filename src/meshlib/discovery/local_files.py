"""The files of the embedded registry: how an entry is written, how it is known to be alive, and how it goes.

One entry is one file, ``<directory>/v1/<service>/<instance>.<nonce>.json``, and these rules make it safe without a
server:

- The owner holds an exclusive `flock` on its file for life. The kernel drops the lock with the process, however it
  ends; a file that can be locked is dead, and whoever sees it removes it.
- A file is locked and written under a temporary name, then renamed: a reader never sees half an entry, nor an entry
  that is not yet locked.
- A path is used once. A change is a new file with a new nonce, after which the old one is removed. So a reader that
  found a file dead can remove it by name and never hits another, and what was read of a path stays true.
- Only the owner of the directory can write there, so there are no symbolic links of anybody else's to follow.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from meshlib.dataclass import dataclass
from meshlib.discovery.source import is_host
from meshlib.discovery.threads import native_lock

if sys.platform != "win32":
    import fcntl

__all__ = [
    "Entry",
    "Held",
    "RegistryUnusable",
    "close_own",
    "default_directory",
    "enter",
    "folder_of",
    "is_dead",
    "names",
    "open_own",
    "prepare",
    "prepare_folders",
    "read",
    "root_of",
]

_MAX_ENTRY_BYTES = 64 * 1024
_MAX_NAME = 120
_TEMPORARY = ".new-"
_ABANDONED_AFTER_S = 10.0
_READ = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL

_guard = native_lock()
_locked: set[int] = set()


class RegistryUnusable(OSError):
    """The directory is not one that only this user can write to."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file says of an instance. Of two that name the same instance the one with the higher `sequence` counts."""

    service: str
    instance_id: str
    host: str
    port: int
    weight: float
    metadata: dict[str, str]
    healthy: bool
    sequence: int
    pid: int


@dataclass(slots=True)
class Held:
    """A file that this process has entered, and the descriptor by which it is locked."""

    path: str
    descriptor: int

    def exists(self) -> bool:
        """Whether the file is still in its place."""
        try:
            return os.stat(self.path, follow_symlinks=False).st_ino == os.fstat(self.descriptor).st_ino
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the entry: the name first, so that no reader finds it unlocked. Without the lock it is dead anyway."""
        _remove(self.path)
        close_own(self.descriptor)
        try:
            os.rmdir(os.path.dirname(self.path))
        except OSError:
            pass  # others are in it


def default_directory() -> str:
    """Return ``$MESHLIB_LOCAL_DIR``, else ``$XDG_RUNTIME_DIR/meshlib``, else one in the temporary directory."""
    if given := os.environ.get("MESHLIB_LOCAL_DIR"):
        return given
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(runtime, "meshlib")
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return os.path.join(tempfile.gettempdir(), f"meshlib-{user}")


def root_of(directory: str) -> str | None:
    """Return the folder of entries in `directory`, or None if there is none yet.

    Raises:
        RegistryUnusable: if anybody else could have written there.
    """
    root = os.path.join(directory, "v1")
    for path in (directory, root):
        try:
            _verify(path)
        except FileNotFoundError:
            return None
    return root


def prepare(directory: str, service: str) -> str:
    """Make and return the folder of `service`, for its owner alone.

    Raises:
        OSError: if it cannot be made; `RegistryUnusable` if it would not be this user's alone.
    """
    folder = os.path.join(directory, "v1")
    prepare_folders(directory, folder, folder_of(folder, service))
    return folder_of(folder, service)


def prepare_folders(directory: str, *folders: str) -> None:
    """Make `directory`, and `folders` in it, each above the next, for their owner alone.

    Raises:
        OSError: if one cannot be made; `RegistryUnusable` if it would not be this user's alone.
    """
    if sys.platform == "win32":
        raise RegistryUnusable("the local registry needs file locks of the POSIX kind; use another discovery source")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    _verify(directory)
    for path in folders:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            _verify(path)


def folder_of(root: str, service: str) -> str:
    """Return the folder of `service` under `root`."""
    return os.path.join(root, _file_name(service))


def enter(folder: str, entry: Entry) -> Held:
    """Write `entry` and hold it.

    Raises:
        OSError: if it cannot be written; nothing is left behind then.
    """
    temporary = os.path.join(folder, f"{_TEMPORARY}{os.urandom(8).hex()}")
    final = os.path.join(folder, f"{_file_name(entry.instance_id)}.{os.urandom(6).hex()}.json")
    descriptor = open_own(temporary, _CREATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        body = json.dumps({name: getattr(entry, name) for name in Entry.__slots__}).encode()
        if len(body) > _MAX_ENTRY_BYTES:
            raise OSError(errno.EFBIG, f"an entry of {len(body)} bytes; at most {_MAX_ENTRY_BYTES} are allowed")
        while body:
            body = body[os.write(descriptor, body) :]
        os.rename(temporary, final)
    except BaseException:
        close_own(descriptor)
        _remove(temporary)
        raise
    return Held(final, descriptor)


def names(folder: str) -> Iterator[str]:
    """Yield the names of all entries in `folder`, and clear away what writers that were killed have left.

    Raises:
        OSError: if the folder cannot be read; FileNotFoundError if there is none.
    """
    with os.scandir(folder) as found:
        for item in found:
            if item.name.endswith(".json"):
                yield item.name
            elif item.name.startswith(_TEMPORARY):
                _sweep(item)


def is_dead(path: str) -> bool:
    """Whether the owner of the entry at `path` has ended; if so, remove it."""
    try:
        descriptor = os.open(path, _READ)
    except OSError as error:
        return error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR)
    try:
        if not _lockable(descriptor):
            return False
    finally:
        os.close(descriptor)
    _remove(path)
    return True


def read(path: str) -> Entry | None:
    """Return what the entry at `path` says; None if it is dead or gone.

    Raises:
        ValueError: if it is no entry.
        OSError: if it cannot be read.
    """
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        if status.st_uid != os.geteuid():
            raise ValueError(f"owned by user {status.st_uid}")
        if status.st_size > _MAX_ENTRY_BYTES:
            raise ValueError(f"{status.st_size} bytes; an entry has at most {_MAX_ENTRY_BYTES}")
        if _lockable(descriptor):
            if not _is_ours(path):
                raise ValueError("no entry of a running process")
            _remove(path)
            return None
        body = os.read(descriptor, _MAX_ENTRY_BYTES + 1)
    finally:
        os.close(descriptor)
    return _entry(json.loads(body))


def _entry(data: Any) -> Entry:
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    fields: dict[str, Any] = {name: data.get(name) for name in Entry.__slots__}
    entry = Entry(**fields)
    for name in ("service", "instance_id", "host"):
        if not isinstance(fields[name], str):
            raise ValueError(f"{name} is no text")
    for name in ("port", "sequence", "pid"):
        if type(fields[name]) is not int:
            raise ValueError(f"{name} is no whole number")
    if type(fields["weight"]) not in (int, float):
        raise ValueError("weight is no number")
    metadata = fields["metadata"]
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("metadata is not a table of strings")
    if not is_host(entry.host):
        raise ValueError("host is neither a name nor an address")
    if not 1 <= entry.port <= 65535 or not 0 < entry.weight <= sys.float_info.max:
        raise ValueError("port or weight is out of range")
    return entry


def _file_name(name: str) -> str:
    """Return `name` as one component of a path: no separator, no leading dot, bounded, and its own for every name."""
    quoted = quote(name, safe="", errors="surrogatepass")
    if name.startswith("."):
        quoted = quoted.replace(".", "%2E")
    if not quoted:
        return "%"
    if len(quoted) <= _MAX_NAME:
        return quoted
    return f"{quoted[: _MAX_NAME - 41]}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:40]}"


def _verify(path: str) -> None:
    status = os.stat(path, follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        raise RegistryUnusable(f"{path} is a symbolic link; give the directory itself")
    if not stat.S_ISDIR(status.st_mode):
        raise RegistryUnusable(f"{path} is not a directory")
    if status.st_uid != os.geteuid():
        raise RegistryUnusable(
            f"{path} belongs to user {status.st_uid}, this process runs as user {os.geteuid()}; "
            "instances find each other only within one user: set $MESHLIB_LOCAL_DIR to a directory of its own"
        )
    if status.st_mode & 0o022:
        raise RegistryUnusable(
            f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):03o}), who could direct calls to "
            f"themselves; `chmod go-w {path}`, or choose another directory"
        )


def _lockable(descriptor: int) -> bool:
    # Shared, so that two readers who look at once do not take each other for the owner.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_ours(path: str) -> bool:
    """Whether the file is named as we name them; anything else is not ours to remove."""
    parts = Path(path).name.rsplit(".", 2)
    return len(parts) == 3 and len(parts[1]) == 12 and set(parts[1]) <= set("0123456789abcdef")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # somebody else was first, or the disk is read-only


def _sweep(item: os.DirEntry[str]) -> None:
    try:
        # A young one may be about to be locked.
        if time.time() - item.stat(follow_symlinks=False).st_mtime > _ABANDONED_AFTER_S:
            is_dead(item.path)
    except OSError:
        pass


def open_own(path: str, flags: int) -> int:
    """Open a file of this process's own, to lock it: a forked child gives the descriptor up at once.

    Raises:
        OSError: if it cannot be opened.
    """
    with _guard:
        descriptor = os.open(path, flags | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        _locked.add(descriptor)
    return descriptor


def close_own(descriptor: int) -> None:
    """Close what `open_own` opened, if this process still has it."""
    with _guard:
        if descriptor in _locked:
            _locked.remove(descriptor)
            os.close(descriptor)


def _drop_in_child() -> None:
    # A lock belongs to the open file, which a fork shares: the child's copy would keep a dead parent's entry alive.
    for descriptor in _locked:
        os.close(descriptor)
    _locked.clear()
    _guard.release()


# The guard is held over the fork, so that no other thread has opened a file that is not in the set yet.
os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_drop_in_child)
