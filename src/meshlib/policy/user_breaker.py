"""A circuit breaker of the user's own (pybreaker's) at the door of a cluster, in place of the mesh's or beside it.

pybreaker runs the protected call inside of ``CircuitBreaker.call``, under its lock: calls would go one by one, and a
coroutine would look like a success. So its breaker is asked first and told afterwards. Asked: by ``current_state`` and
``opened_at`` whether it lets calls in. Told: the outcome is replayed, ``call`` of a function that returns or raises the
error that the caller gets, so that ``fail_max``, ``reset_timeout``, ``success_threshold``, ``exclude``, listeners and
storages do what they say. For a response with a failing status the error is an `ErrorStatus`. A call that was
cancelled, or failed on this side, is not replayed.

When the time of an open breaker is up, one call at a time is let through to see; pybreaker itself would let in all that
come before the first has ended. An error that a listener raises ends with it.

A breaker whose storage takes time (Redis) is asked and told on a thread of its own, given as `worker`. What it said is
believed for `REFRESH_S`; then a call waits for an answer, `max_wait_s` at most, and goes on without.

pybreaker tells time by the system's clock and cannot be told otherwise, so this does too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from meshlib.dataclass import dataclass
from meshlib.errors import CircuitOpen, MeshError
from meshlib.policy.breaker import LEASE_S
from meshlib.policy.gate import PlainGate

if TYPE_CHECKING:
    from meshlib.policy.facts import Ready
    from meshlib.policy.placement import Placement
    from meshlib.policy.settings import UserBreaker

__all__ = ["REFRESH_S", "Errand", "ErrorStatus", "UserBreakerGate", "Worker"]

REFRESH_S = 0.1


class ErrorStatus(MeshError):
    """What a breaker of pybreaker's is shown for a call that ended in a response with a failing `status`."""

    def __init__(self, message: str = "", *, status: int = 0, **state: Any) -> None:
        super().__init__(message, **state)
        self.status = status


class Errand(Protocol):
    """Something that is done elsewhere, to be waited for as a call waits; `result` is there once it is ready."""

    @property
    def result(self) -> Any: ...

    def on_ready(self, callback: Callable[[], None]) -> None: ...

    def leave(self) -> None: ...


class Worker(Protocol):
    """What does things that take time. `max_wait_s`: how long a call waits for them."""

    max_wait_s: float

    def submit(self, job: Callable[[], Any]) -> Errand | None:
        """Have it done soon; None if that cannot be expected. A job that fails has the result None."""
        ...


@dataclass(frozen=True, slots=True)
class _View:
    """A breaker as it was seen: whether calls pass freely, and if not, for how long none will."""

    closed: bool
    open_for_s: float = 0.0


class UserBreakerGate(PlainGate):
    """The breaker of one cluster.

    Args:
        breaker: or what makes it when it is first used, where that takes time too.
        worker: where to ask and tell it; None where it answers at once.

    Attributes:
        failed_open: calls that passed because no answer came in time.
    """

    __slots__ = (
        "_breaker",
        "_lock",
        "_make",
        "_probe",
        "_probe_since",
        "_seen",
        "_seen_at",
        "_success_waits",
        "_worker",
        "failed_open",
        "name",
        "rejected",
    )

    def __init__(
        self,
        breaker: UserBreaker | Callable[[], UserBreaker],
        worker: Worker | None = None,
        name: str = "circuit-breaker",
    ) -> None:
        made = hasattr(breaker, "current_state")
        self._breaker: Any = breaker if made else None
        self._make: Any = None if made else breaker
        self._worker = worker
        self.name = name
        self.rejected = 0
        self.failed_open = 0
        self._seen: _View | None = None
        self._seen_at = 0.0
        self._probe: Placement | None = None
        self._probe_since = 0.0
        self._success_waits = False
        self._lock = threading.Lock()

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        if self._worker is None:
            return self._answer(now, call, self._look())
        seen = self._seen
        if seen is not None and 0.0 <= now - self._seen_at < REFRESH_S:
            return self._answer(now, call, seen)
        errand = self._worker.submit(self._look)
        if errand is None:
            self._fail_open(call)
        return errand

    def decide(self, now: float, call: Placement, token: Ready, late: bool) -> MeshError | None:
        """The breaker was seen; or there is no answer."""
        view = None if late else getattr(token, "result", None)
        if view is None:
            token.leave()
            self._fail_open(call)
            return None
        self._seen, self._seen_at = view, now
        return self._answer(now, call, view)

    def patience_s(self, call: Placement, token: Ready) -> float | None:
        """As long as the worker says."""
        return None if self._worker is None else self._worker.max_wait_s

    def judged(self, now: float, call: Placement, success: bool | None) -> None:
        """Replay the outcome."""
        with self._lock:
            if self._probe is call:
                self._probe = None
        if success is None:
            return
        error = None if success else _error_of(call)
        if self._worker is None:
            self._replay(error)
            return
        if success and self._seen is not None and self._seen.closed:
            # While it is closed, ten successes in a row say what one does.
            with self._lock:
                if self._success_waits:
                    return
                self._success_waits = True
        errand = self._worker.submit(lambda: self._replay(error))
        if errand is None:
            self._success_waits = False
        elif success:
            errand.on_ready(self._success_told)  # also one that was not done

    def note(self, now: float) -> str | None:
        """Whether it is open, as far as that can be told without asking elsewhere."""
        view = self._seen if self._worker is not None else self._look()
        return None if view is None or view.closed else f"the circuit breaker {self._name()} is open"

    def renew_lock(self) -> None:
        """After a fork, in the child: the lease of a call of the parent will not come back."""
        self._lock = threading.Lock()
        self._probe = None
        self._seen = None
        self._success_waits = False
        if self._make is not None:
            self._breaker = None
        elif hasattr(self._breaker, "_lock"):
            self._breaker._lock = type(self._breaker._lock)()

    def _answer(self, now: float, call: Placement, view: _View) -> MeshError | None:
        if view.closed:
            return None
        with self._lock:
            held = self._probe is not None and 0.0 <= now - self._probe_since < LEASE_S
            if view.open_for_s <= 0.0 and not held:
                self._probe, self._probe_since = call, now
                self._seen = None  # the next one is to look again
                return None
            self.rejected += 1
        text = f"the circuit breaker {self._name()} is open; the next call is let through in {view.open_for_s:.3g}s"
        error = CircuitOpen(text, retry_after_s=view.open_for_s, service=call.facts.service)
        error.__cause__ = _circuit_breaker_error()
        return error

    def _fail_open(self, call: Placement) -> None:
        with self._lock:
            self.failed_open += 1
        call.say(f"{self.name}: no answer in time, so the call goes on")

    def _it(self) -> Any:
        if self._breaker is None:
            self._breaker = self._make()
        return self._breaker

    def _name(self) -> str:
        return repr(getattr(self._breaker, "name", None) or "of its own")

    def _look(self) -> _View:
        breaker = self._it()
        state = breaker.current_state
        if state == "closed":
            return _View(True)
        opened_at = breaker._state_storage.opened_at if state == "open" else None
        if opened_at is None:
            return _View(False)
        waited_s = (datetime.now(UTC) - opened_at).total_seconds()
        return _View(False, max(0.0, breaker.reset_timeout - waited_s))

    def _success_told(self) -> None:
        self._success_waits = False

    def _replay(self, error: MeshError | None) -> None:
        if error is None:
            self._success_waits = False
        try:
            self._it().call(_outcome, error)
        except Exception as raised:
            if self._worker is not None and not isinstance(raised, MeshError) and not _is_breakers_own(raised):
                raise
        if error is not None:
            self._seen = None


def _outcome(error: MeshError | None) -> None:
    if error is not None:
        raise error


def _error_of(call: Placement) -> MeshError:
    journal = call.journal
    if journal.error is not None:
        return journal.error.without_frames()
    text = f"answered {journal.status}"
    return ErrorStatus(text, status=journal.status or 0, service=call.facts.service)


def _is_breakers_own(error: Exception) -> bool:
    return type(error).__name__ == "CircuitBreakerError"


def _circuit_breaker_error() -> Exception | None:
    try:
        from pybreaker import CircuitBreakerError
    except ImportError:  # a breaker of the same shape
        return None
    return CircuitBreakerError("Timeout not elapsed yet, circuit breaker still open")
