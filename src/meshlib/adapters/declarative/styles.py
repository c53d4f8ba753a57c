"""How lists and objects stand in one parameter, as OpenAPI's ``style`` and ``explode`` say (3.1.1, 4.8.12; RFC 6570).

    explode                 list [a, b]             object {R: 1, G: 2}
    form            yes     n=a&n=b                 R=1&G=2
                    no      n=a,b                   n=R,1,G,2
    spaceDelimited  no      n=a%20b                 n=R%201%20G%202
    pipeDelimited   no      n=a%7Cb                 n=R%7C1%7CG%7C2
    deepObject              n[]=a&n[]=b             n[R]=1&n[G]=2
    simple          no      a,b                     R,1,G,2
                    yes     a,b                     R=1,G=2
    label           no      .a,b                    .R,1,G,2
                    yes     .a.b                    .R=1.G=2
    matrix          no      ;n=a,b                  ;n=R,1,G,2
                    yes     ;n=a;n=b                ;R=1;G=2

What separates stands as it is where it may, so a comma in a value, which is percent-encoded, is none that separates. A
blank or a ``|`` has to be encoded itself, so a value that has it is refused. OpenAPI leaves open what is nested in a
deepObject: here it is as PHP, Rails and qs have it, ``n[R][G]=1``, ``n[R][]=a``, and of lists of objects ``n[0][R]=1``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from meshlib.adapters.declarative.encoding import Escaped, fields_of, plain_text, texts

__all__ = ["header_text", "path_text", "styled_pairs"]

_SEPARATORS: Final = {"form": ",", "spaceDelimited": " ", "pipeDelimited": "|"}
_MAX_DEPTH: Final = 32

Pairs = list[tuple[str, str]]


def styled_pairs(name: str, style: str) -> Callable[[Any], Pairs]:
    """What writes a value in its JSON form into a query or a form: a ``deepObject``, or one that is not exploded.

    It raises a ValueError for a value that cannot be written so.

    Args:
        name: of the parameter.
        style: of the query.
    """
    if style == "deepObject":
        return lambda value: list(_deep(name, value, 0))
    separator = _SEPARATORS[style]
    written = separator if separator == "," else quote(separator)

    def pairs(value: Any) -> Pairs:
        found = _flat(value)
        if separator != "," and any(separator in text for text in found):
            raise ValueError(f"in the style {style} a value cannot have {separator!r} in it")
        return [(name, Escaped(written.join(quote(text, safe="") for text in found)))] if found else []

    return pairs


def _flat(value: Any) -> list[str]:
    """The items of a list; of an object, names and values by turns; of a scalar, itself."""
    if isinstance(value, Mapping):
        return [text for pair in fields_of(value) for text in pair]
    return list(texts(value))


def _deep(name: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _MAX_DEPTH:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _deep(f"{name}[{key}]", each, depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for number, each in enumerate(value):
            index = number if isinstance(each, (Mapping, list)) else ""
            yield from _deep(f"{name}[{index}]", each, depth + 1)
    elif value is not None:
        yield name, plain_text(value)


def path_text(name: str, style: str, explode: bool) -> Callable[[Any], str]:
    """What writes a value in its JSON form as one segment of a path.

    It raises a ValueError for a value that has no such form, or one that leads elsewhere.

    Args:
        name: of the parameter.
        style: of the path.
        explode: whether the parts of a list or an object stand by themselves.
    """
    first, between = {"simple": ("", ","), "label": (".", "."), "matrix": (";", ";")}[style]

    def write(value: Any) -> str:
        if isinstance(value, Mapping) and explode:
            parts = [_pair(key, text, style) for key, text in fields_of(value)]
        else:
            parts = [quote(text, safe="") for text in _flat(value)]
            parts = parts if explode or not parts else [",".join(parts)]
            if style == "matrix":
                parts = [_pair(name, part, style, safe=",%") for part in parts]
        text = first + between.join(parts) if parts else ""
        if text in ("", ".", ".."):
            raise ValueError("a segment of a path cannot be empty, . or ..")
        return text

    return write


def _pair(name: str, text: str, style: str, safe: str = "") -> str:
    # RFC 6570, 3.2.7: in a matrix, a name without a value has no `=`.
    left = quote(name, safe="")
    return f"{left}={quote(text, safe=safe)}" if text or style != "matrix" else left


def header_text(explode: bool) -> Callable[[Any], str]:
    """What writes a value in its JSON form into a header: a list with commas, an object as ``simple`` has it."""

    def write(value: Any) -> str:
        if isinstance(value, Mapping) and explode:
            return ",".join(f"{key}={text}" for key, text in fields_of(value))
        return ",".join(_flat(value)) if isinstance(value, Mapping) else ", ".join(texts(value))

    return write
