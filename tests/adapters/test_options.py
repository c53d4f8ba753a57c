"""What a caller may say of one call."""

from __future__ import annotations

import pytest

import meshlib
from meshlib.adapters.options import EXTENSION
from meshlib.durations import LONGEST_S


def test_a_timeout_may_be_as_long_as_a_configured_one_and_no_longer() -> None:
    assert meshlib.call(timeout=LONGEST_S)[EXTENSION].timeout_s == LONGEST_S
    with pytest.raises(ValueError, match="timeout: 1e\\+300 is longer than 100 years"):
        meshlib.call(timeout=1e300)
