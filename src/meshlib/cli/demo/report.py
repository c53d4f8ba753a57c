"""What is said at the end: a short text, and the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from meshlib._version import __version__
from meshlib.cli.demo.faults import PHASES
from meshlib.cli.demo.figures import RULE, SIDES, Figures, Summary
from meshlib.cli.demo.watching import Seen

__all__ = ["Report"]

_KINDS = {
    "ejected": "ejections of an instance",
    "returned": "returns after a probe",
    "breaker_opened": "circuit openings",
    "breaker_closed": "circuits closed again",
}
_LOSSES_SHOWN = 5
_TITLE = 52


@dataclass(slots=True)
class Report:
    """The result of a run.

    Attributes:
        registry: its title.
        seconds: for how long traffic flowed.
        figures: what was measured.
        events: of all meshes.
        deadlines: how much time each service along the way of one request had.
        found_after_s: how long after a replacement was up the mesh first used it; None if it never did.
        problems: other reasons for which the demo has failed.
    """

    registry: str
    seconds: float
    figures: Figures
    events: Sequence[Seen]
    deadlines: Sequence[dict[str, Any]] = ()
    found_after_s: float | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def broken(self) -> list[str]:
        """Why the demo has failed; empty if it has not."""
        broken = [*self.problems, *self.figures.broken_promises()]
        left = [hop["left_ms"] for hop in self.deadlines]
        if len(left) < 3 or any(after is None or after >= before for before, after in pairwise(left)):
            broken.append(f"the deadline was not passed on: {list(self.deadlines)}")
        return broken

    def count(self, kind: str) -> int:
        """How many events of a kind there were."""
        return sum(1 for event in self.events if event.kind == kind)

    @property
    def _rate(self) -> float:
        """What the machine had time for."""
        return self.figures.summary("mesh").total / self.seconds if self.seconds else 0.0

    def text(self) -> str:
        """For people."""
        lines = [
            "",
            f"{self.seconds:.0f} s of traffic, {self._rate:.1f} pages a second to each storefront; services found by "
            f"{self.registry}",
            "",
            *self._table(),
            "",
            *self._mesh(),
        ]
        lost = self.figures.losses("mesh")
        lines += [f"lost with the mesh, in {page.phase}: {page.error}" for page in lost[:_LOSSES_SHOWN]]
        broken = self.broken
        lines += ["", *(f"FAILED: {text}" for text in broken)] if broken else ["", f"passed: {RULE}"]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "version": __version__,
            "registry": self.registry,
            "seconds": round(self.seconds, 1),
            "pages_per_s": round(self._rate, 1),
            **{side: self.figures.summary(side).as_json() for side in SIDES},
            "phases": [
                {
                    "name": phase.name,
                    "title": phase.title,
                    **{side: self.figures.summary(side, phase.name).as_json() for side in SIDES},
                }
                for phase in PHASES
            ],
            "events": {kind: self.count(kind) for kind in sorted({*_KINDS, *(event.kind for event in self.events)})},
            "deadline": list(self.deadlines),
            "replacement_found_after_s": self.found_after_s,
            "passed": not self.broken,
            "broken": self.broken,
            "rule": RULE,
        }

    def _table(self) -> list[str]:
        head = f"{'':{_TITLE}} {'with the mesh':^24}   {'plain httpx':^24}"
        under = f"{'':{_TITLE}} {'lost':>4} {'p50':>8} {'p99':>8}     {'lost':>4} {'p50':>8} {'p99':>8}"
        rows = [head, under, *(self._row(phase.title, phase.name) for phase in PHASES), self._row("in all", None)]
        percents = [self.figures.summary(side).success_percent or 0.0 for side in SIDES]
        rows.append(f"{'succeeded':{_TITLE}} {percents[0]:13.2f} % {'':12} {percents[1]:10.2f} %")
        return rows

    def _row(self, title: str, phase: str | None) -> str:
        cells = [_cells(self.figures.summary(side, phase)) for side in SIDES]
        return f"{title[:_TITLE]:{_TITLE}} {cells[0]}     {cells[1]}"

    def _mesh(self) -> list[str]:
        total = self.figures.summary("mesh")
        hops = " -> ".join(f"{hop['service']} {hop['left_ms']:.0f} ms" for hop in self.deadlines)
        lines = [
            f"the mesh made {total.attempts} attempts for {total.calls} calls "
            f"({total.attempts_per_call or 0:.3f} each), so {max(0, total.attempts - total.calls)} retries",
            ", ".join(f"{self.count(kind)} {title}" for kind, title in _KINDS.items()),
            f"a deadline on its way: {hops}",
        ]
        if not self.count("ejected"):
            lines.append(
                "nobody was ejected: that takes failures in a row, and the balancer goes round whoever is slow or fails"
            )
        if self.found_after_s is not None:
            lines.append(f"the replacement was called {self.found_after_s:.1f} s after it was up")
        return lines


def _cells(summary: Summary) -> str:
    return f"{summary.lost:4d} {_ms(summary.p50_ms):>8} {_ms(summary.p99_ms):>8}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"
