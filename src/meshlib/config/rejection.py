"""How a value is refused: with what is wrong, and the nearest that would be right."""

from __future__ import annotations

from typing import Literal, NoReturn

from pydantic_core import PydanticCustomError

from meshlib.config.nearest import closest

__all__ = ["closest", "reject"]


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
