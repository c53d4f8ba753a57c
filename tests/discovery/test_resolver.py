"""Which source's answer is used, and for how long: in virtual time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from meshlib.discovery.resolver import Resolution, ResolutionState, Resolver, Retry
from meshlib.discovery.source import UNKNOWN
from tests.discovery.support import endpoint

ONE, TWO, THREE = (endpoint(1),), (endpoint(1), endpoint(2)), (endpoint(3),)


def resolver(*names: str, hold_s: float = 15.0, seed: Resolution | None = None) -> Resolver:
    sources = [(name, Retry(0.1, 1.0)) for name in names]
    made = Resolver(sources, rng=random.Random(1), empty_hold_s=hold_s, seed=seed)
    begin(made, 0.0)
    return made


def begin(made: Resolver, now: float) -> list[int]:
    started = made.to_start(now)
    for index in started:
        made.started(index, now)
    return started


def look(made: Resolver) -> tuple[str, Sequence[Any], str]:
    return made.resolution.state.value, made.resolution.endpoints, made.resolution.source


def test_only_the_first_source_is_asked_at_first() -> None:
    made = Resolver([("consul", Retry()), ("local", Retry())], rng=random.Random(1))
    assert made.to_start(0.0) == [0]
    assert look(made) == ("pending", (), "consul")


def test_the_first_source_that_knows_it_is_used_and_no_other_is_asked() -> None:
    made = resolver("consul", "local")
    made.answered(0, ONE, 1.0)
    assert look(made) == ("ok", ONE, "consul")
    assert begin(made, 1.0) == []
    assert made.next_wakeup() is None


def test_a_source_that_knows_it_and_has_nobody_is_an_answer_too() -> None:
    made = resolver("consul", "local")
    made.answered(0, (), 1.0)
    assert look(made) == ("empty", (), "consul")
    assert begin(made, 1.0) == []


def test_unknown_passes_to_the_next_source() -> None:
    made = resolver("consul", "local")
    made.answered(0, UNKNOWN, 1.0)
    assert look(made) == ("pending", (), "local")
    assert begin(made, 1.0) == [1]
    made.answered(1, ONE, 1.1)
    assert look(made) == ("ok", ONE, "local")


def test_unknown_to_all_is_unknown() -> None:
    made = resolver("consul", "local")
    made.answered(0, UNKNOWN, 1.0)
    begin(made, 1.0)
    made.answered(1, UNKNOWN, 1.1)
    assert look(made) == ("unknown", (), "local")


def test_without_sources_everything_is_unknown() -> None:
    made = Resolver([], rng=random.Random(1))
    made.tick(0.0)
    assert look(made) == ("unknown", (), "")
    assert made.next_wakeup() is None


def test_an_earlier_source_takes_over_when_it_comes_to_know_the_service() -> None:
    made = resolver("consul", "local", "static")
    made.answered(0, UNKNOWN, 1.0)
    begin(made, 1.0)
    made.answered(1, UNKNOWN, 1.1)
    begin(made, 1.1)
    made.answered(2, THREE, 1.2)
    made.answered(0, ONE, 2.0)
    assert look(made) == ("ok", ONE, "consul")
    assert made.to_stop() == [1, 2]
    assert made.to_stop() == []


def test_an_unwell_source_passes_nothing_on() -> None:
    made = resolver("consul", "local")
    made.failed(0, "connection refused", 1.0)
    assert look(made) == ("unwell", (), "consul")
    assert made.resolution.error == "connection refused"
    assert begin(made, 100.0) == [0]


def test_the_last_good_endpoints_are_kept_for_ever_and_their_age_is_known() -> None:
    made = resolver("consul", "local")
    made.answered(0, TWO, 1.0)
    for now in (50.0, 60.0, 1e6):
        begin(made, now)
        made.failed(0, "away", now)
        assert look(made) == ("stale", TWO, "consul")
        assert made.resolution.updated_at == 50.0


def test_after_its_return_the_source_is_believed_at_once() -> None:
    made = resolver("consul")
    made.answered(0, TWO, 1.0)
    made.failed(0, "away", 2.0)
    begin(made, 4.0)
    made.answered(0, ONE, 4.1)
    assert look(made) == ("ok", ONE, "consul")
    assert made.resolution.error is None


@pytest.mark.parametrize("nothing", [(), UNKNOWN])
def test_an_answer_that_takes_away_all_is_not_believed_at_first(nothing: Any) -> None:
    made = resolver("consul", "local")
    made.answered(0, TWO, 1.0)
    made.answered(0, nothing, 2.0)
    assert look(made) == ("stale", TWO, "consul")
    assert made.next_wakeup() == 17.0
    made.answered(0, nothing, 16.0)
    made.tick(16.9)
    assert look(made) == ("stale", TWO, "consul")
    made.tick(17.0)
    assert made.resolution.state is (ResolutionState.EMPTY if nothing == () else ResolutionState.STALE)
    assert begin(made, 17.0) == ([] if nothing == () else [1])


def test_while_the_next_source_has_not_answered_the_old_endpoints_stay_in_use() -> None:
    made = resolver("consul", "local")
    made.answered(0, TWO, 1.0)
    made.answered(0, UNKNOWN, 2.0)
    made.tick(17.0)
    begin(made, 17.0)
    assert look(made)[:2] == ("stale", TWO)
    made.answered(1, THREE, 17.1)
    assert look(made) == ("ok", THREE, "local")


def test_endpoints_that_come_back_end_the_doubt() -> None:
    made = resolver("consul")
    made.answered(0, TWO, 1.0)
    made.answered(0, (), 2.0)
    made.answered(0, ONE, 3.0)
    made.tick(60.0)
    assert look(made) == ("ok", ONE, "consul")


def test_a_source_that_falls_ill_has_confirmed_nothing() -> None:
    made = resolver("consul")
    made.answered(0, TWO, 1.0)
    made.answered(0, (), 2.0)
    made.failed(0, "away", 3.0)
    made.tick(60.0)
    assert look(made) == ("stale", TWO, "consul")
    begin(made, 60.0)
    made.answered(0, (), 60.0)
    made.tick(74.9)
    assert look(made)[0] == "stale"
    made.tick(75.0)
    assert look(made) == ("empty", (), "consul")


def test_an_empty_answer_of_an_earlier_source_does_not_take_over_at_once() -> None:
    made = resolver("consul", "local")
    made.answered(0, UNKNOWN, 1.0)
    begin(made, 1.0)
    made.answered(1, ONE, 1.1)
    made.answered(0, (), 2.0)
    assert look(made) == ("ok", ONE, "local")
    made.tick(17.0)
    assert look(made) == ("empty", (), "consul")


def test_with_no_hold_an_empty_answer_counts_at_once() -> None:
    made = resolver("consul", hold_s=0.0)
    made.answered(0, ONE, 1.0)
    made.answered(0, (), 2.0)
    assert look(made) == ("empty", (), "consul")


def test_an_unwell_source_that_did_not_know_the_service_does_not_disturb_the_one_that_does() -> None:
    made = resolver("consul", "local")
    made.answered(0, UNKNOWN, 1.0)
    begin(made, 1.0)
    made.answered(1, ONE, 1.1)
    made.failed(0, "away", 2.0)
    assert look(made) == ("ok", ONE, "local")


def test_a_service_that_nobody_knows_while_one_source_is_unwell_is_not_called_unknown() -> None:
    made = resolver("consul", "local")
    made.answered(0, UNKNOWN, 1.0)
    begin(made, 1.0)
    made.answered(1, UNKNOWN, 1.1)
    made.failed(0, "away", 2.0)
    assert look(made) == ("unwell", (), "consul")


def test_the_back_off_is_jittered_grows_and_stays_below_its_ceiling() -> None:
    retry = Retry(0.1, 1.0)
    for failures, most in ((1, 0.1), (2, 0.2), (4, 0.8), (5, 1.0), (500, 1.0)):
        drawn = [retry.delay_s(failures, random.Random(seed)) for seed in range(200)]
        assert max(drawn) <= most
        assert max(drawn) > 0.9 * most
        assert min(drawn) < 0.1 * most


def test_the_back_off_starts_over_only_after_a_watch_that_lasted() -> None:
    delays: dict[bool, list[float]] = {True: [], False: []}
    for lasted in (True, False):
        for seed in range(100):
            made = Resolver([("consul", Retry(0.1, 1.0))], rng=random.Random(seed))
            now = 0.0
            for _ in range(8):
                begin(made, now)
                made.answered(0, ONE, now)
                now += 2.0 if lasted else 0.001
                made.failed(0, "away", now)
                wakeup = made.next_wakeup()
                assert wakeup is not None
                delay_s, now = wakeup - now, wakeup
            delays[lasted].append(delay_s)
    assert max(delays[True]) <= 0.1
    assert max(delays[False]) > 0.8


def test_what_a_child_inherited_is_kept_until_its_own_source_answers() -> None:
    seed = Resolution(TWO, ResolutionState.STALE, "local", "inherited", 5.0)
    made = resolver("consul", "local", seed=seed)
    assert look(made) == ("stale", TWO, "local")
    made.failed(0, "away", 6.0)
    made.failed(1, "away", 6.0)
    assert look(made) == ("stale", TWO, "local")
    begin(made, 10.0)
    made.answered(1, ONE, 10.0)
    assert look(made) == ("ok", ONE, "local")
