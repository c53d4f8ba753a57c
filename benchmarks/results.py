"""The results of a run as plain data: what is written as JSON, printed, and rendered into the documentation."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.rows import Row

_PACKAGES = (
    *(
        "httpx",
        "httpcore",
        "anyio",
        "sniffio",
        "h11",
        "httpx2",
        "aiohttp",
        "requests",
        "urllib3",
        "httptools",
        "uvloop",
    ),
    *("tenacity", "pybreaker", "opentelemetry-sdk", "opentelemetry-instrumentation-httpx"),
)


def compare(row: Row, ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """One row's result.

    The ratio is that of the medians; its spread is the quartiles of the ratios of each round, whose two sides ran one
    right after the other.
    """
    ratio = median(ours) / median(theirs)
    low, high = quartiles([one / other for one, other in zip(ours, theirs, strict=True) if other > 0])
    return {
        "name": row.name,
        "title": row.title,
        "group": row.group,
        "theirs": row.theirs,
        "measure": row.measure,
        "in_flight": row.in_flight,
        "ours_us": round(median(ours), 3),
        "theirs_us": round(median(theirs), 3),
        "ratio": round(ratio, 4),
        "ratio_quartiles": [round(low, 4), round(high, 4)],
        "goal": row.goal,
        "passed": None if row.goal is None else ratio <= row.goal,
        "note": row.note,
    }


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """One contender's figures under one load, in microseconds."""
    low, high = quartiles(samples)
    return {"us": round(median(samples), 2), "quartiles": [round(low, 2), round(high, 2)]}


def quartiles(numbers: Sequence[float]) -> tuple[float, float]:
    """The first and the third quartile."""
    if len(numbers) < 2:
        return (numbers[0], numbers[0]) if numbers else (0.0, 0.0)
    low, _, high = quantiles(numbers, n=4, method="inclusive")
    return low, high


def machine() -> dict[str, Any]:
    """The kind of machine; nothing that tells which one."""
    return {
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def versions(servers: Mapping[str, str]) -> dict[str, str]:
    """What was measured: packages and servers with their versions."""
    from meshlib._version import __version__

    found = {"meshlib": __version__, **servers}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def today() -> str:
    """The date, in UTC."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
