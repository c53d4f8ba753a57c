"""How the routes of a delegate are merged into the route that names it, by Istio's rules.

Each route of the delegate takes the place of the root's, with the root's conditions and, where it has none of its own,
the root's actions. Its conditions must be narrower than the root's: a match of the delegate that agrees with none of
the root's makes the route disappear. Source: Istio's ``pilot/pkg/model/virtualservice.go``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

__all__ = ["conflicts", "merge_match", "merge_matches", "merge_route", "merge_routes"]

Fields: TypeAlias = Mapping[str, Any]

_INHERITED = (
    "rewrite",
    "directResponse",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirrorPercent",
    "mirrorPercentage",
    "corsPolicy",
    "mirrors",
    "headers",
)
_TEXTS = ("uri", "scheme", "method", "authority")
_MAPS = ("headers", "withoutHeaders", "queryParams", "sourceLabels")
_FIRST = ("port", "sourceNamespace", "gateways", "statPrefix")


def merge_routes(root: Fields, delegate: Iterable[Fields]) -> list[dict[str, Any]]:
    """The routes that take the root's place."""
    return [merged for route in delegate if (merged := merge_route(root, route)) is not None]


def merge_route(root: Fields, route: Fields) -> dict[str, Any] | None:
    """One route of the delegate with what it has from the root; None if their conditions contradict."""
    matches = merge_matches(root.get("match") or (), route.get("match") or ())
    if matches is None:
        return None
    merged = {name: root[name] for name in _INHERITED if root.get(name) is not None}
    merged |= {name: value for name, value in route.items() if value is not None and name != "match"}
    if matches:
        merged["match"] = matches
    if name := "-".join(filter(None, (root.get("name"), route.get("name")))):
        merged["name"] = name
    return merged


def merge_matches(root: Sequence[Fields], leaf: Sequence[Fields]) -> list[dict[str, Any]] | None:
    """Each match of the delegate with each of the root's that it agrees with; None if one agrees with none."""
    if not root or not leaf:
        return [dict(match) for match in leaf or root]
    merged: list[dict[str, Any]] = []
    for match in leaf:
        agreeing = [merge_match(other, match) for other in root if not conflicts(other, match)]
        if not agreeing:
            return None
        merged += agreeing
    return merged


def merge_match(root: Fields, leaf: Fields) -> dict[str, Any]:
    """The conditions of both; where both say something of the same, the delegate's."""
    merged = dict(leaf)
    for name in (*_TEXTS, *_FIRST):
        if not merged.get(name) and root.get(name):
            merged[name] = root[name]
    for name in _MAPS:
        if root.get(name):
            merged[name] = {**root[name], **(leaf.get(name) or {})}
    if name := "-".join(filter(None, (root.get("name"), leaf.get("name")))):
        merged["name"] = name
    return merged


def conflicts(root: Fields, leaf: Fields) -> bool:
    """Whether the delegate's conditions are not narrower than the root's."""
    if any(_differs(root.get(name), leaf.get(name)) for name in _TEXTS):
        return True
    for name in ("headers", "withoutHeaders", "queryParams"):
        wide: Fields = root.get(name) or {}
        if any(_differs(wide.get(key), value) for key, value in (leaf.get(name) or {}).items()):
            return True
    if bool(root.get("ignoreUriCase")) != bool(leaf.get("ignoreUriCase")):
        return True
    if root.get("port") and leaf.get("port") and root["port"] != leaf["port"]:
        return True
    if root.get("sourceNamespace") and leaf.get("sourceNamespace") != root["sourceNamespace"]:
        return True
    labels: Fields = root.get("sourceLabels") or {}
    if any(labels.get(key, value) != value for key, value in (leaf.get("sourceLabels") or {}).items()):
        return True
    gateways: Sequence[str] = root.get("gateways") or ()
    others: Sequence[str] = leaf.get("gateways") or ()
    return bool(gateways and others) and (len(gateways) < len(others) or not set(others) <= set(gateways))


def _differs(root: Fields | None, leaf: Fields | None) -> bool:
    """Whether one condition on a text contradicts the other, or is wider."""
    if root is None or leaf is None:
        return False
    if root.get("regex") or leaf.get("regex"):
        return True
    if root.get("exact"):
        return bool(leaf.get("prefix")) or leaf.get("exact") != root["exact"]
    narrower = leaf.get("prefix") or leaf.get("exact")
    return not (root.get("prefix") and narrower and narrower.startswith(root["prefix"]))
