"""Contradictions of single balancers and of subsets of large fleets."""

from __future__ import annotations

from meshlib.balance import settings
from meshlib.config.parts.balancing import LoadBalancing
from meshlib.config.problems import Found, Path

__all__ = ["balancer_faults"]

_OWN = ("least_request", "server_weights", "aperture", "prequal")


def balancer_faults(path: Path, part: LoadBalancing, balancing: settings.LoadBalancing) -> Found:
    """Those of one ``load_balancing``; `balancing` is what it compiles to."""
    policy, written = balancing.policy, part.model_fields_set
    if path[0] != "defaults":  # what `defaults` say of a balancer is for the services that choose it
        for field in _OWN:
            if field in written and field != policy:
                text = f"is for the policy {field!r}, and the policy is {policy!r}"
                yield (*path, field), text, frozenset({field, "policy"})
    yield from _aperture(path, part, balancing)
    if balancing.subsetting is not None:
        yield from _subsetting(path, part, balancing, balancing.subsetting)


def _aperture(path: Path, part: LoadBalancing, balancing: settings.LoadBalancing) -> Found:
    aperture, needs = balancing.aperture, frozenset({"aperture", "policy"})
    if balancing.policy == "aperture" and (aperture.of is None or aperture.instance is None):
        if part.model_fields_set & needs:
            missing = "of" if aperture.of is None else "instance"
            text = f"has no {missing!r}: a client has to be told which one of how many it is"
            yield (*path, "aperture"), text, needs
    elif "aperture" in part.model_fields_set and aperture.of is not None and (aperture.instance or 0) >= aperture.of:
        text = f"is {aperture.instance}, and of {aperture.of} clients the last is {aperture.of - 1}"
        yield (*path, "aperture", "instance"), text, frozenset({"aperture", "instance", "of"})


def _subsetting(
    path: Path,
    part: LoadBalancing,
    balancing: settings.LoadBalancing,
    subsetting: settings.SubsettingSettings,
) -> Found:
    needs = frozenset({"subsetting", "policy"})
    if not part.model_fields_set & needs:
        return
    if balancing.policy == "aperture":
        yield (*path, "subsetting"), "does nothing good beside the policy 'aperture', which is a subset too", needs
    elif balancing.policy in ("ring_hash", "maglev"):
        text = f"breaks the policy {balancing.policy!r}: clients with other subsets choose other endpoints for one key"
        yield (*path, "subsetting"), text, needs
    own = frozenset({"subsetting", "kind", "seed", "instance"})
    if subsetting.kind == "rounds" and subsetting.instance is None:
        text = "has no 'instance': a client has to be told which one it is"
        yield (*path, "subsetting"), text, own
    other = "seed" if subsetting.kind == "rounds" else "instance"
    if part.subsetting is not None and getattr(part.subsetting, other) is not None:
        text = f"is of the other kind, and this is {subsetting.kind!r}"
        yield (*path, "subsetting", other), text, own
