"""Results for readers: tables and plots in the places that docs/performance.md keeps for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.loads import TABLES

_NOT_MEASURED = "*Not in the run whose figures stand here.*"


def begin(name: str) -> str:
    """The mark where a place begins."""
    return f"<!-- figures: {name} begin (written by `python -m benchmarks --docs`) -->"


def end(name: str) -> str:
    """The mark where it ends."""
    return f"<!-- figures: {name} end -->"


def write(page: Path, plots: Path, found: Mapping[str, Any]) -> None:
    """Draw the plots, and put the tables into a page, each between its marks.

    Args:
        page: the page.
        plots: the directory of the plots, beside the page.
        found: the results of a run.

    Raises:
        ValueError: if the page has no place for one.
    """
    from benchmarks.plots import draw

    drawn = draw(found, plots)
    text = page.read_text()
    for name, content in sections(found, {name: f"{plots.name}/{file}" for name, file in drawn.items()}).items():
        before, opening, rest = text.partition(begin(name))
        _, closing, after = rest.partition(end(name))
        if not opening or not closing:
            raise ValueError(f"{page} has no place for figures: {begin(name)} and {end(name)}")
        text = f"{before}{opening}\n\n{content}\n\n{closing}{after}"
    page.write_text(text)


def sections(found: Mapping[str, Any], plots: Mapping[str, str]) -> dict[str, str]:
    """What stands in each place.

    Args:
        found: the results of a run.
        plots: the file of each place's plot, as the page refers to it.
    """
    parts = {
        "run": [_run(found)],
        "rows": _rows(found),
        "matrix": _matrix(found),
        "rates": _rates(found),
        "streaming": _streaming(found),
        "balancers": _balancers(found),
        "routes": _routes(found),
        "middleware": _middleware(found),
        "profile": _profile(found),
    }
    for name, file in plots.items():
        parts[name].insert(0, f"![{_ALT[name]}]({file})")
    return {name: "\n\n".join(part or [_NOT_MEASURED]) for name, part in parts.items()}


_ALT = {
    "rows": "CPU time per call of each client",
    "matrix": "CPU time per call by calls in flight and by endpoints",
    "rates": "latency by rate",
    "profile": "CPU time per call by layer",
}


def _run(found: Mapping[str, Any]) -> str:
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    took = f"; {found['minutes']} minutes in all" if "minutes" in found else ""
    return (
        f"Measured on {found['date']}: {machine['cpus']} CPUs ({machine['processor']}, {machine['architecture']}, "
        f"{machine['system']}), {machine['python']}; {found['rounds']} rounds of {found['seconds_per_round']} s of CPU "
        f"time{took}. With {versions}."
    )


def _rows(found: Mapping[str, Any]) -> list[str]:
    parts = [_table([line[1:] for line in report.rows(found, notes=True)])] if found["rows"] else []
    if (rate := found.get("rate_per_s")) is not None:
        parts.append(f"Half of bare httpx's peak rate was {rate:.0f} requests per second in this run.")
    parts += [f"Left out: {name}: {reason}" for name, reason in found["left_out"].items()]
    return parts + [f"Failed: {name}: {reason}" for name, reason in found.get("failed", {}).items()]


def _matrix(found: Mapping[str, Any]) -> list[str]:
    return [f"**{table.title}**\n\n{_table(cells)}" for table in TABLES if (cells := report.matrix(found, table))]


def _rates(found: Mapping[str, Any]) -> list[str]:
    return [
        f"**{style}**, in milliseconds\n\n{_table(cells)}\n\n{report.reach(found, style)}"
        for style in found.get("rates", {})
        if (cells := report.rates(found, style))
    ]


def _streaming(found: Mapping[str, Any]) -> list[str]:
    return [_table(cells) for cells in (report.streaming_goals(found), report.streams(found)) if cells]


def _balancers(found: Mapping[str, Any]) -> list[str]:
    titles = (
        ("Microseconds of CPU time per pick", report.picks(found)),
        ("An update of 10 000 endpoints", report.updates(found)),
        ("Memory, among 10 000", report.memory(found)),
    )
    return [f"**{title}**\n\n{_table(cells)}" for title, cells in titles if cells]


def _middleware(found: Mapping[str, Any]) -> list[str]:
    cells = report.middleware(found)
    return [f"**Microseconds of CPU time of a request**\n\n{_table(cells)}"] if cells else []


def _routes(found: Mapping[str, Any]) -> list[str]:
    titles = (
        ("Microseconds of CPU time until a route is found", report.routes(found)),
        ("An index of 10 000 routes", report.indexes(found)),
    )
    return [f"**{title}**\n\n{_table(cells)}" for title, cells in titles if cells]


def _profile(found: Mapping[str, Any]) -> list[str]:
    parts = []
    for name, profile in found["profiles"].items():
        facts = f"{profile['us']:.0f} us a call with {profile['in_flight']} in flight, {profile['samples']} samples."
        parts.append(f"**{name}**: {facts}\n\n{_table(report.layers(profile))}")
    if (mesh := found["profiles"].get("mesh")) is not None:
        cells = report.functions(mesh)
        parts.append(f"The functions of the meshed call in which most of it is spent:\n\n{_table(cells)}")
    return parts


def _table(cells: report.Cells) -> str:
    head, *lines = (f"| {' | '.join(line)} |" for line in cells)
    return "\n".join([head, "|---" * len(cells[0]) + "|", *lines])
