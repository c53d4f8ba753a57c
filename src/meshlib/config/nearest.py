"""The name that another one, which is wrong, was most likely meant to be."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

__all__ = ["closest", "nearest_of"]

_MAX_NAMES = 1000
"""Among more the nearest is not looked for at run time: it takes long, and the wrong one may be a caller's."""


def closest(word: str, choices: Iterable[str], likeness: float = 0.6) -> str | None:
    """The one of `choices` that `word` was most likely meant to be, or None. Case and ``maxRetries`` do not matter.

    Args:
        word: as written; choices: what there is.
        likeness: how much of both has to be the same, from 0 to 1.
    """
    import difflib  # only where something is wrong

    plain: dict[str, str] = {}
    for choice in choices:
        plain.setdefault(re.sub(r"[^a-z0-9]", "", choice.lower()), choice)
    # difflib takes time in the square of the length, and no field is longer than this.
    found = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", word[:64].lower()), plain, n=1, cutoff=likeness)
    return plain[found[0]] if found else None


def nearest_of(name: str, names: Collection[str]) -> str:
    """What a message about a name that nobody knows adds: the nearest that there is, or nothing.

    Args:
        name: as written; names: those that there are.
    """
    near = closest(name, names) if len(names) <= _MAX_NAMES and name not in names else None
    return f"; the nearest is {near!r}" if near else ""
