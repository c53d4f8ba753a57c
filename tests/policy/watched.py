"""A budget and a gate that note all that calls do with them."""

from __future__ import annotations

from typing import Any

from meshlib.policy.budget import Budget
from meshlib.policy.concurrency_budget import ConcurrencyBudget
from meshlib.policy.placement import Placement
from meshlib.policy.rate_budget import RateBudget
from meshlib.policy.token_budget import TokenBudget
from meshlib.policy.traits import Reader


class WatchedBudget(Budget):
    """A budget, and all that it is asked and told."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget
        self.retries: list[None] = []
        self.hedges: list[None] = []
        self.ends: list[None] = []
        self.successes: list[None] = []
        self.failures: list[int] = []
        self.refusals: list[None] = []

    def may_retry(self, now: float) -> bool:
        return self.budget.may_retry(now)

    def left(self, now: float) -> float:
        return self.budget.left(now)

    def retry_began(self, now: float) -> bool:
        began = self.budget.retry_began(now)
        if began:
            self.retries.append(None)
        return began

    def hedge_began(self, now: float) -> bool:
        began = self.budget.hedge_began(now)
        if began:
            self.hedges.append(None)
        return began

    def count_refused(self) -> None:
        self.refusals.append(None)
        self.budget.count_refused()

    def ended(self, now: float) -> None:
        self.ends.append(None)
        self.budget.ended(now)

    def succeeded(self, now: float) -> None:
        self.successes.append(None)
        self.budget.succeeded(now)

    def failed(self, now: float, times: int = 1) -> None:
        self.failures.append(times)
        self.budget.failed(now, times)

    def check(self) -> None:
        """What is left is what all that came to."""
        began, budget = len(self.retries) + len(self.hedges), self.budget
        assert len(self.ends) == began > 0
        assert budget.refused == len(self.refusals)
        if isinstance(budget, TokenBudget):
            expected = 0.75 * budget.size - sum(self.failures) - len(self.hedges) + 0.5 * len(self.successes)
            assert budget.tokens == expected
        elif isinstance(budget, RateBudget):
            assert sum(budget._slices) == 1000 * len(self.successes) - budget.withdrawal * began
        else:
            assert isinstance(budget, ConcurrencyBudget)
            assert budget.under_way == 0


class Door:
    """A gate that lets all in and notes who comes and goes."""

    name = "door"
    rejected = 0
    readers: tuple[Reader, ...] = ()

    def __init__(self) -> None:
        self.asked: list[None] = []
        self.told: list[None] = []
        self.gone: list[None] = []

    def ask(self, now: float, call: Placement) -> None:
        self.asked.append(None)

    def decide(self, now: float, call: Placement, token: Any, late: bool) -> None:
        raise AssertionError("nobody waits here")

    def patience_s(self, call: Placement, token: Any) -> None:
        raise AssertionError("nobody waits here")

    def judged(self, now: float, call: Placement, success: bool | None) -> None:
        self.told.append(None)

    def left(self, now: float, call: Placement) -> None:
        self.gone.append(None)

    def note(self, now: float) -> None:
        return None

    def renew_lock(self) -> None:
        """It has none."""
