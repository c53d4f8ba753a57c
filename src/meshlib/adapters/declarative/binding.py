"""Binding: a class of declared methods becomes an object that makes the calls.

All is decided here, and what is wrong is told here, with the class, the method and the parameter. A call then writes
its arguments into a request, has the mesh's own httpx client send it, and reads the answer.
"""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import FunctionType, new_class
from typing import TYPE_CHECKING, Any

import httpx

from meshlib.adapters.declarative.decoding import ServerSentEvent, TooLong
from meshlib.adapters.declarative.encoding import checked_header
from meshlib.adapters.declarative.hints import hints_of, of_generics
from meshlib.adapters.declarative.operation import OPERATION, PAGES, Operation
from meshlib.adapters.declarative.outgoing import Maker, Outgoing
from meshlib.adapters.declarative.pagination import shape_of
from meshlib.adapters.declarative.paging import Pager
from meshlib.adapters.declarative.reading import Answers, adapter_of, item_type
from meshlib.adapters.declarative.signature import read_signature
from meshlib.adapters.declarative.template import parse_template
from meshlib.dataclass import dataclass

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from meshlib.adapters.declarative.pagination import Pages

__all__ = ["Clients", "bind"]


class Clients:
    """What sends the requests of one bound object.

    Args:
        sync, asynchronous: make a client each, with httpx's options.
        service: for which.
        prefix: of all paths.
        options: of both.
    """

    def __init__(
        self,
        sync: Callable[..., httpx.Client],
        asynchronous: Callable[..., httpx.AsyncClient],
        service: str,
        prefix: str,
        options: Mapping[str, Any],
    ) -> None:
        template = parse_template(prefix or "/")
        if template.names or template.query:
            raise ValueError(f"prefix is {prefix!r}; it is to be a path without places for values and without a query")
        for name, value in (options.get("headers") or {}).items():
            checked_header(name, value)
        self.service = service
        self.prefix = prefix.rstrip("/")
        self.sync = sync(service, cookies=_no_cookies(), **options)
        self.asynchronous = asynchronous(service, cookies=_no_cookies(), **options)


def _no_cookies() -> CookieJar:
    """One object serves all users of a process: what one of them was given is not to be sent for another."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=()))


@dataclass(frozen=True, slots=True)
class _Declared:
    """A method, with all that its calls need."""

    method: str
    make: Maker
    answers: Answers
    items: Any
    adapter: TypeAdapter[Any] | None
    pages: Pages | None


def bind(shape: Any, clients: Clients) -> Any:
    """An object of a class whose declared methods make calls.

    Args:
        shape: the class; of a generic one, with what fills it: ``Crud[Order]``.
        clients: that send the requests.

    Raises:
        TypeError, ValueError: if a call cannot be made of a method; the message names class, method and parameter.
    """
    cls, filled = of_generics(shape)
    methods: dict[str, Any] = {}
    for name in dir(cls):
        attribute = inspect.getattr_static(cls, name)
        function = getattr(attribute, "__func__", getattr(attribute, "fget", attribute))
        where = f"{cls.__name__}.{name}"
        operation = getattr(function, OPERATION, None)
        if isinstance(operation, Operation):
            if not isinstance(attribute, FunctionType):
                raise TypeError(f"{where}: only a plain method can be a call, not a {type(attribute).__name__}")
            methods[name] = _method(attribute, operation, filled, where, clients)
        elif hasattr(function, PAGES):
            raise TypeError(f"{where} is paginated, but not declared: @get(...) is missing")
        elif isinstance(attribute, FunctionType) and not name.startswith("_") and _is_empty(attribute):
            raise TypeError(f"{where} is not declared: a decorator such as @get(...) is missing")
    if not methods:
        raise TypeError(f"{cls.__name__} declares no call: its methods have no decorator such as @get(...)")
    left = sorted(getattr(cls, "__abstractmethods__", frozenset()) - methods.keys())
    if left:
        raise TypeError(
            f"{cls.__name__}: {', '.join(left)}: abstract, and not declared by a decorator such as @get(...)"
        )
    text = f"<{cls.__name__} at http://{clients.service}{clients.prefix} [{_count(len(methods))}]>"
    body = {**methods, "__repr__": lambda self: text, "__module__": cls.__module__, "__doc__": cls.__doc__}
    made = new_class(cls.__name__, (cls,), exec_body=lambda namespace: namespace.update(body))
    return object.__new__(made)


def _count(number: int) -> str:
    return f"{number} call{'' if number == 1 else 's'}"


def _declared_only(self: Any) -> None: ...


async def _declared_only_async(self: Any) -> None: ...


def _steps(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    return [(step.opname, step.argval) for step in dis.get_instructions(function)]


_EMPTY = (_steps(_declared_only), _steps(_declared_only_async))
_EMPTY_BYTES = 64


def _is_empty(function: FunctionType) -> bool:
    """Whether a function does nothing: its body is ``...``."""
    return len(function.__code__.co_code) <= _EMPTY_BYTES and _steps(function) in _EMPTY


def _method(
    function: FunctionType, operation: Operation, filled: Mapping[Any, Any], where: str, clients: Clients
) -> Callable[..., Any]:
    hints = hints_of(function, filled, where)
    if "return" not in hints:
        raise TypeError(f"{where}: say what it returns; None, if that is nothing")
    returns, pages = hints["return"], getattr(function, PAGES, None)
    how, items = item_type(returns)
    awaited = inspect.iscoroutinefunction(inspect.unwrap(function))
    is_async = awaited or how == "async"
    if how == "sync" and awaited:
        raise TypeError(f"{where}: an async method returns an AsyncIterator, not an Iterator")
    if pages is not None and not how:
        raise TypeError(f"{where}: what is paginated returns an Iterator or an AsyncIterator of the items")
    if pages is not None and awaited:
        raise TypeError(f"{where}: what is paginated is written `def`, not `async def`: each page is waited for")
    signature = read_signature(function, hints, operation, where, is_async=is_async)
    if pages is not None and any(each.kind == "stream" for each in signature.of("body")):
        raise TypeError(f"{where}: the body of what is paginated is sent for each page, so it cannot be a stream")
    streams = bool(how) and pages is None
    make = Maker(where, operation, signature, clients.prefix, complete=not streams)
    route = clients.prefix + operation.template.route
    answers = Answers(where, clients.service, operation, route, None if how else returns)
    adapter = None
    if pages is not None:
        adapter = adapter_of(_page(pages, items, where), f"{where}: what it returns")
    elif how and items not in (bytes, str, ServerSentEvent):
        adapter = adapter_of(items, f"{where}: what it returns")
    declared = _Declared(operation.method, make, answers, items, adapter, pages)
    call = _call(declared, clients, how, awaited, is_async)
    functools.update_wrapper(call, function)
    call.__dict__.pop("__isabstractmethod__", None)
    return call


def _page(pages: Pages, items: Any, where: str) -> Any:
    try:
        return shape_of(pages, items)
    except TypeError as error:
        raise TypeError(f"{where}: @paginated: {error}") from None


def _call(declared: _Declared, clients: Clients, how: str, awaited: bool, is_async: bool) -> Callable[..., Any]:
    if declared.pages is not None:
        return _async_pages(declared, clients.asynchronous) if is_async else _sync_pages(declared, clients.sync)
    if how:
        if awaited:
            return _awaited_stream(declared, clients.asynchronous)
        return _async_stream(declared, clients.asynchronous) if is_async else _sync_stream(declared, clients.sync)
    return _async_value(declared, clients.asynchronous) if is_async else _sync_value(declared, clients.sync)


def _sync_value(declared: _Declared, client: httpx.Client) -> Callable[..., Any]:
    method, make, answers = declared.method, declared.make, declared.answers

    def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        outgoing = make(args, kwargs)
        return answers(client.request(method, outgoing.url, **outgoing.options))

    return call


def _async_value(declared: _Declared, client: httpx.AsyncClient) -> Callable[..., Any]:
    method, make, answers = declared.method, declared.make, declared.answers

    async def call(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        outgoing = make(args, kwargs)
        return answers(await client.request(method, outgoing.url, **outgoing.options))

    return call


def _sync_pages(declared: _Declared, client: httpx.Client) -> Callable[..., Any]:
    def items(outgoing: Outgoing, pager: Pager) -> Iterator[Any]:
        more = True
        while more:
            page, more = pager.take(client.request(declared.method, pager.url, **outgoing.options))
            yield from page

    def call(self: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        outgoing, pager = _first_page(declared, args, kwargs)
        return items(outgoing, pager)

    return call


def _async_pages(declared: _Declared, client: httpx.AsyncClient) -> Callable[..., Any]:
    async def items(outgoing: Outgoing, pager: Pager) -> AsyncIterator[Any]:
        more = True
        while more:
            page, more = pager.take(await client.request(declared.method, pager.url, **outgoing.options))
            for item in page:
                yield item

    def call(self: Any, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        outgoing, pager = _first_page(declared, args, kwargs)
        return items(outgoing, pager)

    return call


def _first_page(declared: _Declared, args: Any, kwargs: Any) -> tuple[Outgoing, Pager]:
    assert declared.pages is not None
    outgoing = declared.make(args, kwargs)
    return outgoing, Pager(declared.pages, outgoing, declared.answers, declared.adapter)


def _sync_stream(declared: _Declared, client: httpx.Client) -> Callable[..., Any]:
    answers = declared.answers

    def items(outgoing: Outgoing) -> Iterator[Any]:
        with client.stream(declared.method, outgoing.url, **outgoing.options) as response:
            if not response.is_success:
                response.read()
                answers.check(response)
                return
            decoder = answers.decoder(declared.items, declared.adapter, response)
            try:
                for chunk in response.iter_bytes():
                    yield from decoder.feed(chunk)
                yield from decoder.end()
            except TooLong as error:
                raise answers.too_long(response, error) from None

    def call(self: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return items(declared.make(args, kwargs))

    return call


async def _items(declared: _Declared, response: httpx.Response | None) -> AsyncGenerator[Any, None]:
    if response is None:
        return
    answers = declared.answers
    decoder = answers.decoder(declared.items, declared.adapter, response)
    try:
        async for chunk in response.aiter_bytes():
            for item in decoder.feed(chunk):
                yield item
        for item in decoder.end():
            yield item
    except TooLong as error:
        raise answers.too_long(response, error) from None
    finally:
        await response.aclose()


async def _opened(declared: _Declared, client: httpx.AsyncClient, outgoing: Outgoing) -> httpx.Response | None:
    """The answer to a streamed call, once its headers are there and say success; None for one that means nothing."""
    request = client.build_request(declared.method, outgoing.url, **outgoing.options)
    response = await client.send(request, stream=True)
    if not response.is_success:
        try:
            await response.aread()
        finally:
            await response.aclose()
        declared.answers.check(response)
        return None
    return response


def _async_stream(declared: _Declared, client: httpx.AsyncClient) -> Callable[..., Any]:
    async def items(outgoing: Outgoing) -> AsyncIterator[Any]:
        inner = _items(declared, await _opened(declared, client, outgoing))
        try:
            async for item in inner:
                yield item
        finally:
            await inner.aclose()

    def call(self: Any, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return items(declared.make(args, kwargs))

    return call


def _awaited_stream(declared: _Declared, client: httpx.AsyncClient) -> Callable[..., Any]:
    async def call(self: Any, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return _items(declared, await _opened(declared, client, declared.make(args, kwargs)))

    return call
