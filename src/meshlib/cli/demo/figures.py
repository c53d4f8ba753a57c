"""What became of the requests, and the rule by which the demo succeeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Literal, TypeAlias

__all__ = ["ALLOWED_PERCENT", "RULE", "SIDES", "Attempt", "Figures", "Page", "Side", "Summary", "percentile"]

Side: TypeAlias = Literal["mesh", "plain"]
SIDES: tuple[Side, Side] = ("mesh", "plain")

ALLOWED_PERCENT = 0.2
RULE = (
    f"of the requests to the storefront with the mesh at most {ALLOWED_PERCENT:g} % may fail, because every call is a "
    "GET and may be repeated; and no more than of those to the one with plain httpx"
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one instance. `at` is on the monotonic clock, when the page that it was for had ended."""

    service: str
    endpoint: str
    at: float
    ms: float
    ok: bool


@dataclass(frozen=True, slots=True)
class Page:
    """One request to a storefront.

    Attributes:
        side: which one.
        phase: in which it began.
        at: when it ended, on the monotonic clock.
        ms: how long the storefront took; for a request that got no answer, how long the demo waited.
        ok: whether the page was complete.
        error: why not.
        calls: that were made for it, by the storefront and by orders.
        attempts: of those calls.
    """

    side: Side
    phase: str
    at: float
    ms: float
    ok: bool
    error: str = ""
    calls: int = 0
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Summary:
    """Pages, or attempts at an instance, in numbers. Latencies are in milliseconds; None without any."""

    total: int = 0
    lost: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    calls: int = 0
    attempts: int = 0

    @classmethod
    def of(cls, pages: Iterable[Page]) -> Summary:
        listed = list(pages)
        times = sorted(page.ms for page in listed)
        return cls(
            total=len(listed),
            lost=sum(1 for page in listed if not page.ok),
            p50_ms=percentile(times, 50),
            p99_ms=percentile(times, 99),
            calls=sum(page.calls for page in listed),
            attempts=sum(len(page.attempts) for page in listed),
        )

    @classmethod
    def of_attempts(cls, attempts: Sequence[Attempt]) -> Summary:
        times = sorted(attempt.ms for attempt in attempts)
        lost = sum(1 for attempt in attempts if not attempt.ok)
        return cls(len(attempts), lost, percentile(times, 50), percentile(times, 99), len(attempts), len(attempts))

    @property
    def success_percent(self) -> float | None:
        """How many of the hundred succeeded; None without any."""
        return 100.0 * (self.total - self.lost) / self.total if self.total else None

    @property
    def attempts_per_call(self) -> float | None:
        """1 without retries."""
        return self.attempts / self.calls if self.calls else None

    def as_json(self) -> dict[str, Any]:
        return {
            "requests": self.total,
            "lost": self.lost,
            "success_percent": _rounded(self.success_percent, 3),
            "p50_ms": _rounded(self.p50_ms, 1),
            "p99_ms": _rounded(self.p99_ms, 1),
            "calls": self.calls,
            "attempts": self.attempts,
            "attempts_per_call": _rounded(self.attempts_per_call, 4),
            "retries": max(0, self.attempts - self.calls),
        }


@dataclass(slots=True)
class Figures:
    """All that was measured."""

    pages: list[Page] = field(default_factory=list)

    def summary(self, side: Side, phase: str | None = None) -> Summary:
        """Of one side, in all or in one phase."""
        return Summary.of(page for page in self.pages if page.side == side and phase in (None, page.phase))

    def since(self, side: Side, at: float) -> list[Page]:
        """The pages of one side that ended after `at`."""
        found = []
        for page in reversed(self.pages):
            if page.at < at:
                break
            if page.side == side:
                found.append(page)
        return found

    def first_attempt_at(self, address: str) -> float | None:
        """When the mesh first used an address."""
        uses = (
            attempt.at
            for page in self.pages
            if page.side == "mesh"
            for attempt in page.attempts
            if attempt.endpoint == address
        )
        return min(uses, default=None)

    def broken_promises(self) -> list[str]:
        """What breaks `RULE`, in words; empty if nothing does."""
        mesh, plain = self.summary("mesh"), self.summary("plain")
        if not mesh.total or not plain.total:
            return ["no request was answered"]
        broken = []
        allowed = int(mesh.total * ALLOWED_PERCENT / 100)
        if mesh.lost > allowed:
            broken.append(f"{mesh.lost} of {mesh.total} requests were lost with the mesh; {allowed} may be")
        if mesh.lost * plain.total > plain.lost * mesh.total:
            broken.append(f"the mesh lost {mesh.lost} of {mesh.total}, plain httpx {plain.lost} of {plain.total}")
        return broken

    def losses(self, side: Side, where: Callable[[Page], bool] = lambda page: True) -> list[Page]:
        """The pages of one side that failed."""
        return [page for page in self.pages if page.side == side and not page.ok and where(page)]


def percentile(ordered: Sequence[float], percent: float) -> float | None:
    """The nearest-rank percentile of ordered values; None of none."""
    if not ordered:
        return None
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
