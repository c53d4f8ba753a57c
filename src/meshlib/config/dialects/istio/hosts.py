"""Names of hosts in Istio's rules, which of them cover which, and who may see a rule.

``*.foo.com`` covers names of any depth below it; ``*`` covers all. Sources: Istio's ``pkg/config/host/name.go``,
``MostSpecificHostMatch`` in ``pilot/pkg/model/config.go``, and ``push_context.go`` for `exportTo`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

__all__ = ["ROOT_NAMESPACE", "covers", "is_wildcard", "meets", "most_specific", "visible"]

ROOT_NAMESPACE = "istio-system"
"""Where rules for the whole mesh are."""


def is_wildcard(host: str) -> bool:
    """Whether it stands for many hosts."""
    return host.startswith("*")


def covers(wide: str, narrow: str) -> bool:
    """Whether each host of `narrow` is one of `wide`: Istio's ``SubsetOf``, the other way round."""
    if not is_wildcard(wide):
        return wide == narrow
    if is_wildcard(narrow):
        return len(narrow) >= len(wide) and narrow[1:].endswith(wide[1:])
    return narrow.endswith(wide[1:])


def meets(one: str, other: str) -> bool:
    """Whether one covers the other: Istio's ``Matches``."""
    return covers(one, other) or covers(other, one)


def most_specific(host: str, candidates: Iterable[str]) -> str | None:
    """The candidate that fits a host best: itself, else the longest wildcard that covers it; None without one."""
    best: str | None = None
    for candidate in candidates:
        if candidate == host:
            return candidate
        if is_wildcard(candidate) and covers(candidate, host) and (best is None or len(candidate) > len(best)):
            best = candidate
    return best


def visible(export_to: Collection[str], owner: str, viewer: str) -> bool:
    """Whether a rule of one namespace is for workloads of another; without `exportTo` it is for all."""
    if not export_to or "*" in export_to:
        return True
    return "~" not in export_to and (viewer in export_to or ("." in export_to and viewer == owner))
