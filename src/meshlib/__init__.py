"""meshlib: a service mesh as a Python library.

Each outgoing HTTP call of this process gets service discovery, balancing, retries, circuit breaking, deadlines,
metrics and traces, with no proxy::

    import meshlib

    mesh = meshlib.Mesh()
    orders = mesh.client("orders")
    orders.get("/orders/42").json()

The distribution is called ``meshlib-http``. What this module lists in ``__all__`` is public. Names are imported when
they are first used, so that ``import meshlib`` costs next to nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from meshlib._version import __version__

if TYPE_CHECKING:
    from meshlib import errors, telemetry, testing
    from meshlib.adapters.options import call
    from meshlib.adapters.outcome import record
    from meshlib.adapters.plan import Plan
    from meshlib.config.model import (
        Accrual,
        Adaptive,
        Aperture,
        Backend,
        Backoff,
        Bulkhead,
        CircuitBreaker,
        Consul,
        Defaults,
        Distribute,
        Endpoint,
        FailoverRegion,
        FailoverTarget,
        FailurePercentage,
        Fault,
        FaultAbort,
        FaultDelay,
        Fleet,
        FleetBreaker,
        FleetRateLimit,
        HashCookie,
        HashOn,
        HeaderCondition,
        HeaderEdit,
        HeaderEdits,
        HealthCheck,
        Hedge,
        HighLimits,
        HttpCheck,
        LeastRequest,
        Limits,
        LoadBalancing,
        Local,
        Locality,
        Match,
        MeshConfig,
        MetadataSubsets,
        OutlierDetection,
        PathMatch,
        Pool,
        Rate,
        RateLimit,
        RateLimitedBackoff,
        Redis,
        Register,
        ResetHeader,
        Retry,
        RetryBudget,
        Ring,
        Route,
        Server,
        ServerWeights,
        Service,
        SessionAffinity,
        Shadow,
        SlowStart,
        SubsetSelector,
        Subsetting,
        SuccessRate,
        TcpCheck,
        TcpKeepalive,
        Throttle,
        Tls,
        ValueMatch,
        Watch,
        ZoneAware,
    )
    from meshlib.context import (
        ContextExecutor,
        Criticality,
        carry,
        criticality,
        current,
        detached,
        timeout,
    )
    from meshlib.degradation import fallback
    from meshlib.discovery.registration import Registration
    from meshlib.errors import (
        AttemptTimeout,
        BodyBroken,
        CircuitOpen,
        ConfigError,
        ConnectFailed,
        ConnectTimeout,
        DeadlineExceeded,
        DiscoveryUnavailable,
        EgressRefused,
        LimitExceeded,
        MeshClosed,
        MeshError,
        NoEndpoint,
        PoolTimeout,
        ProtocolError,
        RateLimited,
        RegistrationFailed,
        RequestBodyError,
        Reset,
        TLSFailed,
        UnknownService,
        WireError,
    )
    from meshlib.mesh import Mesh
    from meshlib.policy.record import AttemptRecord, Record, Wait
    from meshlib.status import MeshStatus

_WHERE = {
    "meshlib.adapters.options": ("call",),
    "meshlib.adapters.outcome": ("record",),
    "meshlib.adapters.plan": ("Plan",),
    "meshlib.config.model": (
        "Accrual",
        "Adaptive",
        "Aperture",
        "Backend",
        "Backoff",
        "Bulkhead",
        "CircuitBreaker",
        "Consul",
        "Defaults",
        "Distribute",
        "Endpoint",
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
        "HealthCheck",
        "Hedge",
        "HighLimits",
        "HttpCheck",
        "LeastRequest",
        "Limits",
        "LoadBalancing",
        "Local",
        "Locality",
        "Match",
        "MeshConfig",
        "MetadataSubsets",
        "OutlierDetection",
        "PathMatch",
        "Pool",
        "Rate",
        "RateLimit",
        "RateLimitedBackoff",
        "Redis",
        "Register",
        "ResetHeader",
        "Retry",
        "RetryBudget",
        "Ring",
        "Route",
        "Server",
        "ServerWeights",
        "Service",
        "SessionAffinity",
        "Shadow",
        "SlowStart",
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
    ),
    "meshlib.context": ("ContextExecutor", "Criticality", "carry", "criticality", "current", "detached", "timeout"),
    "meshlib.degradation": ("fallback",),
    "meshlib.errors": (
        "AttemptTimeout",
        "BodyBroken",
        "CircuitOpen",
        "ConfigError",
        "ConnectFailed",
        "ConnectTimeout",
        "DeadlineExceeded",
        "DiscoveryUnavailable",
        "EgressRefused",
        "LimitExceeded",
        "MeshClosed",
        "MeshError",
        "NoEndpoint",
        "PoolTimeout",
        "ProtocolError",
        "RateLimited",
        "RegistrationFailed",
        "RequestBodyError",
        "Reset",
        "TLSFailed",
        "UnknownService",
        "WireError",
    ),
    "meshlib.discovery.registration": ("Registration",),
    "meshlib.mesh": ("Mesh",),
    "meshlib.policy.record": ("AttemptRecord", "Record", "Wait"),
    "meshlib.status": ("MeshStatus",),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}
_SUBMODULES = ("errors", "telemetry", "testing")

__all__ = [
    "Accrual",
    "Adaptive",
    "Aperture",
    "AttemptRecord",
    "AttemptTimeout",
    "Backend",
    "Backoff",
    "BodyBroken",
    "Bulkhead",
    "CircuitBreaker",
    "CircuitOpen",
    "ConfigError",
    "ConnectFailed",
    "ConnectTimeout",
    "Consul",
    "ContextExecutor",
    "Criticality",
    "DeadlineExceeded",
    "Defaults",
    "DiscoveryUnavailable",
    "Distribute",
    "EgressRefused",
    "Endpoint",
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
    "HealthCheck",
    "Hedge",
    "HighLimits",
    "HttpCheck",
    "LeastRequest",
    "LimitExceeded",
    "Limits",
    "LoadBalancing",
    "Local",
    "Locality",
    "Match",
    "Mesh",
    "MeshClosed",
    "MeshConfig",
    "MeshError",
    "MeshStatus",
    "MetadataSubsets",
    "NoEndpoint",
    "OutlierDetection",
    "PathMatch",
    "Plan",
    "Pool",
    "PoolTimeout",
    "ProtocolError",
    "Rate",
    "RateLimit",
    "RateLimited",
    "RateLimitedBackoff",
    "Record",
    "Redis",
    "Register",
    "Registration",
    "RegistrationFailed",
    "RequestBodyError",
    "Reset",
    "ResetHeader",
    "Retry",
    "RetryBudget",
    "Ring",
    "Route",
    "Server",
    "ServerWeights",
    "Service",
    "SessionAffinity",
    "Shadow",
    "SlowStart",
    "SubsetSelector",
    "Subsetting",
    "SuccessRate",
    "TLSFailed",
    "TcpCheck",
    "TcpKeepalive",
    "Throttle",
    "Tls",
    "UnknownService",
    "ValueMatch",
    "Wait",
    "Watch",
    "WireError",
    "ZoneAware",
    "__version__",
    "call",
    "carry",
    "criticality",
    "current",
    "detached",
    "errors",
    "fallback",
    "record",
    "telemetry",
    "testing",
    "timeout",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is not None:
        value = getattr(importlib.import_module(module), name)
    elif name in _SUBMODULES:
        value = importlib.import_module(f"meshlib.{name}")
    else:
        raise AttributeError(f"module 'meshlib' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _refuse_strangers(directory: str) -> None:
    """Refuse to run over the files of the other package of this name.

    ``meshlib`` on the Python package index is a 3-D geometry library. Installed into one environment the two overwrite
    each other, and what is left of either fails in ways that nobody could explain.
    """
    if any(entry.startswith(("mrmesh", "mrviewer")) for entry in os.listdir(directory)):
        raise ImportError(
            "two distributions share the import name 'meshlib' in this environment: 'meshlib-http' (a service mesh) "
            "and 'meshlib' (3-D geometry). Uninstall both, then install the one that you need: "
            'pip uninstall meshlib meshlib-http && pip install "meshlib-http"'
        )


_refuse_strangers(os.path.dirname(__file__))
