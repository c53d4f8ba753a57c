"""In which cluster a call is made: the backend is drawn, its breaker and its limit are asked.

A call is in one cluster at a time. It enters once, holding a place under the cluster's limit and perhaps the lease of
the breaker's probe, and leaves once, giving both back. It enters another only if the first is open or has nothing left
to try.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster, Known
from meshlib.errors import (
    CircuitOpen,
    DiscoveryUnavailable,
    LimitExceeded,
    MeshError,
    NoEndpoint,
    UnknownService,
)
from meshlib.policy.breaker import BreakerProbe, Rejected
from meshlib.policy.facts import CallFacts, Ready
from meshlib.policy.limit import LimitFull, Waiter
from meshlib.policy.outlier import EjectionProbe
from meshlib.routing.route import draw

__all__ = ["AWAIT_ENDPOINTS", "Placement"]

AWAIT_ENDPOINTS = "await endpoints"
"""The answer of `Placement.enter` while discovery has not told where the service is."""


class Placement:
    """Where one call is made. `cluster` is None until it has entered one."""

    __slots__ = ("_clusters", "_facts", "_holds_place", "_probe", "_rng", "_used", "cluster")

    def __init__(self, facts: CallFacts, rng: Random) -> None:
        self.cluster: Cluster | None = None
        self._facts = facts
        self._rng = rng
        self._clusters: Sequence[Cluster] = ()
        self._used: frozenset[int] = frozenset()
        self._probe: BreakerProbe | None = None
        self._holds_place = False

    def look(self) -> None:
        """Read the snapshot."""
        self._clusters = self._facts.clusters()

    def enter(self, now: float) -> MeshError | Ready | str | None:
        """Draw a backend and enter its cluster.

        Returns:
            None: entered. A `Waiter`: in line for a place. `AWAIT_ENDPOINTS`: discovery has not answered yet. An error:
            there is no way in.
        """
        backends = self._facts.route.backends
        left_out = self._used
        rejected: Rejected | None = None
        while True:
            index = draw(backends, self._rng.random() if len(backends) > 1 else 0.0, left_out)
            if index is None:
                return self.no_way() if rejected is None else self._refused(rejected)
            cluster = self._clusters[index]
            if not cluster.members:
                # Who has already tried one cluster does not wait for another to become known.
                if self.cluster is None and cluster.known in (Known.PENDING, Known.UNWELL):
                    return AWAIT_ENDPOINTS
                left_out |= {index}
                continue
            breaker = cluster.state.breaker
            answer = None if breaker is None else breaker.admit(now, self._facts.safe and self._facts.replayable)
            if isinstance(answer, Rejected):
                rejected = answer
                self._facts.say(f"cluster {cluster.name}: its circuit is open")
                left_out |= {index}
                continue
            self.cluster = cluster
            self._probe = answer
            self._used |= {index}
            place = cluster.state.limit.enter()
            if isinstance(place, LimitFull):
                self._abandon_probe()
                text = f"{cluster.state.limit.in_flight} calls to {cluster.name} are in flight and its queue is full"
                return LimitExceeded(text, service=self._facts.service)
            self._holds_place = place is None
            return place

    def granted(self) -> None:
        """The place in line for which the call waited is its own."""
        self._holds_place = True

    def pick(self, now: float, tried: Sequence[Member]) -> tuple[Member | None, EjectionProbe | None]:
        """An endpoint for an attempt, None if there is none; and the lease, if it is the probe of an ejected one."""
        cluster = self.cluster
        if cluster is None:
            return None, None
        outlier = cluster.state.outlier
        if outlier is not None and outlier.ejected:
            lease = outlier.due(now, self._facts.safe and self._facts.replayable, tried)
            if lease is not None:
                return lease.member, lease
        return cluster.pick(now, self._rng, tried), None

    def has_other(self, tried: Sequence[Member]) -> bool:
        """Whether the cluster has an endpoint that the call has not tried."""
        return self.cluster is not None and self.cluster.has_untried(tried)

    def could_redraw(self, now: float) -> bool:
        """Whether another backend of the route has endpoints and lets calls in."""
        for index, backend in enumerate(self._facts.route.backends):
            if index in self._used or backend.weight <= 0 or not self._clusters[index].members:
                continue
            breaker = self._clusters[index].state.breaker
            if breaker is None or not breaker.would_reject(now):
                return True
        return False

    @property
    def probing(self) -> bool:
        """Whether the call tests an open circuit."""
        return self._probe is not None

    def probe_answered(self, now: float) -> None:
        """A good response has begun, which is all that a probe is to show; its body may take long."""
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.succeeded(now)

    def judge(self, now: float, success: bool | None) -> None:
        """Tell the breaker how the call went in this cluster; None is neither good nor bad."""
        probe, self._probe = self._probe, None
        if self.cluster is None:
            return
        if probe is not None:
            if success is None:
                probe.abandoned()
            elif success:
                probe.succeeded(now)
            else:
                probe.failed(now)
        elif success is not None and self.cluster.state.breaker is not None:
            self.cluster.state.breaker.call_ended(now, success)

    def leave(self) -> None:
        """Give the place under the limit back."""
        if self._holds_place and self.cluster is not None:
            self._holds_place = False
            self.cluster.state.limit.exit()

    def no_way(self) -> MeshError:
        """Why no backend can be tried."""
        service = self._facts.service
        known = {cluster.known for cluster in self._clusters}
        detail = next((f" ({cluster.detail})" for cluster in self._clusters if cluster.detail), "")
        if Known.UNWELL in known:
            return DiscoveryUnavailable(f"discovery is unavailable and never answered before{detail}", service=service)
        if Known.PENDING in known:
            return DiscoveryUnavailable(f"discovery has not answered in time{detail}", service=service)
        if known == {Known.NO}:
            return UnknownService(f"no discovery source knows this name{detail}", service=service)
        names = ", ".join(cluster.name for cluster in self._clusters)
        return NoEndpoint(f"no endpoint in {names}{detail}", service=service)

    def _refused(self, rejected: Rejected) -> CircuitOpen:
        text = f"its circuit breaker is open; the next probe is in {rejected.retry_after_s:.3g}s"
        return CircuitOpen(text, retry_after_s=rejected.retry_after_s, service=self._facts.service)

    def _abandon_probe(self) -> None:
        if self._probe is not None:
            self._probe.abandoned()
            self._probe = None


def is_granted(token: Ready | None) -> bool:
    """Whether what the call waited for in line is really its own; anything else is ready when it says so."""
    return not isinstance(token, Waiter) or token.granted
