"""Contradictions of limits, bulkheads, throttles, rate limits, and what a fleet shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.config.fields import Part
from meshlib.config.problems import Found, Path
from meshlib.policy.admission_settings import AdaptiveSettings, RateLimitSettings
from meshlib.policy.settings import BreakerSettings

if TYPE_CHECKING:
    from meshlib.config import model as written
    from meshlib.config.settings import ClusterSettings

__all__ = ["adaptive_faults", "admission_faults", "fleet_faults"]


def admission_faults(path: Path, policy: written.Policy, cluster: ClusterSettings) -> Found:
    """Those of one policy; `cluster` is what it compiles to."""
    yield from _limit_faults((*path, "limits"), policy, cluster)
    limits = cluster.limits
    if policy.bulkhead is not None:
        here = (*path, "bulkhead")
        if limits.max_in_flight is None and limits.adaptive is None:
            text = "divides a limit that there is not: limits.max_in_flight or limits.adaptive is needed"
            yield here, text, frozenset({"bulkhead", "max_in_flight", "adaptive"})
        if limits.high is not None:
            text = "divides the limit, and so does limits.high; one of the two is expected"
            yield here, text, frozenset({"bulkhead", "high"})
        if policy.limits.max_pending:
            text = "lets nobody wait, and limits.max_pending lets calls wait; leave that out"
            yield here, text, frozenset({"bulkhead", "max_pending"})
    if policy.rate_limit is not None and cluster.rate_limit is not None:
        yield from _rate_faults((*path, "rate_limit"), policy.rate_limit, cluster.rate_limit)
    if path == ("defaults",) and not isinstance(cluster.breaker, BreakerSettings) and cluster.breaker is not None:
        text = "is one breaker for all services, and one that fails would close them all; give each service its own"
        yield (*path, "circuit_breaker"), text, frozenset({"circuit_breaker"})


def _limit_faults(path: Path, policy: written.Policy, cluster: ClusterSettings) -> Found:
    limits, part = cluster.limits, policy.limits
    if path[0] != "defaults":  # there it is for the services that have a limit
        text = "does nothing: nobody waits where limits.max_in_flight is not set"
        if part.max_wait is not None and not (limits.max_in_flight or limits.adaptive or limits.high):
            yield (*path, "max_wait"), text, frozenset({"max_wait", "max_in_flight", "adaptive", "high"})
        if part.max_pending and not (limits.max_in_flight or limits.adaptive):
            yield (*path, "max_pending"), text, frozenset({"max_pending", "max_in_flight", "adaptive"})
    adaptive = limits.adaptive
    if isinstance(part.adaptive, Part) and adaptive is not None:
        yield from adaptive_faults((*path, "adaptive"), part.adaptive, adaptive, limits.max_in_flight)


def adaptive_faults(path: Path, part: written.Adaptive, adaptive: AdaptiveSettings, most: int | None) -> Found:
    """Those of a limit that finds itself and may not exceed `most`; `adaptive` is what it compiles to."""
    least = getattr(adaptive, "min_limit", 1)
    if most is not None and least > most and part.min_limit is not None:
        text = f"is above max_in_flight ({most}), which is the most that an algorithm may find"
        yield (*path, "min_limit"), text, frozenset({"min_limit", "max_in_flight", "adaptive"})
    start = getattr(adaptive, "initial_limit", least)
    for low, below, high, above in (
        ("min_limit", least, "max_limit", adaptive.max_limit),
        ("initial_limit", start, "max_limit", adaptive.max_limit),
        ("min_limit", least, "initial_limit", start),
    ):
        if below > above:
            field = low if low in part.model_fields_set else high
            yield (*path, field), f"{low} ({below}) is above {high} ({above})", frozenset({low, high})
            return


def _rate_faults(path: Path, part: written.RateLimit, rates: RateLimitSettings) -> Found:
    fields = frozenset({"total", "by", "each", "overrides"})
    if rates.total is None and rates.each is None and not rates.overrides:
        yield path, "limits nothing: total, each or overrides is needed", fields
    for field in ("each", "overrides"):
        if getattr(rates, field) and rates.by is None:
            yield (*path, field), "needs 'by', which says what tells callers apart", fields
            return
    if "by" in part.model_fields_set and rates.by is not None and rates.each is None and not rates.overrides:
        yield (*path, "by"), "does nothing without 'each' or 'overrides'", fields


def fleet_faults(path: Path, policy: written.Policy, config: written.MeshConfig) -> Found:
    """What a policy shares with a fleet needs a Redis to share it over."""
    if policy.fleet is not None and config.redis is None:
        yield (*path, "fleet"), "needs a Redis: set 'redis: {url: ...}' at the top", frozenset({"fleet", "redis"})
    elif policy.fleet is not None and policy.fleet.rate_limit is None and policy.fleet.circuit_breaker is None:
        text = "shares nothing: rate_limit or circuit_breaker is needed"
        yield (*path, "fleet"), text, frozenset({"rate_limit", "circuit_breaker"})
