"""Will this configuration survive a bad minute? Ask before it happens: the mesh's own policies, in virtual time.

A service that can do 300 calls a second gets 250, and stands still for ten seconds. Its callers give up after a second,
and try once more.
"""

from collections.abc import Mapping
from typing import Any

from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.sim.fleet import Fleet
from meshlib.sim.server import Server

CAPACITY, RATE, STALL_AT, STALL_S = 300, 250, 10, 10

# As under `services: {orders: ...}` in mesh.yaml.
CAREFUL: Mapping[str, Any] = {"per_try_timeout": "1s", "retry": {"max_retries": 1}}
ADMISSION = AdmissionSettings(max_in_flight=8)  # as under `server: {admission: ...}` of the callee
CARELESS: Mapping[str, Any] = {**CAREFUL, "retry_budget": {"tokens": 1_000_000}, "circuit_breaker": False}


def survive(
    configuration: Mapping[str, Any], *, drop_expired: bool = False, admission: AdmissionSettings | None = None
) -> str:
    server = Server.of_capacity(CAPACITY, drop_expired=drop_expired, admission=admission)
    fleet = Fleet([server], seed=1)
    client = fleet.client(**configuration)
    fleet.clock.at(STALL_AT, lambda: server.stall(fleet.clock, STALL_S))
    fleet.load(RATE, 60)
    fleet.run(60)
    tally = client.tally
    back = tally.first_second(tally.good, STALL_AT + STALL_S, 60, lambda good: good > 0.95 * RATE)
    in_the_end = tally.rate(tally.good, 50, 60) / tally.rate(tally.begun, 50, 60)
    recovery = "it never recovers" if back is None else f"well again after {back - STALL_AT - STALL_S} s"
    return f"{recovery}; at the end {in_the_end:.0%} of the calls are answered in time"


print("no budget, no breaker:", survive(CARELESS))
print("the defaults:", survive(CAREFUL))
print("and a server that drops what is late:", survive(CAREFUL, drop_expired=True))
print("careless clients, and a server with admission:", survive(CARELESS, drop_expired=True, admission=ADMISSION))
