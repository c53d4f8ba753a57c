"""The resolver against a model that is written another way, under random events in virtual time."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from meshlib.balance.endpoint import Endpoint
from meshlib.discovery.resolver import ResolutionState, Resolver, Retry
from meshlib.discovery.source import UNKNOWN, Answer
from tests.discovery.support import endpoint

HOLD_S = 15.0
SETS = st.lists(st.integers(1, 3), min_size=1, max_size=3, unique=True).map(
    lambda ports: tuple(endpoint(port) for port in sorted(ports))
)
ANSWERS: st.SearchStrategy[Answer] = st.one_of(SETS, st.just(()), st.just(UNKNOWN))


@dataclass
class Said:
    at: float
    answer: Answer | None  # None: it failed


class Resolving(RuleBasedStateMachine):
    """The promises, stated over the whole history of what each source said."""

    @initialize(count=st.integers(1, 3), seed=st.integers(0, 1000))
    def begin(self, count: int, seed: int) -> None:
        self.now = 0.0
        self.count = count
        self.resolver = Resolver(
            [(f"s{i}", Retry(0.1, 1.0)) for i in range(count)], rng=random.Random(seed), empty_hold_s=HOLD_S
        )
        self.running: set[int] = set()
        self.history: dict[int, list[Said]] = {i: [] for i in range(count)}
        self.used: set[Endpoint] = set()
        self.follow()

    def follow(self) -> None:
        for index in self.resolver.to_stop():
            assert index in self.running, "only what runs is stopped"
            self.running.discard(index)
            self.history[index] = []
        for index in self.resolver.to_start(self.now):
            assert index not in self.running, "nothing is started twice"
            self.resolver.started(index, self.now)
            self.running.add(index)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), answer=ANSWERS)
    def a_source_answers(self, data: st.DataObject, answer: Answer) -> None:
        index = data.draw(st.sampled_from(sorted(self.running)))
        self.history[index].append(Said(self.now, answer))
        self.resolver.answered(index, answer, self.now)
        self.follow()

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def a_source_fails(self, data: st.DataObject) -> None:
        index = data.draw(st.sampled_from(sorted(self.running)))
        self.history[index].append(Said(self.now, None))
        self.running.discard(index)
        self.resolver.failed(index, "away", self.now)
        wakeup = self.resolver.next_wakeup()
        assert wakeup is not None
        assert wakeup <= self.now + 1.0, "it is asked again within a second"
        self.follow()

    @rule(seconds=st.sampled_from([0.05, 0.5, 1.0, 5.0, 14.9, 15.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.now + seconds
        while (wakeup := self.resolver.next_wakeup()) is not None and wakeup <= end:
            assert wakeup >= self.now - 60.0
            self.now = max(self.now, wakeup)
            before = wakeup
            self.resolver.tick(self.now)
            self.follow()
            assert self.resolver.next_wakeup() != before, "a wake-up is for something"
        self.now = end
        self.resolver.tick(self.now)
        self.follow()

    @invariant()
    def what_is_used_was_said_last_by_its_source(self) -> None:
        resolution = self.resolver.resolution
        if resolution.state is not ResolutionState.OK:
            return
        said = self.history[int(resolution.source[1:])]
        assert said[-1].answer == resolution.endpoints

    @invariant()
    def a_state_has_endpoints_or_a_reason(self) -> None:
        resolution = self.resolver.resolution
        has = bool(resolution.endpoints)
        assert has == (resolution.state in (ResolutionState.OK, ResolutionState.STALE))
        if resolution.state in (ResolutionState.STALE, ResolutionState.UNWELL):
            assert resolution.error
        if resolution.state in (ResolutionState.OK, ResolutionState.EMPTY):
            assert resolution.error is None

    @invariant()
    def nobody_is_asked_past_a_source_that_did_not_say_unknown(self) -> None:
        for index in range(1, self.count):
            if index in self.running:
                for earlier in range(index):
                    assert any(said.answer is UNKNOWN for said in self.history[earlier])

    @invariant()
    def good_endpoints_go_only_after_an_undisturbed_hold(self) -> None:
        resolution = self.resolver.resolution
        if resolution.endpoints:
            self.used = set(resolution.endpoints)
            return
        if not self.used:
            return
        # Somebody said for the whole hold, without failing, that there is nothing.
        for said in self.history.values():
            since: float | None = None
            for each in said:
                if each.answer is None:
                    since = None
                elif each.answer is UNKNOWN or not each.answer:
                    since = each.at if since is None else since
                    if self.now >= since + HOLD_S:
                        break
                else:
                    since = None
            if since is not None and self.now >= since + HOLD_S:
                self.used = set()
                return
        # A source may have answered before it failed, but the hold had passed by then.
        assert any(self._held_once(said) for said in self.history.values()), "endpoints were dropped too early"
        self.used = set()

    @staticmethod
    def _held_once(said: list[Said]) -> bool:
        since: float | None = None
        for each in said:
            if since is not None and each.at >= since + HOLD_S:
                return True
            nothing = each.answer is not None and (each.answer is UNKNOWN or not each.answer)
            since = (since if since is not None else each.at) if nothing else None
        return False


TestResolving = Resolving.TestCase
TestResolving.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
