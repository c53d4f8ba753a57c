"""What a call sends: made of the arguments by steps that were laid out when the class was bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter as PythonParameter
from typing import Any

from meshlib.adapters.declarative.encoding import (
    checked_header,
    cookie_text,
    encode_pairs,
    fields_of,
    plain_text,
    texts,
)
from meshlib.adapters.declarative.operation import Operation
from meshlib.adapters.declarative.signature import Parameter, Signature
from meshlib.adapters.declarative.styles import header_text, path_text, styled_pairs
from meshlib.adapters.declarative.template import segment, segments
from meshlib.adapters.options import EXTENSION, CallOptions
from meshlib.dataclass import replace

__all__ = ["Maker", "Outgoing"]

_MISSING = PythonParameter.empty


class Outgoing:
    """One request, as httpx's ``request`` takes it.

    Attributes:
        path: percent-encoded.
        query: pairs, besides the fixed ones of the template.
        options: the other arguments: ``content``, ``data``, ``files``, ``headers``, ``extensions``.
    """

    __slots__ = ("fixed", "options", "path", "query")

    def __init__(self, path: str, query: list[tuple[str, str]], fixed: str, options: dict[str, Any]) -> None:
        self.path = path
        self.query = query
        self.fixed = fixed
        self.options = options

    @property
    def url(self) -> str:
        """Path and query."""
        query = self.fixed
        if self.query:
            query = f"{query}&{encode_pairs(self.query)}" if query else encode_pairs(self.query)
        return f"{self.path}?{query}" if query else self.path


class Maker:
    """Makes requests of arguments.

    Args:
        where: the class and the method, for errors.
        operation: as declared.
        signature: of the method.
        prefix: of all paths.
        complete: whether the whole body of the answer is wanted.
    """

    def __init__(
        self, where: str, operation: Operation, signature: Signature, prefix: str, *, complete: bool = True
    ) -> None:
        template = operation.template
        self._where = where
        self._signature = signature
        self._positional = signature.positional
        self._names = signature.names
        self._known = frozenset(signature.names)
        self._defaults = {each.name: each.default for each in signature.parameters if each.default is not _MISSING}
        self._needed = frozenset(self._known - self._defaults.keys())
        self._literals = (prefix + template.literals[0], *template.literals[1:])
        by_name = {each.wire_name: each for each in signature.of("path")}
        self._places = tuple(
            (by_name[name], _in_path(by_name[name], segments if spans else segment), literal)
            for name, spans, literal in zip(template.names, template.spans, self._literals[1:], strict=True)
        )
        self._fixed = template.query
        self._query = tuple((each, _pairs(each)) for each in signature.of("query"))
        self._headers = tuple((each, _header(each)) for each in signature.of("header"))
        self._cookies = tuple((each, _cookie(each.wire_name)) for each in signature.of("cookie"))
        self._fixed_headers = {name.lower(): (name, value) for name, value in operation.headers}
        bodies = signature.of("body")
        self._body = bodies[0] if bodies else None
        self._form = tuple((each, _pairs(each)) for each in signature.of("form"))
        self._files = signature.of("file")
        self._hash_key = next((each for each in signature.parameters if each.hash_key), None)
        self._call = CallOptions(
            operation.idempotent, operation.timeout_s, prefix + template.route, complete_body=complete
        )
        self._extensions = {EXTENSION: self._call}
        self._simple = not (
            self._headers or self._cookies or self._fixed_headers or self._body or self._form or self._files
        )

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Outgoing:
        """The request.

        Raises:
            TypeError: if the arguments are not those of the method.
            ValueError: if one has no form that can be sent.
        """
        values = self._arguments(args, kwargs)
        path = self._literals[0]
        for each, encode, literal in self._places:
            path += self._written(each, values, encode) + literal
        query: list[tuple[str, str]] = []
        for each, pairs in self._query:
            if values[each.name] is not None:
                query += self._written(each, values, pairs)
        options: dict[str, Any] = {"extensions": self._extensions}
        if self._hash_key is not None:
            options["extensions"] = self._keyed(self._hash_key, values)
        if not self._simple:
            self._add(values, options)
        return Outgoing(path, query, self._fixed, options)

    def _arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        values = dict(zip(self._names, args, strict=False))
        if len(args) > self._positional or not kwargs.keys() <= self._known or not values.keys().isdisjoint(kwargs):
            return self._refuse(args, kwargs)
        values.update(kwargs)
        if len(values) < len(self._names):
            if not self._needed <= values.keys():
                return self._refuse(args, kwargs)
            values = {**self._defaults, **values}
        return values

    def _refuse(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Have Python say what is wrong with the arguments."""
        try:
            bound = self._signature.own.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._where}: {error}") from None
        bound.apply_defaults()
        return dict(bound.arguments)

    def _written(self, each: Parameter, values: Mapping[str, Any], make: Callable[[Any], Any]) -> Any:
        try:
            return make(each.write(values[each.name]))
        except ValueError as error:
            # pydantic says what the value is, which may be a secret.
            text = str(error) if type(error) is ValueError else "it does not fit its type"
            problem = ValueError(f"{self._where}: parameter {each.name!r}: {text}")
        raise problem

    def _keyed(self, each: Parameter, values: Mapping[str, Any]) -> dict[str, Any]:
        if values[each.name] is None:
            return self._extensions
        key = self._written(each, values, plain_text)
        return {EXTENSION: replace(self._call, hash_key=key)}

    def _add(self, values: Mapping[str, Any], options: dict[str, Any]) -> None:
        """Headers and body."""
        headers = dict(self._fixed_headers)
        for each, checked in self._headers:
            if values[each.name] is not None:
                headers[each.wire_name.lower()] = each.wire_name, self._written(each, values, checked)
        cookies = [
            self._written(each, values, checked) for each, checked in self._cookies if values[each.name] is not None
        ]
        if cookies:
            headers["cookie"] = ("Cookie", "; ".join(cookies))
        if self._body is not None:
            self._add_body(self._body, values, headers, options)
        elif self._files:
            options["data"], options["files"] = self._form_data(values), self._parts(values)
        elif self._form:
            options["content"] = encode_pairs(self._fields(values), form=True).encode("ascii")
            headers.setdefault("content-type", ("Content-Type", "application/x-www-form-urlencoded"))
        if headers:
            options["headers"] = list(headers.values())

    def _add_body(
        self, body: Parameter, values: Mapping[str, Any], headers: dict[str, tuple[str, str]], options: dict[str, Any]
    ) -> None:
        value = values[body.name]
        if value is None and body.default is None:
            return
        media_type = body.body.media_type
        if body.dump is not None:
            options["content"] = self._written(body, values, body.dump)
            media_type = media_type or "application/json"
        elif body.kind == "text":
            options["content"] = self._written(body, values, plain_text).encode("utf-8")
            media_type = media_type or "text/plain; charset=utf-8"
        else:
            options["content"] = bytes(value) if body.kind == "bytes" else value
            media_type = media_type or "application/octet-stream"
        headers.setdefault("content-type", ("Content-Type", media_type))

    def _fields(self, values: Mapping[str, Any]) -> list[tuple[str, str]]:
        fields: list[tuple[str, str]] = []
        for each, pairs in self._form:
            if values[each.name] is not None:
                fields += self._written(each, values, pairs)
        return fields

    def _form_data(self, values: Mapping[str, Any]) -> dict[str, list[str]]:
        data: dict[str, list[str]] = {}
        for name, text in self._fields(values):
            data.setdefault(name, []).append(text)
        return data

    def _parts(self, values: Mapping[str, Any]) -> list[tuple[str, Any]]:
        parts = []
        for each in self._files:
            value = values[each.name]
            if value is not None:
                parts += [(each.wire_name, file) for file in (value if isinstance(value, list) else [value])]
        return parts


def _in_path(each: Parameter, encode: Callable[[str], str]) -> Callable[[Any], str]:
    if each.style:
        return path_text(each.wire_name, each.style, each.explode)
    return lambda value: encode(plain_text(value))


def _header(each: Parameter) -> Callable[[Any], str]:
    name, write = each.wire_name, header_text(each.explode) if each.style else _listed
    return lambda value: checked_header(name, write(value))


def _listed(value: Any) -> str:
    return ", ".join(texts(value))


def _cookie(name: str) -> Callable[[Any], str]:
    return lambda value: cookie_text(name, plain_text(value))


def _pairs(each: Parameter) -> Callable[[Any], list[tuple[str, str]]]:
    if each.spreads:
        return lambda value: list(fields_of(value))
    name = each.wire_name
    if each.style:
        return styled_pairs(name, each.style)
    return lambda value: [(name, text) for text in texts(value)]
