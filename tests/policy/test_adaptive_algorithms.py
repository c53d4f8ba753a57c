"""Adaptive concurrency: each algorithm by the numbers of the system that it is taken from."""

from __future__ import annotations

from math import ceil, sqrt
from random import Random

import pytest

from meshlib.policy.admission_settings import AimdSettings, Gradient2Settings, GradientSettings, VegasSettings
from meshlib.policy.aimd import AimdLimit
from meshlib.policy.gradient import GradientLimit
from meshlib.policy.gradient2 import ExponentialAverage, Gradient2Limit
from meshlib.policy.vegas import VegasLimit

MS = 0.001


# Netflix, concurrency-limits


@pytest.mark.parametrize(
    ("initial", "samples"),
    [
        # VegasLimitTest: (latency in ms, in flight, dropped, limit)
        (10, [(10, 10, False, 10), (10, 11, False, 16)]),
        (10, [(10, 10, False, 10), (50, 11, False, 9)]),
        (10, [(10, 10, False, 10), (14, 14, False, 10)]),
        (10_000, [(10_000, 5000, False, 10_000), (10_000, 6000, False, 10_024)]),
    ],
)
def test_the_numbers_of_vegas_limit_test(initial: int, samples: list[tuple[int, int, bool, int]]) -> None:
    settings = VegasSettings(initial_limit=initial, max_limit=20_000, probe_multiplier=1000)
    limit = VegasLimit(settings, 0.0, Random(1))
    for latency_ms, in_flight, dropped, expected in samples:
        limit.ended(0.0, 0.0, latency_ms * MS, in_flight, dropped)
        assert limit.limit == expected


def test_vegas_falls_by_a_step_at_a_drop_and_stays_while_half_of_it_is_unused() -> None:
    limit = VegasLimit(VegasSettings(initial_limit=100, smoothing_percent=50.0), 0.0, Random(1))
    limit.ended(0.0, 0.0, 0.01, 100, False)
    limit.ended(0.0, 0.0, 0.01, 49, False)
    assert limit.limit == 100
    limit.ended(0.0, 0.0, 0.01, 100, True)
    assert limit.limit == 99


def test_vegas_measures_the_latency_without_load_anew() -> None:
    limit = VegasLimit(VegasSettings(initial_limit=10, probe_multiplier=2), 0.0, Random(1))
    limit.ended(0.0, 0.0, 0.01, 10, False)
    for _ in range(200):
        limit.ended(0.0, 0.0, 0.1, 10, False)
    assert limit.limit > 10  # ten times slower for good is the new normal


def test_the_numbers_of_aimd_limit_test() -> None:
    limit = AimdLimit(AimdSettings(initial_limit=30, min_limit=10), 0.0, Random(1))
    limit.ended(0.0, 0.0, 0.001, 0, True)
    assert limit.limit == 27
    limit.ended(0.0, 0.0, 6.0, 0, False)
    assert limit.limit == 24
    limit.ended(0.0, 0.0, 0.001, 12, False)
    assert limit.limit == 25
    limit.ended(0.0, 0.0, 0.001, 12, False)
    assert limit.limit == 25
    for _ in range(50):
        limit.ended(0.0, 0.0, 0.001, 0, True)
    assert limit.limit == 10


def test_the_numbers_of_exp_avg_measurement_test() -> None:
    average = ExponentialAverage(100, 10)
    assert [average.add(10.0 + index) for index in range(10)] == pytest.approx(
        [10.0 + index / 2 for index in range(10)]
    )
    assert average.add(100.0) == pytest.approx(16.2, abs=0.01)


def test_gradient2_by_its_formula() -> None:
    settings = Gradient2Settings(initial_limit=100, min_limit=20, max_limit=200)
    limit = Gradient2Limit(settings, 0.0, Random(1))
    limit.ended(0.0, 0.0, 0.01, 100, False)
    assert limit.limit == int(0.8 * 100 + 0.2 * (100 + 4))
    for _ in range(500):
        limit.ended(0.0, 0.0, 0.01, 200, False)
    assert limit.limit == 200
    before = 200.0
    limit.ended(0.0, 0.0, 1.0, 200, False)
    assert limit.limit < before
    limit.ended(0.0, 0.0, 1.0, 2, True)
    for _ in range(300):
        limit.ended(0.0, 0.0, 10.0 ** (_ % 3), 200, False)
        assert 20 <= limit.limit <= 200


def test_gradient2_forgets_a_long_overload_faster_than_its_average_does() -> None:
    limit = Gradient2Limit(Gradient2Settings(), 0.0, Random(1))
    for _ in range(1000):
        limit.ended(0.0, 0.0, 1.0, 20, False)
    for _ in range(50):
        limit.ended(0.0, 0.0, 0.01, 20, False)
    assert limit._long.value < 0.1


@pytest.mark.parametrize("latency_s", [float("nan"), -1.0, 0.0])
def test_a_latency_that_is_none_changes_nothing(latency_s: float) -> None:
    for limit in (
        VegasLimit(VegasSettings(), 0.0, Random(1)),
        Gradient2Limit(Gradient2Settings(), 0.0, Random(1)),
        GradientLimit(GradientSettings(), 0.0, Random(1)),
    ):
        before = limit.limit
        for _ in range(100):
            limit.ended(1.0, 1.0, latency_s, 100, False)
        if not isinstance(limit, GradientLimit) or latency_s != 0.0:
            assert limit.limit == before


# Envoy, gradient_controller_test.cc


def controller(**settings: object) -> GradientLimit:
    defaults = {"update_interval_s": 0.1, "min_rtt_interval_s": 30.0, "min_rtt_calls": 5, "jitter_percent": 0.0}
    return GradientLimit(GradientSettings(**{**defaults, **settings}), 0.0, Random(1))  # type: ignore[arg-type]


def sample(limit: GradientLimit, now: float, latency_ms: float, times: int = 5) -> None:
    for _ in range(times):
        limit.ended(now, now, latency_ms * MS, 1, False)


def test_min_rtt_logic() -> None:
    limit = controller(min_limit=7, min_rtt_calls=50)
    assert (limit.limit, limit.measuring) == (7, True)
    sample(limit, 1.0, 13, 49)
    assert limit.measuring
    sample(limit, 1.0, 13, 1)
    assert not limit.measuring
    assert limit.min_rtt_s == pytest.approx(0.013)


def test_min_rtt_is_the_percentile_of_its_samples() -> None:
    limit = controller()
    for latency_ms in (1, 2, 3, 4, 5):
        sample(limit, 1.0, latency_ms, 1)
    assert limit.min_rtt_s == pytest.approx(0.003)


def test_calls_that_began_before_a_measurement_are_no_part_of_it() -> None:
    limit = controller(min_limit=2, buffer_percent=0.0)
    sample(limit, 1.0, 1350)
    now = 1.0
    for _ in range(29):
        now += 1.0
        before = limit.limit
        sample(limit, now, 1350, 1)
        limit.advance(now + 0.11)
        assert limit.limit > before
    limit.advance(32.0)
    assert (limit.measuring, limit.limit) == (True, 2)
    for _ in range(100):
        limit.ended(33.0, 30.5, 0.001, 1, False)
    assert limit.measuring
    assert limit.min_rtt_s == pytest.approx(1.35)


def test_the_buffer_keeps_the_limit_from_falling() -> None:
    limit = controller(buffer_percent=50.0)
    sample(limit, 0.5, 5)
    now = 0.5
    for _ in range(10):
        before = limit.limit
        sample(limit, now, 6)
        now += 0.101
        limit.advance(now)
        assert limit.limit > before


def test_the_limit_grows_and_falls_with_the_gradient_by_the_formula() -> None:
    limit = controller(buffer_percent=10.0, min_limit=7)
    sample(limit, 0.5, 5)
    now, known = 0.5, 7
    for latency_ms in [4] * 10 + [6] * 10 + [60] * 4:
        sample(limit, now, latency_ms)
        now += 0.101
        limit.advance(now)
        gradient = max(0.5, min(2.0, 5 * 1.1 / latency_ms))
        known = max(7, min(1000, int(known * gradient + sqrt(known * gradient))))
        assert limit.limit == pytest.approx(known, abs=1)
        known = limit.limit


def test_after_a_measurement_the_limit_is_what_it_was() -> None:
    limit = controller()
    sample(limit, 0.5, 5)
    now = 1.5
    for _ in range(5):
        before = limit.limit
        sample(limit, now, 4)
        now += 0.101
        limit.advance(now)
        assert limit.limit > before
    before = limit.limit
    limit.advance(now + 31.0)
    assert (limit.limit, limit.measuring) == (3, True)
    limit.advance(now + 31.101)
    assert limit.limit == 3
    sample(limit, now + 32.0, 13)
    assert limit.limit == before
    assert limit.min_rtt_s == pytest.approx(0.013)


def test_without_samples_the_limit_stays() -> None:
    limit = controller()
    sample(limit, 0.5, 5)
    sample(limit, 0.55, 4)
    limit.advance(0.7)
    before = limit.limit
    for step in range(5):
        limit.advance(0.8 + step * 0.101)
        assert limit.limit == before


def test_five_times_the_least_in_a_row_measure_anew() -> None:
    limit = controller(min_limit=7, min_rtt_interval_s=3600.0, buffer_percent=0.0)
    sample(limit, 0.5, 5)
    now = 0.5
    for _ in range(5):
        sample(limit, now, 10)
        now += 0.101
        limit.advance(now)
    assert limit.measuring
    sample(limit, now, 10)
    assert limit.min_rtt_s == pytest.approx(0.01)
    for _ in range(10):
        before = limit.limit
        sample(limit, now, 10)
        now += 0.101
        limit.advance(now)
        assert limit.limit >= before
    assert limit.limit > 7


def test_the_jitter_draws_the_interval_out_by_no_more_than_its_percentage() -> None:
    for seed in range(20):
        limit = GradientLimit(
            GradientSettings(min_rtt_interval_s=100.0, jitter_percent=10.0, min_rtt_calls=5), 0.0, Random(seed)
        )
        sample(limit, 1.0, 5)
        limit.advance(100.9)
        assert not limit.measuring
        limit.advance(111.1)
        assert limit.measuring


def test_a_clock_that_goes_back_stops_neither_updates_nor_measurements() -> None:
    limit = controller()
    limit.advance(10_000.0)
    sample(limit, 10_000.0, 5)
    sample(limit, 5.0, 5)
    limit.advance(5.2)
    assert limit.limit > 3
    limit.advance(36.0)
    assert limit.measuring
    sample(limit, 1.0, 5)
    assert not limit.measuring


def test_of_very_many_samples_a_part_stands_for_all() -> None:
    limit = controller(min_rtt_calls=20_000)
    rng = Random(2)
    for _ in range(20_000):
        limit.ended(1.0, 1.0, rng.random(), 1, False)
    assert limit.min_rtt_s == pytest.approx(0.5, abs=0.03)
    assert ceil(limit.min_rtt_s) == 1
