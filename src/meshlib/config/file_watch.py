"""Files that are followed: when a configuration is to be read again.

Nobody is asked to tell of changes: files are looked at now and then, by what the system keeps of each (device, number,
size, times), links followed. So it makes no difference how one is replaced: written over, renamed over, or by the swap
of a link above it, as Kubernetes does with a ConfigMap. A directory that was searched for files is looked at, too: its
own times change when anything in it comes, goes or is renamed.

A change counts once two looks in a row see the same, so that what is still being written is left alone; and what then
cannot be read is refused only if that is still so at the look after. What was refused is not read again until it
changes.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice, takewhile
from typing import Final, TypeAlias

from meshlib.errors import ConfigError

__all__ = ["SOON_S", "FileWatch", "Signature", "searched", "signature"]

SOON_S: Final = 0.1
"""How soon what has changed is looked at again, to see whether it still changes."""

_MAX_DIRECTORIES: Final = 10_000

Signature: TypeAlias = Mapping[str, tuple[int, ...] | None]
"""What the system keeps of each path; None for one that is not there, or cannot be looked at."""


def signature(paths: Iterable[str]) -> Signature:
    """Look at files and directories, links followed."""
    return {path: _stat(path) for path in paths}


def searched(base: str, pattern: str) -> Iterator[str]:
    """The directories that a glob relative to `base` is looked for in; of very many the first."""
    parts = pattern.split(os.sep)
    fixed = list(takewhile(lambda part: not glob.has_magic(part), parts))
    top = os.path.join(base, os.sep.join(fixed) or (os.sep if os.path.isabs(pattern) else ""))
    if len(fixed) == len(parts) - 1:
        yield top
        return
    for root, directories, _ in islice(os.walk(top), _MAX_DIRECTORIES):
        directories[:] = [each for each in directories if not each.startswith(".")]
        yield root


def _stat(path: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class FileWatch:
    """Follows the files of one configuration. Looks may come from any thread, one at a time.

    Attributes:
        paths: the files and directories that are looked at.
    """

    def __init__(
        self,
        paths: Iterable[str],
        read: Callable[[set[str]], object],
        *,
        look: Callable[[Iterable[str]], Signature] = signature,
    ) -> None:
        """Follow files that were read just now.

        Args:
            paths: the files and directories that were looked at for it.
            read: reads the configuration anew and puts it into force; fills the set it is given with the files and
                directories that it looked at, whatever comes of it.
            look: for tests.
        """
        self._read = read
        self._signature = look
        self._settled = look(paths)
        self._changed: Signature | None = None
        self._failed = False

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(self._settled)

    def settle(self, paths: Iterable[str]) -> None:
        """The configuration was read just now, by somebody else, from these files."""
        self._settle(self._signature(paths))

    def look(self) -> tuple[float, ConfigError | None]:
        """Look at the files, and read them if they are to be read.

        Returns:
            In how many seconds to look again at the latest, and what was refused, if anything was.
        """
        found = self._signature(self._settled)
        if found == self._settled:
            self._changed = None
            return float("inf"), None
        if found != self._changed:
            self._changed, self._failed = found, False
            return SOON_S, None
        seen: set[str] = set()
        try:
            self._read(seen)
        except ConfigError as error:
            return self._refused(found, seen, error)
        # What was looked at before it was read is what was read, or older: then the next look sees that it changed.
        self._settle({**self._signature(seen), **{path: found[path] for path in seen if path in found}})
        return float("inf"), None

    def _refused(self, found: Signature, seen: set[str], error: ConfigError) -> tuple[float, ConfigError | None]:
        if not self._failed:
            self._failed = True
            return float("inf"), None
        # Files that are new to it may be what is wrong.
        self._settle({**self._signature(seen - found.keys()), **found})
        return float("inf"), error

    def _settle(self, found: Signature) -> None:
        self._settled, self._changed, self._failed = found, None, False
