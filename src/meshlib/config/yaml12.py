"""YAML by the core schema of version 1.2, built from PyYAML's events.

PyYAML resolves by version 1.1, where ``no`` is false, ``010`` is 8 and ``12:30`` is 750: a country code, an identifier
and a time of day become something else without a word. Here only ``true`` and ``false`` are booleans, numbers are
decimal (or 0x, 0o), and all else is text. Working on events, and not on PyYAML's trees, gives three more things: the
line of each field, an error for a key that is written twice, and a bound on nesting and on what aliases expand to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from meshlib.config.problems import Path

__all__ = ["MAX_ALIASED", "MAX_DEPTH", "MAX_VALUES", "SourceError", "read_yaml"]

MAX_DEPTH: Final = 64
"""How deep maps and lists may nest, in any format; the deepest field of a configuration is at 11."""
MAX_VALUES: Final = 1_000_000
"""How many values a configuration may hold, in any format; more would be a bomb, not a mesh."""
MAX_ALIASED: Final = 50_000
"""How many values may come from aliases, counted as often as they are used."""

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

_MAX_DIGITS = 3500

_TAG = "tag:yaml.org,2002:"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class SourceError(Exception):
    """A text is not in its format.

    Attributes:
        text: what is wrong.
        line: from 1, or None.
        path: of the value, if it has one.
    """

    def __init__(self, text: str, line: int | None = None, path: Path = ()) -> None:
        super().__init__(text)
        self.text = text
        self.line = line
        self.path = path


def read_yaml(text: str, *, number_keys: bool = False) -> list[tuple[Any, dict[Path, int]]]:
    """Read the documents of a file.

    Args:
        text: of the file.
        number_keys: whether a number may be a key, and is text, in whatever document.

    Returns:
        Of each its value, made of dicts, lists and scalars (None for an empty one), and the line of each field and list
        item, from 1.

    Raises:
        SourceError: if it is not YAML, has a key twice, a tag other than those of the core schema, or passes a bound.
    """
    builder = _Builder(number_keys=number_keys)
    try:
        return builder.build(yaml.parse(text, Loader=_LOADER))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        context = f" {error.context}" if error.context else ""
        raise SourceError(f"not YAML: {error.problem or 'error'}{context}", mark.line + 1 if mark else None) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else None
        raise SourceError(f"not YAML: {error.reason}", line) from None
    except yaml.YAMLError as error:
        raise SourceError(f"not YAML: {error}") from None


class _Builder:
    """Turns events into a value. The recursion is bounded by `MAX_DEPTH`."""

    def __init__(self, *, number_keys: bool) -> None:
        self.lines: dict[Path, int] = {}
        self._numbers_allowed = number_keys
        self._anchors: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self._open: set[str] = set()
        self._aliased = 0
        self._count = 0
        self._number_keys: list[SourceError] = []

    def build(self, events: Iterator[Any]) -> list[tuple[Any, dict[Path, int]]]:
        documents = []
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                # The bounds are those of the file; anchors end with their document.
                self.lines = {}
                self._anchors, self._sizes, self._number_keys = {}, {}, []
                value = self._value(next(events), events, ())
                allowed = self._numbers_allowed or _is_of_kubernetes(value) or _is_openapi(value)
                if self._number_keys and not allowed:
                    raise self._number_keys[0]
                documents.append((value, self.lines))
        return documents

    def _value(self, event: Any, events: Iterator[Any], path: Path) -> Any:
        line = _line(event)
        self.lines.setdefault(path, line)
        if len(path) > MAX_DEPTH:
            raise SourceError(f"nested more than {MAX_DEPTH} levels deep", line)
        self._count += 1
        if self._count > MAX_VALUES:
            raise SourceError(f"holds more than {MAX_VALUES} values", line)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), line)
        anchor, before = event.anchor, self._count + self._aliased
        if anchor is not None:
            self._open.add(anchor)
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event, line)
        elif isinstance(event, yaml.SequenceStartEvent):
            _expect_tag(event.tag, "seq", line)
            value = self._list(events, path)
        else:
            _expect_tag(event.tag, "map", line)
            value = self._map(events, path)
        if anchor is not None:
            self._open.discard(anchor)
            self._anchors[anchor] = value
            self._sizes[anchor] = self._count + self._aliased - before + 1
        return value

    def _alias(self, anchor: str, line: int) -> Any:
        if anchor in self._open:
            raise SourceError(f"the alias *{anchor} stands inside what it names", line)
        if anchor not in self._anchors:
            raise SourceError(f"the alias *{anchor} has no anchor &{anchor} before it", line)
        self._aliased += self._sizes[anchor]
        if self._aliased > MAX_ALIASED:
            raise SourceError(f"aliases expand to more than {MAX_ALIASED} values", line)
        return self._anchors[anchor]

    def _list(self, events: Iterator[Any], path: Path) -> list[Any]:
        items: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            items.append(self._value(event, events, (*path, len(items))))
        return items

    def _map(self, events: Iterator[Any], path: Path) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            line = _line(event)
            if not isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent)):
                raise SourceError("a key is a map or a list, and text is expected", line, path)
            key = self._alias(str(event.anchor), line) if isinstance(event, yaml.AliasEvent) else _scalar(event, line)
            if not isinstance(key, str):
                written = event.value if isinstance(event, yaml.ScalarEvent) else key
                error = SourceError(f"the key {written} is not text; write it in quotes: '{written}'", line, path)
                if type(key) is not int:
                    raise error
                self._number_keys.append(error)
                key = str(key)
            if key == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                raise SourceError("'<<' is not part of YAML 1.2; what services share goes under 'defaults'", line, path)
            if isinstance(event, yaml.ScalarEvent) and event.anchor is not None:
                self._anchors[event.anchor], self._sizes[event.anchor] = key, 1
            if key in fields:
                first = self.lines[(*path, key)]
                raise SourceError(f"{key!r} is written twice, first in line {first}", line, path)
            self.lines[(*path, key)] = line
            fields[key] = self._value(next(events), events, (*path, key))
        return fields


def _is_of_kubernetes(value: Any) -> bool:
    """Whether it is a document in which a number may be a key, as in ``portLevelMtls: {8080: ...}``, and is text."""
    return isinstance(value, dict) and isinstance(value.get("apiVersion"), str) and isinstance(value.get("kind"), str)


def _is_openapi(value: Any) -> bool:
    """The same of a description of an API, in which statuses are keys."""
    return isinstance(value, dict) and (isinstance(value.get("openapi"), str) or value.get("swagger") == "2.0")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _expect_tag(tag: str | None, kind: str, line: int) -> None:
    if tag not in (None, "!", _TAG + kind):
        raise SourceError(f"the tag {tag} is not known here", line)


def _scalar(event: Any, line: int) -> Any:
    text: str = event.value
    tag: str | None = event.tag
    try:
        if tag is None or tag == "!":
            return _resolve(text) if tag is None and event.implicit[0] else text
        return _tagged(tag, text)
    except (ValueError, OverflowError):
        raise SourceError(f"{text[:40]!r} is not a number that can be held", line) from None
    except LookupError:
        raise SourceError(f"the tag {tag} does not fit {text[:40]!r}, or is not known here", line) from None


def _tagged(tag: str, text: str) -> Any:
    kinds = {"null": type(None), "bool": bool, "int": int, "float": float}
    name = tag.removeprefix(_TAG)
    if name == "str":
        return text
    value = _resolve(text)
    if name == "float" and type(value) is int:
        return float(value)
    if type(value) is not kinds[name]:
        raise LookupError
    return value


def _in_powers(text: str, base: int) -> int:
    # Python makes these of any number of digits, but writes no number that is longer in decimal ones.
    if len(text) > _MAX_DIGITS:
        raise ValueError
    return int(text[2:], base)


def _resolve(text: str) -> Any:
    """A plain scalar's value by the core schema.

    Raises:
        ValueError: for an integer of more digits than Python converts.
    """
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return _in_powers(text, 8)
    if _HEX.fullmatch(text):
        return _in_powers(text, 16)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text
