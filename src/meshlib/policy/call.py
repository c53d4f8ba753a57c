"""One call as a state machine: events in, actions out, and no I/O, in the manner of h11.

Theory of operation
-------------------
A driver (there is a sync one and an async one) creates a `Call`, sends it events, and carries out the actions that each event
returns, in order. Every event brings `now`, a time on the monotonic clock; the machine never asks for the time itself, draws
all randomness from the generator it was given, and never sleeps. So the same code runs in production and in virtual time.

    event                                       meaning
    begin(now)                                  the first event, once
    started(now, n)                             attempt n has a connection
    bytes_written(now, n)                       a byte of attempt n's request may have left this process
    headers(now, n, status, ...)                the headers of its response are there
    body_end(now, n)                            its body was read to the end, or closed by the caller
    error(now, n, error, phase)                 it failed
    cancelled(now, n)                           the caller gave it up; without n: gave up the whole call
    timer(now)                                  `next_wakeup` has come
    woken(now)                                  what `wait_on` stands for is ready

    action      then
    Start(n)    run the attempt; report its events
    Cancel(n)   give it up: close its response or connection; report nothing more of it
    Deliver(n)  hand its response to the caller; report how its body ends
    Reply       answer the caller with a response made here; the call is over
    Fail        raise the error at the caller; the call is over

Where there is nothing to run, the driver waits for `next_wakeup`, and for `wait_on` where that is set.

    state       leaves by
    NEW         begin
    WAITING     timer, woken        for first endpoints, for a place under the limit, or for a back-off to end
    RUNNING     headers, error, timer    at least one attempt is open
    DELIVERED   body_end, error, cancelled
    DONE        -

Several attempts may be open at once (hedges). The first good answer is delivered and the others are cancelled; a failure counts
against the call only when no other attempt is open.

Order of things, as in the design: the backend is drawn once; its breaker and its limit are asked once; then attempts are made
within that cluster, over one budget. It is drawn again only if its breaker is open or no endpoint is left that was not tried.
"""

from __future__ import annotations

import enum
from random import Random
from typing import Any

from meshlib.balance.balancer import Member
from meshlib.errors import AttemptTimeout, DeadlineExceeded, MeshError, WireError
from meshlib.policy.actions import Action, Cancel, Deliver, Fail, Start
from meshlib.policy.attempt import Attempt
from meshlib.policy.classify import is_failure
from meshlib.policy.facts import CallFacts, Ready
from meshlib.policy.journal import Journal
from meshlib.policy.placement import AWAIT_ENDPOINTS, Placement, is_granted
from meshlib.policy.record import Record
from meshlib.policy.retry import AttemptState, Failure, decide, is_retryable

__all__ = ["Call", "CallState"]


class CallState(enum.Enum):
    """Where a call is."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    DELIVERED = "delivered"
    DONE = "done"


class Call:
    """One call. See the top of this module; not safe for use by several threads at once.

    Attributes:
        facts: what it is.
        state: where it is.
        attempts: all so far, by number.
        wait_on: what it waits for besides `next_wakeup`, if anything.
        deadline: when it must be over, on the monotonic clock; set by `begin`.
    """

    __slots__ = (
        "_deadline_name",
        "_journal",
        "_placement",
        "_rng",
        "_tried",
        "_wake_at",
        "attempts",
        "deadline",
        "facts",
        "state",
        "wait_on",
    )

    def __init__(self, facts: CallFacts, rng: Random) -> None:
        self.facts = facts
        self.state = CallState.NEW
        self.attempts: list[Attempt] = []
        self.wait_on: Ready | None = None
        self.deadline: float | None = None
        self._rng = rng
        self._placement = Placement(facts, rng)
        self._deadline_name = facts.timeout_name
        self._tried: list[Member] = []
        self._journal = Journal()
        self._wake_at: float | None = None

    @property
    def next_wakeup(self) -> float | None:
        """When `timer` wants to be called, on the monotonic clock; None if nothing is to come by itself."""
        if self.state is CallState.WAITING:
            times = [self._wake_at, self.deadline]
        elif self.state is CallState.RUNNING:
            times = [self.deadline, *(attempt.deadline for attempt in self.attempts if attempt.open)]
        else:
            return None
        return min((time for time in times if time is not None), default=None)

    @property
    def journal(self) -> Journal:
        """What it notes of itself: the parts of the record that cost nothing to read."""
        return self._journal

    def record(self, now: float) -> Record:
        """What happened so far."""
        return self._journal.record(self.facts, self.attempts, now)

    # Events

    def begin(self, now: float) -> list[Action]:
        """Start the call."""
        timeout_s, inherited = self.facts.policy.timeout_s, self.facts.deadline
        self._journal.began = now
        deadline = None if timeout_s is None else now + timeout_s
        if inherited is not None and (deadline is None or inherited < deadline):
            deadline = inherited
            self._deadline_name = "deadline"
        self.deadline = deadline
        if deadline is not None and deadline <= now:
            return self._cut(now)
        self._placement.look()
        return self._enter(now)

    def started(self, now: float, n: int) -> list[Action]:
        """Attempt `n` has a connection."""
        self.attempts[n - 1].phase = "write"
        return []

    def bytes_written(self, now: float, n: int) -> list[Action]:
        """A byte of attempt `n`'s request may have left this process."""
        self.attempts[n - 1].sent = True
        return []

    def headers(
        self,
        now: float,
        n: int,
        status: int,
        *,
        retry_after_s: float | None = None,
        overloaded: bool = False,
        response: Any = None,
    ) -> list[Action]:
        """The headers of attempt `n`'s response are there.

        Args:
            now: on the monotonic clock.
            n: the attempt.
            status: of the response.
            retry_after_s: what its ``Retry-After`` asks for.
            overloaded: whether it bears ``x-envoy-overloaded``.
            response: the adapter's own, for a tenacity ``retry`` object.
        """
        attempt = self.attempts[n - 1]
        if not attempt.open or self.state is not CallState.RUNNING:
            return []
        attempt.status = status
        attempt.headers_at = now
        attempt.sent = True
        complete = self.facts.complete_body
        if failed := is_failure(status):
            attempt.failed(now, retry_after_s or 0.0)
        else:
            attempt.succeeded(now, retry_after_s, whole=not complete)
        failure = Failure(status, None, True, retry_after_s, overloaded, response)
        if self._wants_retry(failure):
            return self._retry(attempt, now, failure)
        if complete and not failed:
            attempt.phase = "body"
            return []
        return self._deliver(attempt, now)

    def body_end(self, now: float, n: int) -> list[Action]:
        """Attempt `n`'s body was read to its end, or the caller closed it."""
        attempt = self.attempts[n - 1]
        actions: list[Action] = []
        if not attempt.open:
            return actions
        if self.state is CallState.RUNNING:
            attempt.completed(now)
            actions = self._deliver(attempt, now)
        attempt.close(now)
        self._finish()
        return actions

    def error(self, now: float, n: int, error: MeshError, phase: str) -> list[Action]:
        """Attempt `n` failed in `phase`: ``pool``, ``connect``, ``tls``, ``write``, ``headers`` or ``body``."""
        attempt = self.attempts[n - 1]
        if not attempt.open:
            return []
        attempt.phase = phase
        attempt.error = error
        to_blame = isinstance(error, WireError)
        if self.state is CallState.DELIVERED:
            # The caller has the response and sees its body break; there is nothing left to decide.
            if to_blame and attempt.outcome == "success":
                attempt.failed(now)
            attempt.close(now)
            self._journal.outcome = "failure"
            self._journal.error = error
            self._finish()
            return []
        if isinstance(error, AttemptTimeout):
            if self.deadline is not None and now >= self.deadline:
                return self._cut(now)
            self._journal.limit = (
                attempt.limit if attempt.deadline is not None and now >= attempt.deadline else "client"
            )
        if not to_blame:  # the request itself could not be sent
            attempt.outcome = "cancelled"
            attempt.close(now)
            return [*self._cancel_open(now), *self._fail(now, error, success=None)]
        attempt.failed(now)
        failure = Failure(None, error, attempt.sent)
        if self._wants_retry(failure):
            return self._retry(attempt, now, failure)
        attempt.close(now)
        return self._fail_unless_open(now, error)

    def cancelled(self, now: float, n: int | None = None) -> list[Action]:
        """The caller gave up reading attempt `n`'s body, or (None) the whole call. Nothing it held stays held."""
        if self.state is CallState.DONE:
            return []
        if n is not None and self.state is CallState.DELIVERED:
            self.attempts[n - 1].close(now)
            self._finish()
            return []
        actions = self._cancel_open(now)
        if self.state is not CallState.DELIVERED:
            self._journal.outcome = "cancelled"
            self._end(now, None)
        self._placement.leave()
        self.state = CallState.DONE
        return actions

    def timer(self, now: float) -> list[Action]:
        """Time has passed. Does nothing before `next_wakeup`."""
        if self.state not in (CallState.WAITING, CallState.RUNNING):
            return []
        if self.deadline is not None and now >= self.deadline:
            return self._cut(now)
        if self.state is CallState.WAITING:
            if self._wake_at is None or now < self._wake_at:
                return []
            reason = self._journal.waiting_for
            self._stop_waiting(now)
            if reason == "endpoints":
                return self._fail(now, self._placement.no_way(), success=None)
            return self._again(now)
        actions: list[Action] = []
        for attempt in [attempt for attempt in self.attempts if attempt.open]:
            if attempt.open and attempt.deadline is not None and now >= attempt.deadline:
                text = f"no answer within {attempt.deadline - attempt.started_at:.3g}s ({attempt.limit} timeout)"
                phase = attempt.phase or "headers"
                address = attempt.member.endpoint.address
                error = AttemptTimeout(text, endpoint=address, service=self.facts.service, phase=phase)
                actions.append(Cancel(attempt.n))
                actions += self.error(now, attempt.n, error, phase)
        return actions

    def woken(self, now: float) -> list[Action]:
        """What `wait_on` stands for is ready."""
        token, reason = self.wait_on, self._journal.waiting_for
        if self.state is not CallState.WAITING or token is None or not is_granted(token):
            return []
        self.wait_on = None
        self._stop_waiting(now)
        if reason == "limit":
            self._placement.granted()
            return self._start(now)
        self._placement.look()
        return self._enter(now)

    # Where to

    def _enter(self, now: float) -> list[Action]:
        """Enter a cluster, and start an attempt there."""
        answer = self._placement.enter(now)
        if answer is None:
            return self._start(now)
        if isinstance(answer, MeshError):
            return self._fail(now, answer, success=None)
        if answer is not AWAIT_ENDPOINTS:
            assert not isinstance(answer, str)
            return self._wait(now, "limit", answer)
        give_up_at = self._journal.began + self.facts.policy.endpoint_wait_s
        if give_up_at <= now or self.facts.endpoints_ready is None:
            return self._fail(now, self._placement.no_way(), success=None)
        return self._wait(now, "endpoints", self.facts.endpoints_ready(), give_up_at)

    def _start(self, now: float) -> list[Action]:
        """Start an attempt in the cluster that was entered."""
        picked, cluster = self._placement.pick(now, self._tried), self._placement.cluster
        if picked is None or cluster is None:
            return self._fail(now, self._placement.no_way(), success=None)
        member, probe = picked
        deadline, limit = self.deadline, self._deadline_name
        per_try_s = self.facts.policy.per_try_timeout_s
        if per_try_s is not None and (deadline is None or now + per_try_s < deadline):
            deadline, limit = now + per_try_s, "per-try"
        n = len(self.attempts) + 1
        self.attempts.append(
            Attempt(
                n,
                cluster,
                member,
                now,
                self._rng,
                deadline=deadline,
                limit=limit,
                probe=probe,
                blind=self.facts.observe,
            )
        )
        self._tried.append(member)
        self.state = CallState.RUNNING
        headers = [(b"x-envoy-attempt-count", b"%d" % n)]
        timeout_s = None
        if deadline is not None:
            timeout_s = deadline - now
            left_ms = b"%d" % max(1, int(timeout_s * 1000))
            headers.append((b"x-meshlib-deadline-ms", left_ms))
            headers.append((b"x-envoy-expected-rq-timeout-ms", left_ms))
        body_deadline = deadline if self.facts.complete_body else self.facts.deadline
        return [Start(n, member, cluster.name, timeout_s, deadline, body_deadline, headers)]

    def _again(self, now: float) -> list[Action]:
        """The next attempt: at an endpoint not yet tried, in this cluster or else in another."""
        placement = self._placement
        redraw = len(self.facts.route.backends) > 1 and not placement.has_other(now, self._tried)
        if redraw and placement.could_redraw(now):
            self.facts.say("no endpoint is left to try in this cluster, so the backend is drawn again")
            placement.judge(now, False)
            placement.leave()
            return self._enter(now)
        return self._start(now)

    # Retries

    def _wants_retry(self, failure: Failure) -> bool:
        """Whether the policy calls this a failure to retry."""
        policy = self.facts.policy.retry
        if policy.retry is None:
            return is_retryable(policy, failure)
        elapsed_s = self.attempts[-1].started_at - self._journal.began
        return bool(policy.retry(AttemptState(len(self.attempts), failure, elapsed_s, self._journal.idle_s())))

    def _retry(self, attempt: Attempt, now: float, failure: Failure) -> list[Action]:
        """Make another attempt, now or later; or make the best of this one."""
        facts, policy = self.facts, self.facts.policy.retry
        facts.budget.failed()
        if any(other.open for other in self.attempts if other is not attempt):
            return self._drop(attempt, now)
        retries = len(self.attempts) - 1
        asked, more = failure.retry_after_s is not None, retries < policy.max_retries
        verdict = decide(
            policy,
            failure,
            retries=retries,
            safe=facts.safe,
            replayable=facts.replayable,
            budget_open=facts.budget.open,
            elsewhere=asked and more and self._placement.has_other(now, self._tried),
            elapsed_s=now - self._journal.began,
            idle_s=self._journal.idle_s(),
            left_s=None if self.deadline is None else self.deadline - now,
            rng=self._rng,
        )
        if verdict.retry:
            actions = self._drop(attempt, now)
            if verdict.delay_s <= 0:
                return [*actions, *self._again(now)]
            return [*actions, *self._wait(now, verdict.reason, None, now + verdict.delay_s)]
        self._journal.no_retry = verdict.reason
        if failure.error is None:
            return self._deliver(attempt, now)
        attempt.close(now)
        return self._fail(now, failure.error, success=False)

    def _drop(self, attempt: Attempt, now: float) -> list[Action]:
        """Put a failed attempt away; its response, if it has one, is of no use."""
        attempt.close(now)
        return [] if attempt.headers_at is None else [Cancel(attempt.n)]

    # How the call ends

    def _deliver(self, attempt: Attempt, now: float) -> list[Action]:
        success = attempt.status is None or not is_failure(attempt.status)
        if success:
            self.facts.budget.succeeded()
        self._journal.status = attempt.status
        self._journal.outcome = "success"
        self._end(now, success)
        actions = [*self._cancel_open(now, keep=attempt), Deliver(attempt.n)]
        self.state = CallState.DELIVERED
        return actions

    def _fail_unless_open(self, now: float, error: MeshError) -> list[Action]:
        """Fail, unless another attempt may still save the call."""
        if any(attempt.open for attempt in self.attempts):
            return []
        return self._fail(now, error, success=False)

    def _fail(self, now: float, error: MeshError, *, success: bool | None) -> list[Action]:
        self._journal.error = error
        self._journal.outcome = "failure"
        self._end(now, success)
        self._placement.leave()
        self.state = CallState.DONE
        return [Fail(error)]

    def _cut(self, now: float) -> list[Action]:
        """The deadline has come."""
        limit = self._journal.limit = self._deadline_name
        allowed_s = (now if self.deadline is None else self.deadline) - self._journal.began
        own = limit == "timeout"
        open_attempts = [attempt for attempt in self.attempts if attempt.open]
        phase = (open_attempts[0].phase or "headers") if open_attempts else self._journal.waiting_for
        for attempt in open_attempts:
            # An endpoint that kept a call for most of the service's own timeout is to blame. One that got only
            # what was left of it, or of a deadline that the caller brought along, is not.
            if own and attempt.outcome == "pending" and now - attempt.started_at >= allowed_s / 2:
                attempt.failed(now)
        actions = self._cancel_open(now)
        if allowed_s <= 0:
            text = "the deadline had passed before the call began"
        else:
            tried = ", ".join(attempt.member.endpoint.address for attempt in self.attempts)
            text = f"no response within {allowed_s:.3g}s ({limit}); tried {tried or 'nothing'}"
        error = DeadlineExceeded(text, limit=limit, phase=phase, service=self.facts.service)
        return [*actions, *self._fail(now, error, success=False if own else None)]

    def _end(self, now: float, success: bool | None) -> None:
        """The outcome is known; None is neither good nor bad."""
        self._journal.ended = now
        self._stop_waiting(now)
        self._placement.judge(now, success)

    def _finish(self) -> None:
        """After a delivered body ended: the call is over."""
        if self.state is CallState.DELIVERED and not any(attempt.open for attempt in self.attempts):
            self._placement.leave()
            self.state = CallState.DONE

    def _cancel_open(self, now: float, keep: Attempt | None = None) -> list[Action]:
        """Give up all open attempts but one."""
        actions: list[Action] = []
        for attempt in self.attempts:
            if attempt.open and attempt is not keep:
                attempt.given_up(now)
                attempt.close(now)
                actions.append(Cancel(attempt.n))
        return actions

    # Waiting

    def _wait(self, now: float, reason: str, token: Ready | None, until: float | None = None) -> list[Action]:
        self.state = CallState.WAITING
        self.wait_on = token
        self._wake_at = until
        self._journal.wait_began(now, reason)
        return []

    def _stop_waiting(self, now: float) -> None:
        if self.wait_on is not None:
            self.wait_on.leave()
            self.wait_on = None
        self._journal.wait_ended(now)
        self._wake_at = None
