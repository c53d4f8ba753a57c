"""What is seen while the demo runs: a live table in a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from meshlib.cli.demo.figures import SIDES, Attempt, Figures, Side, Summary
from meshlib.cli.demo.staff import Staff
from meshlib.cli.demo.watching import Watch

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["Lines", "LiveTable", "Screen", "View", "make_screen"]

_WINDOW_S = 3.0
_LINE_EVERY_S = 2.0
_EVENTS_SHOWN = 6


@dataclass(slots=True)
class View:
    """What there is to see."""

    staff: Staff
    watch: Watch
    figures: Figures
    began: float
    phase: str = ""
    ends: float = 0.0


class Screen(Protocol):
    """Shows the demo as it goes on."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def phase(self, view: View) -> None:
        """A new phase begins."""

    def show(self, view: View) -> None:
        """The state of now; called a few times a second."""

    def close(self) -> None:
        """Give the terminal back."""


def make_screen(plain: bool) -> Screen:
    """A live table if there is a terminal and `plain` is false; else lines."""
    if plain or not sys.stdout.isatty():
        return Lines()
    return LiveTable()


class Lines:
    """Plain lines."""

    def __init__(self) -> None:
        self._next_at = 0.0
        self._events = 0

    def say(self, text: str) -> None:
        print(text, flush=True)

    def phase(self, view: View) -> None:
        self._line(view, f"-- {view.phase}")
        self._next_at = time.monotonic() + _LINE_EVERY_S

    def show(self, view: View) -> None:
        for event in view.watch.events[self._events :]:
            if event.worth_a_line:
                self._line(view, f"   {event.by} sees: {event.text}")
        self._events = len(view.watch.events)
        now = time.monotonic()
        if now < self._next_at:
            return
        self._next_at = now + _LINE_EVERY_S
        parts = []
        for side in SIDES:
            recent = Summary.of(view.figures.since(side, now - _LINE_EVERY_S))
            parts.append(
                f"{side} {recent.total / _LINE_EVERY_S:4.1f}/s, {recent.success_percent or 0.0:5.1f} % ok,"
                f" p50 {recent.p50_ms or 0.0:.0f} ms, p99 {recent.p99_ms or 0.0:.0f} ms"
            )
        self._line(view, "   " + "  |  ".join(parts))

    def close(self) -> None:
        pass

    def _line(self, view: View, text: str) -> None:
        self.say(f"{time.monotonic() - view.began:5.1f}s {text}")


class LiveTable:
    """A table that changes in its place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._started = False

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False)

    def phase(self, view: View) -> None:
        if not self._started:
            self._started = True
            self._live.start()
        self.show(view)

    def show(self, view: View) -> None:
        self._live.update(_picture(view), refresh=True)

    def close(self) -> None:
        self._live.stop()


def _picture(view: View) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    left = max(0.0, view.ends - time.monotonic())
    head = Text(f"{view.phase}  ({left:.0f} s)", style="bold yellow")
    unit = Text("of the last 3 s; times in ms", style="dim")
    events = [
        Text(f"{max(0.0, event.time - view.watch.zero):5.1f}s {event.by} sees: {event.text}", style="dim", no_wrap=True)
        for event in [event for event in view.watch.events if event.worth_a_line][-_EVENTS_SHOWN:]
    ]
    return Group(head, _table(view), unit, *events)


def _table(view: View) -> Table:
    from rich import box
    from rich.table import Table

    # Narrow enough for 80 columns: what is cut off cannot be seen.
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), collapse_padding=True)
    table.add_column("instance")
    table.add_column("the mesh sees")
    for side in SIDES:
        for column in ("per s", "ok %", "p50", "p99"):
            table.add_column(f"{side}\n{column}", justify="right")
    since = time.monotonic() - _WINDOW_S
    pages = {side: view.figures.since(side, since) for side in SIDES}
    totals = {side: Summary.of(pages[side]) for side in SIDES}
    table.add_row("storefront", "", *_cells(totals), style="bold", end_section=True)
    attempts: dict[tuple[Side, str], list[Attempt]] = {}
    for side in SIDES:
        for page in pages[side]:
            for attempt in page.attempts:
                attempts.setdefault((side, attempt.endpoint), []).append(attempt)
    for name, child in view.staff.by_name.items():
        state = view.watch.states.get(child.address, "-") if child.running else "killed"
        colour = {"healthy": "green", "-": "dim"}.get(state, "red")
        summaries = {side: Summary.of_attempts(attempts.get((side, child.address), [])) for side in SIDES}
        table.add_row(name, f"[{colour}]{state}[/]", *_cells(summaries))
    return table


def _cells(summaries: dict[Side, Summary]) -> list[str]:
    cells = []
    for side in SIDES:
        recent = summaries[side]
        percent = "-" if recent.success_percent is None else f"{recent.success_percent:.1f}"
        if recent.lost:
            percent = f"[red]{percent}[/]"
        times = ["-" if ms is None else f"{ms:.0f}" for ms in (recent.p50_ms, recent.p99_ms)]
        cells += [f"{recent.total / _WINDOW_S:.1f}", percent, *times]
    return cells
