"""Durations as people write them: ``500ms``, ``2s``, ``1m``, ``1h``, a number of seconds, or a timedelta."""

from __future__ import annotations

import math
import re
from datetime import timedelta

__all__ = ["LONGEST_S", "SHORTEST_S", "Duration", "format_duration", "parse_duration"]

Duration = str | float | int | timedelta

SHORTEST_S = 1e-6
LONGEST_S = 100 * 365.25 * 86400.0
"""Between these are the durations of a configuration."""

_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:us|ms|s|m|h|d))+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def parse_duration(value: Duration) -> float:
    """Return `value` in seconds.

    Args:
        value: ``"500ms"``, ``"1m30s"``, ``"2"`` or ``2.0`` (seconds), or a timedelta.

    Raises:
        ValueError: if it is negative, not finite, or not a duration.
        TypeError: if it is of another type.
    """
    if isinstance(value, bool):
        raise TypeError(f"a duration such as '500ms' or 2.0 is expected, not {value!r}")
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, (int, float)):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
    elif isinstance(value, str):
        text = value.strip().lower()
        if _NUMBER.fullmatch(text):
            seconds = float(text)
        elif _WHOLE.fullmatch(text):
            seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
        else:
            raise ValueError(f"{value!r} is not a duration; write it like '500ms', '2s', '1m' or 2.0 (seconds)")
    else:
        raise TypeError(f"a duration such as '500ms' or 2.0 is expected, not {type(value).__name__}")
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"{value!r} is not a duration: it must be finite and not negative")
    return seconds


def format_duration(seconds: float) -> str:
    """Return `seconds` as a person would write it: ``1.5s``, ``250ms``, ``2m``, ``24h``."""
    if seconds < 0:
        return f"-{format_duration(-seconds)}"
    for unit, per_s in (("us", 1e6), ("ms", 1e3)):
        # Rounded first: 0.9996 s is 1s, not 1e+03ms.
        if 0 < (amount := float(f"{seconds * per_s:.3g}")) < 1000 and (amount >= 1 or unit == "us"):
            return f"{amount:g}{unit}"
    if seconds < 60 or seconds % 60:
        return f"{seconds:.4g}s" if seconds < 1000 else f"{seconds:.0f}s"
    return f"{seconds / 60:.0f}m" if seconds % 3600 else f"{seconds / 3600:.0f}h"
