"""Notices changes of state in clusters, by looking at the numbers that they keep.

The core tells nobody when a circuit opens: it holds a lock at that moment, and no callback runs under a lock. It
counts, and a call that ended looks whether the counts of its cluster have moved since anybody last looked. That is
three comparisons, and finds a change as soon as the call that made it is over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster
from meshlib.policy.breaker import BreakerState
from meshlib.policy.call import Call
from meshlib.telemetry.bus import EventBus
from meshlib.telemetry.events import (
    BreakerClosed,
    BreakerHalfOpened,
    BreakerOpened,
    CheckFailed,
    CheckPassed,
    Ejected,
    Event,
    GateRefuses,
    LimitReached,
    LoadReported,
    LoadUnreported,
    Panic,
    PanicEnded,
    Returned,
    ShadowDiffers,
)

if TYPE_CHECKING:
    from meshlib.policy.health_check import Checkup

__all__ = ["QUIET_S", "Changes"]

QUIET_S = 10.0
"""A limit that refused nobody for so long is no longer reached; the next refusal is a new event."""

_MAX_CLUSTERS = 10_000
_NEVER = (0, float("-inf"))


class _Seen:
    """The counts of one cluster, when somebody last looked."""

    __slots__ = ("breaker", "panicking", "panics", "rejected", "rejected_at")

    def __init__(self) -> None:
        self.breaker = self.panics = self.rejected = 0
        self.panicking = False
        self.rejected_at = float("-inf")


class Changes:
    """Looks at clusters and emits what changed.

    Args:
        bus: gets the events.
        clock: monotonic seconds.
    """

    def __init__(self, bus: EventBus, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = bus
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._counts: dict[tuple[str, str], tuple[int, float]] = {}
        self._lock = threading.Lock()

    def call_ended(self, call: Call, now: float) -> None:
        """Look at the clusters of a call that is over."""
        if call.attempts:
            for attempt in call.attempts:
                self.look(attempt.cluster, now)
        else:
            # It was refused, perhaps because of a change; its route says where.
            self.look_at_all(call.facts.clusters(), now)

    def look_at_all(self, clusters: Iterable[Cluster], now: float) -> None:
        """Look at each of them: what the control loop does now and then, since not every change is made by a call."""
        for cluster in clusters:
            self.look(cluster, now)

    def look(self, cluster: Cluster, now: float) -> None:
        """Emit what changed in a cluster since the last look."""
        state = cluster.state
        if state.gates is not None:
            self._look_at_gates(cluster, now)
        seen = self._seen.get(state.name)
        changes = 0 if state.breaker is None else state.breaker.changes
        if seen is not None:
            same = seen.breaker == changes and seen.panics == state.panics and seen.rejected == state.limit.rejected
            if same and not seen.panicking:
                return
        elif not (changes or state.panics or state.limit.rejected):
            return
        with self._lock:
            events = self._compare(cluster, now)
        for event in events:
            self._bus.emit(event)

    def _look_at_gates(self, cluster: Cluster, now: float) -> None:
        state, name = cluster.state, cluster.name
        service = name.partition("/")[0]
        for gate in state.gates or ():
            refused = gate.rejected
            if gate is not state.limit and self._has_grown((name, gate.name), refused, now):
                self._bus.emit(GateRefuses(service=service, cluster=name, gate=gate.name, refused=refused))
        for each in () if state.shadow is None else state.shadow.comparisons:
            policy, differed = each.policy, each.differed
            if self._has_grown((name, f"shadow {policy}"), differed, now):
                detail = each.last
                self._bus.emit(
                    ShadowDiffers(service=service, cluster=name, policy=policy, detail=detail, differed=differed)
                )

    def _has_grown(self, key: tuple[str, str], count: int, now: float) -> bool:
        """Whether a count has grown after it was quiet; it is looked at without the lock first."""
        if self._counts.get(key, _NEVER)[0] == count:
            return False
        with self._lock:
            known, at = self._counts.get(key, _NEVER)
            if len(self._counts) >= _MAX_CLUSTERS:
                self._counts.clear()
            self._counts[key] = count, now
        return count > known and now - at >= QUIET_S

    def on_ejection(self, cluster: str) -> Callable[[Member, bool], None]:
        """What to give a `ClusterState` as its ``on_ejection``."""
        service = cluster.partition("/")[0]

        def tell(member: Member, ejected: bool) -> None:
            address, health = member.endpoint.address, member.health
            if ejected:
                for_s = max(0.0, health.ejected_until - self._clock())
                event: Event = Ejected(
                    service=service,
                    cluster=cluster,
                    endpoint=address,
                    for_s=for_s,
                    failures=health.consecutive,
                    reason=health.ejected_for,
                )
            else:
                event = Returned(service=service, cluster=cluster, endpoint=address, reason=health.returned_for)
            self._bus.emit(event)

        return tell

    def on_load(self, service: str, cluster: str, quiet: int, endpoints: int) -> None:
        """What to give `LoadProbes` as its ``tell``."""
        if 2 * quiet > endpoints:
            self._bus.emit(LoadUnreported(service=service, cluster=cluster, quiet=quiet, endpoints=endpoints))
        else:
            self._bus.emit(LoadReported(service=service, cluster=cluster))

    def on_check(self, service: str, address: str, checkup: Checkup, wrong: str) -> None:
        """What to give `HealthChecks` as its ``tell``."""
        if checkup.failed:
            self._bus.emit(CheckFailed(service=service, cluster=service, endpoint=address, reason=wrong))
        else:
            degraded = checkup.degraded
            self._bus.emit(CheckPassed(service=service, cluster=service, endpoint=address, degraded=degraded))

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()

    def _compare(self, cluster: Cluster, now: float) -> list[Event]:
        name, service, state = cluster.name, cluster.name.partition("/")[0], cluster.state
        seen = self._seen.get(name)
        if seen is None:
            if len(self._seen) >= _MAX_CLUSTERS:
                self._seen.clear()
            seen = self._seen[name] = _Seen()
        events: list[Event] = []
        breaker = state.breaker
        if breaker is not None and breaker.changes != seen.breaker:
            seen.breaker = breaker.changes
            match breaker.state:
                case BreakerState.OPEN:
                    events.append(BreakerOpened(service=service, cluster=name, for_s=breaker.open_for(now)))
                case BreakerState.HALF_OPEN:
                    events.append(BreakerHalfOpened(service=service, cluster=name))
                case _:
                    events.append(BreakerClosed(service=service, cluster=name))
        limit = state.limit
        if limit.rejected != seen.rejected:
            if limit.rejected > seen.rejected and now - seen.rejected_at >= QUIET_S:
                events.append(
                    LimitReached(
                        service=service,
                        cluster=name,
                        in_flight=limit.in_flight,
                        pending=limit.pending,
                        gate=limit.name,
                    )
                )
            seen.rejected, seen.rejected_at = limit.rejected, now
        if state.panics > seen.panics and not seen.panicking:
            seen.panicking = True
            events.append(Panic(service=service, cluster=name, members=len(cluster.members)))
        elif seen.panicking and not cluster.panicking():
            seen.panicking = False
            events.append(PanicEnded(service=service, cluster=name))
        seen.panics = state.panics
        return events
