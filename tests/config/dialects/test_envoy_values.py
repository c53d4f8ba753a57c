"""Values of headers as Envoy takes them."""

from __future__ import annotations

import pytest

from meshlib.config.dialects.envoy_values import edited_value, has_command


@pytest.mark.parametrize("value", ["%REQ(x-user)%", "a %PROTOCOL% b", "%REQ(a?b):10%", "%%%START_TIME%", "%RESP(a)%%%"])
def test_commands_are_found(value: str) -> None:
    assert has_command(value)


@pytest.mark.parametrize("value", ["", "100%", "%%REQ(x)%%", "%req(x)%", "a % b % c"])
def test_other_percent_signs_are_none(value: str) -> None:
    assert not has_command(value)


def test_two_percent_signs_are_one_and_an_empty_value_edits_nothing() -> None:
    assert edited_value("50%% of %%") == "50% of %"
    assert edited_value("") is None
