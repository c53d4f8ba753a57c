"""Numbers and durations in a configuration, within what can be reckoned with.

Without bounds a number could be written that no formula survives: a window so short that a share of it is zero, a count
too large for a float. The bounds are far beyond what anybody means, and keep the call path free of such surprises.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field, PlainValidator

from meshlib.config import shown
from meshlib.config.rejection import reject
from meshlib.durations import LONGEST_S, SHORTEST_S, Duration, parse_duration

__all__ = ["Amount", "Count", "Interval", "Percent", "Port", "Positive", "Span"]

_LEAST: Final = 1e-9
_MOST: Final = 1e15


def _count(value: Any) -> Any:
    # To Python a bool is an int; a mesh with `max_retries: true` was not meant.
    return reject("is not a number", kind="type") if isinstance(value, bool) else value


def _number(value: Any) -> Any:
    value = _count(value)
    try:
        size = abs(float(value))
    except (ValueError, TypeError, OverflowError):
        return value
    if 0 < size < _LEAST:
        reject(f"is too small a number: {_LEAST:g} is the least above 0")
    return value


def _seconds(value: Any) -> float:
    try:
        seconds = parse_duration(value)
    except (ValueError, TypeError, OverflowError):
        reject("is not a duration; write it like 500ms, 2s, 1m, or as a number of seconds")
    if seconds > LONGEST_S:
        reject("is longer than 100 years")
    if 0 < seconds < SHORTEST_S:
        reject("is too short a time: 1us is the shortest")
    return seconds


def _some_seconds(value: Any) -> float:
    seconds = _seconds(value)
    if seconds == 0:
        reject("is no time at all: a duration above 0 is expected, or null for no limit where the field allows it")
    return seconds


Count = Annotated[int, BeforeValidator(_count), Field(le=2**64)]
Port = Annotated[int, BeforeValidator(_count), Field(ge=1, le=65535)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0, le=_MOST)]
Amount = Annotated[float, BeforeValidator(_number), Field(ge=0, le=_MOST)]
Percent = Annotated[float, BeforeValidator(_number), Field(ge=0, le=100)]

# Written as any duration; after validation a number of seconds.
Interval = Annotated[Duration, PlainValidator(_some_seconds), shown.INTERVAL]
Span = Annotated[Duration, PlainValidator(_seconds), shown.SPAN]
