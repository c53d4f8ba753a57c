"""Values as text: in paths, queries, headers, cookies and forms.

Text and numbers stand as they are, truth values are ``true`` and ``false``, an enumeration is its value; all else is as
pydantic writes it in JSON: ``2026-11-23T01:00:00Z``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["Escaped", "checked_header", "cookie_text", "encode_pairs", "fields_of", "plain_text", "texts", "writer"]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FIELD = re.compile(r"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
_COOKIE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*")

_FRAMING = frozenset({"content-length", "transfer-encoding", "connection", "host", "upgrade", "te", "trailer"})
"""Headers that say where messages begin and end, or whom they are for: a parameter has no business there."""

SCALARS = (str, int, float, bool)


class Escaped(str):
    """A text of a query that is percent-encoded already."""

    __slots__ = ()


def plain_text(value: Any) -> str:
    """One scalar as text.

    Raises:
        ValueError: if it is none.
    """
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise ValueError(f"it is to be a single value that has a text, not {type(value).__name__}")


def writer(annotation: Any, adapter: Callable[[], TypeAdapter[Any]]) -> Callable[[Any], Any]:
    """What makes of a value of a type its JSON form: text, numbers, lists and maps of them, or None.

    Args:
        annotation: the type.
        adapter: makes pydantic's for it, where it is needed.
    """
    if annotation in SCALARS:
        return _as_it_is
    dump = adapter().dump_python

    def write(value: Any) -> Any:
        return dump(value, mode="json", by_alias=True, warnings="error")

    return write


def _as_it_is(value: Any) -> Any:
    return value


def texts(value: Any) -> Iterator[str]:
    """The texts of a value in its JSON form: one, or of a list each; None is left out.

    Raises:
        ValueError: if it is no scalar and no list of them.
    """
    if value is None:
        return
    if isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            if each is not None:
                yield plain_text(each)
    else:
        yield plain_text(value)


def fields_of(value: Any) -> Iterator[tuple[str, str]]:
    """The fields of a model or a mapping in its JSON form.

    Raises:
        ValueError: if it is none.
    """
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ValueError(f"it is to be a model or a map, not {type(value).__name__}")
    for name, each in value.items():
        for text in texts(each):
            yield str(name), text


def encode_pairs(pairs: Iterable[tuple[str, str]], *, form: bool = False) -> str:
    """Names and values as a query; as ``application/x-www-form-urlencoded`` with `form`, where a space is ``+``."""
    escape = quote_plus if form else quote
    return "&".join(
        f"{escape(name, safe='')}={value if type(value) is Escaped else escape(value, safe='')}"
        for name, value in pairs
    )


def checked_header(name: str, value: Any) -> str:
    """The value of a header, if it and the name are what HTTP allows (RFC 9110).

    Raises:
        ValueError: if not; the value is not told.
    """
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a header")
    if name.lower() in _FRAMING:
        raise ValueError(f"the header {name} is not for a parameter to set")
    if not isinstance(value, str) or not _FIELD.fullmatch(value):
        raise ValueError(
            f"the value of the header {name} is to be ASCII text without line breaks and control characters"
        )
    return str(value)


def cookie_text(name: str, value: str) -> str:
    """A pair of the ``Cookie`` header (RFC 6265).

    Raises:
        ValueError: if the value has a character that a cookie cannot have; the value is not told.
    """
    if not _COOKIE.fullmatch(value):
        raise ValueError("a cookie is ASCII text without blanks, quotes, commas, semicolons and backslashes")
    return f"{name}={value}"
