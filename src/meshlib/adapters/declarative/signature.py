"""What the parameters of a method are: where each goes, and how its values are written. Decided once, when bound."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import io
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Union, get_args, get_origin

from meshlib.adapters.declarative.encoding import checked_header, writer
from meshlib.adapters.declarative.hints import split, without_none
from meshlib.adapters.declarative.markers import PLACES, Body, Cookie, File, Form, HashKey, Header, Path, Query
from meshlib.adapters.declarative.operation import Operation
from meshlib.dataclass import dataclass

__all__ = ["BodyKind", "Parameter", "Signature", "read_signature"]

_BINARY = (bytes, bytearray, memoryview)
_FILES = (typing.IO, typing.BinaryIO, io.IOBase, io.BytesIO, io.BufferedIOBase, io.BufferedReader, io.RawIOBase)
_SYNC_STREAMS = (collections.abc.Iterator, collections.abc.Iterable, collections.abc.Generator)
_ASYNC_STREAMS = (collections.abc.AsyncIterator, collections.abc.AsyncIterable, collections.abc.AsyncGenerator)
_CONTAINERS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Set, collections.abc.Collection)

_KINDS: dict[type, str] = {
    Path: "path",
    Query: "query",
    Header: "header",
    Cookie: "cookie",
    Body: "body",
    Form: "form",
    File: "file",
}

BodyKind = typing.Literal["json", "bytes", "text", "stream"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter.

    Attributes:
        name: in the signature.
        place: ``path``, ``query``, ``header``, ``cookie``, ``body``, ``form``, ``file``; empty if it is not sent.
        wire_name: its name there.
        write: makes the JSON form of a value.
        spreads: whether its fields are sent, each by itself.
        style: of OpenAPI, in which it is written; empty for one value, a pair for each of a list, or what spreads.
        explode: whether its parts stand by themselves there.
        hash_key: whether it is what an endpoint is chosen by.
        default: its value where the caller gives none.
        kind: of a body.
        body: what the marker of a body says.
        dump: of a JSON body.
    """

    name: str
    place: str
    wire_name: str
    write: Callable[[Any], Any]
    spreads: bool = False
    style: str = ""
    explode: bool = False
    hash_key: bool = False
    default: Any = inspect.Parameter.empty
    kind: BodyKind = "json"
    body: Body = Body()
    dump: Callable[[Any], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """All of them.

    Attributes:
        own: Python's, without ``self``.
        positional: how many may be given by position.
        names: in order.
        parameters: in order.
    """

    own: inspect.Signature
    positional: int
    names: tuple[str, ...]
    parameters: tuple[Parameter, ...]

    def of(self, *places: str) -> tuple[Parameter, ...]:
        """Those that go to certain places."""
        return tuple(each for each in self.parameters if each.place in places)


def read_signature(
    function: Callable[..., Any], hints: Mapping[str, Any], operation: Operation, where: str, *, is_async: bool
) -> Signature:
    """Read the signature of a method.

    Args:
        function: with ``self``.
        hints: its annotations, looked up.
        operation: as declared.
        where: it is, for errors.
        is_async: whether it is called in an event loop.

    Raises:
        TypeError: if a call cannot be made of it; the message names the parameter.
    """
    whole = inspect.signature(function)
    given = list(whole.parameters.values())
    if not given or given[0].kind not in (given[0].POSITIONAL_ONLY, given[0].POSITIONAL_OR_KEYWORD):
        raise TypeError(f"{where}: a method has `self` as its first parameter")
    places = set(operation.template.names)
    parameters = []
    for each in given[1:]:
        told = f"{where}: parameter {each.name!r}"
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            raise TypeError(f"{told} stands for any number; each is to be named")
        if each.name not in hints:
            raise TypeError(f"{told} has no annotation")
        if isinstance(each.default, (*PLACES, HashKey)):
            marker = type(each.default).__name__
            raise TypeError(f"{told}: write Annotated[..., {marker}(...)]; a default is a value")
        try:
            parameters.append(_parameter(each, hints[each.name], places, operation.method, is_async))
        except TypeError as error:
            raise TypeError(f"{told} {error}") from None
    _check(parameters, operation, where)
    own = whole.replace(parameters=given[1:])
    positional = sum(each.kind is not each.KEYWORD_ONLY for each in given[1:])
    return Signature(own, positional, tuple(each.name for each in given[1:]), tuple(parameters))


def _parameter(each: inspect.Parameter, hint: Any, places: set[str], method: str, is_async: bool) -> Parameter:
    inner, extras = split(hint)
    inner = without_none(inner)
    # Marker classes without parentheses are meant as well.
    made = [extra() if isinstance(extra, type) and extra in (*PLACES, HashKey) else extra for extra in extras]
    markers = [extra for extra in made if isinstance(extra, PLACES)]
    if len(markers) > 1:
        raise TypeError(f"is to go to two places: {' and '.join(type(marker).__name__ for marker in markers)}")
    hash_key = any(isinstance(extra, HashKey) for extra in made)
    marker = markers[0] if markers else None
    if marker is not None:
        place = _KINDS[type(marker)]
    elif each.name in places:
        place = "path"
    elif each.name == "body" or _is_structured(inner) or _stream_kind(inner) or inner in _BINARY:
        place = "body"
        if method in ("GET", "HEAD") and each.name != "body":
            raise TypeError(f"is no text, and a {method} has no body by itself: say Query(), or Body() if you mean it")
    else:
        place = "" if hash_key else "query"
    alias = getattr(marker, "alias", None)
    wire_name = alias or (each.name.replace("_", "-") if place == "header" else each.name)
    if place == "path" and wire_name not in places:
        raise TypeError(f"is to go into the path, which has no {{{wire_name}}}")
    if place in ("header", "cookie"):
        try:
            checked_header(wire_name, "")
        except ValueError as error:
            raise TypeError(str(error)) from None
    body = marker if isinstance(marker, Body) else Body()
    kind: BodyKind = _body_kind(inner, is_async) if place == "body" else "json"
    style, explode = _style_of(marker)
    spreads = place in ("query", "form") and not style and _is_structured(inner) and not _is_sequence(inner)
    if place in ("path", "header", "cookie") and not style and _is_structured(inner):
        raise TypeError(f"is no text, as what goes into a {place} has to be")
    # What else the annotation says may be for pydantic.
    told = len(made) > len(markers) + hash_key
    write, dump = _writers(hint if place == "body" or told else inner, place, kind, body)
    return Parameter(
        each.name, place, wire_name, write, spreads, style, explode, hash_key, each.default, kind, body, dump
    )


def _style_of(marker: Any) -> tuple[str, bool]:
    """The style that a value is written in, and whether it is exploded; an empty one where each part is a pair."""
    explode = getattr(marker, "explode", None)
    if isinstance(marker, (Query, Form)):
        style = marker.style or "form"
        pairs = style != "deepObject" and (style == "form" if explode is None else explode)
        return ("", False) if pairs else (style, False)
    if isinstance(marker, (Path, Header)) and (explode is not None or getattr(marker, "style", None)):
        return getattr(marker, "style", None) or "simple", explode is True
    return "", False


def _writers(
    hint: Any, place: str, kind: BodyKind, body: Body
) -> tuple[Callable[[Any], Any], Callable[[Any], bytes] | None]:
    from pydantic import TypeAdapter

    def adapter() -> TypeAdapter[Any]:
        try:
            return TypeAdapter(hint)
        except Exception as error:
            raise TypeError(f"has a type that pydantic cannot write: {_first_line(error)}") from None

    if place == "file" or (place == "body" and kind != "json"):
        return (lambda value: value), None
    if place != "body":
        return writer(hint, adapter), None
    dump_json, unset, none = adapter().dump_json, body.exclude_unset, body.exclude_none

    def dump(value: Any) -> bytes:
        return dump_json(value, by_alias=True, exclude_unset=unset, exclude_none=none, warnings="error")

    return (lambda value: value), dump


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _is_structured(hint: Any) -> bool:
    """Whether values of a type have fields, or items that have."""
    hint = without_none(hint)
    origin = get_origin(hint)
    if origin is typing.Annotated:
        return _is_structured(get_args(hint)[0])
    if origin in (Union, types.UnionType):
        return any(_is_structured(each) for each in get_args(hint))
    if origin in _CONTAINERS:
        return any(_is_structured(each) for each in get_args(hint) if each is not Ellipsis)
    cls = origin or hint
    if not isinstance(cls, type):
        return False
    if issubclass(cls, (dict, collections.abc.Mapping)) or typing.is_typeddict(cls) or _is_typeddict(cls):
        return True
    return dataclasses.is_dataclass(cls) or hasattr(cls, "__pydantic_validator__")


def _is_typeddict(cls: type) -> bool:
    import typing_extensions

    return typing_extensions.is_typeddict(cls)


def _is_sequence(hint: Any) -> bool:
    return get_origin(without_none(hint)) in _CONTAINERS


def _stream_kind(hint: Any) -> str:
    """``file``, ``sync`` or ``async`` for what a body is read from; empty for what is a value."""
    cls = get_origin(hint) or hint
    if cls in _FILES or (isinstance(cls, type) and issubclass(cls, io.IOBase)):
        return "file"
    if cls in _SYNC_STREAMS:
        return "sync"
    return "async" if cls in _ASYNC_STREAMS else ""


def _body_kind(hint: Any, is_async: bool) -> BodyKind:
    if hint in _BINARY:
        return "bytes"
    if hint is str:
        return "text"
    how = _stream_kind(hint)
    if not how:
        return "json"
    items = get_args(hint)
    if how != "file":
        if not items or items[0] is not bytes:
            raise TypeError("is a stream, and only one of bytes can be sent")
        if (how == "async") is not is_async:
            wanted = "an AsyncIterator" if is_async else "an Iterator"
            raise TypeError(f"is to be {wanted}[bytes]: the method is {'async' if is_async else 'not'}".rstrip())
    return "stream"


def _check(parameters: list[Parameter], operation: Operation, where: str) -> None:
    """What parameters must not be together."""
    bodies = [each.name for each in parameters if each.place == "body"]
    if len(bodies) > 1:
        raise TypeError(f"{where}: two bodies: {' and '.join(map(repr, bodies))}; a model of both may be meant")
    if bodies and any(each.place in ("form", "file") for each in parameters):
        raise TypeError(f"{where}: parameter {bodies[0]!r} is a body, and others are of a form: it can have one")
    if any(each.place == "file" for each in parameters):
        for each in parameters:
            if each.place == "form" and each.style not in ("", "deepObject"):
                raise TypeError(f"{where}: parameter {each.name!r}: a multipart form has no style {each.style}")
    for name, spans in zip(operation.template.names, operation.template.spans, strict=True):
        if spans and any(each.place == "path" and each.wire_name == name and each.style for each in parameters):
            raise TypeError(f"{where}: {{{name}:path}} is a text, and has no style")
    seen: dict[tuple[str, str], str] = {}
    for each in parameters:
        if not each.place or each.spreads:
            continue
        key = each.place, each.wire_name.lower() if each.place == "header" else each.wire_name
        if key in seen:
            raise TypeError(f"{where}: {seen[key]!r} and {each.name!r} are both {key[1]!r} in the {key[0]}")
        seen[key] = each.name
    for name in operation.template.names:
        if ("path", name) not in seen:
            raise TypeError(f"{where}: the path has {{{name}}}, and no parameter is named so")
    keys = [each.name for each in parameters if each.hash_key]
    if len(keys) > 1:
        raise TypeError(f"{where}: {' and '.join(map(repr, keys))} are both the HashKey; there is one")
