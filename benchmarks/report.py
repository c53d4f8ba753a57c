"""Results for people: the table at the terminal, and the tables of docs/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN = "<!-- figures: begin (written by `python -m benchmarks --docs`) -->"
END = "<!-- figures: end -->"
_FUNCTIONS = 15


def verdict(row: Mapping[str, Any]) -> str:
    """PASS, or how far off the goal is."""
    if row["goal"] is None:
        return "-"
    if row["passed"]:
        return "PASS"
    over = row["ratio"] / row["goal"]
    return f"{over:.1f} x the goal" if over >= 1.1 else f"{over - 1:.1%} over the goal"


def amount(us: float, measure: str) -> str:
    """Microseconds as people read them."""
    return f"{us / 1000:.1f} ms" if measure != "cpu" else f"{us:.1f}" if us < 100 else f"{us:.0f}"


def as_text(results: Mapping[str, Any]) -> str:
    """The whole result for a terminal."""
    table = [["row", "the mesh against", "in flight", "mesh", "other", "ratio", "quartiles", "goal", ""]]
    for row in results["rows"]:
        low, high = row["ratio_quartiles"]
        table.append(
            [
                row["name"],
                row["title"],
                str(row["in_flight"] or ""),
                amount(row["ours_us"], row["measure"]),
                amount(row["theirs_us"], row["measure"]),
                f"{row['ratio']:.2f}",
                f"{low:.2f}-{high:.2f}",
                "" if row["goal"] is None else f"<= {row['goal']:.2f}",
                verdict(row),
            ]
        )
    lines = ["CPU time per request in us, unless a unit stands there; medians", "", *_aligned(table)]
    lines += [f"left out: {name}: {reason}" for name, reason in results["left_out"].items()]
    if (rate := results.get("rate_per_s")) is not None:
        lines += ["", f"p99 at {rate:.0f} requests per second"]
    for name, profile in results["profiles"].items():
        lines += ["", f"where the time of a call goes: {name}, {profile['samples']} samples", ""]
        lines += _aligned([["layer", "share", "us"], *_layers(profile)])
        lines += ["", *_aligned([["function", "share", "us"], *_functions(profile)])]
    return "\n".join(lines)


def as_markdown(results: Mapping[str, Any]) -> str:
    """The tables of the documentation."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [
        f"Measured on {results['date']}: {machine['cpus']} CPUs ({machine['processor']}, {machine['architecture']}, "
        f"{machine['system']}), {machine['python']}; {results['rounds']} rounds. With {versions}.",
        "",
        "| the mesh against | in flight | mesh | other | ratio (quartiles) | goal | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        low, high = row["ratio_quartiles"]
        goal = "" if row["goal"] is None else f"≤ {row['goal']:.2f}"
        note = f"<br>{row['note']}" if row["note"] else ""
        cells = [
            f"{row['title']}{note}",
            str(row["in_flight"] or ""),
            amount(row["ours_us"], row["measure"]),
            amount(row["theirs_us"], row["measure"]),
            f"{row['ratio']:.2f} ({low:.2f}-{high:.2f})",
            goal,
            verdict(row),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    if (rate := results.get("rate_per_s")) is not None:
        lines += ["", f"Half of bare httpx's peak rate was {rate:.0f} requests per second in this run."]
    for name, reason in results["left_out"].items():
        lines += ["", f"Left out: {name}: {reason}"]
    for name, profile in results["profiles"].items():
        lines += ["", f"### Where the time goes: {name}", ""]
        lines += [
            f"{profile['us']:.0f} us a call with {profile['in_flight']} in flight, {profile['samples']} samples.",
            "",
        ]
        lines += ["| layer | share | us |", "|---|---|---|", *(f"| {' | '.join(line)} |" for line in _layers(profile))]
    if (mesh := results["profiles"].get("mesh")) is not None:
        lines += ["", f"The {_FUNCTIONS} functions of the meshed call in which most of it is spent:", ""]
        lines += ["| function | share | us |", "|---|---|---|"]
        lines += [f"| `{name}` | {share} | {us} |" for name, share, us in _functions(mesh)]
    return "\n".join(lines)


def write_docs(page: Path, results: Mapping[str, Any]) -> None:
    """Put the tables into a page, between its two marks.

    Raises:
        ValueError: if the page has not got them.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the figures: {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{as_markdown(results)}\n\n{END}{after}")


def _layers(profile: Mapping[str, Any]) -> list[list[str]]:
    return [[layer, *_share(profile, count)] for layer, count in profile["layers"].items()]


def _functions(profile: Mapping[str, Any]) -> list[list[str]]:
    return [[name, *_share(profile, count)] for _, name, count in profile["functions"][:_FUNCTIONS]]


def _share(profile: Mapping[str, Any], count: int) -> list[str]:
    part = count / max(1, profile["samples"])
    return [f"{part:.1%}", f"{part * profile['us']:.1f}"]


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table]
