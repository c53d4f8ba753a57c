"""The local rate limit as a gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.errors import MeshError, RateLimited
from meshlib.policy.admission_settings import RateLimitSettings
from meshlib.policy.facts import Pause
from meshlib.policy.gate import PlainGate
from meshlib.policy.keys import key_of, reader_of
from meshlib.policy.rate_limit import RateLimit, TooFast, Turn, describe

if TYPE_CHECKING:
    from meshlib.policy.facts import Ready
    from meshlib.policy.placement import Placement

__all__ = ["RateLimitGate"]


class _Wait(Pause):
    """A call waits for its turn."""

    __slots__ = ("turn",)

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def leave(self) -> None:
        """The call is not made; its turn is free again."""
        self.turn.give_back()


class RateLimitGate(PlainGate):
    """The rate limit of one cluster."""

    __slots__ = ("limit", "readers")

    name = "rate-limit"

    def __init__(self, settings: RateLimitSettings, now: float) -> None:
        self.limit = RateLimit(settings, now)
        self.readers = () if settings.by is None else (reader_of(settings.by),)

    @property
    def rejected(self) -> int:
        """Calls that it refused."""
        return self.limit.rejected

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        left_s = None if call.deadline is None else call.deadline - now
        answer = self.limit.ask(now, key_of(self.limit.settings.by, call), left_s)
        if isinstance(answer, TooFast):
            text = (
                f"its rate limit was reached ({answer.limit}); the next call may be made in {answer.retry_after_s:.3g}s"
            )
            return RateLimited(text, gate=self.name, retry_after_s=answer.retry_after_s, service=call.facts.service)
        return None if answer is None else _Wait(answer)

    def patience_s(self, call: Placement, token: Ready) -> float | None:
        """Until its turn."""
        assert isinstance(token, _Wait)
        return token.turn.wait_s

    def note(self, now: float) -> str | None:
        """What the limit is."""
        settings = self.limit.settings
        rates = [(settings.total, "in all"), (settings.each, "each")]
        return "its rate limit: " + (
            ", ".join(f"{describe(rate)} {whose}" for rate, whose in rates if rate is not None) or "of some callers"
        )

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self.limit.renew_lock()
