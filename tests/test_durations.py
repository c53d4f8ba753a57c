from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("500ms", 0.5),
        ("2s", 2.0),
        ("1m", 60.0),
        ("1h", 3600.0),
        ("1m30s", 90.0),
        ("1.5s", 1.5),
        (" 2 ", 2.0),
        ("20us", 2e-5),
        ("0", 0.0),
        (2, 2.0),
        (0.25, 0.25),
        (timedelta(minutes=2), 120.0),
    ],
)
def test_durations_are_read_as_people_write_them(value: str | float | timedelta, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "value",
    ["", "s", "2 s", "-1s", "1x", "nan", "inf", "1e3", -1, float("nan"), float("inf"), 10**400, timedelta(-1)],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_duration_is_refused_with_a_hint(value: str | float | timedelta) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(value)


@pytest.mark.parametrize("value", [True, None, [], b"2s"])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match="500ms"):
        parse_duration(value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.00002, "20us"),
        (0.25, "250ms"),
        (0.0015, "1.5ms"),
        (0.9996, "0.9996s"),
        (1.5, "1.5s"),
        (60, "1m"),
        (90, "90s"),
        (120, "2m"),
        (5400, "90m"),
        (86400, "24h"),
        (123456.7, "123457s"),
        (-0.5, "-500ms"),
    ],
)
def test_durations_are_written_as_people_write_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.floats(1e-6, 1e7))
def test_what_is_written_can_be_read(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, rel=0.006)
