"""Names of hosts in Istio's rules: which of them fits a host best, and who may see a rule.

Sources: ``MostSpecificHostMatch`` in Istio's ``pilot/pkg/model/config.go``, and ``push_context.go`` for `exportTo`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from meshlib.routing.hosts import is_part_of

__all__ = ["ROOT_NAMESPACE", "is_wildcard", "most_specific", "visible"]

ROOT_NAMESPACE = "istio-system"
"""Where rules for the whole mesh are."""


def is_wildcard(host: str) -> bool:
    """Whether it stands for many hosts."""
    return host.startswith("*")


def most_specific(host: str, candidates: Iterable[str]) -> str | None:
    """The candidate that fits a host best: itself, else the longest wildcard that covers it; None without one."""
    best: str | None = None
    for candidate in candidates:
        if candidate == host:
            return candidate
        if is_wildcard(candidate) and is_part_of(host, candidate) and (best is None or len(candidate) > len(best)):
            best = candidate
    return best


def visible(export_to: Collection[str], owner: str, viewer: str) -> bool:
    """Whether a rule of one namespace is for workloads of another; without `exportTo` it is for all."""
    if not export_to or "*" in export_to:
        return True
    return "~" not in export_to and (viewer in export_to or ("." in export_to and viewer == owner))
