"""Real calls, driven by hand: what a driver does, with answers from a script and a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint, Locality
from meshlib.errors import MeshError
from meshlib.net.pool import PoolStats
from meshlib.net.wire import Progress
from meshlib.policy.actions import Action, Cancel, Deliver, Fail, Start
from meshlib.policy.call import Call
from meshlib.policy.facts import CallFacts
from meshlib.policy.fault import ActiveFaults
from meshlib.policy.hedge import Hedging
from meshlib.policy.settings import CallPolicy, RetryPolicy
from meshlib.policy.token_budget import TokenBudget
from meshlib.propagation import Ignored
from meshlib.routing.route import Backend, Route
from meshlib.telemetry.observer import NullObserver, Observer

if TYPE_CHECKING:
    from meshlib.server.serving import Serving

Answer: TypeAlias = int | MeshError | type[asyncio.CancelledError]
Pairs: TypeAlias = list[tuple[bytes, bytes]]

RETRY_AT_ONCE = RetryPolicy(max_retries=2, backoff_base_s=0.0, backoff_max_s=0.0)
ENDPOINTS = (Endpoint("10.0.0.1", 8080), Endpoint("10.0.0.2", 8080))


def a_cluster(name: str = "orders", endpoints: Iterable[Endpoint] = ENDPOINTS, now: float = 0.0) -> Cluster:
    return ClusterState(name, now=now).view(endpoints, now, Random(1))


def a_route(name: str = "all", template: str | None = None, cluster: str = "orders") -> Route:
    service, _, subset = cluster.partition("/")
    return Route(name, (Backend(service, subset or None),), CallPolicy(retry=RETRY_AT_ONCE), template=template)


def a_call(
    cluster: Cluster | None = None,
    *,
    method: str = "GET",
    path: str = "/orders/42",
    route: Route | None = None,
    scheme: str = "http",
    host: str = "orders",
    port: int | None = None,
    query: str = "",
    operation: str | None = None,
    deadline: float | None = None,
) -> Call:
    cluster = cluster or a_cluster()
    route = route or a_route(cluster=cluster.name)
    facts = CallFacts(
        service=cluster.name.partition("/")[0],
        method=method,
        route=route,
        policy=route.policy,
        clusters=lambda: (cluster,),
        budget=TokenBudget(),
        safe=True,
        scheme=scheme,
        host=host,
        port=port,
        operation=operation,
    )
    return Call(facts, Random(7), path, query, deadline)


class Drive:
    """Runs one call, and keeps the headers that each attempt would have carried.

    Args:
        seconds: what each attempt takes.
        around: called with the headers of each attempt while it is on the wire.
    """

    def __init__(
        self,
        observer: Observer | NullObserver,
        call: Call,
        answers: Sequence[Answer],
        *,
        now: float = 100.0,
        seconds: float = 0.2,
        around: Callable[[Pairs], None] | None = None,
    ) -> None:
        self.observer = observer
        self.call = call
        self.now = now
        self.sent: list[Pairs] = []
        self.error: MeshError | None = None
        self.status: int | None = None
        self._answers = list(answers)
        self._seconds = seconds
        self._around = around
        self._run(call.begin(now))
        observer.call_ended(call, self.now)

    def _run(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Start():
                    self._attempt(action)
                case Deliver(n):
                    self.status = self.call.attempts[n - 1].status
                case Fail(error):
                    self.error = error
                case Cancel():
                    pass
        if self.status is None and self.error is None and self.call.next_wakeup is not None:
            self.now = self.call.next_wakeup
            self._run(self.call.timer(self.now))

    def _attempt(self, start: Start) -> None:
        headers: Pairs = []
        handle = self.observer.attempt_started(self.call, start, headers)
        self.sent.append(headers)
        if self._around is not None:
            self._around(headers)
        answer, progress = self._answers.pop(0), Progress()
        self.now += self._seconds
        if isinstance(answer, int):
            actions = self.call.headers(self.now, start.n, answer)
            self.observer.attempt_ended(handle, self.call, start.n, answer, None, progress)
        elif isinstance(answer, MeshError):
            actions = self.call.error(self.now, start.n, answer, "connect")
            self.observer.attempt_ended(handle, self.call, start.n, None, answer, progress)
        else:
            actions = self.call.cancelled(self.now)
            self.observer.attempt_ended(handle, self.call, start.n, None, answer(), progress)
            self.status = 0  # nobody waits for it any more
        self._run(actions)


class Seen:
    """What a mesh shows of itself."""

    def __init__(self, *clusters: Cluster) -> None:
        self.of_clusters = clusters
        self.of_budgets: dict[str, tuple[float, int]] = {}
        self.of_faults: dict[str, ActiveFaults] = {}
        self.of_mirrors: dict[tuple[str, str], int] = {}
        self.of_overrides: dict[tuple[str, str], int] = {}
        self.of_hedgings: dict[tuple[str, str], tuple[Hedging, float | None]] = {}
        self.of_pools: list[PoolStats] = []
        self.of_ages: dict[str, float] = {}
        self.of_ignored: Ignored | None = None
        self.of_serving: Serving | None = None
        self.of_now = 100.0
        self.of_locality: Locality | None = None

    def now(self) -> float:
        return self.of_now

    def locality(self) -> Locality | None:
        return self.of_locality

    def clusters(self) -> Iterable[Cluster]:
        return self.of_clusters

    def budgets(self) -> Mapping[str, tuple[float, int]]:
        return self.of_budgets

    def faults(self) -> Mapping[str, ActiveFaults]:
        return self.of_faults

    def hedgings(self) -> Mapping[tuple[str, str], tuple[Hedging, float | None]]:
        return self.of_hedgings

    def mirrors(self) -> Mapping[tuple[str, str], int]:
        return self.of_mirrors

    def overrides(self) -> Mapping[tuple[str, str], int]:
        return self.of_overrides

    def pools(self) -> Iterable[PoolStats]:
        return self.of_pools

    def ages(self) -> Mapping[str, float]:
        return self.of_ages

    def ignored(self) -> Ignored | None:
        return self.of_ignored

    def serving(self) -> Serving | None:
        return self.of_serving
