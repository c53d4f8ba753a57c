"""Contradictions of retries, their budget and injected faults."""

from __future__ import annotations

from meshlib.config.parts import Fault, Retry, RetryBudget
from meshlib.config.problems import Found, Path
from meshlib.policy.fault import FaultSettings
from meshlib.policy.settings import BudgetSettings, RetryPolicy

__all__ = ["budget_faults", "fault_faults", "retry_faults"]

_OWN = {
    "tokens": frozenset({"tokens", "success_gain"}),
    "rate": frozenset({"percent", "min_per_second", "ttl", "arithmetic"}),
    "concurrency": frozenset({"percent", "min_concurrency", "max_retries"}),
}
_NEEDS = {"retriable_status_codes": "retriable-status-codes", "retriable_headers": "retriable-headers"}


def retry_faults(path: Path, part: Retry, retry: RetryPolicy) -> Found:
    """Those of one ``retry``; `retry` is what it compiles to."""
    for field, condition in _NEEDS.items():
        if field in part.model_fields_set and getattr(part, field) and condition not in retry.on:
            text = f"does nothing unless {condition!r} is among the conditions in 'on'"
            yield (*path, field), text, frozenset({field, "on"})
    if "on" in part.model_fields_set and "retriable-headers" in retry.on and not retry.retriable_headers:
        text = "has 'retriable-headers', and no 'retriable_headers' say which they are"
        yield (*path, "on"), text, frozenset({"on", "retriable_headers"})
    if "retry_after_max" in part.model_fields_set and retry.rate_limited_backoff is not None:
        text = "does nothing beside 'rate_limited_backoff', which says what becomes of such headers"
        yield (*path, "retry_after_max"), text, frozenset({"retry_after_max", "rate_limited_backoff"})


def budget_faults(path: Path, part: RetryBudget, budget: BudgetSettings) -> Found:
    """Those of one ``retry_budget``; `budget` is what it compiles to."""
    for field in sorted(part.model_fields_set - {"kind"}):
        if field not in _OWN[budget.kind]:
            kinds = " and ".join(kind for kind, own in _OWN.items() if field in own)
            text = f"belongs to a budget of the kind {kinds}, and this one is {budget.kind}"
            yield (*path, field), text, frozenset({field, "kind"})
    if budget.kind == "rate" and not 1 <= budget.ttl_s <= 60 and "ttl" in part.model_fields_set:
        yield (*path, "ttl"), "is out of range: 1s to 60s is expected", frozenset({"ttl", "kind"})
    shares = part.model_fields_set & {"percent", "min_concurrency"}
    if budget.kind == "concurrency" and part.max_retries is not None and shares:
        field = sorted(shares)[0]
        text = "does nothing beside 'max_retries', which is a fixed number; write one of the two"
        yield (*path, field), text, frozenset({field, "max_retries", "kind"})


def fault_faults(path: Path, part: Fault, fault: FaultSettings | None) -> Found:
    """Those of one ``fault``; `fault` is what it compiles to."""
    if fault is None:
        return
    if part.delay is not None and fault.delay is not None and fault.delay.fixed_s is None and not fault.headers:
        text = "says for how many calls and not for how long: 'fixed' is needed, or 'headers: true' beside it"
        yield (*path, "delay"), text, frozenset({"delay", "fixed", "headers"})
    if part.abort is None or fault.abort is None:
        return
    abort = fault.abort
    given = [name for name in ("status", "grpc_status", "reset") if getattr(abort, name) not in (None, False)]
    if not given and not fault.headers:
        text = "says for how many calls and not with what: a 'status', 'grpc_status' or 'reset: true' is needed"
        yield (*path, "abort"), text, frozenset({"abort", "status", "grpc_status", "reset", "headers"})
    elif len(given) > 1:
        text = f"has {' and '.join(given)}, one of them inherited; switch it off there, or write it here alone"
        yield (*path, "abort"), text, frozenset({"abort", "status", "grpc_status", "reset"})
