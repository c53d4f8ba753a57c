"""Hedging, as it is written."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, PlainValidator

from meshlib.config import shown
from meshlib.config.fields import Count, Flag, Part, Span, reject
from meshlib.durations import Duration, parse_duration
from meshlib.policy.settings import HedgeSettings

__all__ = ["Hedge"]

_HEDGE = HedgeSettings()
_PERCENTILE = re.compile(r"p(\d{1,3}(?:\.\d{1,4})?)")


def _after(value: Any) -> str | float:
    if isinstance(value, str) and (found := _PERCENTILE.fullmatch(value)):
        if 0 < float(found[1]) < 100:
            return value
        reject("is no percentile: one above p0 and below p100 is expected", nearest="p95")
    try:
        seconds = parse_duration(value)
    except (ValueError, TypeError, OverflowError):
        reject("is neither a percentile such as p95 nor a duration such as 50ms", nearest="p95")
    if seconds == 0:
        reject("is no time at all: every call would be sent twice at once")
    return seconds


def _share(value: Any) -> Any:
    return reject("is not a number", kind="type") if isinstance(value, bool) else value


class Hedge(Part):
    """When a further attempt starts beside one that takes long; the first good answer wins.

    Attributes:
        after: a percentile of how long attempts took of late, ``p95``, or a duration; ``p95`` unless given, or never by
            time where `on_per_try_timeout` is given.
        max_extra_percent: hedges by time, as a share of the calls of the last 10 s.
        on_per_try_timeout: start the next attempt beside one whose per-try timeout has come, not instead of it.
        max_hedges: by time, of one call.
        min_delay: the least delay that a percentile can lead to.
    """

    compiles_to: ClassVar = HedgeSettings

    after: Annotated[str | Duration, PlainValidator(_after), shown.PERCENTILE] | None = None
    max_extra_percent: Annotated[float, BeforeValidator(_share), Field(gt=0, le=100)] = _HEDGE.max_extra_percent
    on_per_try_timeout: Flag = _HEDGE.on_per_try_timeout
    max_hedges: Annotated[Count, Field(ge=1, le=10)] = _HEDGE.max_hedges
    min_delay: Span = _HEDGE.min_delay_s
