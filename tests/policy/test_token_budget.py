"""The token budget, by the rules of gRFC A6."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.token_budget import TokenBudget

NOW = 1000.0


def test_retries_stop_when_half_the_tokens_are_gone() -> None:
    budget = TokenBudget(10, 0.1)
    taken = 0
    while budget.may_retry(NOW):
        budget.failed(NOW)
        taken += 1
    assert (taken, budget.left(NOW)) == (5, 5)


def test_successes_open_it_again_slowly() -> None:
    budget = TokenBudget(10, 0.5)
    budget.failed(NOW, 6)
    assert not budget.may_retry(NOW)
    budget.succeeded(NOW)
    budget.succeeded(NOW)
    assert budget.tokens == 5
    assert not budget.may_retry(NOW), "more than half is needed"
    budget.succeeded(NOW)
    assert budget.may_retry(NOW)


def test_a_hedge_takes_a_token_while_there_are_more_than_half() -> None:
    budget = TokenBudget(4, 0.1)
    assert [budget.hedge_began(NOW) for _ in range(4)] == [True, True, False, False]
    assert budget.tokens == 2


def test_a_retry_takes_nothing_besides_what_the_failure_took() -> None:
    budget = TokenBudget()
    assert budget.retry_began(NOW)
    budget.ended(NOW)
    assert budget.tokens == 20


@given(st.lists(st.sampled_from(["failed", "succeeded", "hedge_began"])), st.floats(1, 100), st.floats(0, 10))
def test_it_is_never_negative_and_never_above_its_size(events: list[str], tokens: float, gain: float) -> None:
    budget = TokenBudget(tokens, gain)
    for event in events:
        getattr(budget, event)(NOW)
        assert 0 <= budget.tokens <= tokens


def test_sustained_failure_stops_retries_altogether() -> None:
    budget = TokenBudget()
    allowed = 0
    for _ in range(1000):
        budget.failed(NOW)
        allowed += budget.may_retry(NOW)
    assert allowed == 9
