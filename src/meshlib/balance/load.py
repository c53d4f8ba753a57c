"""How loaded an endpoint is, as far as one client can tell: what it costs to call it, times the calls it already has.

The cost is a peak-sensitive moving average of the time to a response's headers: a sample above it replaces it at once,
one below it is averaged in with weight ``1 - exp(-age / decay)``, and between samples it decays towards zero, so that
an endpoint that was slow is tried again in time. Source: Finagle's ``PeakEwma.scala`` and tower's
``load/peak_ewma.rs``.

Two things are ours, because without them a balancer by latency is drawn to what is broken:

- *Failures.* A failure is often fast. Each counts as a latency of at least three times the cluster's median, a penalty
  that decays in 2 s, or lasts until the time in ``Retry-After``. Below the penalty the estimate is kept from falling
  under the median, or an endpoint that only ever fails would in time look like the fastest of all.
- *Cancellations.* An attempt that was given up says only that the answer would have taken longer. The times given up
  since the last answer add up: for an exponential latency, total time over number of answers is the estimate of the
  mean that censored samples give (maximum likelihood), and with no answer at all it grows without bound. So an
  endpoint that hangs is left alone even when callers give up early.

What a pick compares is the *score*, the logarithm of the cost with the decay taken out: ``log(cost) + stamp / decay``.
All costs in a cluster decay by the same factor, so the one with the lower score costs less, now and later, until either
changes. While there is a penalty, which decays at a pace of its own, the score is NaN: ask `Load.cost`.

A schedule by weight needs a second figure. The peak and the decay both depend on how often an endpoint is called, so as
a correction to weights they would bend the very shares that the weights ask for. `mean_s` counts samples, not seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, inf, log, nan
from typing import TYPE_CHECKING

from meshlib.balance.cells import CELLS, give_back, take

if TYPE_CHECKING:
    from meshlib.balance.reported import Reported

__all__ = ["FAILURE_FACTOR", "PENALTY_DECAY_S", "EndpointNode", "Load"]

FAILURE_FACTOR = 3.0
PENALTY_DECAY_S = 2.0
_MEAN_SAMPLES = 20
_LONGEST_HOLD_S = 300.0


class EndpointNode:
    """What is counted per endpoint, whatever cluster a call comes through: attempts in flight. Exact under threads.

    The count is the length of a list, whose `append` and `pop` are atomic, so no lock is needed. Its cell is a copy for
    the pick. Whoever changes the list writes the cell and then looks whether the list still is as long: so the last to
    write has seen the last change, and once all are done the cell is right too.

    Attributes:
        cell: where the copy is, in `CELLS`.
        left_at: when the endpoint was seen to have gone; None while it is there.
    """

    __slots__ = ("_running", "cell", "left_at")

    def __init__(self) -> None:
        self.cell = take()
        self.left_at: float | None = None
        self._running: list[None] = []
        CELLS[self.cell] = 0

    def __del__(self, give_back: Callable[[int], None] = give_back) -> None:  # a global is gone when Python ends
        give_back(self.cell)

    @property
    def in_flight(self) -> int:
        """Attempts under way."""
        return len(self._running)

    def enter(self) -> None:
        """An attempt began."""
        running = self._running
        running.append(None)
        CELLS[self.cell] = count = len(running)
        if len(running) != count:
            self._copy()

    def exit(self) -> None:
        """An attempt ended, its response's body included."""
        running = self._running
        try:
            running.pop()
        except IndexError:  # begun by the parent of this process
            return
        CELLS[self.cell] = count = len(running)
        if len(running) != count:
            self._copy()

    def after_fork(self) -> None:
        """In the child: the parent's attempts are not ours."""
        self._running.clear()
        self._copy()

    def _copy(self) -> None:
        running = self._running
        while True:
            CELLS[self.cell] = count = len(running)
            if len(running) == count:
                return


class Load:
    """The cost of one endpoint, as seen from one cluster. Times are seconds on the monotonic clock.

    Writes from several threads may overlap; then one sample is lost, which an average does not notice.

    Attributes:
        cell: where the score is, in `CELLS`.
        cost_s: the peak-sensitive average, as it was at `stamp`.
        mean_s: the plain average over about the last 20 answers; as long as there is none, what an endpoint is thought
            to take.
        censored_s: time given up since the last answer.
        reported: what the endpoint says of its own load; None where nobody asks for it.
    """

    __slots__ = (
        "_samples",
        "cell",
        "censored_s",
        "cost_s",
        "decay_s",
        "mean_s",
        "penalty_at",
        "penalty_hold_until",
        "penalty_s",
        "reported",
        "stamp",
    )

    def __init__(self, now: float, default_latency_s: float, decay_s: float) -> None:
        self.cell = take()
        self.cost_s = default_latency_s
        self.mean_s = default_latency_s
        self.decay_s = decay_s
        self.stamp = now
        self.penalty_s = 0.0
        self.penalty_at = now
        self.penalty_hold_until = now
        self.censored_s = 0.0
        self.reported: Reported | None = None
        self._samples = 0
        self._score()

    def __del__(self, give_back: Callable[[int], None] = give_back) -> None:  # a global is gone when Python ends
        give_back(self.cell)

    def again(self, decay_s: float) -> Load:
        """Another with the same figures, which decays in `decay_s`; what the endpoint says of itself begins anew."""
        load = Load(self.stamp, self.cost_s, decay_s)
        load.mean_s, load._samples, load.censored_s = self.mean_s, self._samples, self.censored_s
        load.penalty_at, load.penalty_hold_until = self.penalty_at, self.penalty_hold_until
        load.penalty_s = self.penalty_s
        load._score()
        return load

    @property
    def has_answered(self) -> bool:
        """Whether there was an answer yet."""
        return self._samples > 0

    def latency(self, now: float) -> float:
        """Seconds that an answer is expected to take, penalties left aside."""
        age = now - self.stamp
        return self.cost_s * exp(-age / self.decay_s) if age > 0 else self.cost_s

    def cost(self, now: float) -> float:
        """Seconds that a call is expected to cost, penalties included."""
        age = now - self.stamp
        cost = self.cost_s * exp(-age / self.decay_s) if age > 0 else self.cost_s
        return max(cost, self._penalty(now)) if self.penalty_s else cost

    def plain_cost(self, now: float) -> float:
        """The same, by the figure that does not depend on how often the endpoint is called."""
        cost = max(self.mean_s, self.censored_s)
        return max(cost, self._penalty(now)) if self.penalty_s else cost

    def answered(self, now: float, latency_s: float) -> None:
        """An answer came after `latency_s`."""
        self.censored_s = 0.0
        if latency_s >= 0.0:  # the clock may have gone back
            self._observe(now, latency_s)
            self._average(latency_s)
            self._score()

    def failed(self, now: float, elapsed_s: float, median_s: float, retry_after_s: float = 0.0) -> None:
        """An attempt failed.

        Args:
            now: on the monotonic clock.
            elapsed_s: how long it took to fail.
            median_s: what an endpoint of this cluster usually costs.
            retry_after_s: for how long the endpoint asked not to be called.
        """
        self._observe(now, max(elapsed_s, median_s))
        if elapsed_s > self.mean_s:
            self._average(elapsed_s)
        self.penalty_s = max(FAILURE_FACTOR * median_s, elapsed_s, self._penalty(now))
        self.penalty_at = now
        # A second failure, without the header, does not cut short what the first one asked for.
        self.penalty_hold_until = max(now + retry_after_s, min(self.penalty_hold_until, now + _LONGEST_HOLD_S))
        self._score()

    def given_up(self, now: float, elapsed_s: float) -> None:
        """An attempt was cancelled after `elapsed_s`: a lower bound of what the answer would have taken."""
        self.censored_s += max(0.0, elapsed_s)
        if self.censored_s > self.latency(now):
            self._observe(now, self.censored_s)
            self._score()

    def _penalty(self, now: float) -> float:
        since = now - max(self.penalty_at, self.penalty_hold_until)
        if since <= 0:
            return self.penalty_s
        if since > 20 * PENALTY_DECAY_S:
            self.penalty_s = 0.0
            self._score()
            return 0.0
        return self.penalty_s * exp(-since / PENALTY_DECAY_S)

    def _observe(self, now: float, sample_s: float) -> None:
        if not sample_s >= 0.0:  # a clock that went back, or NaN
            return
        keep = exp(-max(0.0, now - self.stamp) / self.decay_s)
        decayed = self.cost_s * keep
        self.cost_s = sample_s if sample_s > decayed else decayed + sample_s * (1.0 - keep)
        self.stamp = now

    def _average(self, sample_s: float) -> None:
        if sample_s >= 0.0:
            self._samples = samples = min(self._samples + 1, _MEAN_SAMPLES)
            self.mean_s += (sample_s - self.mean_s) / samples

    def _score(self) -> None:
        cost_s = self.cost_s
        CELLS[self.cell] = log(cost_s) + self.stamp / self.decay_s if cost_s > 0.0 else -inf
        # Asked only now, or another thread's penalty, put down since, would be overwritten.
        if self.penalty_s:
            CELLS[self.cell] = nan
