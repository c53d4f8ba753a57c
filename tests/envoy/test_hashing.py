"""Ring hash and Maglev choose the endpoint that Envoy chooses, for every one of thousands of keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import pytest

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster
from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.balance.hash_policy import hash_of_call
from meshlib.balance.settings import BalancerName, HashCookie, HashOn, LoadBalancing, RingSettings
from meshlib.policy.traits import Traits
from tests.core import NOW, balanced_state
from tests.envoy.harness import ROUNDS, TYPES, Case, Place, ask, holding, start
from tests.envoy.upstream import Upstream
from tests.peers.servers import Envoy

KEYS = 400
POLICY: Mapping[str, BalancerName] = {"RING_HASH": "ring_hash", "MAGLEV": "maglev"}
ENDPOINTS = 20


def ours(case: Case, settings: LoadBalancing) -> Cluster:
    """The cluster of a case, as the mesh has it."""
    health = {"HEALTHY": Health.HEALTHY, "UNHEALTHY": Health.UNHEALTHY}
    endpoints = [
        Endpoint(
            "127.0.0.1",
            place.port,
            float(place.weight or 1),
            locality=Locality(place.region, place.zone, place.sub_zone),
            health=health[place.health],
        )
        for place in case.places
    ]
    return balanced_state(settings, name=case.name).view(endpoints, NOW, Random(1))


def places(ports: Sequence[int], rng: Random) -> list[Place]:
    """Some endpoints, with weights or without, a few of them unhealthy."""
    chosen = rng.sample(ports, rng.randint(2, len(ports)))
    weighted, sick = rng.random() < 0.5, rng.choice((0, 0, len(chosen) // 4))
    return [
        Place(port, rng.randint(1, 8) if weighted else None, "UNHEALTHY" if at < sick else "HEALTHY")
        for at, port in enumerate(chosen)
    ]


def consistent(percent: int | None) -> dict[str, Any]:
    """Bounded load, as Envoy writes it."""
    return {} if percent is None else {"consistent_hashing_lb_config": {"hash_balance_factor": percent}}


def generated(ports: Sequence[int], seed: int, count: int) -> Iterator[tuple[Case, LoadBalancing]]:
    """Clusters of both kinds, with every setting that moves endpoints about."""
    rng = Random(seed)
    by_key = {"hash_policy": [{"header": {"header_name": "x-key"}}]}
    for at in range(count):
        name, some = f"hash-{at}", places(ports, rng)
        bounded = rng.choice((None, None, 150))
        common: dict[str, Any] = (
            {} if bounded is None else {"consistent_hashing_lb_config": {"hash_balance_factor": bounded}}
        )
        if at % 2:
            size = rng.choice((251, 1009, 65537))
            cluster = {"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": size}}
            settings = LoadBalancing(policy="maglev", table_size=size, hash_balance_percent=bounded)
        else:
            least, most = rng.choice(((1024, 8_388_608), (64, 128), (1, 8_388_608)))
            murmur = rng.random() < 0.3
            ring = {"minimum_ring_size": least, "maximum_ring_size": most}
            cluster = {
                "lb_policy": "RING_HASH",
                "ring_hash_lb_config": {**ring, "hash_function": "MURMUR_HASH_2" if murmur else "XX_HASH"},
            }
            sizes = RingSettings(least, most, "murmur2" if murmur else "xxhash")
            settings = LoadBalancing(policy="ring_hash", ring=sizes, hash_balance_percent=bounded)
        yield Case(name, some, cluster={**cluster, "common_lb_config": common}, route=by_key), settings


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_every_key_goes_where_envoy_sends_it(envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int) -> None:
    with Upstream(ENDPOINTS) as upstream:
        cases = list(generated(upstream.ports, seed, count=8))
        _, port = start(envoy_factory, [case for case, _ in cases])
        rng = Random(seed + 5)
        for case, settings in cases:
            keys = [f"{rng.getrandbits(48):x}" for _ in range(KEYS)]
            # Where load is bounded, one call at a time: what is under way would count.
            connections = 1 if settings.hash_balance_percent else 8
            answers = ask(port, [{"x-case": case.name, "x-key": key} for key in keys], connections=connections)
            cluster = ours(case, settings)
            picked = [pick(cluster, [HashOn(header="x-key")], {"x-key": key}).endpoint.port for key in keys]
            assert picked == [answer.port for answer in answers], (case.name, settings)


def pick(
    cluster: Cluster, on: Sequence[HashOn], headers: Mapping[str, str], query: str = "", tried: Sequence[Member] = ()
) -> Member:
    traits = Traits()
    traits.hash, _ = hash_of_call(on, headers, query, "127.0.0.1", Random(1))
    member = cluster.pick(NOW, Random(1), tried, traits)
    assert member is not None
    return member


POLICIES: Mapping[str, tuple[list[Any], list[HashOn]]] = {
    "two-headers": (
        [{"header": {"header_name": "x-key"}}, {"header": {"header_name": "x-other"}}],
        [HashOn(header="x-key"), HashOn(header="x-other")],
    ),
    "terminal": (
        [{"header": {"header_name": "x-key"}, "terminal": True}, {"header": {"header_name": "x-other"}}],
        [HashOn(header="x-key", terminal=True), HashOn(header="x-other")],
    ),
    "source": (
        [{"connection_properties": {"source_ip": True}}, {"header": {"header_name": "x-key"}}],
        [HashOn(source=True), HashOn(header="x-key")],
    ),
    "nobody-then-terminal": (
        [
            {"header": {"header_name": "x-none"}, "terminal": True},
            {"header": {"header_name": "x-key"}, "terminal": True},
            {"query_parameter": {"name": "user"}},
        ],
        [HashOn(header="x-none", terminal=True), HashOn(header="x-key", terminal=True), HashOn(query="user")],
    ),
    "cookie-then-query": (
        [{"cookie": {"name": "session"}}, {"query_parameter": {"name": "user"}}],
        [HashOn(cookie=HashCookie("session")), HashOn(query="user")],
    ),
}


def test_what_a_call_is_hashed_by_folds_as_in_envoy(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    with Upstream(9) as upstream:
        some = [Place(port) for port in upstream.ports]
        cases = [
            Case(f"{algorithm} {name}", some, cluster={"lb_policy": algorithm}, route={"hash_policy": theirs})
            for name, (theirs, _) in POLICIES.items()
            for algorithm in POLICY
        ]
        _, port = start(envoy_factory, cases)
        rng = Random(7)
        for case in cases:
            algorithm, name = case.name.split()
            cluster = ours(case, LoadBalancing(policy=POLICY[algorithm]))
            requests = []
            for at in range(100):
                session = f'"s-{at}"' if at % 4 == 0 else f"{rng.random()}"
                headers = {
                    "x-case": case.name,
                    "x-key": f"{rng.getrandbits(40):x}",
                    "cookie": f"a=b; session={session}; c=d",
                }
                if rng.random() < 0.5:
                    headers["x-other"] = f"{rng.getrandbits(40):x}"
                requests.append({**headers, ":path": f"/x?a=1&user={rng.getrandbits(30)}%20&user=2"})
            answers = ask(port, requests)
            picked = [
                pick(cluster, POLICIES[name][1], request, request[":path"].partition("?")[2]).endpoint.port
                for request in requests
            ]
            assert picked == [answer.port for answer in answers], case.name


def test_load_is_bounded_as_in_envoy(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    rng = Random(1)
    hashed = {"hash_policy": [{"header": {"header_name": "x-key"}}]}
    with Upstream(8) as upstream:
        even = [Place(port) for port in upstream.ports]
        uneven = [Place(port, 1 + at % 3) for at, port in enumerate(upstream.ports)]
        cases = [
            Case(
                f"{algorithm} {percent} {kind}",
                some,
                cluster={"lb_policy": algorithm, "common_lb_config": consistent(percent)},
                route=hashed,
            )
            for algorithm in POLICY
            for percent in (100, 120, 200)
            for kind, some in (("even", even), ("uneven", uneven))
        ]
        _, port = start(envoy_factory, cases)
        for case in cases:
            algorithm, percent, _ = case.name.split()
            cluster = ours(case, LoadBalancing(policy=POLICY[algorithm], hash_balance_percent=int(percent)))
            # Few keys, and some of them hot.
            keys = [f"few-{min(int(rng.expovariate(1)), 5)}" for _ in range(40)]
            headers = [{"x-case": case.name, "x-script": "hang", "x-key": key} for key in keys]
            upstream.forget()
            with holding(port, headers, upstream):
                picked = []
                for each in headers:
                    member = pick(cluster, [HashOn(header="x-key")], each)
                    member.node.enter()
                    picked.append(member.endpoint.port)
                assert picked == upstream.order, case.name


def test_retries_go_to_the_endpoints_that_envoy_tries(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    retry = {
        "retry_on": "5xx",
        "num_retries": 3,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{TYPES}.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "host_selection_retry_max_attempts": 30,
    }
    route = {"hash_policy": [{"header": {"header_name": "x-key"}}], "retry_policy": retry}
    with Upstream(7) as upstream:
        even = [Place(port) for port in upstream.ports]
        uneven = [Place(port, 1 + at % 3) for at, port in enumerate(upstream.ports)]
        cases = [
            Case(f"{algorithm} {kind}", some, cluster={"lb_policy": algorithm}, route=route)
            for algorithm in POLICY
            for kind, some in (("even", even), ("uneven", uneven))
        ]
        _, port = start(envoy_factory, cases)
        for case in cases:
            cluster = ours(case, LoadBalancing(policy=POLICY[case.name.split()[0]]))
            requests = [
                {"x-case": case.name, "x-key": f"key-{at}", "x-id": f"{case.name} {at}", "x-script": "503"}
                for at in range(60)
            ]
            ask(port, requests, connections=2)  # fewer than the retries that Envoy allows at once
            for request in requests:
                tried: list[Member] = []
                for _ in range(4):
                    tried.append(pick(cluster, [HashOn(header="x-key")], request, tried=tried))
                assert [member.endpoint.port for member in tried] == upstream.routes[request["x-id"]], request
