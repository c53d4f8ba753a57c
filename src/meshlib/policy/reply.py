"""Answers of the route itself in the life of a call: nobody is called, so nothing is counted, retried or balanced.

What is answered is worked out in `meshlib.routing.answer`, and noted in the call's traits. As in Envoy, where faults
are a filter before the router, an injected fault comes first, and a delay delays the answer.

The fifth layer of a call; see `meshlib.policy.timeouts`.
"""

from __future__ import annotations

from meshlib.policy.actions import Action, Reply
from meshlib.policy.attempts import Attempts
from meshlib.policy.holdings import DONE

__all__ = ["Replies"]


class Replies(Attempts):
    """The answer of a call that its route gives. `meshlib.policy.call.Call` adds the events."""

    __slots__ = ()

    def _go(self, now: float) -> list[Action]:
        """Answer the call, if that is what its route does, or have it made."""
        traits, facts = self.traits, self.facts
        answer = None if traits is None else traits.answer
        if answer is None:
            self._look()
            return self._enter(now)
        if facts.observe:
            self.say(f"would answer {answer.status} ({answer.text})")
            return []
        self.say(f"answered here ({answer.text})")
        assert traits is not None
        traits.replied = True
        return self._replied(now, answer.status, answer.headers, answer.body)

    def _replied(self, now: float, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> list[Action]:
        """The call is over, with a response made here."""
        journal = self.journal
        journal.status, journal.outcome, journal.ended = status, "success", now
        self.state = DONE
        return [Reply(status, headers, b"" if self.facts.method == "HEAD" else body)]
