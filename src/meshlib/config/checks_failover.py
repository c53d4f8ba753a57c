"""Contradictions of subsets that are filters, and of what a service fails over to."""

from __future__ import annotations

from collections.abc import Iterable

from meshlib.config import model as written
from meshlib.config.problems import Found, Path

__all__ = ["failover_faults"]


def failover_faults(config: written.MeshConfig) -> Found:
    """Those of all services."""
    if config.defaults.failover_to:
        text = "is for one service, and 'defaults' are for all"
        yield ("defaults", "failover_to"), text, frozenset({"failover_to"})
    for name, service in config.services.items():
        path: Path = ("services", name)
        for subset in service.subset_filters.keys() & service.subsets.keys():
            text = f"{subset!r} is one of the 'subsets' as well"
            yield (*path, "subset_filters", subset), text, frozenset({"subsets", "subset_filters"})
        yield from _targets((*path, "failover_to"), name, None, service.failover_to, config)
        for subset, policy in service.subset_policies.items():
            here = (*path, "subset_policies", subset, "failover_to")
            yield from _targets(here, name, subset, policy.failover_to, config)


def _targets(
    path: Path, name: str, subset: str | None, targets: Iterable[written.FailoverTarget], config: written.MeshConfig
) -> Found:
    needs = frozenset({"failover_to", "subsets", "subset_filters"})
    for index, target in enumerate(targets):
        service = target.service or name
        if (service, target.subset) == (name, subset):
            yield (*path, index), "fails over to itself", needs
        elif target.subset is not None:
            to = config.services.get(service)
            if to is None:
                text = f"the service {service!r} is not declared under 'services', so it has no subsets"
                yield (*path, index, "subset"), text, needs
            elif target.subset not in {*to.subsets, *to.subset_filters}:
                yield (*path, index, "subset"), f"the service {service!r} has no subset {target.subset!r}", needs
