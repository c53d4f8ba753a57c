"""Weighted round robin by what servers report of their own load. Source: gRPC A58, and A114 for metrics by name.

    weight = qps / (utilization + eps / qps * error_penalty)

that is, the rate that the server would reach if it were fully used, less what its errors cost. The utilization is the
largest of the metrics that the configuration names, else ``application_utilization``, else ``cpu_utilization``. The
reports come with responses (`meshlib.balance.load_report`); each one that has both a rate and a utilization replaces
the weight of its endpoint.

A weight is used once reports have come for `blackout_s`, and for `expiration_s` after the last one. An endpoint without
one counts as the mean of those with one; with no weights at all this is round robin. The schedule is static stride
(`meshlib.balance.static_stride`), made anew by the first pick after `update_s`; what discovery says of weights is not
looked at.

With `load`, two are taken from the schedule, and the one with the lower load per weight is picked: fewer attempts of
this client in flight (``least_request``), or ``cost * (in flight / weight + 1)`` (``peak_ewma``). Shares stay those of
the weights while servers are alike to this client, and a server that is late just now is spared. That is ours.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import RESAMPLES, Balancer, Member, Usable
from meshlib.balance.load_report import LoadReport
from meshlib.balance.reported import Reported
from meshlib.balance.settings import LoadBalancing, ServerWeightSettings
from meshlib.balance.static_stride import StaticStride

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["ReportedWeight", "ServerWeights", "server_weights", "weight_of"]

_LARGEST = 2.0**32 - 1


def weight_of(report: LoadReport, settings: ServerWeightSettings) -> float:
    """The weight that a report stands for; 0 if it says too little."""
    utilization = max((report.metric(name) for name in settings.metrics), default=0.0)
    utilization = utilization or report.application_utilization or report.cpu_utilization
    qps = report.rps_fractional
    if not (utilization > 0.0 and qps > 0.0):
        return 0.0
    return min(qps / (utilization + report.eps / qps * settings.error_penalty), _LARGEST)


class ReportedWeight:
    """The weight of one endpoint in one cluster, by its reports. Threads may overlap: the last report counts."""

    __slots__ = ("_reported_at", "_settings", "_since", "_weight")

    def __init__(self, settings: ServerWeightSettings) -> None:
        self._settings = settings
        self._weight = 0.0
        self._reported_at = 0.0
        self._since: float | None = None

    @property
    def latest(self) -> float:
        """The weight by the last report, whether it counts yet or still; 0 before the first."""
        return self._weight

    def report(self, report: LoadReport, now: float) -> None:
        """A response brought this."""
        weight = weight_of(report, self._settings)
        if weight > 0.0:
            self._weight = weight
            self._reported_at = now
            if self._since is None or self._since > now:  # the first one, or the clock went back
                self._since = now

    def value(self, now: float) -> float:
        """The weight that counts now; 0 for none."""
        since = self._since
        if since is None:
            return 0.0
        if now - self._reported_at >= self._settings.expiration_s:
            self._since = None  # reports have to come for the whole blackout again
            return 0.0
        return self._weight if now - since >= self._settings.blackout_s else 0.0


def server_weights(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """By what the members report."""
    return ServerWeights(members, settings.server_weights, now, rng)


class ServerWeights:
    """Round robin, each as often as its reports say."""

    __slots__ = ("_load", "_lock", "_members", "_next", "_relative", "_reported", "_stride", "_update_s", "_updated_at")

    def __init__(self, members: Sequence[Member], settings: ServerWeightSettings, now: float, rng: Random) -> None:
        self._members = members
        self._update_s = settings.update_s
        self._load = settings.load
        self._reported: list[ReportedWeight] = []
        for member in members:
            reported = member.load.reported
            if reported is None:
                reported = member.load.reported = Reported()
            weight = reported.weight
            if weight is None:
                weight = ReportedWeight(settings)
                reported.weigh(weight)
            self._reported.append(weight)
        # next() of a count is atomic. It starts anywhere, so that many clients are not in step.
        self._next = itertools.count(rng.getrandbits(24)).__next__
        self._lock = threading.Lock()
        self._update(now)

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        # The clock may have gone back.
        if not 0.0 <= now - self._updated_at < self._update_s and self._lock.acquire(blocking=False):
            try:
                self._update(now)
            finally:
                self._lock.release()
        members, stride = self._members, self._stride
        if self._load is not None and (pair := self._two(stride, usable)) is not None:
            return self._lighter(*pair, now, rng)
        if usable is None:
            return members[stride.pick()]
        for _ in range(min(2 * len(members), RESAMPLES)):
            member = members[stride.pick()]
            if usable(member):
                return member
        left = [member for member in members if usable(member)]
        return left[int(rng.random() * len(left))] if left else None

    def _two(self, stride: StaticStride, usable: Usable | None) -> tuple[int, int] | None:
        """The next two whose turn it is, which may be the same; None if there are none soon that may be used."""
        if usable is None:
            return stride.pick(), stride.pick()
        found = [at for at in (stride.pick() for _ in range(RESAMPLES)) if usable(self._members[at])]
        return (found[0], found[-1]) if found else None

    def _lighter(self, one: int, other: int, now: float, rng: Random) -> Member:
        first, second = self._members[one], self._members[other]
        load, load_other = first.node.in_flight / self._relative[one], second.node.in_flight / self._relative[other]
        if self._load == "peak_ewma":
            load, load_other = first.load.cost(now) * (load + 1.0), second.load.cost(now) * (load_other + 1.0)
        if load == load_other:  # turns have a rhythm, which must not decide
            return first if rng.random() < 0.5 else second
        return first if load < load_other else second

    def _update(self, now: float) -> None:
        weights = [reported.value(now) for reported in self._reported]
        known = [weight for weight in weights if weight > 0.0]
        mean = sum(known) / len(known) if known else 1.0
        self._relative = [weight / mean or 1.0 for weight in weights]
        self._stride = StaticStride(weights, self._next)
        self._updated_at = now
