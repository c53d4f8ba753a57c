"""Contradictions of hash balancers, and of what calls are hashed by."""

from __future__ import annotations

from meshlib.balance import settings
from meshlib.config import model as written
from meshlib.config.compile import levels_of
from meshlib.config.parts.balancing import LoadBalancing
from meshlib.config.problems import Found, Path

__all__ = ["hash_faults", "unhashed"]

_BOTH = ("ring_hash", "maglev")
_OWN: dict[str, tuple[str, ...]] = {
    "ring": ("ring_hash",),
    "table_size": ("maglev",),
    "hash_key": _BOTH,
    "hash_balance_percent": _BOTH,
}


def hash_faults(path: Path, part: LoadBalancing, balancing: settings.LoadBalancing) -> Found:
    """Those of one ``load_balancing``; `balancing` is what it compiles to."""
    policy, given = balancing.policy, part.model_fields_set
    if path[0] != "defaults":  # what `defaults` say of a balancer is for the services that choose it
        for field, owners in _OWN.items():
            if field in given and policy not in owners:
                text = f"is for the policy {' or '.join(map(repr, owners))}, and the policy is {policy!r}"
                yield (*path, field), text, frozenset({field, "policy"})
    ring, sizes = balancing.ring, frozenset({"min_size", "max_size"})
    if ring.min_size > ring.max_size and "ring" in given and (changed := sizes & part.ring.model_fields_set):
        field = "min_size" if "min_size" in changed else "max_size"
        text = f"leaves no size for the ring: at least {ring.min_size} points, and at most {ring.max_size}"
        yield (*path, "ring", field), text, sizes


def unhashed(config: written.MeshConfig) -> Found:
    """Each `hash_on` without a balancer that goes by hashes."""
    for name, service in config.services.items():
        cluster = levels_of(name, config.defaults, service).cluster
        policy, shadow = cluster.load_balancing.policy, cluster.shadow and cluster.shadow.load_balancing
        policies = {policy, *(each.load_balancing.policy for each in service.subset_policies.values())}
        if policies & set(settings.HASH_BALANCERS) or (shadow and shadow.policy in settings.HASH_BALANCERS):
            continue
        places: list[tuple[Path, written.Service | written.Route]] = [(("services", name), service)]
        for index, route in enumerate(service.routes):
            # Another service's balancer may go by it.
            if all(backend.service in (None, name) for backend in route.backends):
                places.append((("services", name, "routes", index), route))
        for path, part in places:
            if part.hash_on:
                text = f"has no effect with the policy {policy!r}: 'ring_hash' and 'maglev' go by hashes"
                yield (*path, "hash_on"), text, frozenset({"hash_on", "policy", "load_balancing"})
