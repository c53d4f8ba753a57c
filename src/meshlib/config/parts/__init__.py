"""The policies of a service as they are written, one class for each map in the file, one module for each family.

Defaults come from the settings that each compiles to (`compiles_to`), so that they are stated once; how the one is laid
over the other is in `meshlib.config.lay`.
"""

from __future__ import annotations

from meshlib.config.parts.admission import CircuitBreaker, Limits
from meshlib.config.parts.balancing import LoadBalancing
from meshlib.config.parts.connection import Pool, TcpKeepalive, Tls
from meshlib.config.parts.fault import Fault, FaultAbort, FaultDelay, FaultOrFalse
from meshlib.config.parts.health import OutlierDetection
from meshlib.config.parts.retry import (
    Backoff,
    HeaderCondition,
    RateLimitedBackoff,
    ResetHeader,
    Retry,
    RetryBudget,
)

__all__ = [
    "Backoff",
    "CircuitBreaker",
    "Fault",
    "FaultAbort",
    "FaultDelay",
    "FaultOrFalse",
    "HeaderCondition",
    "Limits",
    "LoadBalancing",
    "OutlierDetection",
    "Pool",
    "RateLimitedBackoff",
    "ResetHeader",
    "Retry",
    "RetryBudget",
    "TcpKeepalive",
    "Tls",
]
