"""Which file a mesh reads that is given none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import islice
from pathlib import Path as FilePath
from typing import Final

from meshlib.errors import ConfigError

__all__ = ["CONFIG_VARIABLE", "FILE_NAMES", "find_file", "nearest_file"]

CONFIG_VARIABLE: Final = "MESHLIB_CONFIG"
FILE_NAMES: Final = ("mesh.yaml", "mesh.yml", "mesh.toml", "mesh.json")
"""What is looked for in the working directory, in this order."""


def find_file(environ: Mapping[str, str] | None = None, directory: str | os.PathLike[str] = ".") -> str | None:
    """The file of a mesh that is given none: ``$MESHLIB_CONFIG``, else the first of `FILE_NAMES` in `directory`.

    Returns:
        Its path; None where there is none, and the defaults hold.

    Raises:
        ConfigError: if ``$MESHLIB_CONFIG`` names a file that does not exist. (An empty variable is as good as none.)
    """
    named = (os.environ if environ is None else environ).get(CONFIG_VARIABLE)
    if named:
        if not os.path.exists(named):
            hint = nearest_file(FilePath(named))
            raise ConfigError(f"${CONFIG_VARIABLE} names {named}, and there is no such file{hint}")
        return named
    for name in FILE_NAMES:
        path = FilePath(directory) / name
        if path.is_file():
            return os.fspath(path)
    return None


def nearest_file(path: FilePath) -> str:
    """The question whether another file was meant than `path`, which is not there; empty if there is none like it."""
    from meshlib.config.fields import closest

    try:
        # A directory can be as large as it likes; a hint may not take time for it.
        names = [entry.name for entry in islice(os.scandir(path.parent), 1000)]
    except (OSError, ValueError):
        return ""
    nearest = closest(path.name, names)
    return f"; did you mean {os.fspath(path.parent / nearest)!r}?" if nearest else ""
