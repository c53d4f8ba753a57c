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
from tests.envoy.harness import ROUNDS, Case, Place, ask, holding, start
from tests.envoy.upstream import Upstream
from tests.peers.servers import Envoy

KEYS = 400
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
            answers = ask(port, [{"x-case": case.name, "x-key": key} for key in keys], connections=1)
            cluster = ours(case, settings)
            picked = [pick(cluster, [HashOn(header="x-key")], {"x-key": key}).endpoint.port for key in keys]
            assert picked == [answer.port for answer in answers], (case.name, settings)


def pick(
    cluster: Cluster, on: Sequence[HashOn], headers: Mapping[str, str], query: str = "", tried: Sequence[Member] = ()
) -> Member:
    traits = Traits()
    traits.hash, _ = hash_of_call(on, headers, query, "", Random(1))
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
    "cookie-then-query": (
        [{"cookie": {"name": "session"}}, {"query_parameter": {"name": "user"}}],
        [HashOn(cookie=HashCookie("session")), HashOn(query="user")],
    ),
}


@pytest.mark.parametrize("algorithm", ["RING_HASH", "MAGLEV"])
def test_what_a_call_is_hashed_by_folds_as_in_envoy(
    envoy_factory: Callable[[dict[str, Any]], Envoy], algorithm: str
) -> None:
    settings = LoadBalancing(policy="ring_hash" if algorithm == "RING_HASH" else "maglev")
    with Upstream(9) as upstream:
        some = [Place(port) for port in upstream.ports]
        cases = [
            Case(name, some, cluster={"lb_policy": algorithm}, route={"hash_policy": theirs})
            for name, (theirs, _) in POLICIES.items()
        ]
        _, port = start(envoy_factory, cases)
        rng = Random(7)
        for case in cases:
            on = POLICIES[case.name][1]
            cluster = ours(case, settings)
            requests = []
            for _ in range(200):
                headers = {
                    "x-case": case.name,
                    "x-key": f"{rng.getrandbits(40):x}",
                    "cookie": f"a=b; session={rng.random()}; c=d",
                }
                if rng.random() < 0.5:
                    headers["x-other"] = f"{rng.getrandbits(40):x}"
                requests.append({**headers, ":path": f"/x?a=1&user={rng.getrandbits(30)}%20&user=2"})
            answers = ask(port, requests, connections=4)
            picked = [
                pick(cluster, on, request, request[":path"].partition("?")[2]).endpoint.port for request in requests
            ]
            assert picked == [answer.port for answer in answers], case.name


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("percent", [100, 120, 200])
def test_load_is_bounded_as_in_envoy(
    envoy_factory: Callable[[dict[str, Any]], Envoy], percent: int, weighted: bool
) -> None:
    with Upstream(8) as upstream:
        some = [Place(port, 1 + at % 3 if weighted else None) for at, port in enumerate(upstream.ports)]
        hashed = {"hash_policy": [{"header": {"header_name": "x-key"}}]}
        cases = [
            Case(name, some, cluster={"lb_policy": name, "common_lb_config": consistent(percent)}, route=hashed)
            for name in ("RING_HASH", "MAGLEV")
        ]
        _, port = start(envoy_factory, cases)
        for case in cases:
            policy: BalancerName = "ring_hash" if case.name == "RING_HASH" else "maglev"
            cluster = ours(case, LoadBalancing(policy=policy, hash_balance_percent=percent))
            headers = [{"x-case": case.name, "x-script": "hang", "x-key": f"few-{at % 3}"} for at in range(40)]
            upstream.forget()
            with holding(port, headers, upstream):
                picked = []
                for each in headers:
                    member = pick(cluster, [HashOn(header="x-key")], each)
                    member.node.enter()
                    picked.append(member.endpoint.port)
                assert picked == upstream.order


@pytest.mark.parametrize("algorithm", ["RING_HASH", "MAGLEV"])
def test_retries_go_to_the_endpoints_that_envoy_tries(
    envoy_factory: Callable[[dict[str, Any]], Envoy], algorithm: str
) -> None:
    settings = LoadBalancing(policy="ring_hash" if algorithm == "RING_HASH" else "maglev")
    retry = {
        "retry_on": "5xx",
        "num_retries": 3,
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.001s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 30,
    }
    route = {"hash_policy": [{"header": {"header_name": "x-key"}}], "retry_policy": retry}
    with Upstream(7) as upstream:
        case = Case("retry", [Place(port) for port in upstream.ports], cluster={"lb_policy": algorithm}, route=route)
        _, port = start(envoy_factory, [case])
        cluster = ours(case, settings)
        for at in range(100):
            upstream.forget()
            headers = {"x-case": "retry", "x-key": f"key-{at}", "x-script": "503"}
            ask(port, [headers], connections=1)
            tried: list[Member] = []
            for _ in range(4):
                tried.append(pick(cluster, [HashOn(header="x-key")], headers, tried=tried))
            assert [member.endpoint.port for member in tried] == upstream.order, at


@pytest.mark.parametrize("algorithm", ["RING_HASH", "MAGLEV"])
def test_weights_of_localities_move_the_keys_that_they_move_in_envoy(
    envoy_factory: Callable[[dict[str, Any]], Envoy], algorithm: str
) -> None:
    rng = Random(7)
    by_key = {"hash_policy": [{"header": {"header_name": "x-key"}}]}
    common = {"locality_weighted_lb_config": {}}
    with Upstream(ENDPOINTS) as upstream:
        cases = []
        for at in range(4):
            weights = {("eu", zone, ""): rng.randint(0, 5) or 1 for zone in "abc"}
            some = [
                Place(
                    port,
                    rng.choice((None, 3)),
                    region="eu",
                    zone=rng.choice("abc"),
                    health="UNHEALTHY" if rng.random() < 0.2 else "HEALTHY",
                )
                for port in upstream.ports
            ]
            cluster = {"lb_policy": algorithm, "common_lb_config": common}
            written = {f"eu/{zone}": float(weight) for (_, zone, _), weight in weights.items()}
            settings = LoadBalancing(policy=algorithm.lower(), locality_weights=written)  # type: ignore[arg-type]
            cases.append((Case(f"l-{at}", some, cluster=cluster, route=by_key, locality_weights=weights), settings))
        _, port = start(envoy_factory, [case for case, _ in cases])
        for case, settings in cases:
            keys = [f"{rng.getrandbits(48):x}" for _ in range(KEYS)]
            answers = ask(port, [{"x-case": case.name, "x-key": key} for key in keys], connections=1)
            cluster = ours(case, settings)
            picked = [pick(cluster, [HashOn(header="x-key")], {"x-key": key}).endpoint.port for key in keys]
            assert picked == [answer.port for answer in answers], case.name
