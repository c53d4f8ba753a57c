"""The results of a scenario as a table, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table", "milliseconds", "percent"]


def percent(value: float, digits: int = 1) -> str:
    """``99.5 %``."""
    return f"{value:.{digits}f} %"


def milliseconds(seconds: float) -> str:
    """``23 ms``; from ten seconds ``12 s``."""
    return f"{seconds * 1000:,.0f} ms" if seconds < 10.0 else f"{seconds:,.0f} s"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells below names of columns."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        """In Markdown; the first column to the left, the others to the right."""
        rule = ["---", *("---:" for _ in self.columns[1:])]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.columns, rule, *self.rows))
