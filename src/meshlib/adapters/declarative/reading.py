"""What an answer means: a value of the declared type, or an exception."""

from __future__ import annotations

import collections.abc
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_origin

import httpx

from meshlib.adapters.declarative.decoding import Chunks, Decoder, Events, JsonLines, ServerSentEvent, TooLong
from meshlib.adapters.declarative.errors import B, InvalidResponse, ResponseError, StatusError, status_text
from meshlib.adapters.declarative.hints import is_optional, split, without_none
from meshlib.adapters.declarative.operation import Operation
from meshlib.adapters.declarative.response import Response
from meshlib.adapters.outcome import record

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

__all__ = ["Answers", "Parse", "adapter_of", "item_type"]

Parse = Callable[[httpx.Response], Any]

_SYNC_STREAMS = (collections.abc.Iterator, collections.abc.Iterable, collections.abc.Generator)
_ASYNC_STREAMS = (collections.abc.AsyncIterator, collections.abc.AsyncIterable, collections.abc.AsyncGenerator)

_MAX_PROBLEMS = 10
_MAX_TEXT = 200
"""What an error tells of an answer that does not fit: so many fields, so many characters of each message."""

_MAX_LISTED = 10_000
"""Of more that do not fit only the number is told: pydantic lists all or none, at many times what was received."""


def item_type(hint: Any) -> tuple[str, Any]:
    """``sync`` or ``async`` and the type of the items, if a method returns a stream of them; else an empty string."""
    hint, _ = split(hint)
    origin = get_origin(hint)
    how = "sync" if origin in _SYNC_STREAMS else "async" if origin in _ASYNC_STREAMS else ""
    items = get_args(hint)
    return (how, items[0]) if how and items else ("", None)


class Answers:
    """Reads the answers to one method's calls.

    Args:
        where: the class and the method: ``Orders.order``.
        service: that is called.
        operation: as declared.
        route: of the call, with the prefix.
        returns: what the method returns; of a stream or of pages, the type of the items is read besides.

    Raises:
        TypeError: if pydantic cannot read one of the types.
    """

    def __init__(self, where: str, service: str, operation: Operation, route: str, returns: Any) -> None:
        self._state = {"operation": where, "service": service, "method": operation.method, "route": route}
        self._where = where
        self._service = service
        self._told = f"{operation.method} {route}"
        self._errors = {
            status: self._failure(meaning, f"{where}: the answer for {status}")
            for status, meaning in operation.errors.items()
        }
        self._raw = False
        self._parse = self._value(returns, f"{where}: what it returns")

    def __call__(self, response: httpx.Response) -> Any:
        """The value.

        Raises:
            StatusError: if the status is none of success.
            InvalidResponse: if the answer does not fit.
        """
        if not 200 <= response.status_code < 300:
            failure = self.failure_of(response)
            if failure is None:
                if not self._raw:
                    self._raise_status(response)
            else:
                return failure(response)
        return self._parse(response)

    def failure_of(self, response: httpx.Response) -> Parse | None:
        """What is declared for the status of an answer that is no success."""
        errors, status = self._errors, response.status_code
        for key in (status, status // 100, "default"):
            if key in errors:
                return errors[key]
        return None

    def check(self, response: httpx.Response) -> None:
        """Raise what an answer without success means; return if it means None, which is no items."""
        failure = self.failure_of(response)
        if failure is None:
            self._raise_status(response)
        failure(response)

    def decoder(self, items: Any, adapter: TypeAdapter[Any] | None, response: httpx.Response) -> Decoder:
        """What makes items of an answer's body.

        Args:
            items: their type.
            adapter: pydantic's for it; None for bytes, text and events.
            response: whose body it is.
        """
        if items is bytes:
            return Chunks()
        count = [0]

        def parse(data: str | bytes) -> Any:
            count[0] += 1
            if adapter is None:
                return data if isinstance(data, str) else data.decode("utf-8", "replace")
            return self._fit(response, adapter, data, f"item {count[0]}: ")

        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if items is ServerSentEvent:
            return Events(lambda event: event)
        if content_type == "text/event-stream":
            return Events(lambda event: parse(event.data))
        return JsonLines(parse)

    def too_long(self, response: httpx.Response, _: TooLong) -> InvalidResponse:
        """The error for an item that never ends."""
        return self.invalid(response, "an item of the stream is too long")

    def invalid(
        self, response: httpx.Response, text: str, problems: tuple[tuple[str, str], ...] = ()
    ) -> InvalidResponse:
        """The error for an answer that does not fit."""
        message = f"{self._where}: the answer of {self._service} to {self._told} does not fit: {text}"
        return InvalidResponse(message, problems=problems, **self._of(response))

    def _of(self, response: httpx.Response) -> dict[str, Any]:
        return {
            **self._state,
            "status": response.status_code,
            "headers": response.headers,
            "record": record(response),
            "response": response,
        }

    # Values

    def _value(self, hint: Any, told: str) -> Parse:
        inner, _ = split(hint)
        if inner is httpx.Response:
            self._raw = True
            return _itself
        if get_origin(inner) is Response:
            within, _ = split(get_args(inner)[0])
            if within is httpx.Response or get_origin(within) is Response or item_type(within)[0]:
                raise TypeError(f"{told}: a Response has a value for its body")
            parse = self._value(get_args(inner)[0], told)
            return lambda response: Response(parse(response), response.status_code, response.headers, record(response))
        bare = get_origin(inner) or inner
        if bare in (Response, *_SYNC_STREAMS, *_ASYNC_STREAMS) and not get_args(inner):
            raise TypeError(f"{told}: say of what: {bare.__name__}[...]")
        plain = without_none(inner)
        if inner is None or inner is type(None):
            return _nothing
        if plain is bytes:
            return _content
        if plain is str:
            return _text
        adapter = adapter_of(hint, told)
        validate, optional = adapter.validate_json, is_optional(inner)

        def parse_json(response: httpx.Response) -> Any:
            content = response.content
            if optional and not content:
                return None
            try:
                return validate(content)
            except ValueError:
                pass
            return self._fit(response, adapter, content, "")

        return parse_json

    def fit(self, response: httpx.Response, adapter: TypeAdapter[Any]) -> Any:
        """An answer's body, read as a type.

        Raises:
            InvalidResponse: if it does not fit.
        """
        return self._fit(response, adapter, response.content, "")

    def _fit(self, response: httpx.Response, adapter: TypeAdapter[Any], data: str | bytes, told: str) -> Any:
        from pydantic import ValidationError

        try:
            return adapter.validate_json(data)
        except ValidationError as error:
            problems = _problems(error, told)
        except ValueError as error:  # of a validator of the caller's own, say; its text may hold values
            problems = (("", f"{told}{type(error).__name__}"),)
        content_type = response.headers.get("content-type", "")
        text = "; ".join(f"{path}: {what}" if path else what for path, what in problems)
        if "json" not in content_type and "event-stream" not in content_type:
            text += f" (its content-type is {content_type[:_MAX_TEXT]!r})"
        # Outside the handler, so that pydantic's error, which has the values, is not kept with it.
        raise self.invalid(response, text, problems)

    # Errors

    def _failure(self, meaning: Any, told: str) -> Parse:
        if meaning is None:
            return _nothing
        raised, body = StatusError, meaning
        if inspect.isclass(meaning) and issubclass(meaning, StatusError):
            raised, body = meaning, _body_of(meaning)
        parse = None if body is Any else self._value(body, told)

        def fail(response: httpx.Response) -> NoReturn:
            self._raise_status(response, raised, parse)

        return fail

    def _raise_status(
        self, response: httpx.Response, raised: type[StatusError[Any]] = StatusError, parse: Parse | None = None
    ) -> NoReturn:
        body, cause = None, None
        try:
            body = _undeclared(response) if parse is None else parse(response)
        except ResponseError as error:
            cause = error
        status = status_text(response.status_code)
        hint = ", which is not followed" if 300 <= response.status_code < 400 else ""
        text = f"{self._where}: {self._service} answered {status} to {self._told}{hint}"
        raise raised(text, body=body, **self._of(response)) from cause


def _itself(response: httpx.Response) -> httpx.Response:
    return response


def _nothing(response: httpx.Response) -> None:
    return None


def _content(response: httpx.Response) -> bytes:
    return response.content


def _text(response: httpx.Response) -> str:
    return response.text


def _undeclared(response: httpx.Response) -> Any:
    if "json" in response.headers.get("content-type", ""):
        try:
            return response.json()
        except (ValueError, RecursionError):
            pass
    return response.text


def _body_of(cls: type[StatusError[Any]]) -> Any:
    """The type of the body of an exception: what fills the variable of `StatusError`."""
    filled: Mapping[Any, Any] = {}
    for base in cls.__mro__:
        for alias in base.__dict__.get("__orig_bases__", ()):
            origin = get_origin(alias)
            if origin is StatusError:
                body = get_args(alias)[0]
                return filled.get(body, Any if body is B else body)
            if inspect.isclass(origin) and issubclass(origin, StatusError):
                values = [filled.get(value, value) for value in get_args(alias)]
                filled = {**filled, **dict(zip(getattr(origin, "__parameters__", ()), values, strict=False))}
    return Any


def adapter_of(hint: Any, told: str) -> TypeAdapter[Any]:
    """Pydantic's reader of a type.

    Raises:
        TypeError: if there is none.
    """
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(hint)
    except Exception as error:
        line = str(error).partition("\n")[0]
        raise TypeError(f"{told} has a type that pydantic cannot read: {line}") from None


def _problems(error: ValidationError, told: str) -> tuple[tuple[str, str], ...]:
    if error.error_count() > _MAX_LISTED:
        return (("", f"{told}{error.error_count()} values do not fit"),)
    found = []
    for each in _first(error):
        path = _shown(".".join(map(str, each["loc"])))
        found.append((f"{told}{path}".rstrip(": ") if told else path, each["msg"][:_MAX_TEXT]))
    more = error.error_count() - len(found)
    if more > 0:
        found.append(("", f"and {more} more"))
    return tuple(found)


def _shown(path: str) -> str:
    """A path for a line of a log: of maps it has keys, which the service may choose as it likes."""
    return "".join(char if char.isprintable() else "?" for char in path[:_MAX_TEXT])


def _first(error: ValidationError) -> Iterator[Mapping[str, Any]]:
    yield from error.errors(include_url=False, include_context=False, include_input=False)[:_MAX_PROBLEMS]
