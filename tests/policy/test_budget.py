"""The retry budget, by the rules of gRFC A6."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.budget import RetryBudget
from meshlib.policy.settings import BudgetSettings


def test_retries_stop_when_half_the_tokens_are_gone() -> None:
    budget = RetryBudget(BudgetSettings(tokens=10, success_gain=0.1))
    taken = 0
    while budget.open:
        budget.failed()
        taken += 1
    assert (taken, budget.tokens) == (5, 5)


def test_successes_open_it_again_slowly() -> None:
    budget = RetryBudget(BudgetSettings(tokens=10, success_gain=0.5))
    for _ in range(6):
        budget.failed()
    assert not budget.open
    budget.succeeded()
    budget.succeeded()
    assert budget.tokens == 5
    assert not budget.open, "more than half is needed"
    budget.succeeded()
    assert budget.open


@given(st.lists(st.sampled_from(["failed", "succeeded", "hedged"])), st.floats(1, 100), st.floats(0, 10))
def test_it_is_never_negative_and_never_above_its_size(events: list[str], tokens: float, gain: float) -> None:
    budget = RetryBudget(BudgetSettings(tokens=tokens, success_gain=gain))
    for event in events:
        getattr(budget, event)()
        assert 0 <= budget.tokens <= tokens


def test_sustained_failure_stops_retries_altogether() -> None:
    budget = RetryBudget(BudgetSettings())
    allowed = 0
    for _ in range(1000):
        budget.failed()
        allowed += budget.open
    assert allowed == 9
