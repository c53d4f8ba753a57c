"""What the cases of `habits` work with: clients that have the async interface whether they are sync or async."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any


class Kit:
    """What a case works with.

    Attributes:
        httpx: httpx or httpx2.
        here: where the application is; ``there`` is the same under another host.
    """

    def __init__(self, httpx: Any, here: str, there: str, make: Callable[..., Any], *, sync: bool) -> None:
        self.httpx = httpx
        self.here = here
        self.there = there
        self.sync = sync
        self._make = make

    @contextlib.asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Any]:
        options.setdefault("base_url", self.here)
        made = self._make(**options)
        if self.sync:
            with made:
                yield Facade(self, made)
        else:
            async with made:
                yield made

    async def error(self, work: Callable[[], Awaitable[Any]]) -> list[str]:
        """How some work fails: which of the library's exceptions it is."""
        try:
            await work()
        except self.httpx.HTTPError as error:
            first = next(cls for cls in type(error).__mro__ if cls.__module__.partition(".")[0] == self.httpx.__name__)
            asked = getattr(error, "_request", None)
            return [first.__name__, "no request" if asked is None else f"{asked.method} {asked.url}"]
        return ["none"]

    async def each(self, iterator: Any) -> list[Any]:
        return [item async for item in iterator]

    def hook(self, function: Callable[[Any], None]) -> Any:
        if self.sync:
            return function

        async def hook(thing: Any) -> None:
            function(thing)

        return hook


class Facade:
    """A sync client, as an async one. Nothing in it waits, so that a coroutine of it runs to its end at one step."""

    def __init__(self, kit: Kit, client: Any) -> None:
        object.__setattr__(self, "kit", kit)
        object.__setattr__(self, "wrapped", client)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.wrapped, name, value)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.wrapped, name)
        if name in ("stream", "sse", "websocket"):

            @contextlib.asynccontextmanager
            async def within(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                with value(*args, **kwargs) as inside:
                    yield Read(inside)

            return within
        if name in ("request", "send", "get", "options", "head", "post", "put", "patch", "delete", "query"):

            async def call(*args: Any, **kwargs: Any) -> Any:
                return Read(value(*args, **kwargs))

            return call
        return value


class Read:
    """A response to a sync client, as one to an async one."""

    def __init__(self, response: Any) -> None:
        self.wrapped = response

    def __getattr__(self, name: str) -> Any:
        if name in ("aread", "aclose"):
            method = getattr(self.wrapped, name[1:])

            async def call() -> Any:
                return method()

            return call
        if name in ("aiter_bytes", "aiter_text", "aiter_lines", "aiter_raw"):
            iterate = getattr(self.wrapped, name[1:])

            async def items(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                for item in iterate(*args, **kwargs):
                    yield item

            return items
        return getattr(self.wrapped, name)


def run_sync(coroutine: Any) -> Any:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise AssertionError("a sync case waited")


def seen(response: Any) -> Any:
    """All that a response tells, but how long it took and when."""
    later = response.next_request
    return {
        "status": response.status_code,
        "reason": response.reason_phrase,
        "version": response.http_version,
        "url": str(response.url),
        "headers": [pair for pair in response.headers.multi_items() if pair[0] not in ("date", "server")],
        "body": response.content.decode("latin-1"),
        "text": response.text,
        "encoding": response.encoding,
        "history": [[each.status_code, str(each.url)] for each in response.history],
        "next": None if later is None else [later.method, str(later.url)],
        "downloaded": response.num_bytes_downloaded,
        "elapsed": response.elapsed.total_seconds() > 0,
        "states": [response.is_closed, response.is_stream_consumed, response.is_success, response.is_error],
        "cookies": sorted(response.cookies.items()),
        "request": [response.request.method, str(response.request.url), sorted(response.request.headers.multi_items())],
        "repr": repr(response if not isinstance(response, Read) else response.wrapped),
    }


def plain(value: Any) -> Any:
    """As it looks in JSON, so that what differs can be read."""
    return json.loads(json.dumps(value, default=str))
