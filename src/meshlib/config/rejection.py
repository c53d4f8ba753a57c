"""How a value is refused: with what is wrong, and the nearest that would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Literal, NoReturn

from pydantic_core import PydanticCustomError

__all__ = ["closest", "reject"]


def closest(word: str, choices: Iterable[str], likeness: float = 0.6) -> str | None:
    """The one of `choices` that `word` was most likely meant to be, or None. Case and ``maxRetries`` do not matter.

    Args:
        word: as written; choices: what there is.
        likeness: how much of both has to be the same, from 0 to 1.
    """
    plain: dict[str, str] = {}
    for choice in choices:
        plain.setdefault(re.sub(r"[^a-z0-9]", "", choice.lower()), choice)
    # difflib takes time in the square of the length, and no field is longer than this.
    found = difflib.get_close_matches(re.sub(r"[^a-z0-9]", "", word[:64].lower()), plain, n=1, cutoff=likeness)
    return plain[found[0]] if found else None


def reject(
    text: str, *, nearest: str | None = None, kind: Literal["value", "type"] = "value", part: str | None = None
) -> NoReturn:
    """Refuse the value under validation: `text` goes on after it ("is not a duration").

    Args:
        text: without anything of the value.
        nearest: what would be right.
        kind: what is wrong about it.
        part: of the value, to be shown where the value itself may be.

    Raises:
        PydanticCustomError: always.
    """
    raise PydanticCustomError(f"meshlib_{kind}", "{text}", {"text": text, "nearest": nearest, "part": part})
