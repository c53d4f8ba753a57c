"""How endpoints are chosen, as it is written."""

from __future__ import annotations

from typing import ClassVar

from meshlib.balance import settings
from meshlib.config.fields import Interval, Part, Percent
from meshlib.config.parts.balancers import Aperture, LeastRequest, ServerWeights, Subsetting

__all__ = ["LoadBalancing"]

_BALANCING = settings.LoadBalancing()


class LoadBalancing(Part):
    """How endpoints are chosen.

    Attributes:
        policy: the balancer: ``peak_ewma``, ``least_request``, ``round_robin``, ``random``, ``ring_hash``, ``maglev``,
            ``server_weights`` or ``aperture``.
        decay: of the moving average of latency.
        default_latency: what an endpoint is thought to take before it has answered.
        panic_percent: with fewer healthy endpoints than this, all are used.
        least_request, server_weights, aperture: of the balancers of these names; see their classes.
        subsetting: which of the endpoints this client knows at all; see its class; null for all.
    """

    compiles_to: ClassVar = settings.LoadBalancing

    policy: settings.BalancerName = _BALANCING.policy
    decay: Interval = _BALANCING.decay_s
    default_latency: Interval = _BALANCING.default_latency_s
    panic_percent: Percent = _BALANCING.panic_percent
    least_request: LeastRequest = LeastRequest()
    server_weights: ServerWeights = ServerWeights()
    aperture: Aperture = Aperture()
    subsetting: Subsetting | None = None
