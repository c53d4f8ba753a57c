"""How the endpoints of a cluster are chosen: frozen, plain, validated before. Times are in seconds.

Defaults are those of a mesh without configuration; those of the policies are in `meshlib.policy.settings`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from meshlib.dataclass import dataclass

__all__ = ["BalancerName", "LoadBalancing"]

BalancerName: TypeAlias = Literal["peak_ewma", "least_request", "round_robin", "random"]


@dataclass(frozen=True, slots=True)
class LoadBalancing:
    """How endpoints are chosen.

    Attributes:
        policy: the balancer.
        decay_s: of the moving average of latency (Linkerd: 10 s).
        default_latency_s: what an endpoint is thought to take before it has answered (Linkerd: 30 ms).
        panic_percent: with fewer healthy endpoints than this, all are used.
    """

    policy: BalancerName = "peak_ewma"
    decay_s: float = 10.0
    default_latency_s: float = 0.03
    panic_percent: float = 50.0
