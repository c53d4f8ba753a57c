"""One call as a state machine: events in, actions out, and no I/O, in the manner of h11.

A driver (there is a sync one and an async one) creates a `Call`, sends it events, and carries out the actions that each
event returns, in order. Every event brings `now`, a time on the monotonic clock; the machine never asks for the time
itself, draws all randomness from the generator it was given, and never sleeps. So the same code runs in production and
in virtual time. Events of an attempt that is over, late or repeated, change nothing.

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
    WAITING     timer, woken        for first endpoints, for a gate of the cluster, or for a back-off to end
    RUNNING     headers, error, timer    at least one attempt is open
    DELIVERED   body_end, error, cancelled
    DONE        -

Several attempts may be open at once (hedges). The first good answer is delivered and the others are cancelled; a
failure counts against the call only when no other attempt is open.

Order of things: the backend is drawn once; its breaker and its gates are asked once; then attempts are made within that
cluster, over one budget. It is drawn again only if its breaker is open or no endpoint is left that was not tried.
"""

from __future__ import annotations

from typing import Any

from meshlib.errors import AttemptTimeout, MeshError
from meshlib.policy.actions import Action, Cancel
from meshlib.policy.classify import FAILURE_STATUSES, OVERLOAD_STATUSES, ResponseHeaders, is_to_blame
from meshlib.policy.holdings import DELIVERED, DONE, NEW, RUNNING, WAITING, CallState
from meshlib.policy.injection import FAULT, Injections
from meshlib.policy.placement import is_granted
from meshlib.policy.record import Record
from meshlib.policy.retry import Failure
from meshlib.policy.timeouts import ANSWER_SLACK_S, CLOCK_SLACK_S

__all__ = ["Call", "CallState"]


class Call(Injections):
    """One call. See the top of this module; not safe for use by several threads at once.

    Attributes:
        facts: what it has in common with others of its kind.
        path, query, inherited, replayable, why: what is its own.
        state: where it is.
        attempts: all so far, by number.
        journal: what it notes of itself: the parts of the record that cost nothing to read.
        wait_on: what it waits for besides `next_wakeup`, if anything.
        deadline: when it must be over, on the monotonic clock; set by `begin`.
    """

    __slots__ = ()

    @property
    def next_wakeup(self) -> float | None:
        """When `timer` wants to be called, on the monotonic clock; None if nothing is to come by itself."""
        if self.state is RUNNING:
            # Attempts end no later than the call does; with one only, its deadline is the answer.
            hedging = self._hedging
            if hedging is None and len(self.attempts) == 1:
                return self.attempts[0].deadline
            times = [attempt.deadline for attempt in self.attempts if attempt.open]
            if hedging is not None:
                times.append(self._hedge_at)
        elif self.state is WAITING:
            times = [self._wake_at, self.deadline]
        else:
            return None
        return min([time for time in times if time is not None], default=None)

    def record(self, now: float) -> Record:
        """What happened so far."""
        return self.journal.record(self.facts, self.path, self.attempts, self.why, now, self.traits)

    # Events

    def begin(self, now: float) -> list[Action]:
        """Start the call."""
        if self.state is not NEW:
            return []
        self.journal.began = now
        if self._begin_timeouts(now):
            return self._cut(now)
        if self.facts.intercepted:
            actions = self._inject(now)
            return self._go(now) if actions is None else actions
        self._look()
        return self._enter(now)

    def started(self, now: float, n: int) -> list[Action]:
        """Attempt `n` has a connection."""
        attempt = self.attempts[n - 1]
        if attempt.open and attempt.headers_at is None:
            attempt.phase = "write"
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
        answer: ResponseHeaders = (),
        reset_s: float | None = None,
    ) -> list[Action]:
        """The headers of attempt `n`'s response are there.

        Args:
            now: on the monotonic clock.
            n: the attempt.
            status: of the response.
            retry_after_s: what its ``Retry-After`` asks for.
            overloaded: whether it bears ``x-envoy-overloaded``.
            response: the adapter's own, for a tenacity ``retry`` object.
            answer: the headers themselves, for a policy that looks at them.
            reset_s: what one of the policy's reset headers asks for.
        """
        attempt = self.attempts[n - 1]
        if not attempt.open or attempt.headers_at is not None or self.state is not RUNNING:
            return []
        if status not in OVERLOAD_STATUSES:
            retry_after_s = None
        attempt.status = status
        attempt.sent = True
        failed = status in FAILURE_STATUSES
        late = False
        if failed:
            late = self._is_late(attempt, status, answer)
            if late and self._passed(now, ANSWER_SLACK_S):
                return self._cut(now)  # the service has cut it a moment before this process would have
            attempt.headers_at = now
            if late and not self._blames(attempt, now):
                attempt.given_up(now)
            else:
                attempt.failed(now, self._rng, retry_after_s or 0.0)
        else:
            attempt.headers_at = now
            attempt.answered(now, retry_after_s, self._rng)
            if self._hedging is not None:
                self._took(now, self._hedging, attempt)
            if self._probe is not None:
                self._probe_answered(now)
        policy = self.facts.policy.retry
        # Most responses are good ones, so the common case is decided without making a `Failure`.
        if status >= 400 or policy.looks_closely:
            failure = Failure(status, None, True, retry_after_s, overloaded, response, answer, reset_s)
            if failed:
                self._note_refusal(attempt, failure, now, late=late)
            if self._wants_retry(now, failure):
                return self._retry(attempt, now, failure)
            if failed:
                self.journal.no_retry = "the policy does not name this failure"
        if self.facts.complete_body and not failed:
            # The per-try timeout ends with the headers; the body has what is left of the call's.
            attempt.phase = "body"
            attempt.deadline, attempt.limit = self.deadline, self._limit
            return []
        return self._deliver(attempt, now, good=not failed)

    def body_end(self, now: float, n: int) -> list[Action]:
        """Attempt `n`'s body was read to its end, or the caller closed it."""
        attempt = self.attempts[n - 1]
        if not attempt.open or attempt.headers_at is None:
            return []
        actions = self._deliver(attempt, now, good=True) if self.state is RUNNING else []
        attempt.close(now)
        self._finish(now)
        return actions

    def error(self, now: float, n: int, error: MeshError, phase: str) -> list[Action]:
        """Attempt `n` failed in `phase`: ``pool``, ``connect``, ``tls``, ``write``, ``headers`` or ``body``."""
        attempt = self.attempts[n - 1]
        if not attempt.open:
            return []
        attempt.phase = phase
        if self.state is DELIVERED:
            return self._broke(attempt, now, error)
        if isinstance(error, AttemptTimeout):
            if self._passed(now, CLOCK_SLACK_S):
                return self._cut(now)
            if self._hedging is not None:
                self._took(now, self._hedging, attempt)
            own = attempt.deadline is not None and now >= attempt.deadline - CLOCK_SLACK_S
            self.journal.limit = attempt.limit if own else "client"
        attempt.error = error
        if not is_to_blame(error):
            return self._not_sent(attempt, now, error)
        attempt.failed(now, self._rng)
        failure = Failure(None, error, self._sent(), began=attempt.sent, not_called=not self._called())
        if self._wants_retry(now, failure):
            return self._retry(attempt, now, failure)
        attempt.close(now)
        if any(other.open for other in self.attempts):
            return []
        if self._has_retry_due():
            return self._await_retry(now)
        self.journal.no_retry = "the policy does not name this failure"
        return self._fail(now, error, success=False)

    def cancelled(self, now: float, n: int | None = None) -> list[Action]:
        """The caller gave up attempt `n`, or (None) the whole call. Nothing it held stays held."""
        if self.state is DONE:
            return []
        if n is not None:
            attempt = self.attempts[n - 1]
            if not attempt.open:
                return []
            if self.state is DELIVERED or any(other.open for other in self.attempts if other is not attempt):
                attempt.given_up(now)
                attempt.close(now)
                self._finish(now)
                return []
        actions = self._cancel_open(now)
        if self.state is not DELIVERED:
            if self.state is NEW:
                self.journal.began = now
            self.journal.outcome = "cancelled"
            self._end(now, None)
        self._leave_cluster(now)
        self.state = DONE
        return actions

    def settled(self, now: float, *, status: int | None = None, error: MeshError | None = None) -> None:
        """The call was made in another way (``observe``) and is over; what it still would have done, it does not.

        Args:
            now: on the monotonic clock.
            status: of the response that the caller got.
            error: why there was none.
        """
        if self.state in (DELIVERED, DONE):
            self.cancelled(now)
            return
        self._cancel_open(now)
        self.journal.status, self.journal.error = status, error
        self.journal.outcome = "success" if error is None else "failure"
        self._end(now, error is None and status not in FAILURE_STATUSES)
        self._leave_cluster(now)
        self.state = DONE

    def timer(self, now: float) -> list[Action]:
        """Time has passed. Does nothing before `next_wakeup`."""
        if self.state is WAITING:
            if self._passed(now):
                return self._cut(now)
            if self._wake_at is None or now < self._wake_at:
                return []
            token, reason = self.wait_on, self.journal.waiting_for
            if token is not None and reason != "endpoints":
                self.wait_on = None  # the gate decides what becomes of it
                self._stop_waiting(now)
                return self._go_on(now, self._decided(now, token, late=True))
            self._stop_waiting(now)
            if reason == FAULT:
                return self._fault_is_over(now)
            if reason == "endpoints":
                self._look()
                return self._enter(now)
            return self._again(now)
        if self.state is not RUNNING:
            return []
        if self._passed(now):
            return self._cut(now)
        actions: list[Action] = []
        for attempt in [attempt for attempt in self.attempts if attempt.open]:
            if attempt.deadline is not None and now >= attempt.deadline:
                if self._goes_on(attempt):
                    self._overdue(attempt, now)
                    continue
                if self._passed(now, CLOCK_SLACK_S):  # the call's own time is as good as up
                    return [*actions, *self._cut(now)]
                actions.append(Cancel(attempt.n))
                actions += self.error(now, attempt.n, attempt.timed_out(self.facts.service), attempt.stage())
        if self._hedging is not None and self.state is RUNNING:
            actions += self._hedge(now)
        return actions

    def woken(self, now: float) -> list[Action]:
        """What `wait_on` stands for is ready."""
        token, reason = self.wait_on, self.journal.waiting_for
        if self.state is not WAITING or token is None or not is_granted(token):
            return []
        if self._passed(now):
            return self._cut(now)
        if reason == "endpoints":
            self._stop_waiting(now)
            self._look()
            return self._enter(now)
        self.wait_on = None  # what it waited for is the call's own now, so it does not leave the line
        self._stop_waiting(now)
        return self._go_on(now, self._decided(now, token))
