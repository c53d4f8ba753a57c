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
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from meshlib.policy.breaker import BreakerState
from meshlib.propagation import IGNORED_KINDS
from meshlib.telemetry import semconv
from meshlib.telemetry.gauge import Attributes, Gauge, Observed, Observing, Reading, of_cluster
from meshlib.telemetry.gauges_members import MAX_ENDPOINTS, MEMBER_GAUGES
from meshlib.telemetry.gauges_serving import SERVING_GAUGES

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation

    from meshlib.net.pool import PoolStats

__all__ = ["GAUGES", "MAX_ENDPOINTS", "Gauge", "Observed", "Observing", "unwatch", "watch"]

_log = logging.getLogger("meshlib")


def _in_flight(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        yield of_cluster(cluster), cluster.state.limit.in_flight


def _pending(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        yield of_cluster(cluster), cluster.state.limit.pending


def _limit_rejected(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        yield of_cluster(cluster), cluster.state.limit.rejected


def _limits(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.state.limit.maximum is not None:
            yield of_cluster(cluster), cluster.state.limit.maximum


def _gate_rejected(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for gate in cluster.state.gates or ():
            yield (*of_cluster(cluster), ("meshlib.gate", gate.name)), gate.rejected


def _shadows(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for each in () if cluster.state.shadow is None else cluster.state.shadow.comparisons:
            for outcome, count in (("same", each.same), ("differed", each.differed)):
                own = (("meshlib.shadow.policy", each.policy), ("meshlib.shadow.outcome", outcome))
                yield (*of_cluster(cluster), *own), count


def _gate_failed_open(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for gate in cluster.state.gates or ():
            if (failed_open := getattr(gate, "failed_open", None)) is not None:
                yield (*of_cluster(cluster), ("meshlib.gate", gate.name)), failed_open


def _breakers(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.state.breaker is not None:
            for state in BreakerState:
                is_in = cluster.state.breaker.state is state
                yield (*of_cluster(cluster), ("meshlib.breaker.state", state.value)), int(is_in)


def _breaker_rejected(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.state.breaker is not None:
            yield of_cluster(cluster), cluster.state.breaker.rejected


def _ejections(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.state.outlier is not None:
            yield of_cluster(cluster), cluster.state.outlier.ejections


def _detected(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for rule, count in () if cluster.state.outlier is None else list(cluster.state.outlier.detected.items()):
            yield (*of_cluster(cluster), (semconv.OUTLIER_RULE, rule)), count


def _enforced(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        for rule, count in () if cluster.state.outlier is None else list(cluster.state.outlier.enforced.items()):
            yield (*of_cluster(cluster), (semconv.OUTLIER_RULE, rule)), count


def _spared(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.state.outlier is not None:
            yield of_cluster(cluster), cluster.state.outlier.overflow


def _checks(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        active = cluster.state.active
        if active is not None:
            yield (*of_cluster(cluster), ("meshlib.health_check.result", "passed")), active.passed
            yield (*of_cluster(cluster), ("meshlib.health_check.result", "failed")), active.failed


def _panics(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        yield of_cluster(cluster), cluster.state.panics


def _priorities(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if cluster.priorities is not None:
            shares = cluster.priorities.loads(cluster.ejected)
            for priority, both in enumerate(zip(shares.healthy, shares.degraded, strict=True)):
                yield (*of_cluster(cluster), ("meshlib.priority", priority)), sum(both)


def _sessions(_: Observing, observed: Observed) -> Iterator[Reading]:
    for cluster in observed.clusters():
        if (sessions := cluster.state.sessions) is not None:
            yield (*of_cluster(cluster), ("meshlib.session.outcome", "bound")), sessions.bound
            yield (*of_cluster(cluster), ("meshlib.session.outcome", "moved")), sessions.moved


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


def _mirrors(_: Observing, observed: Observed) -> Iterator[Reading]:
    for (name, outcome), count in observed.mirrors().items():
        of = ((semconv.SERVER_ADDRESS, name.partition("/")[0]), (semconv.CLUSTER, name))
        yield (*of, ("meshlib.mirror.outcome", outcome)), count


def _overrides(_: Observing, observed: Observed) -> Iterator[Reading]:
    for (service, outcome), count in observed.overrides().items():
        yield ((semconv.SERVER_ADDRESS, service), ("meshlib.override.outcome", outcome)), count


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
    *MEMBER_GAUGES,
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
    Gauge("meshlib.mirrors", "{request}", "Copies for mirrors, by what became of them.", "counter", _mirrors),
    Gauge("meshlib.overrides", "{call}", "Calls that an override asked to replace.", "counter", _overrides),
    Gauge("meshlib.faults", "{call}", "Calls with an injected fault, or one too many.", "counter", _faults),
    Gauge("meshlib.connections", "{connection}", "Open connections, by state.", "updown", _connections),
    Gauge("meshlib.connections.pending", "{request}", "Requests that wait for one.", "updown", _connection_waits),
    Gauge("meshlib.discovery.age", "s", "How long nobody has vouched for the endpoints.", "gauge", _ages, max),
    Gauge("meshlib.headers.ignored", "{value}", "Malformed header values that were left out.", "counter", _ignored),
    *SERVING_GAUGES,
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
