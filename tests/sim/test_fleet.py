"""Many clients and servers on one clock: the same seed gives the same run, and all that was held is given back."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from meshlib.context import Criticality
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.sim.fleet import Fleet
from meshlib.sim.network import Serves, SimEndpoint, exponential, lognormal
from meshlib.sim.server import Server

pytestmark = pytest.mark.slow  # in virtual time, so nothing depends on the Python


def servers() -> list[Serves]:
    return [
        Server(exponential(0.01)),
        Server(exponential(0.01), workers=3, max_queue=5, overloaded=True),
        Server(exponential(0.02), lifo_beyond=4, drop_gone=True),
        Server(exponential(0.01), speed=0.3, drop_expired=True),
        Server(exponential(0.01), drop_expired=True, admission=AdmissionSettings(max_in_flight=3, max_pending=5)),
        SimEndpoint(lognormal(0.01, 0.5), fail_percent=20),
        SimEndpoint(hung=True),
    ]


POLICIES: dict[str, dict[str, Any]] = {
    "peak_ewma": {"load_balancing": {"policy": "peak_ewma"}},
    "least_request": {"load_balancing": {"policy": "least_request"}},
    "round_robin": {"load_balancing": {"policy": "round_robin"}},
    "random": {"load_balancing": {"policy": "random"}},
    "hedging": {"hedge": {"after": "20ms", "max_extra_percent": 100, "max_hedges": 2}},
    "hedging on the per-try timeout": {"hedge": {"on_per_try_timeout": True}},
    "a throttle": {"throttle": {"window": "2s", "k": 1.1}},
    "a bulkhead": {"bulkhead": {"by": "criticality", "percents": {"critical": 60, "sheddable": 40}}},
    "an adaptive limit": {"limits": {"adaptive": {"algorithm": "vegas"}}},
    "a rate limit": {"rate_limit": {"total": {"rate": 50}, "max_wait": "100ms"}},
    "faults": {"fault": {"delay": {"fixed": "50ms", "percent": 20}, "abort": {"status": 503, "percent": 10}}},
}


REFUSING = {"a throttle": {"throttle"}, "a bulkhead": {"bulkhead"}, "a rate limit": {"rate-limit"}}


def crowd(seed: int, policy: str = "peak_ewma") -> Fleet:
    """Five clients of seven servers, some of them ill, more load than there is room for, and callers who go away."""
    fleet = Fleet(servers(), seed=seed)
    service = {
        "timeout": "1s",
        "per_try_timeout": "300ms",
        "limits": {"max_in_flight": 4} if policy in ("a bulkhead", "an adaptive limit") else {"max_in_flight": 8},
    }
    for _ in range(5):
        fleet.client(keep_records=True, **{**service, **POLICIES[policy]})
    rng = Random(seed)

    def start() -> None:
        client = rng.choice(fleet.clients)
        client.call(
            rng.choice([None, 0.02, 0.5]),
            deadline_s=rng.choice([None, 0.1]),
            safe=rng.random() < 0.7,
            criticality=rng.choice([None, Criticality.SHEDDABLE]),
        )

    fleet.load(400.0, 8.0, start)
    fleet.clock.at(3.0, lambda: fleet.servers[0].stall(fleet.clock, 1.0))  # type: ignore[attr-defined]
    fleet.run()
    return fleet


@pytest.mark.parametrize("policy", POLICIES)
def test_every_call_ends_once_and_nothing_stays_in_flight(policy: str) -> None:
    fleet = crowd(1, policy)
    tally, records = fleet.tally, [record for client in fleet.clients for record in client.records]
    begun = sum(tally.begun.values())
    assert begun > 3000
    assert len(records) == begun == sum(tally.good.values()) + sum(tally.bad.values())
    assert all(record.outcome in {"success", "failure", "cancelled"} for record in records)
    attempts = sum(len(record.attempts) for record in records)
    assert attempts == sum(tally.attempts.values()) == sum(server.attempts for server in fleet.servers)
    assert all(attempt.outcome != "pending" for record in records for attempt in record.attempts)
    assert max(record.duration_s for record in records) <= 1.0 + 1e-6
    refused = {record.refused_by for record in records} - {None}
    assert refused >= REFUSING.get(policy, set())
    assert fleet.in_flight == 0
    assert all(server.in_flight == 0 for server in fleet.servers if isinstance(server, Server))
    gates = [server.gate for server in fleet.servers if isinstance(server, Server) and server.gate is not None]
    assert [gate.queue.in_flight for gate in gates] == [0]


def test_the_same_seed_gives_the_same_records() -> None:
    def records(seed: int) -> list[object]:
        return [client.records for client in crowd(seed).clients]

    assert records(1) == records(1)
    assert records(1) != records(2)


def test_each_client_has_its_own_view_and_all_one_tally() -> None:
    fleet = Fleet([SimEndpoint(refuses=True), SimEndpoint()])
    ejecting, plain = fleet.client(), fleet.plain_client()
    fleet.load(100.0, 10.0)
    fleet.run()
    assert ejecting.cluster.state.outlier is not None
    assert ejecting.cluster.state.outlier.ejections > 0
    assert plain.cluster.state.outlier is None
    assert 70.0 < fleet.tally.success_percent < 80.0
