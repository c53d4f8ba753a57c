"""Injected faults in the life of a call: before it is let in anywhere, and so before anything is counted.

A delay is a wait like any other: within the call's total timeout, which cuts it. An abort is the call's answer: no
attempt was made, so nothing retries it, and neither breaker nor ejection nor budget hears of it. What is drawn, and
how, is in `meshlib.policy.fault`.

The sixth layer of a call; see `meshlib.policy.timeouts`.
"""

from __future__ import annotations

from meshlib.errors import Reset
from meshlib.policy.actions import Action
from meshlib.policy.reply import Replies
from meshlib.policy.traits import Traits

__all__ = ["FAULT", "Injections"]

FAULT = "fault"
"""What a call that is delayed waits for."""


class Injections(Replies):
    """The faults of a call. `meshlib.policy.call.Call` adds the events."""

    __slots__ = ()

    def _inject(self, now: float) -> list[Action] | None:
        """Draw the call's fault, and begin it; None if there is none."""
        from meshlib.policy.fault import draw_fault

        settings, active = self.facts.policy.fault, self.facts.faults
        if settings is None:
            return None
        traits = self.traits
        if traits is None:
            traits = self.traits = Traits()
        fault = draw_fault(settings, traits.headers, self._rng)
        if fault is None:
            return None
        if self.facts.observe:
            self.say(f"would inject {fault}")
            return None
        if active is not None and not active.enter(fault, settings.max_active):
            self.say(f"not injected, as enough calls have a fault: {fault}")
            return None
        traits.fault = fault
        self.journal.fault = str(fault)
        self.say(f"injected {fault}")
        if fault.delay_s > 0:
            return self._wait(now, FAULT, None, now + fault.delay_s)
        return self._fault_is_over(now)

    def _fault_is_over(self, now: float) -> list[Action]:
        """The delay is over, or there is none: answer the call, or go on with it."""
        from meshlib.policy.fault import reply_to

        traits = self.traits
        assert traits is not None
        assert traits.fault is not None
        fault = traits.fault
        self._end_fault()
        if not fault.abort:
            return self._go(now)
        if fault.is_reset:
            error = Reset("an injected fault: as if the endpoint had reset the connection", service=self.facts.service)
            return self._fail(now, error, success=None)
        return self._replied(now, *reply_to(fault, traits.headers))

    def _end_fault(self) -> None:
        traits = self.traits
        if traits is not None and traits.fault is not None:
            traits.fault = None
            if self.facts.faults is not None:
                self.facts.faults.exit()

    def _end(self, now: float, success: bool | None) -> None:
        self._end_fault()
        super()._end(now, success)
