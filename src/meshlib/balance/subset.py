"""Subsets by metadata: a call, or its route, names metadata, and only endpoints that have them are picked among.

A *selector* is a set of keys. For each, endpoints that have all the keys form subsets, one for each combination of
values. A call's metadata choose a subset only if their keys are exactly those of a selector. Where they do not, or
nobody has the values, the selector's fallback says what takes the call, else that of the cluster:

    none       nobody: the call fails
    any        all endpoints
    default    those that have certain metadata
    keys       (of a selector only) the same again, with fewer of the call's keys

So does the cluster's for calls without metadata. A subset whose endpoints are all unwell is a subset still: no fallback
is asked for it. Source: Envoy's ``subset_lb.cc``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TypeAlias

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster
from meshlib.balance.settings import SubsetSelector, SubsetSettings

__all__ = ["Match", "Subsets", "chosen"]

Match: TypeAlias = tuple[tuple[str, str], ...]
"""The metadata of a call, sorted by key."""


def chosen(cluster: Cluster, match: Match) -> Cluster:
    """What a call with these metadata is balanced over; the cluster itself where metadata do not choose.

    A cluster without members stands for nobody.
    """
    settings = cluster.state.load_balancing.subset
    if settings is None or not cluster.members:
        return cluster
    subsets = cluster.subsets
    if subsets is None:
        subsets = cluster.subsets = Subsets(cluster, settings)
    return subsets.find(match)


class Subsets:
    """The subsets of one cluster. Made once, and each of them when it is first asked for."""

    __slots__ = ("_cluster", "_members", "_parts", "_selectors", "_settings")

    def __init__(self, cluster: Cluster, settings: SubsetSettings) -> None:
        self._cluster = cluster
        self._settings = settings
        self._selectors: dict[tuple[str, ...], SubsetSelector] = {}
        self._members: dict[Match, list[Member]] = {}
        self._parts: dict[Match | str, Cluster] = {}
        for selector in settings.selectors:
            keys = tuple(sorted(set(selector.keys)))
            self._selectors[keys] = selector
            for member in cluster.members:
                for match in _matches(member.endpoint.metadata, keys, settings.list_as_any):
                    self._members.setdefault(match, []).append(member)

    def __len__(self) -> int:
        """How many there are, those that nobody has asked for included."""
        return len(self._members)

    def find(self, match: Match) -> Cluster:
        """The part of the cluster for a call with these metadata."""
        while True:
            members = self._members.get(match)
            if members:
                return self._part(match, members, f"subset {_text(match)}")
            selector = self._selectors.get(tuple(key for key, _ in match)) if match else None
            if selector is None or selector.fallback is None:
                break
            if selector.fallback != "keys":
                return self._fallback(selector.fallback)
            fewer = tuple((key, value) for key, value in match if key in selector.fallback_keys)
            if len(fewer) >= len(match):
                break
            match = fewer
        part = self._fallback(self._settings.fallback)
        if self._settings.panic_mode_any and self._settings.fallback != "none" and not part.has_untried(()):
            return self._fallback("any")
        return part

    def _fallback(self, kind: str) -> Cluster:
        if kind == "any":
            return self._part(kind, self._cluster.members, "fallback any")
        members: list[Member] = []
        if kind == "default":
            default = self._settings.default
            members = [
                member for member in self._cluster.members if _has(member.endpoint.metadata, default, self._settings)
            ]
        return self._part(kind, members, f"fallback {kind}")

    def _part(self, name: Match | str, members: Sequence[Member], label: str) -> Cluster:
        part = self._parts.get(name)
        if part is None:
            part = self._parts[name] = self._cluster.part(members, label)
        return part


def _matches(metadata: Mapping[str, str], keys: Sequence[str], list_as_any: bool) -> Iterator[Match]:
    """The combinations by which an endpoint is found; none if it lacks a key."""
    if any(key not in metadata for key in keys):
        return iter(())
    values = [_values(metadata[key], list_as_any) for key in keys]
    return (tuple(zip(keys, each, strict=True)) for each in product(*values))


def _values(text: str, list_as_any: bool) -> Sequence[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(","))) if list_as_any else (text,)


def _has(metadata: Mapping[str, str], wanted: Mapping[str, str], settings: SubsetSettings) -> bool:
    return all(
        key in metadata and value in _values(metadata[key], settings.list_as_any) for key, value in wanted.items()
    )


def _text(match: Match) -> str:
    return ", ".join(f"{key}={value}" for key, value in match)
