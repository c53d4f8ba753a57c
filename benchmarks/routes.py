"""What it costs to find a request's route among few and many: by a scan, and by the index."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import rounds
from meshlib.policy.settings import CallPolicy
from meshlib.routing.index import RouteTable
from meshlib.routing.match import PathKind, PathMatch, RequestView, RouteMatch, StringMatch
from meshlib.routing.route import Backend, Route, find_route

SIZES = (10, 100, 1_000, 10_000)


@dataclass(frozen=True, slots=True)
class Kind:
    """Routes that differ in one thing, and a request for the one in the middle of so many."""

    name: str
    match: Callable[[int], RouteMatch]
    request: Callable[[int], RequestView]


def _by_path(kind: PathKind, text: str) -> Kind:
    return Kind(
        f"`{kind}`",
        lambda n: RouteMatch(PathMatch(kind, text.replace("%", str(n))), frozenset({"GET"})),
        lambda n: RequestView("GET", f"/service-{n}/orders"),
    )


KINDS = (
    _by_path("exact", "/service-%/orders"),
    _by_path("prefix", "/service-%/"),
    _by_path("path_prefix", "/service-%"),
    _by_path("template", "/service-%/{what}"),
    _by_path("regex", "/service-%/[^/]+"),
    Kind(
        "a header",
        lambda n: RouteMatch(PathMatch("prefix", "/"), headers=(("x-tenant", StringMatch("exact", str(n))),)),
        lambda n: RequestView("GET", "/orders", headers={"x-tenant": str(n)}),
    ),
)


def measure(*, rounds: int, seconds: float) -> dict[str, Any]:
    """Microseconds per route found, scanned and indexed; the making and the memory of an index."""
    return {"found": _found(rounds, seconds), "index": _index()}


def table(kind: Kind, size: int) -> tuple[Route, ...]:
    """So many routes, and the one that takes what they do not."""
    backends, policy = (Backend("orders"),), CallPolicy()
    return (*(Route(f"r{n}", backends, policy, (kind.match(n),)) for n in range(size)), Route("rest", backends, policy))


def _found(count: int, seconds: float) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {kind.name: {} for kind in KINDS}
    for size in SIZES:
        for kind in KINDS:
            routes = table(kind, size)
            ways: Mapping[str, Sequence[Route]] = {"scan": routes, "index": RouteTable.of(routes)}
            runners = {way: rounds.Runner(_burst(kind, size // 2, over)) for way, over in ways.items()}
            samples = rounds.take_turns(runners, rounds=count, seconds=seconds, warm=20)
            found[kind.name][str(size)] = {way: sorted(each)[len(each) // 2] for way, each in samples.items()}
    return found


def _burst(kind: Kind, number: int, routes: Sequence[Route]) -> Callable[[int], object]:
    make = kind.request

    def burst(requests: int) -> None:
        for _ in range(requests):
            find_route(routes, make(number))

    return burst


def _index() -> dict[str, dict[str, float]]:
    made = {}
    for kind in KINDS:
        routes = table(kind, SIZES[-1])
        gc.collect()
        began = time.process_time()
        RouteTable.of(routes)
        took_s = time.process_time() - began
        tracemalloc.start()
        kept = RouteTable.of(routes)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        made[kind.name] = {"ms": took_s * 1000, "bytes": size / len(kept)}
    return made
