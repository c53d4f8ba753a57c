"""Names as the native form has them, made of those that documents have."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["fitting_name", "route_name"]

_UNFIT = re.compile(r"[^a-z0-9._-]+")
_LONGEST: Final = 200
"""Short enough for a number at its end, and for the name of a route that hands over in front."""


def fitting_name(text: str) -> str:
    """A name as near to `text` as can be; empty if nothing is left of it."""
    return _UNFIT.sub("-", text.lower()).strip("-._")


def route_name(name: str, taken: set[str]) -> str:
    """The name of a route, as none of those in `taken` is called, to which it is added. ``default`` is another's."""
    stem = fitting_name(fitting_name(name)[:_LONGEST]) or "route"
    stem = "route-default" if stem == "default" else stem
    found, number = stem, 1
    while found in taken:
        number += 1
        found = f"{stem}-{number}"
    taken.add(found)
    return found
