"""Contradictions of shadows. What is wrong in a live policy is wrong in its shadow, too, and found in the same way."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from meshlib.config.problems import Found, Path
from meshlib.dataclass import replace

if TYPE_CHECKING:
    from meshlib.config import model as written
    from meshlib.config.compile import Levels

__all__ = ["as_policy", "shadow_faults"]

_ONLY_LIVE = {
    "decay": "how latency is averaged",
    "default_latency": "what newcomers are thought to take",
    "session_affinity": "to what sessions are bound",
    "slow_start": "when endpoints joined",
    "subset": "by which metadata calls choose",
}
"""Of ``load_balancing``: what is known of endpoints and calls, and not how one is picked."""


def shadow_faults(path: Path, part: written.Shadow) -> Found:
    """Those of one ``shadow``."""
    if all(getattr(part, field) is None for field in type(part).model_fields) and not part.model_fields_set:
        yield path, "compares nothing: say which policy it is a shadow of, and what is different there", frozenset()
    if part.load_balancing is not None:
        for field, what in _ONLY_LIVE.items():
            if field in part.load_balancing.model_fields_set:
                text = f"is {what}, which a shadow shares with the live balancer; set it for the service"
                yield (*path, "load_balancing", field), text, frozenset({field})
    if part.limits is not None and "max_connections" in part.limits.model_fields_set:
        text = "bounds connections, of which a shadow has none"
        yield (*path, "limits", "max_connections"), text, frozenset({"max_connections"})
    if part.bulkhead is not None and part.limits is not None and part.limits.high is not None:
        text = "divides the limit, and so does limits.high; one of the two is expected"
        yield (*path, "bulkhead"), text, frozenset({"bulkhead", "high"})


def as_policy(part: written.Shadow, levels: Levels) -> tuple[written.Policy, Levels]:
    """A shadow as if it were live, to be looked at like that."""
    from meshlib.config.model import Policy

    given = {field: getattr(part, field) for field in part.model_fields_set if getattr(part, field) is not None}
    shadow, cluster = levels.cluster.shadow, levels.cluster
    if shadow is not None:
        settings = {each.name: getattr(shadow, each.name) for each in fields(shadow)}
        cluster = replace(cluster, **{name: value for name, value in settings.items() if value is not None})
    return Policy.model_construct(**given), replace(levels, cluster=cluster)
