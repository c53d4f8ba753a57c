"""Everything that is not a duration, as observable instruments: numbers that the mesh keeps anyway, read on collection.

A call pays nothing for them.

Instruments belong to a meter, while meshes come and go and may share services. So there is one set of instruments per
meter; it reads all observers that live, and adds up what has the same attributes.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

from meshlib.balance.cluster import Cluster
from meshlib.dataclass import dataclass
from meshlib.policy.breaker import BreakerState
from meshlib.propagation import IGNORED_KINDS, Ignored
from meshlib.telemetry import semconv

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

    from meshlib.net.pool import PoolStats
    from meshlib.policy.fault import ActiveFaults
    from meshlib.policy.hedge import Hedging

__all__ = ["GAUGES", "MAX_ENDPOINTS", "Gauge", "Observed", "Observing", "unwatch", "watch"]

MAX_ENDPOINTS = 100
"""A cluster with more endpoints than this is not told endpoint by endpoint: each would be a time series of its own."""

_log = logging.getLogger("meshlib")

Attributes: TypeAlias = tuple[tuple[str, str | int], ...]
Reading: TypeAlias = tuple[Attributes, float]


class Observed(Protocol):
    """What can be observed of a mesh. Called from the threads of metric readers; each answer is of one moment."""

    def clusters(self) -> Iterable[Cluster]:
        """The clusters of the current snapshot."""
        ...

    def budgets(self) -> Mapping[str, tuple[float, int]]:
        """What is left of the retry budget of each service, and how many retries it refused."""
        ...

    def faults(self) -> Mapping[str, ActiveFaults]:
        """What was injected, for each service that has faults to inject."""
        ...

    def hedgings(self) -> Mapping[tuple[str, str], tuple[Hedging, float | None]]:
        """What the hedged calls of each route share, by service and route, and how long they wait for an answer."""
        ...

    def pools(self) -> Iterable[PoolStats]:
        """The pools of connections, sync and async."""
        ...

    def ages(self) -> Mapping[str, float]:
        """For each service with endpoints, how long nobody has vouched for them, in seconds."""
        ...

    def ignored(self) -> Ignored | None:
        """The incoming header values that were left out; None if this mesh serves nothing."""
        ...


class Observing(Protocol):
    """An observer: what it observes, and what it counts itself."""

    observed: Observed | None

    def retries(self) -> dict[str, int]:
        """Attempts beyond the first of their call, by cluster."""
        ...


@dataclass(frozen=True, slots=True)
class Gauge:
    """One observable instrument.

    Attributes:
        name, unit, description: as exported.
        kind: ``counter`` (only grows), ``updown`` (adds up over attributes) or ``gauge`` (does not).
        read: gives its readings.
        merge: makes one of two readings with the same attributes.
    """

    name: str
    unit: str
    description: str
    kind: str
    read: Callable[[Observing, Observed], Iterator[Reading]]
    merge: Callable[[float, float], float] = float.__add__


def _of(cluster: Cluster) -> Attributes:
    return ((semconv.SERVER_ADDRESS, cluster.name.partition("/")[0]), (semconv.CLUSTER, cluster.name))


def _endpoints(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        states = dict.fromkeys(("healthy", "degraded", "unhealthy", "failed", "ejected"), 0)
        for member in cluster.members:
            states[member.state] += 1
        for state, count in states.items():
            yield (*_of(cluster), ("meshlib.endpoint.state", state)), count


def _endpoint_in_flight(_: Observing, observed: Observed) -> Iterator[Reading]:
    seen: set[int] = set()
    for cluster in observed.clusters():
        if len(cluster.members) > MAX_ENDPOINTS:
            continue
        for member in cluster.members:
            # Clusters of one service share the counts of an endpoint, which is one endpoint all the same.
            if id(member.node) not in seen:
                seen.add(id(member.node))
                service = (semconv.SERVER_ADDRESS, cluster.name.partition("/")[0])
                yield (service, *semconv.peer_attributes(member.endpoint)), member.node.in_flight


def _endpoint_weights(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for member in cluster.members if len(cluster.members) <= MAX_ENDPOINTS else ():
            reported = member.load.reported
            if reported is not None and reported.latest > 0.0:
                yield (*_of(cluster), *semconv.peer_attributes(member.endpoint)), reported.latest


def _in_flight(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        yield _of(cluster), cluster.state.limit.in_flight


def _pending(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        yield _of(cluster), cluster.state.limit.pending


def _limit_rejected(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        yield _of(cluster), cluster.state.limit.rejected


def _limits(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.state.limit.maximum is not None:
            yield _of(cluster), cluster.state.limit.maximum


def _gate_rejected(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for gate in cluster.state.gates or ():
            yield (*_of(cluster), ("meshlib.gate", gate.name)), gate.rejected


def _shadows(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for each in () if cluster.state.shadow is None else cluster.state.shadow.comparisons:
            for outcome, count in (("same", each.same), ("differed", each.differed)):
                own = (("meshlib.shadow.policy", each.policy), ("meshlib.shadow.outcome", outcome))
                yield (*_of(cluster), *own), count


def _gate_failed_open(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for gate in cluster.state.gates or ():
            if (failed_open := getattr(gate, "failed_open", None)) is not None:
                yield (*_of(cluster), ("meshlib.gate", gate.name)), failed_open


def _breakers(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.state.breaker is not None:
            for state in BreakerState:
                is_in = cluster.state.breaker.state is state
                yield (*_of(cluster), ("meshlib.breaker.state", state.value)), int(is_in)


def _breaker_rejected(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.state.breaker is not None:
            yield _of(cluster), cluster.state.breaker.rejected


def _ejections(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.state.outlier is not None:
            yield _of(cluster), cluster.state.outlier.ejections


def _detected(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for rule, count in () if cluster.state.outlier is None else list(cluster.state.outlier.detected.items()):
            yield (*_of(cluster), (semconv.OUTLIER_RULE, rule)), count


def _enforced(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for rule, count in () if cluster.state.outlier is None else list(cluster.state.outlier.enforced.items()):
            yield (*_of(cluster), (semconv.OUTLIER_RULE, rule)), count


def _spared(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.state.outlier is not None:
            yield _of(cluster), cluster.state.outlier.overflow


def _checks(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        active = cluster.state.active
        if active is not None:
            yield (*_of(cluster), ("meshlib.health_check.result", "passed")), active.passed
            yield (*_of(cluster), ("meshlib.health_check.result", "failed")), active.failed


def _panics(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        yield _of(cluster), cluster.state.panics


def _priorities(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.priorities is not None:
            shares = cluster.priorities.loads(cluster.ejected)
            for priority, both in enumerate(zip(shares.healthy, shares.degraded, strict=True)):
                yield (*_of(cluster), ("meshlib.priority", priority)), sum(both)


def _sessions(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if (sessions := cluster.state.sessions) is not None:
            yield (*_of(cluster), ("meshlib.session.outcome", "bound")), sessions.bound
            yield (*_of(cluster), ("meshlib.session.outcome", "moved")), sessions.moved


def _retries(observing: Observing, _: Observed) -> Iterator[Reading]:
    for name, count in observing.retries().items():
        yield ((semconv.SERVER_ADDRESS, name.partition("/")[0]), (semconv.CLUSTER, name)), count


def _budgets(_: Observing, observed: Observed) -> Iterator[Reading]:
    for service, (left, _refused) in observed.budgets().items():
        yield ((semconv.SERVER_ADDRESS, service),), left


def _budget_refused(_: Observing, observed: Observed) -> Iterator[Reading]:
    for service, (_left, refused) in observed.budgets().items():
        yield ((semconv.SERVER_ADDRESS, service),), refused


def _faults(_: Observing, observed: Observed) -> Iterator[Reading]:
    for service, faults in observed.faults().items():
        for kind, count in (("delay", faults.delays), ("abort", faults.aborts), ("overflow", faults.overflowed)):
            yield ((semconv.SERVER_ADDRESS, service), ("meshlib.fault", kind)), count


def _hedges(_: Observing, observed: Observed) -> Iterator[Reading]:
    for (service, route), (hedging, _after_s) in observed.hedgings().items():
        for kind, count in (("sent", hedging.sent), ("won", hedging.won), ("refused", hedging.refused)):
            yield ((semconv.SERVER_ADDRESS, service), (semconv.ROUTE, route), ("meshlib.hedge", kind)), count


def _hedge_delays(_: Observing, observed: Observed) -> Iterator[Reading]:
    for (service, route), (_hedging, after_s) in observed.hedgings().items():
        if after_s is not None:
            yield ((semconv.SERVER_ADDRESS, service), (semconv.ROUTE, route)), after_s


def _pool_readings(observed: Observed) -> Iterator[tuple[str, PoolStats]]:
    services = {
        member.endpoint.address: cluster.name.partition("/")[0]
        for cluster in observed.clusters()
        for member in cluster.members
    }
    for pool in observed.pools():
        yield services.get(pool.address) or pool.server_name or pool.address, pool


def _connections(_: Observing, observed: Observed) -> Iterator[Reading]:
    for service, pool in _pool_readings(observed):
        of = (semconv.SERVER_ADDRESS, service)
        yield (of, (semconv.CONNECTION_STATE, "active")), pool.open - pool.idle
        yield (of, (semconv.CONNECTION_STATE, "idle")), pool.idle


def _connection_waits(_: Observing, observed: Observed) -> Iterator[Reading]:
    for service, pool in _pool_readings(observed):
        yield ((semconv.SERVER_ADDRESS, service),), pool.pending


def _ages(_: Observing, observed: Observed) -> Iterator[Reading]:
    for service, age_s in observed.ages().items():
        yield ((semconv.SERVER_ADDRESS, service),), age_s


def _ignored(_: Observing, observed: Observed) -> Iterator[Reading]:
    ignored = observed.ignored()
    if ignored is not None:
        for kind in IGNORED_KINDS:
            yield (("meshlib.header", kind),), getattr(ignored, kind)


GAUGES = (
    Gauge("meshlib.endpoints", "{endpoint}", "Endpoints of a cluster, by state.", "updown", _endpoints),
    Gauge(
        "meshlib.endpoint.in_flight", "{attempt}", "Attempts under way at an endpoint.", "updown", _endpoint_in_flight
    ),
    Gauge(
        "meshlib.endpoint.weight",
        "1",
        "Weight of an endpoint by its last load report.",
        "gauge",
        _endpoint_weights,
        max,
    ),
    Gauge("meshlib.cluster.in_flight", "{call}", "Calls under way in a cluster.", "updown", _in_flight),
    Gauge("meshlib.cluster.pending", "{call}", "Calls that wait for a place under the limit.", "updown", _pending),
    Gauge("meshlib.limit", "{call}", "Calls that may be under way in a cluster.", "gauge", _limits, max),
    Gauge("meshlib.limit.rejected", "{call}", "Calls refused by the limit.", "counter", _limit_rejected),
    Gauge("meshlib.gate.rejected", "{call}", "Calls refused by each gate of a cluster.", "counter", _gate_rejected),
    Gauge(
        "meshlib.gate.failed_open",
        "{call}",
        "Calls that passed a gate because what it asks did not answer in time.",
        "counter",
        _gate_failed_open,
    ),
    Gauge("meshlib.breaker", "{breaker}", "1 for the state that a circuit breaker is in.", "updown", _breakers),
    Gauge("meshlib.breaker.rejected", "{call}", "Times an open breaker refused a call.", "counter", _breaker_rejected),
    Gauge("meshlib.ejections", "{ejection}", "Ejections of endpoints that kept failing.", "counter", _ejections),
    Gauge("meshlib.outlier.detected", "{detection}", "Endpoints found to be outliers.", "counter", _detected),
    Gauge("meshlib.outlier.enforced", "{ejection}", "Ejections of outliers.", "counter", _enforced),
    Gauge("meshlib.outlier.overflow", "{detection}", "Outliers spared, too many being out.", "counter", _spared),
    Gauge("meshlib.health_check.checks", "{check}", "Active checks of endpoints.", "counter", _checks),
    Gauge("meshlib.shadow.decisions", "{decision}", "Decisions that shadows looked at.", "counter", _shadows),
    Gauge("meshlib.panics", "{attempt}", "Picks among all endpoints, too few being healthy.", "counter", _panics),
    Gauge("meshlib.priority.load", "%", "Share of the calls that a priority gets.", "gauge", _priorities),
    Gauge("meshlib.sessions", "{call}", "Calls of sessions, by what became of their bond.", "counter", _sessions),
    Gauge("meshlib.retries", "{attempt}", "Attempts beyond the first of their call.", "counter", _retries),
    Gauge(
        "meshlib.retry.budget",
        "{token}",
        "What is left of the retry budget: tokens, or retries.",
        "gauge",
        _budgets,
        min,
    ),
    Gauge("meshlib.retry.refused", "{call}", "Retries that the budget did not allow.", "counter", _budget_refused),
    Gauge("meshlib.hedges", "{attempt}", "Hedges sent, won, and refused by a budget.", "counter", _hedges),
    Gauge("meshlib.hedge.delay", "s", "How long an attempt is waited for.", "gauge", _hedge_delays, max),
    Gauge("meshlib.faults", "{call}", "Calls with an injected fault, or one too many.", "counter", _faults),
    Gauge("meshlib.connections", "{connection}", "Open connections, by state.", "updown", _connections),
    Gauge("meshlib.connections.pending", "{request}", "Requests that wait for one.", "updown", _connection_waits),
    Gauge("meshlib.discovery.age", "s", "How long nobody has vouched for the endpoints.", "gauge", _ages, max),
    Gauge("meshlib.headers.ignored", "{value}", "Malformed header values that were left out.", "counter", _ignored),
)
"""Every observable instrument, in the order of the documentation."""


class _Instruments:
    """One set of instruments, and the observers that it reads."""

    def __init__(self, meter: Meter) -> None:
        self.observers: weakref.WeakSet[Observing] = weakref.WeakSet()
        create = {
            "counter": meter.create_observable_counter,
            "updown": meter.create_observable_up_down_counter,
            "gauge": meter.create_observable_gauge,
        }
        for gauge in GAUGES:
            create[gauge.kind](gauge.name, [self._callback(gauge)], gauge.unit, gauge.description)

    def _callback(self, gauge: Gauge) -> Callable[[CallbackOptions], Iterable[Observation]]:
        from opentelemetry.metrics import Observation

        def read(_: CallbackOptions) -> Iterable[Observation]:
            with _lock:
                observers = list(self.observers)
            readings: dict[Attributes, float] = {}
            for observer in observers:
                observed = observer.observed
                if observed is None:
                    continue
                try:
                    for attributes, value in gauge.read(observer, observed):
                        known = readings.get(attributes)
                        readings[attributes] = value if known is None else gauge.merge(float(known), float(value))
                except Exception:
                    _log.debug("%s could not be read", gauge.name, exc_info=True)
            return [Observation(value, dict(attributes)) for attributes, value in readings.items()]

        return read


_lock = threading.Lock()
_sets: weakref.WeakKeyDictionary[Meter, _Instruments] = weakref.WeakKeyDictionary()


def watch(meter: Meter, observer: Observing) -> None:
    """Have the observable instruments of `meter` read `observer` for as long as it lives; once, however often asked."""
    with _lock:
        instruments = _sets.get(meter)
        if instruments is None:
            instruments = _sets[meter] = _Instruments(meter)
        instruments.observers.add(observer)


def unwatch(observer: Observing) -> None:
    """Read `observer` no more."""
    with _lock:
        for instruments in _sets.values():
            instruments.observers.discard(observer)


def _renew() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew)
