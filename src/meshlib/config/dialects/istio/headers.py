"""``Headers``: edits of requests and responses.

`host` and ``:authority`` rewrite the host; other pseudo-headers are passed over, as in Istio. What is removed is
removed first, so what is removed and added is set. Source: ``TranslateHeadersOperations`` in Istio's ``route.go``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshlib.config.dialects.envoy_values import edited_value, has_command
from meshlib.config.dialects.fields import Reader
from meshlib.config.fields import WIRE_HEADERS
from meshlib.dataclass import dataclass, field

__all__ = ["Edits", "both", "in_turn", "read_headers"]

_AUTHORITY: Final = ("host", ":authority")


@dataclass(frozen=True, slots=True)
class Edits:
    """Header edits in our words.

    Attributes:
        native: ``{request: {set, add, remove}, response: ...}``, as far as there is something.
        host: what the host becomes; empty if it stays.
    """

    native: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    host: str = ""


def read_headers(reader: Reader) -> Edits:
    """The edits of a route or of one of its destinations."""
    native: dict[str, Mapping[str, Any]] = {}
    host = ""
    for side in ("request", "response"):
        operations = reader.map(side)
        if operations is None:
            continue
        edits, authority = _operations(operations)
        if edits:
            native[side] = edits
        host = authority if side == "request" else host
    reader.rest()
    return Edits(native, host)


def _operations(reader: Reader) -> tuple[dict[str, Any], str]:
    found: dict[str, Any] = {}
    host = ""
    for name in ("add", "set"):
        values = {}
        for key, value in reader.entries(name).items():
            lower = key.lower()
            if lower in _AUTHORITY:
                host = value
            if _editable(reader, name, key):
                sent = edited_value(value)
                if sent is None:
                    reader.different(name, f"{key!r} has an empty value, which changes nothing, as in Envoy")
                    continue
                values[lower] = sent
                if has_command(value):
                    text = f"{key!r} is sent as it is written: what stands between '%' is not filled in"
                    reader.draft.note(reader.place(name), text, "ignored")
        if values:
            found[name] = values
    removed = [key.lower() for key in reader.texts("remove") if _editable(reader, "remove", key)]
    reader.rest()
    return _resolved(found, removed), host


def _editable(reader: Reader, name: str, key: str) -> bool:
    lower = key.lower()
    if lower in _AUTHORITY or lower.startswith(":"):
        if lower not in _AUTHORITY or name == "remove" or reader.path[-1] == "response":
            reader.different(name, f"{key!r} is passed over, as in Istio")
        return False
    if lower in WIRE_HEADERS:
        text = f"is not honoured: {key!r} belongs to the connection and cannot be edited"
        reader.draft.note(reader.place(name), text, "ignored")
        return False
    return True


def _resolved(found: Mapping[str, Any], removed: list[str]) -> dict[str, Any]:
    """Edits of which none removes what another writes: what is removed and added is set."""
    values: dict[str, str] = dict(found.get("set", {}))
    added: dict[str, str] = dict(found.get("add", {}))
    for name in removed:
        if name in added and name not in values:
            values[name] = added.pop(name)
    gone = [name for name in dict.fromkeys(removed) if name not in values and name not in added]
    parts: dict[str, Any] = {"set": values, "add": added, "remove": gone}
    return {name: part for name, part in parts.items() if part}


def both(route: Edits, destination: Edits) -> Edits | None:
    """The edits of a route and of its one destination, which come after; None if one map cannot hold them."""
    native: dict[str, Mapping[str, Any]] = {}
    for side in ("request", "response"):
        first, second = route.native.get(side, {}), destination.native.get(side, {})
        later = second.get("set", {})
        kept = {name: value for name, value in first.get("add", {}).items() if name not in later}
        if kept.keys() & second.get("add", {}).keys():
            return None
        edits = {"set": {**first.get("set", {}), **later}, "add": {**kept, **second.get("add", {})}}
        merged = _resolved(edits, [*first.get("remove", ()), *second.get("remove", ())])
        if merged:
            native[side] = merged
    return Edits(native, route.host or destination.host)


def in_turn(route: Edits, destination: Edits) -> tuple[Edits, Edits]:
    """The same as two maps, of which the first is laid on first: what either removes, and what the route writes."""
    earlier: dict[str, Mapping[str, Any]] = {}
    later: dict[str, Mapping[str, Any]] = {}
    for side in ("request", "response"):
        first, second = route.native.get(side, {}), destination.native.get(side, {})
        removed = [*first.get("remove", ()), *second.get("remove", ())]
        if edits := _resolved(first, removed):
            earlier[side] = edits
        if edits := {name: part for name, part in second.items() if name != "remove"}:
            later[side] = edits
    return Edits(earlier), Edits(later, route.host or destination.host)
