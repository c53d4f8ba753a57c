"""What a user writes, checked and compiled: in a file, in a map, or as the typed objects that this package exports."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.config.model import (
        Backend,
        Backoff,
        CircuitBreaker,
        Consul,
        Defaults,
        Endpoint,
        Fault,
        FaultAbort,
        FaultDelay,
        HeaderCondition,
        HeaderEdit,
        HeaderEdits,
        Limits,
        LoadBalancing,
        Local,
        Locality,
        Match,
        OutlierDetection,
        PathMatch,
        Pool,
        RateLimitedBackoff,
        Register,
        ResetHeader,
        Retry,
        RetryBudget,
        Route,
        Server,
        Service,
        TcpKeepalive,
        Tls,
        ValueMatch,
    )

__all__ = [
    "Backend",
    "Backoff",
    "CircuitBreaker",
    "Consul",
    "Defaults",
    "Endpoint",
    "Fault",
    "FaultAbort",
    "FaultDelay",
    "HeaderCondition",
    "HeaderEdit",
    "HeaderEdits",
    "Limits",
    "LoadBalancing",
    "Local",
    "Locality",
    "Match",
    "OutlierDetection",
    "PathMatch",
    "Pool",
    "RateLimitedBackoff",
    "Register",
    "ResetHeader",
    "Retry",
    "RetryBudget",
    "Route",
    "Server",
    "Service",
    "TcpKeepalive",
    "Tls",
    "ValueMatch",
]


def __getattr__(name: str) -> Any:
    # Loaded at first use: the model needs pydantic, and importing the mesh does not.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("meshlib.config.model"), name)
