"""Which files a pattern means. No link to a directory is followed below one: links may go round in circles."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from itertools import islice
from typing import Final

__all__ = ["MAX_DIRECTORIES", "globbed", "plainly", "walked"]

MAX_DIRECTORIES: Final = 10_000
"""So many directories are looked through, at most."""


def walked(top: str) -> Iterator[tuple[str, list[str]]]:
    """The directories at and below `top` with the names in them, in order; none that begin with a dot.

    A Kubernetes ConfigMap is mounted as links to files in a directory ``..2026_11_22...``.
    """
    for root, directories, files in islice(os.walk(top), MAX_DIRECTORIES):
        directories[:] = sorted(each for each in directories if not each.startswith("."))
        yield root, [each for each in sorted(files) if not each.startswith(".")]


def globbed(base: str, pattern: str) -> Iterator[str]:
    """What a glob relative to `base` matches; of ``**`` each directory below, as `glob` has it, and perhaps twice."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from glob.iglob(pattern, root_dir=base)
        return
    at = parts.index("**")
    head, tail = os.sep.join(parts[:at]), [each for each in parts[at + 1 :] if each != "**"] or ["*"]
    if not head and os.path.isabs(pattern):
        head = os.sep
    for start in glob.iglob(head, root_dir=base) if glob.has_magic(head) else [head]:
        top = os.path.join(base, start)
        for root, _ in walked(top):
            below = os.path.normpath(os.path.join(start, os.path.relpath(root, top)))
            inner = os.path.join(glob.escape(below), *tail) if below != os.curdir else os.path.join(*tail)
            yield from glob.iglob(inner, root_dir=base)


def plainly(name: str) -> str:
    """A path without its detours, unless links make it another file then."""
    plain = os.path.normpath(name)
    return plain if os.path.realpath(plain) == os.path.realpath(name) else name
