"""Which attempts a call makes: where it goes, and what follows a failure. A part of the state machine.

The fourth layer of a call; see `meshlib.policy.timeouts`. The events that lead here are in `meshlib.policy.call`.
"""

from __future__ import annotations

from meshlib.balance.balancer import Member
from meshlib.errors import MeshError
from meshlib.policy.actions import Action, Cancel, Start
from meshlib.policy.attempt import Attempt
from meshlib.policy.facts import Ready
from meshlib.policy.holdings import RUNNING, Holdings
from meshlib.policy.placement import AWAIT_ENDPOINTS
from meshlib.policy.retry import NO_BUDGET, AttemptState, Failure, decide, is_retryable
from meshlib.policy.timeouts import attempt_headers

__all__ = ["Attempts"]


class Attempts(Holdings):
    """The attempts of a call. `meshlib.policy.call.Call` adds the events."""

    __slots__ = ()

    # Where to

    def _enter(self, now: float) -> list[Action]:
        """Enter a cluster, and start an attempt there."""
        return self._go_on(now, self._enter_cluster(now))

    def _go_on(self, now: float, answer: MeshError | Ready | str | None) -> list[Action]:
        """Do what the door of the cluster says."""
        if answer is None:
            return self._start(now)
        if isinstance(answer, MeshError):
            return self._fail(now, answer, success=None)
        if answer is not AWAIT_ENDPOINTS:
            assert not isinstance(answer, str)
            gate = self._gates()[self._inside]
            patience_s = gate.patience_s(self, answer)
            return self._wait(now, gate.name, answer, None if patience_s is None else now + patience_s)
        give_up_at = (self.journal.began or 0.0) + self.facts.policy.endpoint_wait_s
        if give_up_at <= now or self.facts.endpoints_ready is None:
            return self._fail(now, self._no_way(), success=None)
        return self._wait(now, "endpoints", self.facts.endpoints_ready(), give_up_at)

    def _start(self, now: float) -> list[Action]:
        """Start an attempt in the cluster that was entered."""
        facts, attempts = self.facts, self.attempts
        cluster, tried = self.cluster, self._tried() if attempts else ()
        assert cluster is not None
        outlier = cluster.state.outlier
        lease = self._lease(now, outlier, tried) if outlier is not None and outlier.ejected else None
        traits = self.traits
        if traits is not None:
            traits.retries = len(attempts)
        member = cluster.pick(now, self._rng, tried, traits) if lease is None else lease.member
        if member is None:
            return self._fail(now, self._no_way(), success=None)
        deadline, limit = self._attempt_limit(now)
        n = len(attempts) + 1
        probing = self._probe is not None
        attempts.append(Attempt(n, cluster, member, now, deadline, limit, lease, probing, facts.observe))
        self.journal.limit = None
        self.state = RUNNING
        timeout_s = None if deadline is None else deadline - now
        body_deadline = self.deadline if facts.complete_body else self.inherited
        headers = attempt_headers(n, timeout_s)
        return [Start(n, member, cluster.state.name, timeout_s, deadline, body_deadline, headers)]

    def _tried(self) -> list[Member]:
        """The endpoints of all attempts so far."""
        return [attempt.member for attempt in self.attempts]

    def _also(self, now: float) -> list[Action]:
        """Start an attempt beside those under way, if a retry would be allowed now; it takes its place."""
        facts = self.facts
        spent = len(self.attempts) > facts.policy.retry.max_retries
        if self.state is not RUNNING or spent or self._passed(now):
            return []
        if not (facts.safe and self.replayable and self._has_other(self._tried())):
            return []
        if not facts.budget.hedge_began(now):
            return []
        self._taken += 1
        return self._start(now)

    def _may_redraw(self, now: float) -> bool:
        """Whether the next attempt would be in another cluster, because nothing is left to try in this one."""
        several = len(self.facts.route.backends) > 1
        return several and not self._has_other(self._tried()) and self._could_redraw(now)

    def _again(self, now: float) -> list[Action]:
        """The next attempt: at an endpoint not yet tried, in this cluster or else in another."""
        if self._may_redraw(now):
            self.say("no endpoint is left to try in this cluster, so the backend is drawn again")
            self._judge(now, False)
            self._leave_cluster(now)
            return self._enter(now)
        return self._start(now)

    # Retries

    def _wants_retry(self, now: float, failure: Failure) -> bool:
        """Whether the policy calls this a failure to retry."""
        policy, traits = self.facts.policy.retry, self.traits
        if traits is not None and not traits.retriable:
            return False
        if policy.retry is None:
            return is_retryable(policy, failure)
        return bool(
            policy.retry(AttemptState(len(self.attempts), failure, self._elapsed_s(now), self.journal.idle_s()))
        )

    def _retry(self, attempt: Attempt, now: float, failure: Failure) -> list[Action]:
        """Make another attempt, now or later; or make the best of this one."""
        facts, policy = self.facts, self.facts.policy.retry
        # What another cluster can make good is charged only if that one fails too: a canary that is broken must not
        # use up what the rest of its service may need.
        self._owed += 1
        if not self._may_redraw(now):
            self._pay(now)
        if any(other.open for other in self.attempts if other is not attempt):
            return self._drop(attempt, now)
        self._give_back(now)
        retries = len(self.attempts) - 1
        asked, more = failure.retry_after_s is not None, retries < policy.max_retries
        verdict = decide(
            policy,
            failure,
            retries=retries,
            safe=facts.safe,
            replayable=self.replayable,
            budget_open=facts.budget.may_retry(now),
            elsewhere=asked and more and self._has_other(self._tried()),
            elapsed_s=self._elapsed_s(now),
            idle_s=self.journal.idle_s(),
            left_s=self._left_s(now),
            before_s=self._backoff_s,
            rng=self._rng,
        )
        if verdict.retry and not facts.budget.retry_began(now):
            verdict = NO_BUDGET
        if verdict.retry:
            self._taken, self._backoff_s = 1, verdict.delay_s
            actions = self._drop(attempt, now)
            if verdict.delay_s <= 0:
                return [*actions, *self._again(now)]
            return [*actions, *self._wait(now, verdict.reason, None, now + verdict.delay_s)]
        self._pay(now)
        self.journal.no_retry = verdict.reason
        if failure.error is None:
            return self._deliver(attempt, now, good=False)
        attempt.close(now)
        return self._fail(now, failure.error, success=False)

    def _pay(self, now: float) -> None:
        """Charge the budget for the failures so far."""
        if self._owed:
            self.facts.budget.failed(now, self._owed)
            self._owed = 0

    def _drop(self, attempt: Attempt, now: float) -> list[Action]:
        """Put a failed attempt away; its response, if it has one, is of no use."""
        attempt.close(now)
        if attempt.error is not None:
            return []
        if attempt.outcome == "pending":  # a good status, which only the policy's own `retry` object called a failure
            attempt.completed()
        return [Cancel(attempt.n)]
