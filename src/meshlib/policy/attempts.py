"""Which attempts a call makes: where it goes, and what follows a failure. A part of the state machine.

The fourth layer of a call; see `meshlib.policy.timeouts`. The events that lead here are in `meshlib.policy.call`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from meshlib.balance.balancer import Member
from meshlib.errors import MeshError
from meshlib.policy.actions import Action, Cancel, Start
from meshlib.policy.attempt import Attempt
from meshlib.policy.breaker import BreakerState
from meshlib.policy.classify import NOT_CALLED, TOO_LATE, ResponseHeaders, refused_by
from meshlib.policy.facts import Ready
from meshlib.policy.holdings import RUNNING, Holdings
from meshlib.policy.placement import AWAIT_ENDPOINTS
from meshlib.policy.retry import NO_BUDGET, AttemptState, Failure, Verdict, decide, is_retryable
from meshlib.policy.timeouts import attempt_headers, stream_headers

if TYPE_CHECKING:
    from meshlib.balance.cluster import Cluster
    from meshlib.policy.hedge import Hedging
    from meshlib.policy.outlier import EjectionProbe, OutlierDetector

__all__ = ["HEDGE_HEADER", "Attempts"]

HEDGE_HEADER: Final = (b"x-meshlib-hedge", b"1")
"""What an attempt that was started beside another tells its endpoint, as Finagle's ``BackupRequest`` does: one that has
too much to do can drop it first."""


_RETRIED = Verdict(False, reason="its retry was made when its per-try timeout came")


class Attempts(Holdings):
    """The attempts of a call. `meshlib.policy.call.Call` adds the events."""

    __slots__ = ()

    # Where to

    def _enter(self, now: float) -> list[Action]:
        """Enter a cluster, and start an attempt there."""
        answer = self._enter_cluster(now)
        return self._start(now) if answer is None else self._go_on(now, answer)

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

    def _start(self, now: float, *, beside: bool = False) -> list[Action]:
        """Start an attempt in the cluster that was entered; `beside` others, which is no reason to fail."""
        facts, attempts, cluster = self.facts, self.attempts, self.cluster
        assert cluster is not None
        usual, outlier = cluster.usual, cluster.state.outlier
        lease = how = None
        if usual is None or attempts or self.traits is not None or (outlier is not None and outlier.ejected):
            member, lease, how = self._choose(now, cluster, outlier, beside)
        else:
            member = usual.pick(now, self._rng, None)
        if member is None:
            return [] if beside else self._fail(now, self._no_way(), success=None)
        deadline, limit = self._attempt_limit(now)
        n = len(attempts) + 1
        probing = self._probe is not None
        attempt = Attempt(n, cluster, member, now, deadline, limit, lease, probing, facts.observe, beside, how)
        attempts.append(attempt)
        if self._hedging is not None:
            deadline = self._arm(now, self._hedging, attempt, deadline)
        self.journal.limit = None
        self.state = RUNNING
        timeout_s = None if deadline is None else deadline - now
        if facts.complete_body:
            body_deadline, headers = self.deadline, attempt_headers(n, timeout_s)
        else:
            body_deadline = self.inherited
            headers = stream_headers(n, timeout_s, None if body_deadline is None else body_deadline - now)
        if beside:
            headers.append(HEDGE_HEADER)
        return [Start(n, member, cluster.state.name, timeout_s, deadline, body_deadline, headers)]

    def _choose(
        self, now: float, cluster: Cluster, outlier: OutlierDetector | None, beside: bool
    ) -> tuple[Member | None, EjectionProbe | None, str | None]:
        """The endpoint of an attempt, the lease if it probes that, and how it came to be picked, in words."""
        traits, tried = self.traits, self._tried()
        if traits is not None:
            traits.retries = len(tried)
            sessions = cluster.state.sessions
            bound = None if sessions is None or tried else sessions.member_at(traits.bound_to, cluster.own)
            if bound is not None:
                return bound, None, "bound"
        ejected = outlier is not None and bool(outlier.ejected)
        lease = self._lease(now, outlier, tried) if outlier is not None and ejected and not beside else None
        member = cluster.pick(now, self._rng, tried, traits) if lease is None else lease.member
        how = cluster.how(member) if member is not None and (cluster.usual is None or ejected) else None
        return member, lease, how

    def _tried(self) -> list[Member]:
        """The endpoints of all attempts so far."""
        return [attempt.member for attempt in self.attempts]

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

    # Hedges

    def may_hedge(self) -> None:
        """To be said before `begin` by a driver that can have several attempts under way, and calls `timer` on time."""
        facts = self.facts
        if facts.hedging is not None and facts.safe and self.replayable and not facts.observe:
            self._hedging = facts.hedging
            self._hedge_at: float | None = None
            self._hedges = 0
            self._retry_due = False  # whether what is due at `_hedge_at` is a retry, paid for already
            self._retried: set[int] = set()

    def _arm(self, now: float, hedging: Hedging, attempt: Attempt, deadline: float | None) -> float | None:
        """Say when a hedge is due beside the attempt that starts now; until when the wire is to go on with it."""
        settings = hedging.settings
        if attempt.n == 1:
            hedging.call_began(now)
        delay_s = hedging.delay_s(now) if self._hedges < settings.max_hedges else None
        self._hedge_at, self._retry_due = None if delay_s is None else now + delay_s, False
        return self.deadline if settings.on_per_try_timeout else deadline

    def _hedge(self, now: float) -> list[Action]:
        """Start an attempt beside those under way, if it is time, and nothing speaks against it."""
        hedging, facts = self._hedging, self.facts
        if hedging is None or self._hedge_at is None or now < self._hedge_at:
            return []
        self._hedge_at = None
        if self._retry_due:
            return self._start(now, beside=True) if self.replayable else []
        assert self.cluster is not None
        breaker = self.cluster.state.breaker
        if self._probe is not None or (breaker is not None and breaker.state is not BreakerState.CLOSED):
            return []
        if not self.replayable or any(attempt.open and attempt.headers_at is not None for attempt in self.attempts):
            return []
        # Its own budget first: what is taken there in vain is missed by hedges alone.
        if not (facts.budget.may_retry(now) and hedging.take(now) and facts.budget.hedge_began(now)):
            hedging.count_refused()
            self.say("no hedge: the budget of hedges or that of retries is used up")
            return []
        self._taken += 1
        self._hedges += 1
        if actions := self._start(now, beside=True):
            hedging.count_sent()
        else:  # It is paid for all the same; but it is none that `max_retries` does not count.
            self._hedges -= 1
            self.say("no hedge: there is no endpoint to send it to")
        return actions

    def _goes_on(self, attempt: Attempt) -> bool:
        """Whether an attempt goes on after its per-try timeout, and its retry starts beside it."""
        return self._hedging is not None and self._hedging.settings.on_per_try_timeout and attempt.limit == "per-try"

    def _overdue(self, attempt: Attempt, now: float) -> None:
        """Its per-try timeout has come: the endpoint is told, and a retry is due, if retries allow it."""
        hedging = self._hedging
        assert hedging is not None
        attempt.deadline, attempt.limit = self.deadline, self._limit
        if attempt.headers_at is not None:
            return
        self._took(now, hedging, attempt)
        error = attempt.error = attempt.timed_out(self.facts.service)
        attempt.failed(now, self._rng)
        attempt.error, attempt.outcome = None, "pending"
        self._owed += 1
        self._pay(now)
        if self._retry_due:
            return
        verdict = self._decide(now, Failure(None, error, self._sent(), not_called=not self._called()))
        if verdict.retry:
            self._retried.add(attempt.n)
            self._retry_beside(now, verdict)
        else:
            self.journal.no_retry = verdict.reason

    def _retry_beside(self, now: float, verdict: Verdict) -> None:
        self._taken, self._backoff_s = self._taken + 1, verdict.delay_s
        self._hedge_at, self._retry_due = now + verdict.delay_s, True

    def _has_retry_due(self) -> bool:
        """Whether a retry that was decided on beside others is still to start."""
        return self._hedging is not None and self._retry_due and self.replayable

    def _await_retry(self, now: float) -> list[Action]:
        """The last attempt has failed while its retry was due."""
        wake_at, self._retry_due = self._hedge_at, False
        return self._wait(now, "backoff", None, wake_at)

    def _failed_beside(self, attempt: Attempt, now: float, failure: Failure) -> list[Action] | None:
        """What follows a failure while others are under way, or a retry is due; None if it is as if it were alone.

        It is put away, since another may still succeed; but by Envoy's rule, with `on_per_try_timeout`, one that fails
        within its own time is retried beside the others.
        """
        hedging = self._hedging
        others = any(other.open for other in self.attempts if other is not attempt)
        due = self._has_retry_due()
        if not (others or due):
            return None
        if others and not due and hedging is not None and hedging.settings.on_per_try_timeout:
            verdict = self._decide(now, failure) if attempt.n not in self._retried else None
            if verdict is not None and verdict.retry:
                self._retry_beside(now, verdict)
                return [*self._drop(attempt, now), *self._hedge(now)]
        actions = self._drop(attempt, now)
        return actions if others else [*actions, *self._await_retry(now)]

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
        # What another cluster can make good is charged only if that one fails too: a canary that is broken must not
        # use up what the rest of its service may need.
        self._owed += 1
        if not self._may_redraw(now):
            self._pay(now)
        if len(self.attempts) > 1 or self._hedging is not None:
            actions = self._failed_beside(attempt, now, failure)
            if actions is not None:
                return actions
        self._give_back(now)
        done = self._hedging is not None and attempt.n in self._retried
        verdict = _RETRIED if done else self._decide(now, failure)
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

    def _sent(self) -> bool:
        """Whether any byte of the request may have left this process, in any attempt."""
        return any(attempt.sent for attempt in self.attempts)

    def _called(self) -> bool:
        """Whether the application of the service may have been called, in any attempt."""
        return any(attempt.called for attempt in self.attempts)

    def _decide(self, now: float, failure: Failure) -> Verdict:
        """Whether a failure is followed by a retry; if so, the budget has been charged for it."""
        facts, policy, retries = self.facts, self.facts.policy.retry, len(self.attempts) - 1
        if self._hedging is not None:
            retries -= self._hedges
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
        if verdict is NO_BUDGET:
            facts.budget.count_refused()
        return verdict

    @staticmethod
    def _is_late(attempt: Attempt, status: int, answer: ResponseHeaders) -> bool:
        """Whether the mesh of the service says of an attempt that failed that the call's time is too short.

        What went by the time of this attempt alone, another may have the time for, elsewhere.
        """
        reason = attempt.declined = refused_by(status, answer)
        return reason in TOO_LATE and attempt.limit != "per-try"

    def _note_refusal(self, attempt: Attempt, failure: Failure, now: float, *, late: bool) -> None:
        """Heed what the mesh of the service says of a failure: that its application was not called, or had no time."""
        if attempt.declined is not None:
            breaker = attempt.cluster.state.breaker
            if attempt.declined in NOT_CALLED and breaker is not None:
                breaker.callee_sheds(now)
            failure.not_called = not self._called()
            failure.too_late = attempt.declined if late else None

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
