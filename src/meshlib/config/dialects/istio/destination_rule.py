"""``DestinationRule``: the policy of a host and of its subsets.

Which rules hold for a host: those of the caller's namespace, else those that the host's own namespace exports, else
those of the root namespace; of each, the most specific host. Several rules for one host are put together: subsets are
added up, the first policy holds, and a rule for workloads with certain labels comes before those for all. Sources:
``destinationRule`` in Istio's ``push_context.go``, ``mergeDestinationRule`` in ``destination_rule.go``, and
``DestinationRule`` in ``sidecar.go``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.istio.hosts import ROOT_NAMESPACE, is_wildcard, most_specific, visible
from meshlib.config.dialects.istio.traffic_policy import TrafficPolicy, read_traffic_policy
from meshlib.config.dialects.resources import Place, Resource
from meshlib.dataclass import dataclass, replace

__all__ = ["DestinationRule", "RuleIndex", "Subset", "merged_rule", "read_destination_rule"]


_PRIVATE: Final = "/private"
"""In the place of a namespace: what the root namespace keeps to itself."""


@dataclass(frozen=True, slots=True)
class Subset:
    """A part of a host's endpoints.

    Attributes:
        name: its own.
        labels: that its endpoints have.
        policy: instead of the host's, block by block; None if it has none of its own.
        place: of it.
    """

    name: str
    labels: Mapping[str, str]
    policy: TrafficPolicy | None
    place: Place


@dataclass(frozen=True, slots=True)
class DestinationRule:
    """One rule, or several put together.

    Attributes:
        host: in full.
        namespace: of the document.
        policy: of the host; None if there is none.
        subsets: by name.
        export_to: who may see it.
        selector: labels of the workloads that it is for; None for all.
        created: when.
        place: of the document.
    """

    host: str
    namespace: str
    policy: TrafficPolicy | None
    subsets: Mapping[str, Subset]
    export_to: frozenset[str]
    selector: Mapping[str, str] | None
    created: str
    place: Place


def read_destination_rule(draft: Draft, resource: Resource) -> DestinationRule | None:
    """Read one; None if it names no host."""
    reader = Reader(draft, resource, resource.data.get("spec"), ("spec",))
    namespace = draft.namespace_of(resource)
    host, policy = reader.text("host"), reader.map("trafficPolicy")
    subsets: dict[str, Subset] = {}
    for each in reader.maps("subsets"):
        subset = _subset(each)
        if subset is None:
            continue
        if subset.name in subsets:
            each.wrong("name", f"{subset.name!r} is the name of another subset")
        subsets.setdefault(subset.name, subset)
    export_to = frozenset(reader.texts("exportTo"))
    selector = reader.map("workloadSelector")
    labels = None
    if selector is not None:
        labels = selector.entries("matchLabels")
        selector.narrowing().rest()
    read = None if policy is None else read_traffic_policy(policy)
    reader.rest()
    if subsets and read is not None and "max_connections" in read.blocks.get("connectionPool", {}).get("limits", {}):
        place = resource.place("spec", "trafficPolicy", "connectionPool", "tcp", "maxConnections")
        text = "the host and its subsets share so many connections; in Istio each of them has so many of its own"
        draft.note(place, text, "different")
    if not host:
        reader.wrong("host", "is required")
        return None
    full = draft.host_of(host, namespace)
    return DestinationRule(full, namespace, read, subsets, export_to, labels, resource.created, resource.place())


def _subset(reader: Reader) -> Subset | None:
    name, labels, policy = reader.text("name"), reader.entries("labels"), reader.map("trafficPolicy")
    read = None if policy is None else read_traffic_policy(policy)
    reader.rest()
    if not name:
        reader.wrong("name", "is required")
        return None
    return Subset(name, labels, read, reader.place())


class RuleIndex:
    """The rules that a workload may see, by namespace and host."""

    def __init__(self, rules: Iterable[DestinationRule], client: str) -> None:
        """Take in all rules, in the order of their creation; `client` is the namespace of the workload."""
        self._client = client
        self._rules: dict[str, dict[str, list[DestinationRule]]] = {}
        self._wildcards: dict[str, list[str]] = {}
        for rule in rules:
            if not _visible(rule, client):
                continue
            pool = _PRIVATE if client == rule.namespace == ROOT_NAMESPACE and _is_private(rule) else rule.namespace
            own = self._rules.setdefault(pool, {})
            if is_wildcard(rule.host) and rule.host not in own:
                self._wildcards.setdefault(pool, []).append(rule.host)
            own.setdefault(rule.host, []).append(rule)

    def of(self, host: str, namespace: str | None) -> list[DestinationRule]:
        """The rules from which that of a host is put together, the first ones first.

        Args:
            host: in full.
            namespace: that the host is in; None where that is not known.
        """
        # What the root namespace says is for all, but for what it keeps to itself.
        first = _PRIVATE if self._client == ROOT_NAMESPACE else self._client
        for pool in (first, namespace, ROOT_NAMESPACE):
            own = self._rules.get(pool or "", {})
            best = host if host in own else most_specific(host, self._wildcards.get(pool or "", ()))
            if best is not None:
                return own[best]
        return []


def _is_private(rule: DestinationRule) -> bool:
    return rule.selector is not None or (bool(rule.export_to) and rule.export_to <= {".", rule.namespace})


def _visible(rule: DestinationRule, client: str) -> bool:
    if rule.selector is not None:
        return rule.namespace == client
    return visible(rule.export_to, rule.namespace, client)


def merged_rule(draft: Draft, rules: Iterable[DestinationRule], labels: Mapping[str, str]) -> DestinationRule | None:
    """One rule of several for one host, as it holds for a workload with `labels`; None if none does."""
    found = list(rules)
    chosen = [rule for rule in found if rule.selector is not None and rule.selector.items() <= labels.items()]
    common = [rule for rule in found if rule.selector is None]
    if not chosen and not common:
        return None
    first = (chosen or common)[0]
    others = [rule for rule in chosen if rule is not first and rule.selector == first.selector]
    for rule in [*others, *(rule for rule in common if rule is not first)]:
        first = _merge(draft, first, rule)
    return first


def _merge(draft: Draft, first: DestinationRule, rule: DestinationRule) -> DestinationRule:
    """`first` with what it lacks of `rule`. Rules that are exported to others than it are none of its own."""
    same = first.selector is not None or first.export_to == rule.export_to or rule.export_to > first.export_to > set()
    if not same:
        text = f"is passed over for {first.host!r}, as in Istio: it is exported to others than {first.place}"
        draft.note(rule.place, text, "different")
        return first
    for name in first.subsets.keys() & rule.subsets.keys():
        text = f"is passed over, as in Istio: {first.subsets[name].place} has the subset {name!r}"
        draft.note(rule.subsets[name].place, text, "different")
    if first.policy is not None and rule.policy is not None:
        text = f"its trafficPolicy is passed over for {first.host!r}, as in Istio: that of {first.place} holds"
        draft.note(rule.place, text, "different")
    policy = rule.policy if first.policy is None else first.policy
    return replace(first, policy=policy, subsets={**rule.subsets, **first.subsets})
