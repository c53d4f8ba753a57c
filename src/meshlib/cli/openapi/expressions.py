"""Types and calls as Python writes them, laid out as ruff and black lay them out: on one line, or an item a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["NONE", "Call", "Expression", "Name", "Subscript", "Union", "lay_out", "optional", "union"]

WIDTH: Final = 88


@dataclass(frozen=True)
class Name:
    """What cannot be broken: a name, a literal."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Subscript:
    """``dict[str, Order]``."""

    head: str
    items: tuple[Expression, ...]

    def __str__(self) -> str:
        return f"{self.head}[{', '.join(map(str, self.items))}]"


@dataclass(frozen=True)
class Union:
    """``Order | None``."""

    items: tuple[Expression, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.items))


@dataclass(frozen=True)
class Call:
    """``Field(alias="x")``; or a map, ``{404: Problem}``, with other brackets."""

    head: str
    items: tuple[tuple[str, Expression], ...]
    brackets: str = "()"

    def __str__(self) -> str:
        return self.head + self.brackets[0] + ", ".join(f"{name}{item}" for name, item in self.items) + self.brackets[1]


Expression = Name | Subscript | Union | Call

NONE = Name("None")


def union(items: Sequence[Expression]) -> Expression:
    """One of several; each once, None last."""
    found = (each for item in items for each in (item.items if isinstance(item, Union) else (item,)))
    flat = list(dict.fromkeys(found))
    if Name("Any") in flat or not flat:
        return Name("Any")
    flat.sort(key=lambda each: each == NONE)
    return flat[0] if len(flat) == 1 else Union(tuple(flat))


def optional(item: Expression) -> Expression:
    """That, or None."""
    return union((item, NONE))


def lay_out(expression: Expression, indent: str = "", before: str = "", after: str = "") -> list[str]:
    """The lines of an expression.

    Args:
        expression: what is written.
        indent: of the line that it begins on.
        before, after: what stands on its first and its last line besides.
    """
    flat = f"{indent}{before}{expression}{after}"
    inner = f"{indent}    "
    if len(flat) <= WIDTH:
        return [flat]
    if isinstance(expression, Name):
        # What stands at the end of a line may have brackets of its own.
        if before.endswith((" = ", ": ")) and not after:
            return [f"{indent}{before}(", f"{inner}{expression}", f"{indent})"]
        if after.startswith(" = ") and not after.endswith(","):
            return [f"{indent}{before}{expression} = (", f"{inner}{after[3:]}", f"{indent})"]
        return [flat]
    if isinstance(expression, Union):
        expression = Subscript("Union", expression.items)
    if isinstance(expression, Subscript):
        lines = [f"{indent}{before}{expression.head}["]
        comma = "," if len(expression.items) > 1 else ""
        for item in expression.items:
            lines += lay_out(item, inner, "", comma)
        return [*lines, f"{indent}]{after}"]
    if not expression.items:
        return [flat]
    lines = [f"{indent}{before}{expression.head}{expression.brackets[0]}"]
    for name, item in expression.items:
        lines += lay_out(item, inner, name, ",")
    return [*lines, f"{indent}{expression.brackets[1]}{after}"]
