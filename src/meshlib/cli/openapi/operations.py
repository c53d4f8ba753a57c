"""Paths into methods: a name, parameters, what is sent, what comes back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args
from urllib.parse import quote

from meshlib.adapters.declarative.encoding import checked_header
from meshlib.adapters.declarative.markers import PathStyle
from meshlib.adapters.declarative.template import parse_template
from meshlib.cli.openapi.document import MAX_OPERATIONS, OpenApi, OpenApiError, text_of
from meshlib.cli.openapi.expressions import NONE, Call, Expression, Name, Subscript, optional, union
from meshlib.cli.openapi.names import WORDS, Names, as_class, as_method, as_variable, literal
from meshlib.cli.openapi.schemas import ANY, Types

__all__ = ["METHODS", "Argument", "Method", "methods_of"]

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")

_STREAMS: Final = ("text/event-stream", "application/x-ndjson", "application/jsonl", "application/json-seq")
_MARKERS: Final = {"query": "Query", "header": "Header", "cookie": "Cookie"}
_SENT = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_PLACE = re.compile(r"\{([^{}]*)\}")
PATH_STYLES: Final = get_args(PathStyle)


@dataclass(frozen=True)
class Argument:
    """A parameter of a method."""

    name: str
    type: Expression
    needed: bool
    by_name: bool


@dataclass(frozen=True)
class Method:
    """A method of the class."""

    name: str
    decorator: Call
    arguments: tuple[Argument, ...]
    returns: Expression
    items: Expression | None
    text: str
    deprecated: bool


def methods_of(document: OpenApi, types: Types, reserved: frozenset[str]) -> list[Method]:
    """All methods, in the order of the document.

    Args:
        document: whose.
        types: what they take and give is added there.
        reserved: names that no method may have.

    Raises:
        OpenApiError: if one cannot be called.
    """
    names = Names(WORDS | reserved)
    found: list[Method] = []
    for path, method, item, operation in _operations(document):
        if len(found) >= MAX_OPERATIONS:
            raise OpenApiError(f"{document.name}: has more than {MAX_OPERATIONS} operations")
        name = names.take(as_method(_own_name(path, method, operation)))
        try:
            found.append(_Operation(document, types, path, method, item, operation, name).method())
        except OpenApiError as error:
            raise OpenApiError(f"{error} (in {method.upper()} {path[:200]!r})") from None
    return found


def _operations(document: OpenApi) -> Iterator[tuple[str, str, Mapping[str, Any], Mapping[str, Any]]]:
    for path, item in (document.data.get("paths") or {}).items():
        if not path.startswith("/") or not item:
            continue  # an extension
        beside = item if isinstance(item, dict) else {}
        item = {**document.follow(item), **beside}
        for method in METHODS:
            if isinstance(item.get(method), dict):
                yield path, method, item, document.follow(item[method])


def _own_name(path: str, method: str, operation: Mapping[str, Any]) -> str:
    given = text_of(operation.get("operationId"))
    # FastAPI adds path and method to the name of the function.
    added = re.sub(r"\W", "_", path) + f"_{method}"
    return given.removesuffix(added) or given or f"{method} {path}"


class _Operation:
    """One operation, while a method is made of it."""

    def __init__(
        self,
        document: OpenApi,
        types: Types,
        path: str,
        method: str,
        item: Mapping[str, Any],
        operation: Mapping[str, Any],
        name: str,
    ) -> None:
        self._document = document
        self._types = types
        self._path = path
        self._verb = method
        self._path_item = item
        self._operation = operation
        self._name = name
        self._title = as_class(name)
        self._names = Names(WORDS)
        self._notes: list[str] = []
        self._idempotent = operation.get("x-idempotent") is True

    def method(self) -> Method:
        """The method."""
        template, arguments = self._parameters()
        body = self._body()
        returns, items = self._returns()
        parts: list[tuple[str, Expression]] = [("", Name(literal(template)))]
        errors = self._errors()
        if errors:
            parts.append(("errors=", Call("", tuple(errors), "{}")))
        if self._idempotent:
            parts.append(("idempotent=", Name("True")))
        told = [text_of(self._operation.get(key)).strip() for key in ("summary", "description")]
        whole = "\n\n".join(dict.fromkeys([each for each in told if each] + self._notes))
        line = f"``{self._verb.upper()} {template}``"
        return Method(
            self._name,
            Call(f"@{self._verb}", tuple(parts)),
            tuple(sorted([*arguments, *body], key=lambda each: (each.by_name, not each.needed))),
            returns,
            items,
            f"{whole}\n\n{line}" if whole else line,
            self._operation.get("deprecated") is True,
        )

    # What is sent

    def _parameters(self) -> tuple[str, list[Argument]]:
        declared: dict[tuple[str, str], Mapping[str, Any]] = {}
        for owner in (self._path_item, self._operation):
            given = owner.get("parameters")
            for each in given if isinstance(given, list) else ():
                self._document.use(1)
                found = self._document.follow(each)
                declared[text_of(found.get("in")), text_of(found.get("name"))] = found
        template, arguments = self._template(declared)
        for (place, name), parameter in declared.items():
            if place in _MARKERS and name and not self._is_framing(place, name):
                arguments.append(self._argument(place, name, parameter))
        return template, arguments

    def _is_framing(self, place: str, name: str) -> bool:
        if place == "header" and name.lower() in ("accept", "content-type", "authorization"):
            return True  # as OpenAPI says
        if place != "query":
            try:
                checked_header(name, "")
            except ValueError:
                self._notes.append(f"The {place} {name[:100]!r} cannot be sent.")
                return True
        return False

    def _template(self, declared: Mapping[tuple[str, str], Mapping[str, Any]]) -> tuple[str, list[Argument]]:
        template, at, arguments = "", 0, []
        known: dict[str, str] = {}
        path = self._path.partition("#")[0]
        for place in _PLACE.finditer(path):
            key = place[1]
            if key not in known:
                name = self._names.take(as_variable(key, "part"))
                known[key], type_ = self._in_path(key, name, declared.get(("path", key), {}))
                arguments.append(Argument(name, type_, True, False))
            else:
                raise OpenApiError(f"{self._document.name}: the path has {key[:100]!r} twice")
            template += _quoted(path[at : place.start()]) + f"{{{known[key]}}}"
            at = place.end()
        template += _quoted(path[at:])
        if any(part in ("", ".", "..") for part in template.partition("?")[0].split("/")[1:-1]):
            raise OpenApiError(f"{self._document.name}: the path has an empty segment, . or ..")
        try:
            parse_template(template)
        except ValueError as error:
            raise OpenApiError(f"{self._document.name}: {error}") from None
        return template, arguments

    def _in_path(self, key: str, name: str, parameter: Mapping[str, Any]) -> tuple[str, Expression]:
        """What a place of the template is called, and the type of what goes there."""
        style, explode = text_of(parameter.get("style")) or "simple", parameter.get("explode") is True
        type_ = self._type(parameter, self._title + as_class(key), models=True)
        scalar = self._types.scalar(type_)
        parts: list[tuple[str, Expression]] = []
        if style not in PATH_STYLES:
            raise OpenApiError(f"{self._document.name}: the path's {key[:100]!r} has the unknown style {style[:100]!r}")
        if style != "simple" or (type_ != scalar and self._types.has_parts(type_)):
            parts += [("style=", Name(literal(style)))] + ([("explode=", Name("True"))] if explode else [])
            scalar = type_ if self._types.has_parts(type_) else scalar
        called = name
        if style == "matrix" and key != name:
            # There the name is sent.
            if not _SENT.fullmatch(key):
                raise OpenApiError(f"{self._document.name}: the path's {key[:100]!r} is no name that can be sent")
            called = key
            parts.insert(0, ("", Name(literal(key))))
        return called, _annotated(scalar, Call("Path", tuple(parts))) if parts else scalar

    def _type(self, parameter: Mapping[str, Any], name: str, *, models: bool = False) -> Expression:
        if "schema" not in parameter or (not models and self._types.shapes.properties(parameter["schema"]) is not None):
            return Name("str")
        return self._types.named(name, self._types.of(parameter.get("schema"), name))

    def _argument(self, place: str, key: str, parameter: Mapping[str, Any]) -> Argument:
        name = self._names.take(as_variable(key, "parameter"))
        needed = parameter.get("required") is True
        inner = self._parameter_type(place, key, parameter)
        if place == "header" and key.lower() == "idempotency-key" and needed:
            self._idempotent = True
        plain = name if place != "header" else name.replace("_", "-")
        said = self._styled(place, parameter, inner)
        marker = Call(_MARKERS[place], (*(() if plain == key else (("", Name(literal(key))),)), *said))
        given = inner if needed else optional(inner)
        # By its name alone a parameter `body` would be the body.
        bare = place == "query" and key == plain != "body" and not said and self._types.is_plain(inner)
        return Argument(name, given if bare else _annotated(given, marker), needed, True)

    def _styled(self, place: str, given: Mapping[str, Any], type_: Expression) -> list[tuple[str, Expression]]:
        """What a marker says of the style in which lists and objects are written."""
        many, explode, style = self._types.is_list(type_), given.get("explode"), text_of(given.get("style"))
        if place in ("query", "form") and style == "deepObject":
            return [("style=", Name(literal(style)))] if self._types.has_parts(type_, deep=True) else []
        if not self._types.has_parts(type_):
            return []
        if place == "header":
            return [] if many else [("explode=", Name(literal(explode is True)))]
        apart = explode if isinstance(explode, bool) else style not in _SEPARATED
        if place == "cookie" or apart:
            return []
        return [("style=", Name(literal(style)))] if style in _SEPARATED else [("explode=", Name("False"))]

    def _parameter_type(self, place: str, key: str, parameter: Mapping[str, Any]) -> Expression:
        if "content" in parameter:
            self._notes.append(f"{key[:100]!r} is a text in the format {_media(parameter)[:100]!r}.")
            return Name("str")
        type_ = self._type(parameter, self._title + as_class(key), models=place != "cookie")
        if place == "query" and text_of(parameter.get("style")) == "deepObject":
            return type_ if self._types.has_parts(type_, deep=True) else Subscript("dict", (Name("str"), ANY))
        if place == "query" and self._types.shapes.properties(parameter.get("schema")) is not None:
            return type_
        if place != "cookie" and self._types.has_parts(type_):
            return type_
        return self._types.scalar(type_)

    def _body(self) -> list[Argument]:
        given = self._operation.get("requestBody")
        if not given:
            return []
        body = self._document.follow(given)
        content = _map(body, "content")
        needed = body.get("required") is True
        for wanted in (_is_json, _is_form, _is_multipart, lambda media: media != ""):
            for media, described in content.items():
                if wanted(media.partition(";")[0].strip().lower()):
                    described = self._document.follow(described) if described else {}
                    encoding = _map(described, "encoding")
                    return self._sent(media.partition(";")[0].strip(), described.get("schema"), needed, encoding)
        return []

    def _sent(self, media: str, schema: Any, needed: bool, encoding: Mapping[str, Any]) -> list[Argument]:
        kind = media.lower()
        if _is_multipart(kind):
            return self._multipart(schema)
        name = self._names.take("body")
        if _is_json(kind):
            type_ = self._types.of(schema, f"{self._title}Body", sending=True)
            type_ = self._types.named(f"{self._title}Body", type_)
            options: list[tuple[str, Expression]] = []
            if kind != "application/json":
                options.append(("media_type=", Name(literal(_printable(media)))))
            if not self._types.is_plain(type_):
                options.append(("exclude_unset=", Name("True")))
            marker: Call | None = Call("Body", tuple(options)) if options or name != "body" else None
            if str(type_) in ("str", "bytes"):
                type_ = ANY  # a text by itself would go out as it is, without quotes
        elif _is_form(kind) and self._types.shapes.properties(schema) is not None:
            if encoding:
                return self._form(schema, needed, encoding)
            type_, marker = self._types.of(schema, f"{self._title}Form", sending=True), Call("Form", ())
        else:
            type_ = Name("str") if kind.startswith("text/") or _is_form(kind) else Name("bytes")
            marker = Call("Body", (("", Name(literal(_printable(media)))),))
        given = type_ if needed else optional(type_)
        return [Argument(name, given if marker is None else _annotated(given, marker), needed, by_name=not needed)]

    def _form(self, schema: Any, needed: bool, encoding: Mapping[str, Any]) -> list[Argument]:
        """A parameter for each field of a form that says how lists and objects are written there."""
        required = self._types.shapes.of(schema).required
        arguments = []
        for key, part in (self._types.shapes.properties(schema) or {}).items():
            name = self._names.take(as_variable(key, "part"))
            type_ = self._types.named(self._title + as_class(key), self._types.of(part, self._title + as_class(key)))
            said = self._styled("form", _map(encoding, key), type_)
            if not said and not self._types.is_plain(type_):
                type_ = Name("str")
            marker = Call("Form", (*(() if name == key else (("", Name(literal(key))),)), *said))
            must = needed and key in required
            arguments.append(Argument(name, _annotated(type_ if must else optional(type_), marker), must, True))
        return arguments

    def _multipart(self, schema: Any) -> list[Argument]:
        properties = self._types.shapes.properties(schema) or {}
        required = self._types.shapes.of(schema).required
        arguments = []
        for key, part in properties.items():
            name = self._names.take(as_variable(key, "part"))
            many = isinstance(part, dict) and part.get("type") == "array"
            inner = part.get("items") if many and isinstance(part, dict) else part
            plain = name == key
            if _is_file(inner):
                type_: Expression = Subscript("list", (Name("Upload"),)) if many else Name("Upload")
                marker = "File"
            else:
                type_ = self._types.of(part, self._title + as_class(key))
                type_ = type_ if self._types.is_plain(type_) else Name("str")
                marker = "Form"
            call = Call(marker, () if plain else (("", Name(literal(key))),))
            needed = key in required
            arguments.append(Argument(name, _annotated(type_ if needed else optional(type_), call), needed, True))
        return arguments

    # What comes back

    def _returns(self) -> tuple[Expression, Expression | None]:
        """What the method returns; and of a stream, the items."""
        known = _map(self._operation, "responses")
        good = [key for key in known if key[:1] == "2"] or [key for key in known if key == "default"]
        found: list[Expression] = []
        for key in sorted(good):
            content = _map(self._document.follow(known[key]), "content")
            for media, described in content.items():
                if media.partition(";")[0].strip().lower() in _STREAMS:
                    return NONE, self._item(media, described)
            found.append(self._received(content, f"{self._title}Response"))
        if not found or self._verb == "head":
            return NONE, None
        if Name("bytes") in found or Name("str") in found:
            found = [each for each in found if each != NONE][:1] if len(set(found) - {NONE}) == 1 else [Name("bytes")]
        return self._types.named(f"{self._title}Response", union(found)), None

    def _item(self, media: str, described: Any) -> Expression:
        schema = described.get("itemSchema", described.get("schema")) if isinstance(described, dict) else None
        item = self._types.of(schema, f"{self._title}Item")
        if item in (ANY, Name("str")):
            return Name("ServerSentEvent") if "event-stream" in media else ANY
        return self._types.named(f"{self._title}Item", item)

    def _received(self, content: Mapping[str, Any], name: str) -> Expression:
        if not content:
            return NONE
        for media, described in content.items():
            kind = media.partition(";")[0].strip().lower()
            if _is_json(kind) or kind == "*/*":
                schema = described.get("schema") if isinstance(described, dict) else None
                type_ = self._types.of(schema, name)
                # A text by itself would be what stands there, with its quotes.
                return ANY if str(type_) in ("str", "bytes") else type_
        return Name("str") if all(media.lower().startswith("text/") for media in content) else Name("bytes")

    def _errors(self) -> list[tuple[str, Expression]]:
        known = _map(self._operation, "responses")
        found = []
        succeeds = any(key[:1] == "2" for key in known)
        for key in sorted(known):
            if key == "default" and not succeeds:
                continue
            if key != "default" and not re.fullmatch(r"[345]([0-9]{2}|[xX]{2})", key):
                continue
            content = _map(self._document.follow(known[key]), "content")
            status = key if key.isdigit() else literal(key.lower())
            name = f"{self._title}Error{key.title() if key == 'default' else key.lower()}"
            type_ = self._received(content, name)
            if type_ not in (NONE, ANY, Name("bytes"), Name("str")):
                found.append((f"{status}: ", self._types.named(name, type_)))
        return found


def _map(owner: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = owner.get(key)
    return found if isinstance(found, dict) else {}


_SEPARATED: Final = ("spaceDelimited", "pipeDelimited")


def _media(parameter: Mapping[str, Any]) -> str:
    content = parameter.get("content")
    return next(iter(content), "") if isinstance(content, dict) else ""


def _printable(text: str) -> str:
    return "".join(char for char in text if char.isascii() and char.isprintable())


def _quoted(text: str) -> str:
    return quote(text, safe="/?=&;,:@!$'()*+~%")


def _annotated(type_: Expression, marker: Call) -> Expression:
    return Subscript("Annotated", (type_, marker))


def _is_json(media: str) -> bool:
    return media == "application/json" or media.endswith("+json")


def _is_form(media: str) -> bool:
    return media == "application/x-www-form-urlencoded"


def _is_multipart(media: str) -> bool:
    return media.startswith("multipart/")


def _is_file(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    encoded = "contentMediaType" in schema and "contentEncoding" not in schema
    return schema.get("format") == "binary" or encoded
