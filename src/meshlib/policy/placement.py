"""In which cluster a call is made: the backend is drawn, its breaker and its gates are asked.

A call is in one cluster at a time. It enters once, holding what its gates gave (a place under the limit) and perhaps
the lease of the breaker's probe, and leaves once, giving all back. It enters another only if the first is open or has
nothing left to try.

The second layer of a call; see `meshlib.policy.timeouts`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster, Known
from meshlib.errors import (
    CircuitOpen,
    DiscoveryUnavailable,
    MeshError,
    NoEndpoint,
    UnknownService,
)
from meshlib.policy.attempt import Attempt
from meshlib.policy.breaker import BreakerProbe, BreakerState, Rejected
from meshlib.policy.facts import Ready
from meshlib.policy.journal import Journal
from meshlib.policy.limit import LimitFull, Waiter
from meshlib.policy.outlier import EjectionProbe, OutlierDetector
from meshlib.policy.timeouts import Timeouts
from meshlib.policy.traits import Traits
from meshlib.routing.split import draw, draw_again

if TYPE_CHECKING:
    from meshlib.policy.gate import Gate
    from meshlib.routing.split import Draw

__all__ = ["AWAIT_ENDPOINTS", "NONE", "Placement", "is_granted"]

AWAIT_ENDPOINTS = "await endpoints"
"""The answer of `Placement._enter_cluster` while discovery has not told where the service is."""

_CLOSED = BreakerState.CLOSED
NONE: frozenset[int] = frozenset()
_FIRST = frozenset({0})


class Placement(Timeouts):
    """Where one call is made.

    Attributes:
        cluster: that it is in; None until it has entered one.
        replayable: whether its body can be produced again; the driver may change its mind while the call runs.
        why: the reasons in full, if they are asked for.
        traits: what was read of the request; None for nothing.
        drawn: the index of the backend whose cluster it is in.
    """

    __slots__ = ("_clusters", "_inside", "_probe", "_rng", "_used", "cluster", "drawn", "replayable", "traits", "why")

    attempts: list[Attempt]
    cluster: Cluster | None
    drawn: int
    journal: Journal
    replayable: bool
    traits: Traits | None
    why: list[str] | None
    _clusters: Sequence[Cluster]
    _inside: int  # how many gates of the cluster have let the call in
    _probe: BreakerProbe | None
    _rng: Random
    _used: frozenset[int]  # the backends drawn so far

    def say(self, reason: str) -> None:
        """Note a reason, if they are asked for."""
        if self.why is not None:
            self.why.append(reason)

    def _look(self) -> None:
        """Read the snapshot."""
        self._clusters = self.facts.clusters()

    def _enter_cluster(self, now: float) -> MeshError | Ready | str | None:
        """Draw a backend and enter its cluster.

        Returns:
            None: entered. Something to wait for: a gate is to decide. `AWAIT_ENDPOINTS`: discovery has not answered
            yet. An error: there is no way in.
        """
        backends = self.facts.route.backends
        single, left_out = len(backends) == 1, self._used
        rejected: Rejected | None = None
        while True:
            if single:
                index = None if left_out else 0
            else:
                index = draw(backends, self._by(left_out), left_out)
            if index is None:
                return self._no_way() if rejected is None else self._refused(rejected)
            cluster = self._clusters[index]
            if not cluster.members:
                # Who has already tried one cluster does not wait for another to become known.
                if self.cluster is None and cluster.known in (Known.PENDING, Known.UNWELL):
                    return AWAIT_ENDPOINTS
                left_out |= {index}
                continue
            state = cluster.state
            breaker = state.breaker
            if breaker is not None and breaker.state is not _CLOSED:
                answer = breaker.admit(now, bool(self.facts.safe) and self.replayable)
                if isinstance(answer, Rejected):
                    rejected = answer
                    self.say(f"cluster {cluster.name}: its circuit is open")
                    if state.shadow is not None:
                        state.shadow.circuit_refused(now, self)
                    left_out |= {index}
                    continue
                self._probe = answer
            self.cluster = cluster
            if single:
                self._used = _FIRST
            else:
                self._used |= {index}
                self.drawn = index
            if state.gates is not None:
                return self._ask_gates(now)
            place = state.limit.enter()
            if place is None:
                self._inside = 1
                return None
            if isinstance(place, LimitFull):
                self.journal.refused_by = state.limit.name
                return state.limit.full(self)
            return place

    def _by(self, left_out: frozenset[int]) -> Draw:
        """What a backend is drawn by: what the route's draw goes by, or chance."""
        by = None if self.traits is None else self.traits.sticky
        if by is None:
            return self._rng.random()
        return draw_again(by, len(left_out)) if left_out else by

    def _gates(self) -> Sequence[Gate]:
        """All that is asked at the door of the cluster."""
        cluster = self.cluster
        assert cluster is not None
        return cluster.state.gates or (cluster.state.limit,)

    def _ask_gates(self, now: float) -> MeshError | Ready | None:
        """Ask those that have not been asked; the answer is as that of `_enter_cluster`."""
        gates = self._gates()
        while self._inside < len(gates):
            gate = gates[self._inside]
            answer = gate.ask(now, self)
            if answer is not None:
                if isinstance(answer, MeshError):
                    self.journal.refused_by = gate.name
                return answer
            self._inside += 1
        return None

    def _decided(self, now: float, token: Ready, late: bool = False) -> MeshError | Ready | None:
        """The wait for a gate is over; ask the others."""
        gate = self._gates()[self._inside]
        refusal = gate.decide(now, self, token, late)
        if refusal is not None:
            self.journal.refused_by = gate.name
            return refusal
        self._inside += 1
        return self._ask_gates(now)

    def _lease(self, now: float, outlier: OutlierDetector, tried: Sequence[Member]) -> EjectionProbe | None:
        """The probe of an ejected endpoint, if one is due and the call suits."""
        among = None if self.cluster is None else self.cluster.own
        return outlier.due(now, bool(self.facts.safe) and self.replayable, tried, among)

    def _has_other(self, tried: Sequence[Member]) -> bool:
        """Whether the cluster has an endpoint that the call has not tried."""
        return self.cluster is not None and self.cluster.has_untried(tried)

    def _could_redraw(self, now: float) -> bool:
        """Whether another backend of the route has endpoints and lets calls in."""
        for index, backend in enumerate(self.facts.route.backends):
            if index in self._used or backend.weight <= 0 or not self._clusters[index].members:
                continue
            breaker = self._clusters[index].state.breaker
            if breaker is None or not breaker.would_reject(now):
                return True
        return False

    def _probe_answered(self, now: float) -> None:
        """A good response has begun, which is all that a probe is to show; its body may take long."""
        probe, self._probe = self._probe, None
        if probe is not None:
            probe.succeeded(now)

    def _judge(self, now: float, success: bool | None) -> None:
        """Tell the breaker how the call went in this cluster; None is neither good nor bad."""
        cluster, probe = self.cluster, self._probe
        if cluster is None:
            return
        state = cluster.state
        if state.gates is not None:
            for gate in state.gates[: self._inside]:
                gate.judged(now, self, success)
        if probe is not None:
            self._probe = None
            if success is None:
                probe.abandoned()
            elif success:
                probe.succeeded(now)
            else:
                probe.failed(now, reached=any(attempt.sent for attempt in self.attempts))
        elif success is not None and state.breaker is not None:
            state.breaker.call_ended(now, success)

    def _leave_cluster(self, now: float) -> None:
        """Give back what was taken at its gates."""
        inside, cluster = self._inside, self.cluster
        if not inside or cluster is None:
            return
        self._inside = 0
        state = cluster.state
        if state.gates is None:
            state.limit.exit()
            return
        for gate in reversed(state.gates[:inside]):
            gate.left(now, self)

    def _no_way(self) -> MeshError:
        """Why no backend can be tried."""
        service = self.facts.service
        known = {cluster.known for cluster in self._clusters}
        detail = next((f" ({cluster.detail})" for cluster in self._clusters if cluster.detail), "")
        if Known.UNWELL in known:
            return DiscoveryUnavailable(f"discovery is unavailable and never answered before{detail}", service=service)
        if Known.PENDING in known:
            return DiscoveryUnavailable(f"discovery has not answered in time{detail}", service=service)
        if known == {Known.NO}:
            hint = "give it endpoints, or see that what serves it is registered"
            return UnknownService(f"no discovery source knows this name{detail}; {hint}", service=service)
        names = ", ".join(cluster.name for cluster in self._clusters)
        if members := [member for cluster in self._clusters for member in cluster.members]:
            states = ", ".join(f"{count} {state}" for state, count in Counter(each.state for each in members).items())
            return NoEndpoint(f"no endpoint in {names} may be called ({states}){detail}", service=service)
        return NoEndpoint(f"no endpoint in {names}{detail}", service=service)

    def _refused(self, rejected: Rejected) -> CircuitOpen:
        self.journal.refused_by = "circuit-breaker"
        text = f"its circuit breaker is open; the next probe is in {rejected.retry_after_s:.3g}s"
        return CircuitOpen(text, retry_after_s=rejected.retry_after_s, service=self.facts.service)


def is_granted(token: Ready | None) -> bool:
    """Whether what the call waited for in line is really its own; anything else is ready when it says so."""
    return not isinstance(token, Waiter) or token.granted
