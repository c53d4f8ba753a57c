"""What the demo counts, and when it fails."""

from __future__ import annotations

import pytest

from meshlib.cli.demo.figures import Attempt, Figures, Page, Side, Summary, percentile
from meshlib.cli.demo.report import Report


def pages(side: Side, good: int, bad: int = 0, phase: str = "healthy") -> list[Page]:
    attempt = Attempt("orders", "127.0.0.1:1", 0.0, 5.0, True)
    return [
        *[Page(side, phase, float(n), 10.0, True, calls=3, attempts=(attempt,) * 3) for n in range(good)],
        *[
            Page(side, phase, float(n), 20.0, False, "orders: 503", calls=3, attempts=(attempt,) * 5)
            for n in range(bad)
        ],
    ]


@pytest.mark.parametrize(("percent", "expected"), [(50, 5), (99, 10), (100, 10), (1, 1), (10, 1), (11, 2)])
def test_percentiles_are_by_nearest_rank(percent: float, expected: int) -> None:
    assert percentile([float(n) for n in range(1, 11)], percent) == expected


def test_nothing_has_no_percentile() -> None:
    assert percentile([], 50) is None
    assert Summary.of([]).success_percent is None


def test_a_summary_counts_losses_attempts_and_retries() -> None:
    summary = Summary.of(pages("mesh", 3, 1))

    assert (summary.total, summary.lost, summary.success_percent) == (4, 1, 75.0)
    assert (summary.p50_ms, summary.p99_ms) == (10.0, 20.0)
    assert summary.as_json()["retries"] == 2
    assert summary.attempts_per_call == pytest.approx(14 / 12)


@pytest.mark.parametrize(
    ("mesh", "plain", "kept"),
    [
        ((500, 0), (400, 100), True),
        ((499, 1), (400, 100), True),
        ((498, 2), (400, 100), False),
        ((498, 1), (400, 100), False),
        ((499, 1), (500, 0), False),
        ((100, 0), (100, 0), True),
        ((0, 0), (100, 0), False),
    ],
    ids=str,
)
def test_the_rule_allows_one_loss_in_500_and_none_beyond_those_of_plain_httpx(
    mesh: tuple[int, int], plain: tuple[int, int], kept: bool
) -> None:
    figures = Figures([*pages("mesh", *mesh), *pages("plain", *plain)])

    assert (figures.broken_promises() == []) is kept


def test_a_deadline_that_did_not_shrink_on_its_way_fails_the_demo() -> None:
    figures = Figures([*pages("mesh", 10), *pages("plain", 10)])

    def report(*left_ms: float | None) -> Report:
        hops = [{"service": f"s{n}", "left_ms": left} for n, left in enumerate(left_ms)]
        return Report("a registry", 1.0, figures, [], deadlines=hops)

    assert report(1000.0, 970.0, 940.0).broken == []
    for wrong in [(1000.0, 970.0), (1000.0, 970.0, 970.0), (1000.0, 970.0, None)]:
        assert "deadline" in report(*wrong).broken[0]
