"""Contradictions of outlier detection and active checks."""

from __future__ import annotations

from meshlib.config import model as written
from meshlib.config.parts import Accrual, HealthCheck, OutlierDetection
from meshlib.config.problems import Found, Path
from meshlib.policy.health_check import HealthCheckSettings
from meshlib.policy.settings import AccrualSettings, OutlierSettings

__all__ = ["check_faults", "outlier_faults", "uncheckable"]

_LOCAL = ("consecutive_local_origin_failure", "enforcing_consecutive_local_origin_failure_percent")
_ENFORCED = {
    "enforcing_consecutive_5xx_percent": "consecutive_5xx",
    "enforcing_consecutive_gateway_failure_percent": "consecutive_gateway_failure",
    "enforcing_consecutive_local_origin_failure_percent": "consecutive_local_origin_failure",
}


def outlier_faults(path: Path, part: OutlierDetection, outlier: OutlierSettings) -> Found:
    """Those of one ``outlier_detection``; `outlier` is what it compiles to."""
    given = part.model_fields_set
    for field in _LOCAL:
        if field in given and getattr(part, field) and not outlier.split_external_local_origin_errors:
            text = "does nothing unless 'split_external_local_origin_errors' is true: failures are not counted apart"
            yield (*path, field), text, frozenset({field, "split_external_local_origin_errors"})
    for field, rule in _ENFORCED.items():
        if field in given and not getattr(outlier, rule):
            yield (*path, field), f"does nothing beside {rule!r}, which is off", frozenset({field, rule})
    if "max_ejection_jitter" in given and outlier.max_ejection_jitter_s > outlier.max_ejection_s:
        text = "is above 'max_ejection': endpoints would be out for longer by chance than by rule"
        yield (*path, "max_ejection_jitter"), text, frozenset({"max_ejection_jitter", "max_ejection"})
    if isinstance(part.accrual, Accrual) and outlier.accrual is not None:
        yield from _accrual_faults((*path, "accrual"), part.accrual, outlier.accrual)


def _accrual_faults(path: Path, part: Accrual, accrual: AccrualSettings) -> Found:
    given = part.model_fields_set
    if "requests" in given and part.requests is not None and accrual.kind == "window":
        text = "belongs to the kind ema, and this one is window"
        yield (*path, "requests"), text, frozenset({"requests", "kind"})
    elif "requests" in given and part.requests is not None and "window" in given:
        text = "stands beside 'window'; the rate is over one of the two"
        yield (*path, "requests"), text, frozenset({"requests", "window"})
    elif "min_requests" in given and accrual.requests is not None:
        text = "does nothing beside 'requests': there are as many in any window"
        yield (*path, "min_requests"), text, frozenset({"min_requests", "requests"})


def check_faults(path: Path, part: HealthCheck, check: HealthCheckSettings) -> Found:
    """Those of one ``health_check``; `check` is what it compiles to."""
    if check.http is None and check.tcp is None:
        yield path, "does not say what is asked: 'http' or 'tcp' is needed", frozenset({"http", "tcp"})
    if part.http is not None and part.tcp is not None:
        yield (*path, "tcp"), "stands beside 'http'; one of the two is asked", frozenset({"http", "tcp"})
    if check.tcp is not None and part.tcp is not None and check.tcp.receive and not all(check.tcp.receive):
        yield (*path, "tcp", "receive"), "has an empty piece, which is in any answer", frozenset({"receive"})


def uncheckable(config: written.MeshConfig) -> Found:
    """Where checks are wanted of endpoints that only the client's own transport finds."""
    if config.wire != "stock":
        return
    policies: list[tuple[Path, written.Policy]] = [(("defaults",), config.defaults)]
    policies += [(("services", name), service) for name, service in config.services.items()]
    for path, policy in policies:
        if isinstance(policy.health_check, HealthCheck):
            text = "is not possible with 'wire: stock', where the client's own transport finds the endpoints"
            yield (*path, "health_check"), text, frozenset({"health_check", "wire"})
