"""What each endpoint gets, of balancers that choose by chance or in turn: the same shares as with a real Envoy.

Shares are compared within five standard deviations of the difference, for the number of requests made: of ten thousand
endpoints compared fewer than one would be told apart by chance alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from random import Random
from typing import Any

import pytest

from meshlib.balance.cluster import Cluster
from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.balance.settings import LeastRequestSettings, LoadBalancing
from meshlib.routing.route import Backend
from meshlib.routing.split import draw
from tests.core import NOW, balanced_state
from tests.envoy.harness import ROUNDS, Case, Place, ask, start
from tests.envoy.upstream import Upstream
from tests.peers.servers import Envoy

REQUESTS = 1000
OURS = 8_000
_HEALTH = {
    "HEALTHY": Health.HEALTHY,
    "UNHEALTHY": Health.UNHEALTHY,
    "DEGRADED": Health.DEGRADED,
    "DRAINING": Health.DRAINING,
}


def ours(case: Case, settings: LoadBalancing, seed: int = 1) -> Cluster:
    """The cluster of a case, as the mesh has it."""
    endpoints = [
        Endpoint(
            "127.0.0.1",
            place.port,
            float(place.weight or 1),
            health=_HEALTH[place.health],
            locality=Locality(place.region, place.zone, place.sub_zone),
            priority=place.priority,
        )
        for place in case.places
    ]
    return balanced_state(settings, name=case.name).view(endpoints, NOW, Random(seed))


def shares_of_ours(cluster: Cluster, count: int = OURS) -> Counter[int]:
    rng = Random(2)
    picked = (cluster.pick(NOW, rng) for _ in range(count))
    return Counter(0 if member is None else member.endpoint.port for member in picked)


def shares_of_theirs(port: int, case: Case) -> Counter[int]:
    return Counter(answer.port or 0 for answer in ask(port, [{"x-case": case.name}] * REQUESTS))


def agree(theirs: Counter[int], mine: Counter[int], case: Case, slack: float = 0.0) -> None:
    """Each endpoint's share is the same, as far as so many requests can tell.

    Args:
        theirs, mine: requests by port; 0 for those that no endpoint answered.
        case: for the message.
        slack: that shares may differ by besides.
    """
    many, more = theirs.total(), mine.total()
    for port in theirs.keys() | mine.keys():
        one, other = theirs[port] / many, mine[port] / more
        middle = (theirs[port] + mine[port]) / (many + more)
        bound = 5 * sqrt(middle * (1 - middle) * (1 / many + 1 / more)) + slack
        assert abs(one - other) <= bound, (case.name, port, one, other, bound)


def generated(ports: Sequence[int], seed: int, count: int) -> Iterator[tuple[Case, LoadBalancing]]:
    """Clusters with several priorities, endpoints in every state of health, and thresholds of panic."""
    rng = Random(seed)
    for at in range(count):
        priorities = rng.randint(1, 3)
        some = [
            Place(
                port,
                health=rng.choices(("HEALTHY", "UNHEALTHY", "DEGRADED"), (3, rng.choice((0, 1, 4)), 1))[0],
                # Envoy wants no gaps, so the first few are one of each.
                priority=index if index < priorities else rng.randrange(priorities),
            )
            for index, port in enumerate(rng.sample(ports, rng.randint(3, len(ports))))
        ]
        panic = rng.choice((50, 0, 30, 80))
        common = {"healthy_panic_threshold": {"value": panic}}
        lb = rng.choice(("RANDOM", "LEAST_REQUEST", "ROUND_ROBIN"))
        settings = LoadBalancing(policy=lb.lower(), panic_percent=float(panic))
        yield Case(f"priority-{at}", some, cluster={"lb_policy": lb, "common_lb_config": common}), settings


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_priorities_and_health_give_the_shares_that_they_give_in_envoy(
    envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int
) -> None:
    with Upstream(10) as upstream:
        cases = list(generated(upstream.ports, seed, 6))
        _, port = start(envoy_factory, [case for case, _ in cases])
        for case, settings in cases:
            agree(shares_of_theirs(port, case), shares_of_ours(ours(case, settings)), case)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_weights_of_localities_give_the_shares_that_they_give_in_envoy(
    envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int
) -> None:
    rng = Random(seed + 3)
    with Upstream(9) as upstream:
        cases = []
        for at in range(4):
            weights = {("eu", zone, ""): rng.randint(1, 5) for zone in "abc"}
            some = [
                Place(
                    port,
                    region="eu",
                    zone="abc"[index % 3],
                    health=rng.choice(("HEALTHY", "HEALTHY", "UNHEALTHY", "DEGRADED")),
                    # Of every second cluster the last three stand by.
                    priority=at % 2 * (index // 6),
                )
                for index, port in enumerate(upstream.ports)
            ]
            cluster = {
                "lb_policy": "ROUND_ROBIN",
                "common_lb_config": {"locality_weighted_lb_config": {}, "healthy_panic_threshold": {"value": 0}},
            }
            written = {f"eu/{zone}": float(weight) for (_, zone, _), weight in weights.items()}
            settings = LoadBalancing(policy="round_robin", panic_percent=0.0, locality_weights=written)
            cases.append((Case(f"places-{at}", some, cluster=cluster, locality_weights=weights), settings))
        _, port = start(envoy_factory, [case for case, _ in cases])
        for case, settings in cases:
            agree(shares_of_theirs(port, case), shares_of_ours(ours(case, settings)), case)


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_route_is_split_as_in_envoy(envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int) -> None:
    rng = Random(seed)
    with Upstream(4) as upstream:
        parts = [Case(f"part-{at}", [Place(port)]) for at, port in enumerate(upstream.ports)]
        splits = []
        for at in range(4):
            weights = [rng.choice((0, 1, 5, 30, 100)) for _ in parts[1:]] + [rng.randint(1, 100)]
            written = [{"name": part.name, "weight": weight} for part, weight in zip(parts, weights, strict=True)]
            case = Case(f"split-{at}", [Place(1)], route={"weighted_clusters": {"clusters": written}})
            splits.append((case, [Backend(part.name, weight=float(w)) for part, w in zip(parts, weights, strict=True)]))
        _, port = start(envoy_factory, [*parts, *(case for case, _ in splits)])
        for case, backends in splits:
            drawn = (draw(backends, rng.random()) for _ in range(OURS))
            mine = Counter(0 if index is None else upstream.ports[index] for index in drawn)
            agree(shares_of_theirs(port, case), mine, case)


def test_endpoints_that_drain_get_nothing_new(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    health = {
        "some": ("HEALTHY", "DRAINING", "HEALTHY", "UNHEALTHY", "HEALTHY", "HEALTHY"),
        "others stand by": ("DRAINING", "DRAINING", "DRAINING", "HEALTHY", "HEALTHY", "HEALTHY"),
        "all": ("DRAINING",) * 6,
    }
    cluster = {"lb_policy": "RANDOM", "common_lb_config": {"healthy_panic_threshold": {"value": 0}}}
    settings = LoadBalancing(policy="random", panic_percent=0.0)
    with Upstream(6) as upstream:
        cases = [
            Case(
                name,
                [
                    Place(port, health=each, priority=int(name == "others stand by" and at >= 3))
                    for at, (port, each) in enumerate(zip(upstream.ports, states, strict=True))
                ],
                cluster=cluster,
            )
            for name, states in health.items()
        ]
        _, port = start(envoy_factory, cases)
        for case in cases:
            agree(shares_of_theirs(port, case), shares_of_ours(ours(case, settings)), case)


def test_round_robin_goes_round_and_weights_are_kept_exactly(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    with Upstream(6) as upstream:
        even = Case("even", [Place(port) for port in upstream.ports], cluster={"lb_policy": "ROUND_ROBIN"})
        some = [Place(port, weight) for port, weight in zip(upstream.ports, (1, 2, 3, 5, 8, 1), strict=True)]
        uneven = Case("uneven", some, cluster={"lb_policy": "ROUND_ROBIN"})
        _, port = start(envoy_factory, [even, uneven])
        for case, round_length in ((even, 6), (uneven, 20)):
            cluster, rng = ours(case, LoadBalancing(policy="round_robin")), Random(1)
            answers = [answer.port for answer in ask(port, [{"x-case": case.name}] * 400, connections=1)]
            picks = [member.endpoint.port for _ in range(400) if (member := cluster.pick(NOW, rng))]
            whole = {place.port: 400 // round_length * (place.weight or 1) for place in case.places}
            for counted in (Counter(answers), Counter(picks)):
                assert all(abs(counted[each] - expected) <= 2 for each, expected in whole.items()), (case.name, counted)


def test_least_request_by_weight_and_by_choice(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    with Upstream(5) as upstream:
        weights = (1, 1, 2, 4, 8)
        some = [Place(port, weight) for port, weight in zip(upstream.ports, weights, strict=True)]
        cases = [
            (
                Case(
                    f"bias-{bias}",
                    some,
                    cluster={
                        "lb_policy": "LEAST_REQUEST",
                        "least_request_lb_config": {"active_request_bias": {"default_value": bias, "runtime_key": "x"}},
                    },
                ),
                LeastRequestSettings(active_request_bias=bias),
            )
            for bias in (1.0, 0.0)
        ]
        even = Case(
            "choices",
            [Place(port) for port in upstream.ports],
            cluster={"lb_policy": "LEAST_REQUEST", "least_request_lb_config": {"choice_count": 3}},
        )
        cases.append((even, LeastRequestSettings(choice_count=3)))
        _, port = start(envoy_factory, [case for case, _ in cases])
        for case, least in cases:
            answers = ask(port, [{"x-case": case.name}] * (REQUESTS // 2), connections=1)
            settings = LoadBalancing(policy="least_request", least_request=least)
            agree(Counter(answer.port or 0 for answer in answers), shares_of_ours(ours(case, settings)), case)
