"""What several documents write alike: conditions on texts, destinations, labels that select."""

from __future__ import annotations

from typing import Any

from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.resources import Place
from meshlib.dataclass import dataclass

__all__ = ["Destination", "destination_of", "percentage_of", "port_number", "string_match"]

_KINDS = ("exact", "prefix", "regex")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a route or a mirror goes.

    Attributes:
        host: in full.
        subset: one of its subsets; empty for all of it.
        port: its number; None where it is not said.
        namespace: of the rule that names it.
        place: of the map.
    """

    host: str
    subset: str
    port: int | None
    namespace: str
    place: Place


def string_match(reader: Reader | None) -> dict[str, str]:
    """A ``StringMatch``: at most one kind; empty for the mere presence of something."""
    if reader is None:
        return {}
    given = {kind: value for kind in _KINDS if (value := reader.text(kind)) is not None}
    reader.rest()
    if len(given) > 1:
        reader.wrong(None, f"has {' and '.join(given)}: one of exact, prefix and regex is expected")
        return {}
    return given


def destination_of(reader: Reader | None, namespace: str) -> Destination | None:
    """A ``Destination``; None if there is none, or it names nobody."""
    if reader is None:
        return None
    host, subset = reader.text("host"), reader.text("subset") or ""
    port = port_number(reader)
    reader.rest()
    if not host:
        reader.wrong("host", "is required")
        return None
    full = reader.draft.host_of(host, namespace)
    return Destination(full, subset, port, namespace, reader.place())


def port_number(reader: Reader) -> int | None:
    """The number of a ``PortSelector`` in the field ``port``."""
    port = reader.map("port")
    if port is None:
        return None
    number = port.integer("number")
    port.rest()
    return number


def percentage_of(reader: Reader, name: str) -> float | None:
    """A ``Percent``, ``{value: 12.5}``; None if it is not there."""
    percent = reader.map(name)
    if percent is None:
        return None
    value: Any = percent.number("value") or 0.0
    percent.rest()
    if not 0 <= value <= 100:
        percent.wrong("value", "is no percentage: 0 to 100 is expected")
        return 0.0
    return int(value) if value == int(value) else value
