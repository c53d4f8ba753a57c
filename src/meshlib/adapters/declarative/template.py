"""The template of a path, ``/orders/{order_id}``, and what goes into it.

A value goes in as one segment: all but the unreserved characters of RFC 3986 are percent-encoded, ``/`` too. In
``{name:path}`` a ``/`` stays one. What would lead elsewhere than the template says is refused: nothing at all, and the
segments ``.`` and ``..``, which clients and servers resolve however they are encoded.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from meshlib.dataclass import dataclass

__all__ = ["Template", "parse_template", "segment", "segments"]

_PARAMETER = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)(:path)?")
_LITERAL = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*")
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True, slots=True)
class Template:
    """A path with places for values.

    Attributes:
        literals: the text before, between and behind the places: one more than there are places.
        names: of the places, in order.
        spans: whether the value of each may have several segments.
        query: that every call has, without ``?``.
        route: the template as telemetry names it: ``/files/{name}``.
    """

    literals: tuple[str, ...]
    names: tuple[str, ...]
    spans: tuple[bool, ...]
    query: str
    route: str


def parse_template(text: str) -> Template:
    """Take a template apart.

    Raises:
        TypeError: if it is no text, as where a decorator was written without its path.
        ValueError: if it is none; the message says why.
    """
    if not isinstance(text, str):
        raise TypeError(f"a path is expected, as in @get('/orders/{{id}}'), not {text!r}")
    path, mark, query = text.partition("?")
    if not path.startswith("/") or path.startswith("//"):
        raise ValueError(f"{text!r} is no path: it has to begin with one /")
    literals, names, spans, at = [], [], [], 0
    for place in _PARAMETER.finditer(path):
        name = _NAME.fullmatch(place[1])
        if name is None:
            raise ValueError(f"{text!r}: {place[0]} is no place for a value, which is {{name}} or {{name:path}}")
        if name[1] in names:
            raise ValueError(f"{text!r} has {{{name[1]}}} twice")
        literals.append(path[at : place.start()])
        names.append(name[1])
        spans.append(name[2] is not None)
        at = place.end()
    literals.append(path[at:])
    if not all(_LITERAL.fullmatch(literal) for literal in literals):
        hint = "a brace has no other" if {"{", "}"} & set("".join(literals)) else "percent-encode it"
        raise ValueError(f"{text!r} has a character that a path cannot have; {hint}")
    if mark and not _QUERY.fullmatch(query):
        raise ValueError(f"{text!r} has a character that a query cannot have; percent-encode it")
    if any(part in (".", "..") for part in path.split("/")):
        raise ValueError(f"{text!r} has . or .. in it")
    route = "".join(f"{literal}{{{name}}}" for literal, name in zip(literals, names, strict=False)) + literals[-1]
    return Template(tuple(literals), tuple(names), tuple(spans), query, route)


def segment(value: str) -> str:
    """A value as one segment of a path.

    Raises:
        ValueError: if it cannot be one.
    """
    if value.isalnum() and value.isascii():
        return value
    if value in ("", ".", ".."):
        raise ValueError("a segment of a path cannot be empty, . or ..")
    return quote(value, safe="")


def segments(value: str) -> str:
    """A value as one or several segments.

    Raises:
        ValueError: if it cannot be.
    """
    parts = value.split("/")
    if not parts[0] or any(part in (".", "..") for part in parts):
        raise ValueError("a path cannot be empty, begin with /, or have . or .. in it")
    return quote(value, safe="/")
