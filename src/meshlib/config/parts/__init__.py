"""The policies of a service as they are written, one class for each map in the file, one module for each family.

Defaults come from the settings that each compiles to (`compiles_to`), so that they are stated once; how the one is laid
over the other is in `meshlib.config.lay`.
"""

from __future__ import annotations

from meshlib.config.parts.actions import (
    DirectResponse,
    HeaderEdit,
    HeaderEdits,
    Mirror,
    Redirect,
    RegexRewrite,
    Rewrite,
    Sticky,
)
from meshlib.config.parts.admission import (
    Adaptive,
    BreakerOrFalse,
    Bulkhead,
    CircuitBreaker,
    Fleet,
    FleetBreaker,
    FleetRateLimit,
    HighLimits,
    Limits,
    Rate,
    RateLimit,
    Throttle,
)
from meshlib.config.parts.balancers import Aperture, LeastRequest, Prequal, ServerWeights, Subsetting
from meshlib.config.parts.balancing import LoadBalancing
from meshlib.config.parts.connection import Pool, TcpKeepalive, Tls
from meshlib.config.parts.fault import Fault, FaultAbort, FaultDelay
from meshlib.config.parts.hashing import HashCookie, HashOn, Ring, SessionAffinity
from meshlib.config.parts.health import (
    Accrual,
    FailurePercentage,
    HealthCheck,
    HttpCheck,
    OutlierDetection,
    SuccessRate,
    TcpCheck,
)
from meshlib.config.parts.hedge import Hedge
from meshlib.config.parts.match import ValueMatch
from meshlib.config.parts.overrides import OverrideAllowed, Overrides
from meshlib.config.parts.places import (
    Distribute,
    FailoverRegion,
    FailoverTarget,
    MetadataSubsets,
    SlowStart,
    SubsetSelector,
    ZoneAware,
)
from meshlib.config.parts.process import Documents, Redis, Register, Watch
from meshlib.config.parts.retry import (
    Backoff,
    HeaderCondition,
    RateLimitedBackoff,
    ResetHeader,
    Retry,
    RetryBudget,
)
from meshlib.config.parts.server import Drain, Hopeless, Server
from meshlib.config.parts.serving import Admission, AdmissionShares, Health
from meshlib.config.parts.shadow import Shadow
from meshlib.config.parts.sources import Consul, Local

__all__ = [
    "Accrual",
    "Adaptive",
    "Admission",
    "AdmissionShares",
    "Aperture",
    "Backoff",
    "BreakerOrFalse",
    "Bulkhead",
    "CircuitBreaker",
    "Consul",
    "DirectResponse",
    "Distribute",
    "Documents",
    "Drain",
    "FailoverRegion",
    "FailoverTarget",
    "FailurePercentage",
    "Fault",
    "FaultAbort",
    "FaultDelay",
    "Fleet",
    "FleetBreaker",
    "FleetRateLimit",
    "HashCookie",
    "HashOn",
    "HeaderCondition",
    "HeaderEdit",
    "HeaderEdits",
    "Health",
    "HealthCheck",
    "Hedge",
    "HighLimits",
    "Hopeless",
    "HttpCheck",
    "LeastRequest",
    "Limits",
    "LoadBalancing",
    "Local",
    "MetadataSubsets",
    "Mirror",
    "OutlierDetection",
    "OverrideAllowed",
    "Overrides",
    "Pool",
    "Prequal",
    "Rate",
    "RateLimit",
    "RateLimitedBackoff",
    "Redirect",
    "Redis",
    "RegexRewrite",
    "Register",
    "ResetHeader",
    "Retry",
    "RetryBudget",
    "Rewrite",
    "Ring",
    "Server",
    "ServerWeights",
    "SessionAffinity",
    "Shadow",
    "SlowStart",
    "Sticky",
    "SubsetSelector",
    "Subsetting",
    "SuccessRate",
    "TcpCheck",
    "TcpKeepalive",
    "Throttle",
    "Tls",
    "ValueMatch",
    "Watch",
    "ZoneAware",
]
