"""A configuration in the native form, as text: YAML and TOML with comments, or JSON.

What is written reads back as it was: texts that another reader, or another version of YAML, would take for something
else are quoted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from meshlib.config.gather import Gathered
from meshlib.config.problems import Path, dotted

__all__ = ["NotInToml", "native_text"]

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*|[0-9]+(?:\.[0-9]+)?(?:us|ms|s|m|h|d)")
_WORDS: Final = frozenset({"true", "false", "null"})
"""What would be read as no text, in YAML 1.2, by which files are read."""

_TOML_KEY = re.compile(r"[A-Za-z0-9_-]+")
_MOST_NOTES: Final = 200
_WIDTH: Final = 110


class NotInToml(Exception):
    """The configuration holds null, which TOML cannot write."""


def native_text(gathered: Gathered, form: str) -> str:
    """The configuration as text.

    Args:
        gathered: without problems.
        form: ``yaml``, ``toml`` or ``json``.

    Raises:
        NotInToml: if it is to be TOML, and cannot be.
    """
    native = _plain(gathered.native)
    if form == "json":
        return json.dumps(native, indent=2, ensure_ascii=False) + "\n"
    if form == "toml":
        _no_null(native, ())
    lines = [*_heading(gathered), *(_yaml(gathered, native) if form == "yaml" else _toml(gathered, native))]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(each) for each in value]
    # A variable that was filled in is text, and so is what only looks like a number.
    return value


def _heading(gathered: Gathered) -> Iterator[str]:
    yield f"# Made by `meshlib convert` from {_comment(', '.join(gathered.files))}."
    yield "# Values stand in it as they were written, secrets too."
    for effect, words in (("ignored", "Not honoured:"), ("different", "Honoured differently:")):
        said = [str(note) for note in gathered.notes if note.effect == effect]
        if said:
            yield "#"
            yield f"# {words}"
            yield from (f"#   {_comment(each)}" for each in said[:_MOST_NOTES])
            if len(said) > _MOST_NOTES:
                yield f"#   and {len(said) - _MOST_NOTES} more"
    config = gathered.config
    if config is not None and config.security_documents:
        yield "#"
        yield "# Not in it, since they say nothing of how calls are made: keep these documents beside it."
        yield from (f"#   {_comment(str(each.place()))}" for each in config.security_documents)
    yield ""


def _comment(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)


def _from(gathered: Gathered, *path: str | int) -> str:
    return f"# from {_comment(gathered.origin(*path))}"


# YAML


def _yaml(gathered: Gathered, native: Mapping[str, Any]) -> Iterator[str]:
    yield from _block({key: value for key, value in native.items() if key not in ("services", "route_sets")}, 0)
    if "route_sets" in native:
        yield ""
        yield "route_sets:"
        for name, routes in native["route_sets"].items():
            yield f"  {_scalar(name)}:"
            yield from _routes(gathered, routes, ("route_sets", name), 4)
    if native.get("services"):
        yield ""
        yield "services:"
        for name, service in native["services"].items():
            yield f"  {_from(gathered, 'services', name)}"
            yield from _service(gathered, name, service or {})


def _service(gathered: Gathered, name: str, service: Mapping[str, Any]) -> Iterator[str]:
    yield f"  {_scalar(name)}:" if service else f"  {_scalar(name)}: {{}}"
    routes = service.get("routes") or []
    yield from _block({key: value for key, value in service.items() if key != "routes" or not routes}, 4)
    if routes:
        yield "    routes:"
        yield from _routes(gathered, routes, ("services", name, "routes"), 6)


def _routes(gathered: Gathered, routes: list[Any], path: Path, depth: int) -> Iterator[str]:
    for index, route in enumerate(routes):
        yield f"{' ' * depth}{_from(gathered, *path, index)}"
        yield from _item(route, depth, apart=True)


def _block(fields: Mapping[str, Any], depth: int) -> Iterator[str]:
    """A map, a field to a line; one that is too long for that goes on below."""
    margin = " " * depth
    for key, value in fields.items():
        line = f"{margin}{_scalar(key)}: {_flow(value)}"
        if len(line) <= _WIDTH or not value or not isinstance(value, (dict, list)):
            yield line
        elif isinstance(value, dict):
            yield f"{margin}{_scalar(key)}:"
            yield from _block(value, depth + 2)
        else:
            yield f"{margin}{_scalar(key)}:"
            for each in value:
                yield from _item(each, depth + 2)


def _item(value: Any, depth: int, *, apart: bool = False) -> Iterator[str]:
    """A member of a list; `apart`: a map in any case with a field to a line."""
    margin = " " * depth
    line = f"{margin}- {_flow(value)}"
    if not value or not isinstance(value, (dict, list)) or (len(line) <= _WIDTH and not apart):
        yield line
        return
    inner = _block(value, depth + 2) if isinstance(value, dict) else _items(value, depth + 2)
    first = next(inner)
    yield f"{margin}- {first.lstrip(' ')}"
    yield from inner


def _items(values: list[Any], depth: int) -> Iterator[str]:
    for each in values:
        yield from _item(each, depth)


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) is not None and value.lower() not in _WORDS
        return value if plain else _quoted(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return repr(value)


# TOML


def _no_null(value: Any, path: Path) -> None:
    if value is None:
        raise NotInToml(f"TOML has no null, and {dotted(path)} is null; --format yaml and json have it")
    if isinstance(value, (Mapping, list)):
        for key, each in value.items() if isinstance(value, Mapping) else enumerate(value):
            _no_null(each, (*path, key))


def _toml(gathered: Gathered, native: Mapping[str, Any]) -> Iterator[str]:
    apart = ("services", "route_sets")
    yield from (f"{_toml_key(key)} = {_inline(value)}" for key, value in native.items() if key not in apart)
    for name, routes in native.get("route_sets", {}).items():
        yield from _toml_routes(gathered, routes, ("route_sets", name))
    for name, service in native.get("services", {}).items():
        yield ""
        yield _from(gathered, "services", name)
        yield f"[services.{_toml_key(name)}]"
        routes = service.get("routes") or []
        yield from (
            f"{_toml_key(key)} = {_inline(value)}" for key, value in service.items() if key != "routes" or not routes
        )
        yield from _toml_routes(gathered, routes, ("services", name, "routes"))


def _toml_routes(gathered: Gathered, routes: list[Any], path: Path) -> Iterator[str]:
    for index, route in enumerate(routes):
        yield ""
        yield _from(gathered, *path, index)
        yield f"[[{'.'.join(_toml_key(str(part)) for part in path)}]]"
        yield from (f"{_toml_key(key)} = {_inline(value)}" for key, value in route.items())


def _toml_key(key: str) -> str:
    return key if _TOML_KEY.fullmatch(key) else _quoted(key)


def _quoted(text: str) -> str:
    """Between quotation marks, as YAML and TOML have it alike: what cannot be seen is written as a number."""
    return "".join(
        each if each.isprintable() else f"\\u{ord(each):04x}" if ord(each) < 0x10000 else f"\\U{ord(each):08x}"
        for each in json.dumps(text, ensure_ascii=False)
    )


def _inline(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_key(key)} = {_inline(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return repr(value)
