"""A rate by the generic cell rate algorithm (ITU-T I.371): calls evenly spread, of which some may come at once.

One number says it all, the theoretical arrival time of the next call (`tat`):

    a call may pass at `now` if   now >= tat - (burst - 1) / rate
    and then                      tat = max(tat, now) + 1 / rate

It is a token bucket that is filled without steps. Linkerd's rate limits are this, with a burst of one second's worth.
"""

from __future__ import annotations

from meshlib.policy.admission_settings import GcraSettings

__all__ = ["Gcra"]

_SLACK_S = 1e-9
"""What sums of floating point numbers lose."""


class Gcra:
    """One of them. Whoever owns it holds a lock around each use."""

    __slots__ = ("_arrival", "_interval_s", "_longest_s", "_tolerance_s")

    def __init__(self, settings: GcraSettings, now: float, longest_wait_s: float = 0.0) -> None:
        self._interval_s = 1.0 / settings.rate
        self._longest_s = settings.at_once * self._interval_s + longest_wait_s
        self._tolerance_s = (settings.at_once - 1) * self._interval_s
        self._arrival = now

    def take(self, now: float, max_wait_s: float) -> tuple[bool, float]:
        """Let one more call pass, now or within `max_wait_s`.

        Returns:
            Whether it may, and in how many seconds; or whether not, and when to ask again.
        """
        # A clock that went back must not keep calls out for longer than a full burst does.
        arrival = min(self._arrival, now + self._longest_s)
        wait_s = arrival - self._tolerance_s - now
        if wait_s > max_wait_s + _SLACK_S:
            self._arrival = arrival
            return False, wait_s
        self._arrival = max(arrival, now) + self._interval_s
        return True, max(0.0, wait_s) if wait_s > _SLACK_S else 0.0

    def give_back(self) -> None:
        """A call that was to wait for its turn will not be made."""
        self._arrival -= self._interval_s
