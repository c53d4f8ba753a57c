"""The shadow of a circuit breaker; see `meshlib.policy.shadow`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.errors import MeshError
from meshlib.policy.breaker import Breaker, BreakerProbe, BreakerState, Rejected
from meshlib.policy.classify import FAILURE_STATUSES, NOT_CALLED
from meshlib.policy.comparison import Comparison
from meshlib.policy.gate import PlainGate
from meshlib.policy.settings import BreakerSettings

if TYPE_CHECKING:
    from meshlib.policy.attempt import Attempt
    from meshlib.policy.facts import Ready
    from meshlib.policy.placement import Placement

__all__ = ["ShadowBreaker"]

_USER_BREAKER = "circuit-breaker"


class ShadowBreaker(PlainGate):
    """A second breaker, as a gate: it is asked by the calls that the live one has let in, and `refused` by the others.

    It is told of answers when the outcome of a call is known, so it hears of a probe's when it is next asked.
    """

    __slots__ = ("_asked", "_probe", "breaker", "comparison")

    name = "shadow-circuit-breaker"
    rejected = 0

    def __init__(self, settings: BreakerSettings, now: float, comparison: Comparison) -> None:
        self.breaker = Breaker(settings, now)
        self.comparison = comparison
        self._asked: dict[Placement, BreakerProbe | Rejected | None] = {}
        self._probe: tuple[Placement, BreakerProbe] | None = None

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        if self.breaker.state is not BreakerState.CLOSED:
            self._look_at_probe()
        answer = self._asked[call] = self.breaker.admit(now, bool(call.facts.safe) and call.replayable)
        if isinstance(answer, BreakerProbe):
            self._probe = call, answer
        return None

    def refused(self, now: float, call: Placement) -> None:
        """The live breaker has refused a call."""
        self._look_at_probe()
        would_refuse = self.breaker.would_reject(now, bool(call.facts.safe) and call.replayable)
        self.comparison.of_call(call.journal, would_refuse, True)

    def judged(self, now: float, call: Placement, success: bool | None) -> None:
        """Count the outcome of a call that it would have let in."""
        if call not in self._asked:
            return
        answer = self._asked[call]
        refused = isinstance(answer, Rejected)
        self.comparison.of_call(call.journal, refused, call.journal.refused_by == _USER_BREAKER)
        if refused:
            return
        breaker = self.breaker
        if not call.facts.observe:
            for attempt in call.attempts:
                if attempt.cluster is not call.cluster:
                    continue
                if _answered_well(attempt):
                    breaker.attempt_succeeded(attempt.headers_at or now)
                elif attempt.declined in NOT_CALLED:
                    breaker.callee_sheds(attempt.headers_at or now)
        if isinstance(answer, BreakerProbe):
            if success is None:
                answer.abandoned()
            elif success:
                answer.succeeded(now)
            else:
                answer.failed(now, reached=any(attempt.sent for attempt in call.attempts))
        elif success is not None:
            breaker.call_ended(now, success)

    def left(self, now: float, call: Placement) -> None:
        """The call is over."""
        self._asked.pop(call, None)
        held = self._probe  # read once: another thread may put it away
        if held is not None and held[0] is call:
            self._probe = None

    def renew_lock(self) -> None:
        """After a fork, in the child: the parent's calls are not ours."""
        self._asked, self._probe = {}, None
        self.comparison.renew_lock()
        self.breaker.renew_lock()

    def _look_at_probe(self) -> None:
        """A good answer has begun, which is all that a probe is to show."""
        held = self._probe
        if held is None:
            return
        call, probe = held
        for attempt in list(call.attempts):
            if _answered_well(attempt) and attempt.headers_at is not None:
                probe.succeeded(attempt.headers_at)
                self._probe = None


def _answered_well(attempt: Attempt) -> bool:
    return attempt.headers_at is not None and attempt.status not in FAILURE_STATUSES
