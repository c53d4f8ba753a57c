"""What an attempt tells its endpoint of its time."""

from __future__ import annotations

import pytest

from meshlib.policy.timeouts import attempt_headers
from meshlib.propagation import MAX_TIMEOUT_S, Ignored, parse_deadline


@pytest.mark.parametrize("timeout_s", [None, MAX_TIMEOUT_S + 1, 1e300, float("inf")])
def test_a_time_that_no_callee_would_believe_is_not_told(timeout_s: float | None) -> None:
    assert attempt_headers(1, timeout_s) == [(b"x-envoy-attempt-count", b"1")]


@pytest.mark.parametrize("timeout_s", [0.0, 1e-9, 0.25, 30.0, MAX_TIMEOUT_S])
def test_any_other_is_what_the_callee_reads(timeout_s: float) -> None:
    headers = {name.decode(): [value.decode()] for name, value in attempt_headers(2, timeout_s)}
    ignored = Ignored()
    assert parse_deadline(headers, 100.0, ignored) == pytest.approx(100.0 + max(0.001, timeout_s))
    assert ignored.deadline == 0
