"""Whom a call reaches, by its metadata and by where it comes from: the same endpoints as with a real Envoy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest

from meshlib.balance.cluster import Cluster
from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.balance.settings import LoadBalancing, SubsetSelector, SubsetSettings, ZoneAwareSettings
from meshlib.balance.subset import Match, chosen
from meshlib.balance.tiers import Here
from meshlib.balance.zone_aware import Callers
from tests.core import NOW, balanced_state
from tests.envoy.harness import ROUNDS, TYPES, Case, Place, ask, bootstrap, start
from tests.envoy.test_shares import agree, shares_of_ours, shares_of_theirs
from tests.envoy.upstream import Upstream
from tests.peers.process import free_port
from tests.peers.servers import Envoy

POLICIES = {"none": "NO_FALLBACK", "any": "ANY_ENDPOINT", "default": "DEFAULT_SUBSET", "keys": "KEYS_SUBSET"}
KEYS = ("stage", "version", "zone")


def metadata(rng: Random, most: int = 3, values: Sequence[str] = "12") -> dict[str, str]:
    return {key: rng.choice(values) for key in sorted(rng.sample(KEYS, rng.randint(0, most)))}


def selectors(rng: Random) -> list[SubsetSelector]:
    made: dict[tuple[str, ...], SubsetSelector] = {}
    for _ in range(rng.randint(1, 3)):
        keys = tuple(sorted(rng.sample(KEYS, rng.randint(1, 3))))
        fallback = rng.choice([None, "none", "any", "default", "keys" if len(keys) > 1 else "any"])
        fewer = tuple(sorted(rng.sample(keys, rng.randint(1, len(keys) - 1)))) if fallback == "keys" else ()
        made[keys] = SubsetSelector(keys, fallback, fewer)  # type: ignore[arg-type]
    # Envoy forgets the fallback of one whose keys are the first of another's that is listed before it.
    return sorted(made.values(), key=lambda selector: len(selector.keys))


def generated(ports: Sequence[int], seed: int, count: int) -> Iterator[tuple[Case, SubsetSettings, float, Match]]:
    """Clusters with selectors and fallbacks of every kind, each with the metadata that one call asks for."""
    rng = Random(seed)
    for at in range(count):
        health = rng.choice(("HEALTHY", "UNHEALTHY"))
        lists = rng.random() < 0.3
        values = ("1", "2", "1,2", "2,3") if lists else ("1", "2")
        some = [
            Place(port, metadata=metadata(rng, values=values), health=health if rng.random() < 0.3 else "HEALTHY")
            for port in ports
        ]
        subset = SubsetSettings(
            tuple(selectors(rng)),
            rng.choice(("none", "any", "default")),
            metadata(rng, 2) or {"stage": "1"},
            panic_mode_any=rng.random() < 0.3,
            list_as_any=lists,
        )
        panic = rng.choice((0, 50))
        wanted = metadata(rng)
        config: dict[str, Any] = {
            "fallback_policy": POLICIES[subset.fallback],
            "default_subset": dict(subset.default),
            "panic_mode_any": subset.panic_mode_any,
            "list_as_any": subset.list_as_any,
            "subset_selectors": [
                {
                    "keys": list(selector.keys),
                    **({"fallback_policy": POLICIES[selector.fallback]} if selector.fallback else {}),
                    **({"fallback_keys_subset": list(selector.fallback_keys)} if selector.fallback_keys else {}),
                }
                for selector in subset.selectors
            ],
        }
        cluster = {
            "lb_policy": "ROUND_ROBIN",
            "lb_subset_config": config,
            "common_lb_config": {"healthy_panic_threshold": {"value": panic}},
        }
        route = {"metadata_match": {"filter_metadata": {"envoy.lb": wanted}}} if wanted else {}
        case = Case(f"subset-{at}", some, cluster=cluster, route=route)
        yield case, subset, float(panic), tuple(sorted(wanted.items()))


def ours(case: Case, settings: LoadBalancing, here: Here | None = None) -> Cluster:
    state = balanced_state(settings, name=case.name)
    state.here = here
    endpoints = [
        Endpoint(
            "127.0.0.1",
            place.port,
            locality=Locality(place.region, place.zone, place.sub_zone),
            metadata=place.metadata,
            health=Health(place.health.lower()),
        )
        for place in case.places
    ]
    return state.view(endpoints, NOW, Random(1))


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_metadata_choose_the_endpoints_that_envoy_chooses(
    envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int
) -> None:
    with Upstream(6) as upstream:
        cases = list(generated(upstream.ports, seed, 60))
        _, port = start(envoy_factory, [case for case, *_ in cases])
        for case, subset, panic, match in cases:
            answers = ask(port, [{"x-case": case.name}] * 12, connections=1)
            settings = LoadBalancing(policy="round_robin", panic_percent=panic, subset=subset)
            part, rng = chosen(ours(case, settings), match), Random(1)
            picked = [part.pick(NOW, rng) for _ in range(12)]
            mine = {0 if member is None else member.endpoint.port for member in picked}
            assert {answer.port or 0 for answer in answers} == mine, (case, subset, match)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_zones_keep_what_they_keep_in_envoy(envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int) -> None:
    rng = Random(seed + 5)
    with Upstream(12) as upstream:
        cases: list[tuple[Case, LoadBalancing]] = []
        for at in range(5):
            healthy = rng.choice((12, 8, 2))
            some = [
                Place(
                    port,
                    region="eu",
                    zone=rng.choice("aabc"),
                    health=rng.choices(("HEALTHY", "UNHEALTHY"), (healthy, 1))[0],
                )
                for port in upstream.ports
            ]
            force = rng.choice((None, None, 4))
            aware: dict[str, Any] = {"min_cluster_size": 6}
            if force is not None:
                aware["force_local_zone"] = {"min_size": force}
            policy = {
                "@type": f"{TYPES}.load_balancing_policies.random.v3.Random",
                "locality_lb_config": {"zone_aware_lb_config": aware},
            }
            typed = {"name": "envoy.load_balancing_policies.random", "typed_config": policy}
            cluster = {"load_balancing_policy": {"policies": [{"typed_extension_config": typed}]}}
            settings = LoadBalancing(policy="random", zone_aware=ZoneAwareSettings(force_local_zone=force))
            cases.append((Case(f"zones-{at}", some, cluster=cluster), settings))
        zones = ["a", "b", *rng.choices("abc", k=4)]
        callers = Case("local", [Place(at + 1, region="eu", zone=zone) for at, zone in enumerate(zones)])
        port = free_port()
        config = bootstrap([*(case for case, _ in cases), callers], port)
        config["node"] = {"id": "one", "cluster": "local", "locality": {"region": "eu", "zone": "a"}}
        config["cluster_manager"] = {"local_cluster_name": "local"}
        envoy_factory(config)
        local = Counter(Locality("eu", zone) for zone in zones)
        here = Here(Locality("eu", "a"), (), Callers(local, local))
        for case, settings in cases:
            agree(shares_of_theirs(port, case), shares_of_ours(ours(case, settings, here)), case)
