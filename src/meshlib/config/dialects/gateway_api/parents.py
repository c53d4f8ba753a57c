"""What a route is attached to: Services, all of their ports or one of them. Gateways are for those outside the mesh."""

from __future__ import annotations

from typing import Final

from meshlib.config.dialects.draft import Port
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.gateway_api.references import CORE, GROUP
from meshlib.config.dialects.resources import Place
from meshlib.dataclass import dataclass

__all__ = ["Parent", "read_parents"]

_GATEWAYS: Final = frozenset({(GROUP, "Gateway"), (GROUP, "ListenerSet")})


@dataclass(frozen=True, slots=True)
class Parent:
    """A port of a Service that a route is for.

    Attributes:
        name, namespace: of the Service.
        port: its number; None if it is not known.
        place: where the route says so.
    """

    name: str
    namespace: str
    port: int | None
    place: Place


def read_parents(spec: Reader, namespace: str) -> list[Parent]:
    """The Services that a route is for; what else it is for is noted where it has no Service at all."""
    found: list[Parent] = []
    given = spec.maps("parentRefs")
    others: list[tuple[Place, str, str]] = []
    for reader in given:
        group, kind = reader.text("group"), reader.text("kind") or "Gateway"
        name, its = reader.text("name") or "", reader.text("namespace") or namespace
        port, section = reader.integer("port"), reader.text("sectionName")
        reader.rest()
        group = GROUP if group is None else group
        if not name:
            reader.wrong("name", "is required")
        elif kind == "Service" and group in CORE:
            found += _ports(reader, name, its, port, section)
        else:
            others.append((reader.place(), group, kind))
    if not found:
        for place, group, kind in others:
            if (group, kind) in _GATEWAYS:
                spec.draft.note(place, "is for gateways, and this workload is none", "passed")
            else:
                text = f"is not honoured: calls go to Services, through no {group or 'core'}/{kind}"
                spec.draft.note(place, text, "ignored")
    return found


def _ports(reader: Reader, name: str, its: str, port: int | None, section: str | None) -> list[Parent]:
    entry = reader.draft.inventory.services.get(reader.draft.host_of(name, its))
    if entry is None:
        if port is not None or section is not None:
            text = f"the Service {its}/{name} is not among the documents: the route is for all of its ports"
            reader.different("port" if port is not None else "sectionName", text)
        return [Parent(name, its, port, reader.place())]

    def fits(each: Port) -> bool:
        return (port is None or each.number == port) and (section is None or each.name == section)

    ports = [Parent(name, its, each.number, reader.place()) for each in entry.ports if fits(each)]
    if not ports:
        text = f"is not honoured: the Service {its}/{name} has no such port (NoMatchingParent)"
        reader.draft.note(reader.place(), text, "ignored")
    return ports
