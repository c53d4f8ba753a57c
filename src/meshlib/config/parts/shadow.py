"""What runs beside the policies of a service and decides nothing, as it is written."""

from __future__ import annotations

from typing import ClassVar

from meshlib.config.fields import Part
from meshlib.config.parts.admission import Bulkhead, CircuitBreaker, Limits, RateLimit, Throttle
from meshlib.config.parts.balancing import LoadBalancing
from meshlib.config.parts.health import OutlierDetection
from meshlib.policy.settings import ShadowSettings

__all__ = ["Shadow"]


class Shadow(Part):
    """Policies that run beside those of the service, decide nothing, and tell how often they would have differed.

    Each is laid over the live one of the service, so that only what is to be different is written.

    Attributes:
        circuit_breaker, outlier_detection, throttle, limits, bulkhead, rate_limit, load_balancing: as those of the
            service; null for no shadow of that policy.
    """

    compiles_to: ClassVar = ShadowSettings

    circuit_breaker: CircuitBreaker | None = None
    outlier_detection: OutlierDetection | None = None
    throttle: Throttle | None = None
    limits: Limits | None = None
    bulkhead: Bulkhead | None = None
    rate_limit: RateLimit | None = None
    load_balancing: LoadBalancing | None = None
