"""Whose call it is: what limits that tell callers apart go by.

A header and the caller's own `hash_key` are read of the request once, before the call begins; the route and the
criticality the call knows by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.context import Criticality, current_scope
from meshlib.policy.admission_settings import KeySource

if TYPE_CHECKING:
    from meshlib.policy.placement import Placement
    from meshlib.policy.traits import Reader, Traits
    from meshlib.routing.match import RequestView

__all__ = ["criticality_of", "is_high", "key_of", "reader_of"]

_NAMES = {criticality: criticality.name.lower() for criticality in Criticality}


def reader_of(source: KeySource | None) -> Reader:
    """What notes the header that `source` names, and the criticality of the work being done."""
    name = source.name if source is not None and source.kind == "header" else None

    def read(request: RequestView, traits: Traits) -> None:
        traits.criticality = current_scope().criticality
        if name is not None:
            traits.keys = {**(traits.keys or {}), name: request.headers.get(name)}

    return read


def key_of(source: KeySource | None, call: Placement) -> str | None:
    """The key of a call; None if it has none."""
    traits = call.traits
    if source is None:
        return None
    if source.kind == "route":
        return call.facts.route.name
    if source.kind == "criticality":
        return _NAMES[criticality_of(call)]
    if traits is None:
        return None
    return traits.hash_key if source.kind == "hash_key" else (traits.keys or {}).get(source.name)


def criticality_of(call: Placement) -> Criticality:
    """How critical a call is; what nobody said anything of is critical, as in the SRE book."""
    criticality = None if call.traits is None else call.traits.criticality
    return Criticality.CRITICAL if criticality is None else criticality


def is_high(call: Placement) -> bool:
    """Whether a call has high priority: by its route or service, or because it is as critical as can be."""
    return call.facts.policy.priority == "high" or criticality_of(call) is Criticality.CRITICAL_PLUS
