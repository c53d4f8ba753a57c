"""Whose end the end of a body is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from meshlib.adapters.reading import Reading


@pytest.mark.parametrize(
    ("attempts", "read"),
    [
        ([True], 1),
        ([False, True], 2),  # a retry
        ([True, False], 1),  # a hedge that was overtaken
        ([False, True, False], 2),
    ],
)
@pytest.mark.parametrize("how", ["ended", "left", "forget"])
def test_it_is_that_of_the_attempt_that_was_delivered(attempts: list[bool], read: int, how: str) -> None:
    told: list[tuple[str, int]] = []
    call = SimpleNamespace(
        attempts=[SimpleNamespace(n=n, open=is_open) for n, is_open in enumerate(attempts, 1)],
        body_end=lambda now, n: told.append(("ended", n)),
        cancelled=lambda now, n: told.append(("left", n)),
    )
    plane: Any = SimpleNamespace(clock=SimpleNamespace(now=lambda: 1.0), abandoned=[])
    exchange: Any = SimpleNamespace(call=call, plane=plane)
    reading = Reading(exchange)
    getattr(reading, how)()
    told += [("forget", n) for _, n in plane.abandoned]
    assert told == [(how, read)]
