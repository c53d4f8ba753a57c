"""Small makers for tests of the core: clusters, calls and simulations, all in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from meshlib.balance.cluster import ClusterState
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.settings import BalancerName, LoadBalancing
from meshlib.policy.actions import Action, Fail, Start
from meshlib.policy.call import Call
from meshlib.policy.facts import CallFacts
from meshlib.policy.settings import CallPolicy, RetryPolicy
from meshlib.policy.token_budget import TokenBudget
from meshlib.routing.route import Backend, Route
from meshlib.sim.clock import VirtualClock
from meshlib.sim.network import Network, SimEndpoint
from meshlib.sim.run import Simulation

NOW = 1000.0


def endpoints(count: int, weights: Sequence[float] | None = None) -> list[Endpoint]:
    return [Endpoint(f"10.0.0.{i + 1}", 80, weight=1.0 if weights is None else weights[i]) for i in range(count)]


def cluster_state(name: str = "orders", policy: BalancerName = "peak_ewma", **settings: Any) -> ClusterState:
    return ClusterState(name, now=NOW, load_balancing=LoadBalancing(policy=policy), **settings)


def balanced_state(settings: LoadBalancing, name: str = "orders", **others: Any) -> ClusterState:
    return ClusterState(name, now=NOW, load_balancing=settings, **others)


def simulation(
    parts: Sequence[SimEndpoint],
    *,
    weights: Sequence[float] | None = None,
    balancer: BalancerName = "peak_ewma",
    policy: CallPolicy = CallPolicy(),
    seed: int = 1,
    body_s: float = 0.0,
    **settings: Any,
) -> Simulation:
    """One cluster of these endpoints, at 10.0.0.1:80 and up."""
    members = endpoints(len(parts), weights)
    network = Network({endpoint.address: part for endpoint, part in zip(members, parts, strict=True)})
    state = cluster_state(policy=balancer, **settings)
    clock = VirtualClock(NOW)
    return Simulation(state, members, network, clock=clock, rng=Random(seed), policy=policy, body_s=body_s)


class Bench:
    """One call over clusters of its own, driven by hand."""

    def __init__(
        self,
        count: int = 3,
        *,
        retry: RetryPolicy = RetryPolicy(),
        backends: Sequence[Backend] = (Backend("orders"),),
        states: Sequence[ClusterState] | None = None,
        seed: int = 1,
        timeout_s: float | None = 30.0,
        per_try_timeout_s: float | None = 10.0,
        **facts: Any,
    ) -> None:
        self.rng = Random(seed)
        self.states = [cluster_state(backend.cluster) for backend in backends] if states is None else list(states)
        self.clusters = [
            state.view(
                [Endpoint(f"10.0.{at}.{i + 1}", 80) for i in range(count)],
                NOW,
                self.rng,
            )
            for at, state in enumerate(self.states)
        ]
        self.budget = TokenBudget()
        self.policy = CallPolicy(timeout_s=timeout_s, per_try_timeout_s=per_try_timeout_s, retry=retry)
        self.route = Route("default", tuple(backends), self.policy)
        self._facts = {"safe": True, **facts}
        self.call = self.another()

    def another(self, **facts: Any) -> Call:
        """A further call over the same clusters."""
        settings: dict[str, Any] = {
            "service": "orders",
            "method": "GET",
            "route": self.route,
            "policy": self.policy,
            "clusters": lambda: self.clusters,
            "budget": self.budget,
            **self._facts,
            **facts,
        }
        own: dict[str, Any] = {
            "replayable": settings.pop("replayable", True),
            "inherited": settings.pop("deadline", None),
        }
        explain = settings.pop("explain", False)
        call = Call(CallFacts(**settings), self.rng, **own)
        call.why = [] if explain else None
        return call

    @property
    def in_flight(self) -> int:
        return sum(member.node.in_flight for cluster in self.clusters for member in cluster.members)


def start_of(actions: Sequence[Action]) -> Start:
    (start,) = [action for action in actions if isinstance(action, Start)]
    return start


def failure_of(actions: Sequence[Action]) -> Any:
    (fail,) = [action for action in actions if isinstance(action, Fail)]
    return fail.error
