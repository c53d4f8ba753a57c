"""The plots of docs/performance.md, as SVG. Needs matplotlib, which nothing else here does.

They are drawn on no background, in colours and a grey that stand out from white and from black alike, and the same
results always give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.loads import TABLES, Table
from benchmarks.report import called

_GREY = "#828282"
_COLOURS = {
    "mesh": "#e8590c",
    "aiohttp": "#2b8a9e",
    "urllib3": "#2b8a9e",
    "requests": "#b8860b",
    "httpx2": "#7c6ee6",
    "httpx": "#2f80d0",
    "envoy": "#c2569b",
    "limit": _GREY,
}
_LAYERS = ("#e8590c", "#2f80d0", "#2b8a9e", "#b8860b", "#7c6ee6", "#c2569b", "#5a9e4b", _GREY, "#a56a43")
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "meshlib",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _GREY,
    "axes.edgecolor": _GREY,
    "axes.labelcolor": _GREY,
    "axes.titlecolor": _GREY,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "legend.frameon": False,
    "savefig.transparent": True,
}


def draw(found: Mapping[str, Any], directory: Path) -> dict[str, str]:
    """Write a plot for whatever was measured; those of what was not are removed.

    Returns:
        The file's name by the place it belongs to: `rows`, `matrix`, `rates`, `profile`.
    """
    plots: dict[str, Callable[[Mapping[str, Any]], Figure | None]] = {
        "rows": _calls,
        "matrix": _matrix,
        "rates": _rates,
        "profile": _profile,
    }
    drawn = {}
    with mpl.rc_context(_STYLE):
        for name, plot in plots.items():
            file = directory / f"bench-{name}.svg"
            figure = plot(found)
            if figure is None:
                file.unlink(missing_ok=True)
                continue
            figure.savefig(file, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
            drawn[name] = file.name
    return drawn


def _calls(found: Mapping[str, Any]) -> Figure | None:
    """The rows with 32 calls in flight, side by side."""
    us = {row["theirs"]: row["theirs_us"] for row in found["rows"] if row.get("group") == "async-32"}
    ours = [row["ours_us"] for row in found["rows"] if row.get("group") == "async-32"]
    if not ours:
        return None
    us = dict(sorted({"mesh": ours[0], **us}.items(), key=lambda pair: -pair[1]))
    figure = Figure(figsize=(7, 0.4 * len(us) + 0.8))
    axes = figure.add_subplot()
    bars = axes.barh([called(name) for name in us], list(us.values()), color=[_COLOURS[name] for name in us])
    axes.bar_label(bars, fmt="%.0f", padding=4, color=_GREY)
    axes.set_xlabel("us of CPU time per call, 32 in flight")
    return figure


def _matrix(found: Mapping[str, Any]) -> Figure | None:
    """The tables whose first column is a number."""
    tables = [table for table in TABLES if all(label.isdigit() for label, _ in table.rows)]
    tables = [table for table in tables if any(name in found.get("matrix", {}) for _, name in table.rows)]
    if not tables:
        return None
    figure = Figure(figsize=(9, 3.2 * ((len(tables) + 1) // 2)), layout="constrained")
    for number, table in enumerate(tables, start=1):
        with _panel(figure, (len(tables) + 1) // 2, number, table.title) as axes:
            _lines(axes, found["matrix"], table)
            axes.set(xlabel=table.column, ylabel="us of CPU time per call")
    return figure


def _lines(axes: Axes, cells: Mapping[str, Any], table: Table) -> None:
    measured = [(int(label), cells[name]) for label, name in table.rows if name in cells]
    for name in dict.fromkeys(name for _, cell in measured for name in cell):
        points = [(label, cell[name]["us"]) for label, cell in measured if name in cell]
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, color=_COLOURS[name], label=called(name))


def _rates(found: Mapping[str, Any]) -> Figure | None:
    """p99 as a line, p50 dotted."""
    styles = [style for style, callers in found.get("rates", {}).items() if any(c["rates"] for c in callers.values())]
    if not styles:
        return None
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for number, style in enumerate(styles, start=1):
        with _panel(figure, 1, number, f"{style}: p99, and p50 dotted") as axes:
            able = {name: caller for name, caller in found["rates"][style].items() if caller["rates"]}
            for name, caller in able.items():
                asked = [int(rate) for rate in caller["rates"]]
                p50, p99 = ([at[percent] for at in caller["rates"].values()] for percent in ("p50", "p99"))
                axes.plot(asked, p99, marker="o", markersize=4, color=_COLOURS[name], label=called(name))
                axes.plot(asked, p50, linestyle=":", color=_COLOURS[name])
            axes.set(xlabel="requests per second", ylabel="ms from when it was due")
    return figure


def _profile(found: Mapping[str, Any]) -> Figure | None:
    """The layers of a call, end to end."""
    profiles = found["profiles"]
    if not profiles:
        return None
    layers = dict.fromkeys(layer for profile in profiles.values() for layer in profile["layers"])
    figure = Figure(figsize=(9, 0.5 * len(profiles) + 2.2))
    axes = figure.add_subplot()
    for row, profile in enumerate(reversed(profiles.values())):
        left = 0.0
        for colour, layer in zip(_LAYERS, layers, strict=False):
            us = profile["layers"].get(layer, 0) / max(1, profile["samples"]) * profile["us"]
            axes.barh(row, us, left=left, color=colour, height=0.6, label=layer if row == 0 else None)
            left += us
        axes.text(left, row, f"  {profile['us']:.0f}", va="center")
    axes.set_yticks(range(len(profiles)), [called(name) for name in reversed(profiles)])
    axes.set_xlabel("us of CPU time per call, 32 in flight")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.35), ncols=2, fontsize=9)
    return figure


@contextmanager
def _panel(figure: Figure, rows: int, number: int, title: str) -> Iterator[Axes]:
    """One of several, with both scales logarithmic, and ticks where something was measured."""
    axes = figure.add_subplot(rows, 2, number)
    axes.set_title(title)
    axes.set(xscale="log", yscale="log")
    yield axes
    axes.set_xticks(sorted({float(x) for line in axes.get_lines() for x in np.asarray(line.get_xdata())}))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.minorticks_off()
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.legend(fontsize=8)
