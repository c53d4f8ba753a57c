"""Client throttling: the SRE book's, Envoy's and Finagle's, each to its formula, in virtual time."""

from __future__ import annotations

import threading
from itertools import pairwise
from random import Random

import pytest

from meshlib.context import Criticality
from meshlib.policy.admission_settings import NackSettings, SuccessRateThrottleSettings, ThrottleSettings
from meshlib.policy.nack_throttle import NackThrottle
from meshlib.policy.success_rate_throttle import SuccessRateThrottle
from meshlib.policy.throttle import Throttle

CRITICAL = Criticality.CRITICAL
ALL = tuple(Criticality)


@pytest.mark.parametrize(("k", "seen"), [(2.0, 401), (1.5, 303), (1.1, 210)])
def test_an_overloaded_service_sees_k_times_what_it_can_do(k: float, seen: int) -> None:
    # "Handling Overload": of 1000 calls per second a service that can take 200 is sent k times that.
    rng = Random(7)
    throttle = Throttle(ThrottleSettings(k=k, window_s=20.0), 0.0)
    sent = accepted_in_second = 0
    for call in range(40_000):
        now = call / 1000
        if call % 1000 == 0:
            accepted_in_second = 0
        if throttle.admit(now, CRITICAL, rng):
            accepted = accepted_in_second < 200
            accepted_in_second += accepted
            throttle.ended(now, CRITICAL, accepted)
            sent += now >= 20.0
    assert sent / 20 == pytest.approx(seen, rel=0.05)


def test_a_service_that_accepts_half_at_k_2_is_left_alone() -> None:
    throttle = Throttle(ThrottleSettings(), 0.0)
    for index in range(1000):
        throttle.ended(index / 100, CRITICAL, index % 2 == 0)
    assert throttle.rejection_percent(10.0, CRITICAL) == 0.0


def test_the_formula_and_its_cap() -> None:
    throttle = Throttle(ThrottleSettings(k=2.0, max_rejection_percent=90.0), 0.0)
    for index in range(99):
        throttle.ended(1.0, CRITICAL, index < 20)
    assert throttle.rejection_percent(1.0, CRITICAL) == pytest.approx(100.0 * (99 - 2 * 20) / 100)
    for _ in range(10_000):
        throttle.ended(1.0, CRITICAL, False)
    assert throttle.rejection_percent(1.0, CRITICAL) == pytest.approx(90.0)


def test_a_few_failures_alone_throttle_nothing() -> None:
    throttle = Throttle(ThrottleSettings(min_calls=10), 0.0)
    for _ in range(9):
        throttle.ended(0.0, CRITICAL, False)
    assert throttle.rejection_percent(0.0, CRITICAL) == 0.0
    throttle.ended(0.0, CRITICAL, False)
    assert throttle.rejection_percent(0.0, CRITICAL) > 50.0


def test_what_is_older_than_the_window_is_forgotten_and_a_clock_that_goes_back_forgets_all() -> None:
    throttle = Throttle(ThrottleSettings(window_s=120.0), 0.0)
    for _ in range(100):
        throttle.ended(0.0, CRITICAL, False)
    assert throttle.rejection_percent(116.0, CRITICAL) > 0.0
    assert throttle.rejection_percent(121.0, CRITICAL) == 0.0
    for _ in range(100):
        throttle.ended(500.0, CRITICAL, False)
    assert throttle.rejection_percent(1.0, CRITICAL) == 0.0


def test_with_the_cap_it_finds_back_from_timeouts_and_without_it_stays_locked_out() -> None:
    def recovered_after(max_rejection_percent: float) -> float | None:
        rng = Random(3)
        settings = ThrottleSettings(window_s=30.0, max_rejection_percent=max_rejection_percent)
        throttle = Throttle(settings, 0.0)
        for _ in range(100_000):
            throttle.ended(0.0, CRITICAL, False)
        # The service answers well again as long as it gets ten calls per second: its caches are cold.
        good = got = 0
        for call in range(20_000):
            now = 0.1 + call / 200
            if call % 200 == 0:
                good, got = got >= 10, 0
            if throttle.admit(now, CRITICAL, rng):
                got += 1
                throttle.ended(now, CRITICAL, bool(good))
            if throttle.rejection_percent(now, CRITICAL) == 0.0:
                return now
        return None

    capped = recovered_after(90.0)
    assert capped is not None
    assert capped < 70.0
    assert recovered_after(100.0) is None


@pytest.mark.parametrize("accepted_percent", [10, 20, 30, 40])
def test_the_least_critical_calls_are_shed_first(accepted_percent: int) -> None:
    throttle = Throttle(ThrottleSettings(k=1.0, max_rejection_percent=100.0), 0.0)
    for index in range(1000):
        for criticality in ALL:
            throttle.ended(0.0, criticality, index % 100 < accepted_percent)
    shares = [throttle.rejection_percent(0.0, criticality) for criticality in ALL]
    assert sum(shares) / 4 == pytest.approx(100 - accepted_percent, abs=0.1)
    assert shares == sorted(shares, reverse=True)
    # No class is touched before the one below it is shed whole.
    assert all(above == 0.0 or below == pytest.approx(100.0) for below, above in pairwise(shares))


def test_each_class_keeps_what_the_cap_leaves_it() -> None:
    throttle = Throttle(ThrottleSettings(max_rejection_percent=90.0), 0.0)
    for _ in range(10_000):
        for criticality in ALL:
            throttle.ended(0.0, criticality, False)
    assert [throttle.rejection_percent(0.0, each) for each in ALL] == pytest.approx([90.0] * 4)


def test_prioritised_shedding_keeps_the_critical_calls() -> None:
    # Three times the capacity, half of it sheddable; the service itself takes whatever comes first.
    rng = Random(11)
    throttle = Throttle(ThrottleSettings(k=1.05, window_s=10.0, max_rejection_percent=98.0), 0.0)
    tried = {Criticality.SHEDDABLE: 0, CRITICAL: 0}
    passed = dict(tried)
    in_second = 0
    for call in range(60_000):
        now = call / 1500
        if call % 1500 == 0:
            in_second = 0
        # A third is critical: what the service can do.
        criticality = CRITICAL if call % 3 == 0 else Criticality.SHEDDABLE
        tried[criticality] += now > 15
        if throttle.admit(now, criticality, rng):
            accepted = in_second < 520
            in_second += accepted
            passed[criticality] += now > 15
            throttle.ended(now, criticality, accepted)
    assert passed[CRITICAL] / tried[CRITICAL] > 0.98
    assert passed[Criticality.SHEDDABLE] / tried[Criticality.SHEDDABLE] < 0.2


def test_counts_are_exact_under_sixteen_threads() -> None:
    throttle = Throttle(ThrottleSettings(min_calls=0), 0.0)

    def work(index: int) -> None:
        for turn in range(500):
            throttle.ended(1.0, index % 4, turn % 2 == 0)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert repr(throttle) == "<Throttle 4000 accepted of 8000>"


# Envoy's


def test_the_formula_of_envoys_admission_control() -> None:
    settings = SuccessRateThrottleSettings(success_rate_percent=95.0, aggression=2.0, max_rejection_percent=80.0)
    control = SuccessRateThrottle(settings, 0.0)
    for index in range(100):
        control.ended(1.0, index < 50)
    expected = ((100 - 50 / 0.95) / 101) ** 0.5
    assert control.rejection_percent(1.0) == pytest.approx(100 * expected)
    for _ in range(10_000):
        control.ended(1.0, False)
    assert control.rejection_percent(1.0) == pytest.approx(80.0)
    assert control.rejection_percent(32.0) == 0.0


def test_envoys_control_is_idle_at_the_success_rate_it_asks_for_and_below_its_rate() -> None:
    control = SuccessRateThrottle(SuccessRateThrottleSettings(), 0.0)
    for index in range(1000):
        control.ended(1.0, index % 20 != 0)
    assert control.rejection_percent(1.0) == 0.0
    slow = SuccessRateThrottle(SuccessRateThrottleSettings(rps_threshold=5.0), 0.0)
    for index in range(40):
        slow.ended(index / 4, False)
    assert slow.rejection_percent(10.0) == 0.0
    for index in range(100):
        slow.ended(10.0 + index / 100, False)
    assert slow.rejection_percent(11.0) == pytest.approx(80.0)


def test_envoys_control_refuses_the_share_that_it_computes() -> None:
    rng = Random(5)
    control = SuccessRateThrottle(SuccessRateThrottleSettings(), 0.0)
    for index in range(1000):
        control.ended(1.0, index % 2 == 0)
    refused = sum(not control.admit(1.0, rng) for _ in range(4000))
    assert refused / 4000 == pytest.approx((1000 - 500 / 0.95) / 1001, abs=0.03)
    assert control.rejected == refused


# Finagle's


@pytest.mark.parametrize(
    ("average", "percent"), [(0.6, 0.0), (0.5, 0.0), (0.4, 20.0), (0.3, 40.0), (0.2, 60.0), (0.125, 75.0), (0.0, 75.0)]
)
def test_the_shares_of_finagles_nack_admission_filter(average: float, percent: float) -> None:
    throttle = NackThrottle(NackSettings(rps_threshold=0.0), 0.0)
    throttle.average = average
    assert throttle.rejection_percent(0.0) == pytest.approx(percent)


def test_finagles_average_falls_with_time_and_rises_only_by_answers() -> None:
    rng = Random(1)
    throttle = NackThrottle(NackSettings(window_s=3.0), 0.0)
    now = 0.0
    while throttle.average >= 0.5:
        now += 0.01
        throttle.admit(now, rng)
        throttle.ended(now, True)
    # A half-life of the window: e ** (-t / 3) = 1 / 2, after the first five of its second were not counted.
    assert now == pytest.approx(3.0 * 0.6931 + 0.05, abs=0.03)
    before = throttle.average
    assert throttle.rejection_percent(now + 60.0) == 0.0  # nobody asks: below the rate
    assert throttle.average == before
    throttle.ended(now + 60.0, False)
    assert throttle.average == pytest.approx(1.0, abs=1e-6)


def test_finagles_filter_is_idle_below_its_rate() -> None:
    rng = Random(1)
    throttle = NackThrottle(NackSettings(window_s=3.0), 0.0)
    for call in range(40):
        assert throttle.admit(call / 2, rng)
        throttle.ended(call / 2, True)
    assert throttle.average == pytest.approx(1.0)
    assert throttle.rejected == 0
