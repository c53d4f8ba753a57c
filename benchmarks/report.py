"""Results as tables of cells, and the whole of them for a terminal. `pages` puts the same tables into the docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from benchmarks.loads import MIB, TABLES, Table
from benchmarks.middleware import MORE, WAYS
from benchmarks.streaming import DIRECTIONS, HELD_AGAINST

Cells = list[list[str]]
"""Lines of a table, its heading first."""

_FUNCTIONS = 15
_CONSTANT_MIB = 16
"""By no more than that may memory grow while 1 GiB goes through it."""


def verdict(row: Mapping[str, Any]) -> str:
    """PASS, or how far off the goal is."""
    if row["goal"] is None:
        return "-"
    if row["passed"]:
        return "PASS"
    over = row["ratio"] / row["goal"]
    return f"{over:.1f} x the goal" if over >= 1.1 else f"{over - 1:.1%} over the goal"


def amount(us: float, measure: str = "cpu") -> str:
    """Microseconds as people read them."""
    return f"{us / 1000:.1f} ms" if measure != "cpu" else f"{us:.1f}" if us < 100 else f"{us:.0f}"


def rows(found: Mapping[str, Any], *, notes: bool) -> Cells:
    """The rows with their goals."""
    table = [["row", "the mesh against", "in flight", "mesh", "other", "ratio (quartiles)", "goal", ""]]
    for row in found["rows"]:
        low, high = row["ratio_quartiles"]
        table.append(
            [
                row["name"],
                row["title"] + (f" ({row['note']})" if notes and row["note"] else ""),
                str(row["in_flight"] or ""),
                amount(row["ours_us"], row["measure"]),
                amount(row["theirs_us"], row["measure"]),
                f"{row['ratio']:.2f} ({low:.2f}-{high:.2f})",
                "" if row["goal"] is None else f"≤ {row['goal']:.2f}",
                verdict(row),
            ]
        )
    return table


def layers(profile: Mapping[str, Any]) -> Cells:
    """Where the time of a call goes, by layer."""
    return [["layer", "share", "us"], *([layer, *_share(profile, n)] for layer, n in profile["layers"].items())]


def functions(profile: Mapping[str, Any]) -> Cells:
    """Where most of it goes, by function."""
    most = profile["functions"][:_FUNCTIONS]
    return [["function", "share", "us"], *([f"`{name}`", *_share(profile, n)] for _, name, n in most)]


def _share(profile: Mapping[str, Any], count: int) -> list[str]:
    part = count / max(1, profile["samples"])
    return [f"{part:.1%}", f"{part * profile['us']:.1f}"]


def matrix(found: Mapping[str, Any], table: Table) -> Cells:
    """Microseconds per call of each contender; nothing if none was measured."""
    measured = [(label, found["matrix"][name]) for label, name in table.rows if name in found.get("matrix", {})]
    names = list(dict.fromkeys(name for _, cell in measured for name in cell))
    lines = [[label, *(amount(cell[name]["us"]) if name in cell else "" for name in names)] for label, cell in measured]
    return [[table.column, *map(called, names)], *lines] if lines else []


def called(name: str) -> str:
    """A contender's name for people."""
    return "httpx through Envoy" if name == "envoy" else name


def rates(found: Mapping[str, Any], style: str) -> Cells:
    """Percentiles of latency in milliseconds; nothing if none was measured."""
    callers = found.get("rates", {}).get(style, {})
    asked = sorted({int(rate) for caller in callers.values() for rate in caller["rates"]})
    lines = []
    for rate in asked:
        for name, caller in callers.items():
            if (at := caller["rates"].get(str(rate))) is not None:
                percentiles = [f"{at[percent]:.2f}" for percent in ("p50", "p99", "p99.9")]
                lines.append([str(rate), called(name), *percentiles, str(at["count"])])
    return [["per second", "", "p50", "p99", "p99.9", "requests"], *lines] if lines else []


def reach(found: Mapping[str, Any], style: str) -> str:
    """What each contender could do at most, in a sentence."""
    callers = sorted(found["rates"][style].items(), key=lambda named: -named[1]["peak_per_s"])
    peaks = ", ".join(f"{called(name)} {caller['peak_per_s']}" for name, caller in callers)
    failed = [
        f" {called(name)} failed at {rate}: {error}."
        for name, caller in callers
        for rate, error in caller["failed"].items()
    ]
    return f"Peak rates per second: {peaks}." + "".join(failed)


def picks(found: Mapping[str, Any]) -> Cells:
    """Microseconds per pick of each balancer among so many endpoints; nothing if none was measured."""
    by_name = found.get("balancers", {}).get("picks", {})
    sizes = sorted({int(size) for by_size in by_name.values() for size in by_size})
    lines = []
    for name, by_size in by_name.items():
        known = {int(size): us for size, us in by_size.items()}
        growth = f"{known[sizes[-1]] / known[sizes[0]]:.2f}" if sizes[-1] in known else ""
        lines.append([name, *(f"{known[size]:.2f}" if size in known else "" for size in sizes), growth])
    return [["among", *(f"{size:,}".replace(",", " ") for size in sizes), "last / first"], *lines] if lines else []


def updates(found: Mapping[str, Any]) -> Cells:
    """Milliseconds until a change of many endpoints can be used; nothing if none was measured."""
    taken = found.get("balancers", {}).get("updates", {})
    return [["what discovery tells", "ms"], *([what, f"{ms:.1f}"] for what, ms in taken.items())] if taken else []


def memory(found: Mapping[str, Any]) -> Cells:
    """Bytes per endpoint; nothing if none was measured."""
    held = found.get("balancers", {}).get("memory", {})
    return [["an endpoint", "bytes"], *([what, f"{size:.0f}"] for what, size in held.items())] if held else []


def routes(found: Mapping[str, Any]) -> Cells:
    """Microseconds until a route is found among so many, scanned and indexed; nothing if none was measured."""
    by_kind = found.get("routes", {}).get("found", {})
    sizes = sorted({int(size) for by_size in by_kind.values() for size in by_size})
    lines = [
        [f"{kind}, {way}", *(amount(by_size[str(size)][way]) for size in sizes)]
        for kind, by_size in by_kind.items()
        for way in ("scan", "index")
    ]
    return [["they differ in", *(f"{size:,}".replace(",", " ") for size in sizes)], *lines] if lines else []


def indexes(found: Mapping[str, Any]) -> Cells:
    """What an index takes; nothing if none was measured."""
    made = found.get("routes", {}).get("index", {})
    lines = [[kind, f"{each['ms']:.0f}", f"{each['bytes']:.0f}"] for kind, each in made.items()]
    return [["they differ in", "ms to make it", "bytes per route"], *lines] if lines else []


def middleware(found: Mapping[str, Any]) -> Cells:
    """Microseconds of a request, and what the middleware adds; nothing if none was measured."""
    lines = []
    for framework, by_way in found.get("middleware", {}).items():
        line = [framework]
        for bare, meshed in ((by_way[WAYS[0]], by_way[WAYS[1]]), (by_way[WAYS[2]], by_way[WAYS[3]])):
            line += [amount(bare), f"{amount(meshed)} (+ {amount(meshed - bare)})"]
        line += [f"{amount(by_way[way])} (+ {amount(by_way[way] - by_way[WAYS[2]])})" for way in MORE if way in by_way]
        lines.append(line)
    return [["", *WAYS, *MORE], *lines] if lines else []


def streams(found: Mapping[str, Any]) -> Cells:
    """Speed, CPU time and memory of long bodies; nothing if none was measured."""
    streaming = found.get("streaming")
    if not streaming:
        return []
    mib, samples = streaming["bytes"] / MIB, streaming["samples"]
    heads = [f"{direction} {what}" for direction in DIRECTIONS for what in ("MiB/s", "CPU s", "growth MiB")]
    lines = []
    for name in samples[DIRECTIONS[0]]:
        line = [name]
        for direction in DIRECTIONS:
            of = samples[direction][name]
            line += [f"{mib / median(of['wall_s']):.0f}", f"{median(of['cpu_s']):.2f}", f"{max(of['growth_mib']):.1f}"]
        lines.append(line)
    return [["", *heads], *lines]


def streaming_goals(found: Mapping[str, Any]) -> Cells:
    """Whether the mesh is as fast as the best of those it is held against, in constant memory."""
    streaming = found.get("streaming")
    if not streaming:
        return []
    table = [["a mesh's", "time, against the best", "ratio", "goal", "", "memory", "goal", ""]]
    for direction in DIRECTIONS:
        times = {name: median(of["wall_s"]) for name, of in streaming["samples"][direction].items()}
        best = min(HELD_AGAINST, key=lambda name: times[name])
        for ours in ("mesh async", "mesh sync"):
            ratio = times[ours] / times[best]
            growth = max(streaming["samples"][direction][ours]["growth_mib"])
            table.append(
                [
                    f"{direction}, {ours.partition(' ')[2]}",
                    best,
                    f"{ratio:.2f}",
                    "≤ 1.00",
                    verdict({"goal": 1.0, "passed": ratio <= 1.0, "ratio": ratio}),
                    f"+ {growth:.1f} MiB",
                    f"≤ {_CONSTANT_MIB} MiB",
                    "PASS" if growth <= _CONSTANT_MIB else "missed",
                ]
            )
    return table


def as_text(found: Mapping[str, Any]) -> str:
    """The whole result for a terminal."""
    parts: list[tuple[str, Cells]] = []
    if found["rows"]:
        parts.append(("CPU time per request in us, unless a unit stands there; medians", rows(found, notes=False)))
    parts += [(f"{table.title}: us of CPU time per call", cells) for table in TABLES if (cells := matrix(found, table))]
    parts += [(f"latency in ms, {style}", rates(found, style)) for style in found.get("rates", {})]
    parts += [("long bodies", streams(found)), ("and the goals", streaming_goals(found))]
    parts += [("us of CPU time per pick", picks(found)), ("an update of 10 000 endpoints", updates(found))]
    parts += [("memory, among 10 000", memory(found))]
    parts += [("us of CPU time until a route is found", routes(found)), ("an index of 10 000 routes", indexes(found))]
    parts += [("us of CPU time of a request, with the middleware and without", middleware(found))]
    for name, profile in found["profiles"].items():
        parts.append((f"where the time of a call goes: {name}, {profile['samples']} samples", layers(profile)))
        parts.append(("in which functions", functions(profile)))
    lines = []
    for title, cells in parts:
        if cells:
            lines += ["", title, "", *_aligned(cells)]
    lines += [f"{style}: {reach(found, style)}" for style in found.get("rates", {})]
    if (rate := found.get("rate_per_s")) is not None:
        lines += ["", f"p99 at {rate:.0f} requests per second"]
    lines += [f"left out: {name}: {reason}" for name, reason in found["left_out"].items()]
    lines += [f"failed: {name}: {reason}; its own words are above" for name, reason in found.get("failed", {}).items()]
    if "minutes" in found:
        lines += ["", f"all of it took {found['minutes']} minutes"]
    return "\n".join(lines).lstrip("\n")


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
