"""Contradictions of what says which endpoints may be chosen."""

from __future__ import annotations

from meshlib.balance import settings
from meshlib.config.parts.balancing import LoadBalancing
from meshlib.config.problems import Found, Path

__all__ = ["place_faults"]

_ROTATING = ("round_robin", "least_request")
_BY_PLACE = ("zone_aware", "locality_weights", "distribute")


def place_faults(path: Path, part: LoadBalancing, balancing: settings.LoadBalancing) -> Found:
    """Those of one ``load_balancing``; `balancing` is what it compiles to."""
    written = part.model_fields_set
    used = [field for field in _BY_PLACE if getattr(balancing, field)]
    for field in used[1:]:
        if written & {field, used[0]}:
            text = f"excludes {used[0]!r}: each says by itself which locality a call goes to"
            yield (*path, field), text, frozenset({field, used[0]})
    for field in ("failover", "failover_priority"):
        if balancing.distribute and getattr(balancing, field) and written & {field, "distribute"}:
            text = f"excludes {field!r}: what is distributed does not stand by"
            yield (*path, "distribute"), text, frozenset({"distribute", field})
    if balancing.policy in settings.HASH_BALANCERS and balancing.zone_aware and written & {"zone_aware", "policy"}:
        text = f"cannot be combined with the policy {balancing.policy!r}: zones tear apart what a hash keeps together"
        yield (*path, "zone_aware"), text, frozenset({"zone_aware", "policy"})
    if part.slow_start is not None and balancing.policy not in _ROTATING and path[0] != "defaults":
        text = f"is for {' and '.join(_ROTATING)}, and the policy is {balancing.policy!r}"
        yield (*path, "slow_start"), text, frozenset({"slow_start", "policy"})
    if "fail_on_panic" in written and balancing.fail_on_panic and balancing.panic_percent == 0:
        yield (*path, "fail_on_panic"), "never happens: panic_percent is 0", frozenset({"fail_on_panic"})
    for index, rule in enumerate(part.distribute):
        whole = sum(rule.to.values())
        if abs(whole - 100) > 1e-6:
            text = f"the percentages sum to {whole:g}, and 100 is expected"
            yield (*path, "distribute", index, "to"), text, frozenset({"distribute", "to"})
    if balancing.locality_weights and "locality_weights" in written and not any(part.locality_weights.values()):
        text = "sum to zero, so no call can go anywhere"
        yield (*path, "locality_weights"), text, frozenset({"locality_weights"})
    for index, label in enumerate(part.failover_priority):
        if not label.partition("=")[0].strip():
            yield (*path, "failover_priority", index), "names no label", frozenset({"failover_priority"})
    yield from _regions(path, part)
    yield from _zone_aware(path, part)
    yield from _subset(path, part, balancing.subset)
    yield from _default(path, part, balancing.subset)


def _regions(path: Path, part: LoadBalancing) -> Found:
    if isinstance(part.failover, bool):
        return
    seen: set[str] = set()
    for index, rule in enumerate(part.failover):
        if rule.from_ == rule.to:
            yield (*path, "failover", index, "to"), "is the region itself", frozenset({"failover", "from", "to"})
        if rule.from_ in seen:
            text = f"{rule.from_!r} fails over to a region already"
            yield (*path, "failover", index, "from"), text, frozenset({"failover", "from"})
        seen.add(rule.from_)


def _zone_aware(path: Path, part: LoadBalancing) -> Found:
    zone_aware = part.zone_aware
    if zone_aware is None:
        return
    needs = frozenset({"zone_aware", "local_service", "local_counts"})
    if zone_aware.local_service and zone_aware.local_counts:
        text = "excludes 'local_service': callers are either looked up or counted here"
        yield (*path, "zone_aware", "local_counts"), text, needs
    elif not zone_aware.local_service and not zone_aware.local_counts:
        text = "needs to know the callers: 'local_service', the name of this service, or 'local_counts'"
        yield (*path, "zone_aware"), text, needs
    elif zone_aware.local_counts and not any(zone_aware.local_counts.values()):
        yield (*path, "zone_aware", "local_counts"), "count nobody: at least one caller is expected", needs


def _subset(path: Path, part: LoadBalancing, merged: settings.SubsetSettings | None) -> Found:
    subset = part.subset
    if subset is None or merged is None:
        return
    asked = {subset.fallback, *(selector.fallback for selector in subset.selectors)}
    if "default" in asked and not merged.default:
        needs = frozenset({"subset", "default", "fallback"})
        yield (*path, "subset", "default"), "is needed: a fallback is 'default'", needs
    seen: dict[frozenset[str], int] = {}
    for index, selector in enumerate(subset.selectors):
        here = (*path, "subset", "selectors", index)
        keys, fewer = frozenset(selector.keys), frozenset(selector.fallback_keys)
        needs = frozenset({"subset", "selectors", "keys", "fallback", "fallback_keys"})
        if seen.setdefault(keys, index) != index:
            yield (*here, "keys"), f"are those of selectors[{seen[keys]}] already", needs
        if selector.fallback == "keys":
            if not fewer or not fewer < keys:
                yield (*here, "fallback_keys"), "have to be some of the keys, and not all of them", needs
        elif fewer:
            yield (*here, "fallback_keys"), "are for 'fallback: keys'", needs


def _default(path: Path, part: LoadBalancing, subset: settings.SubsetSettings | None) -> Found:
    if part.subset is None or subset is None or not part.subset.default or path[0] == "defaults":
        return
    if "default" not in {subset.fallback, *(selector.fallback for selector in subset.selectors)}:
        needs = frozenset({"subset", "default", "fallback"})
        yield (*path, "subset", "default"), "does nothing: no fallback is 'default'", needs
