"""For Django, sync and async: ``MIDDLEWARE = ["meshlib.server.django.MeshMiddleware", ...]``, as the first.

The mesh is the one that ``settings.MESHLIB_MESH`` names: a `meshlib.Mesh`, a function that makes one, or the dotted
path of either; without it, ``meshlib.Mesh()``. `mesh` returns it to views.

Under ASGI, Django runs what is sync in threads, and under WSGI what is async in a loop of the thread. Both carry the
context (asgiref), there and back.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

try:
    from django.conf import settings
except ImportError as error:
    raise ImportError('this middleware needs Django: pip install "meshlib-http[django]"', name="django") from error
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import got_request_exception, setting_changed
from django.http import HttpResponse
from django.utils.module_loading import import_string

from meshlib import context
from meshlib.errors import MeshError
from meshlib.server import asgi, wsgi
from meshlib.server.cancellation import ENDS
from meshlib.server.closing import is_kept
from meshlib.server.intake import KEY
from meshlib.server.pieces import in_pieces
from meshlib.server.refusal import LATE, Refusal, refusal_for
from meshlib.server.serving import serving_of
from meshlib.server.waiting import Waiting

if TYPE_CHECKING:
    from meshlib.mesh import Mesh
    from meshlib.server.intake import Arrival
    from meshlib.server.served import Served

__all__ = ["MeshMiddleware", "mesh"]

_SETTING, _MAP_ERRORS = "MESHLIB_MESH", "MESHLIB_MAP_ERRORS"
_FAILED = "meshlib.failed"


@functools.cache
def mesh() -> Mesh:
    """The mesh of this Django project, made at the first call; views take their clients from it.

    Raises:
        ImproperlyConfigured: if what ``settings.MESHLIB_MESH`` names cannot be imported, or gives no mesh.
        ConfigError: if the configuration of the mesh is wrong.
    """
    given: Any = getattr(settings, _SETTING, "meshlib.Mesh")
    if isinstance(given, str):
        try:
            given = import_string(given)
        except ImportError as error:
            raise ImproperlyConfigured(f"{_SETTING} = {given!r}: {error}") from error
    made: Mesh = given() if callable(given) else given
    if not hasattr(made, "settings"):
        kind = type(made).__name__  # not what it holds: it may be a configuration, with what is secret
        raise ImproperlyConfigured(f"{_SETTING}: a Mesh is expected, or what makes one, not {kind}")
    return made


class MeshMiddleware:
    """Lets every meshed call inside a view inherit what came with the request being served.

    What `meshlib.server.asgi.MeshMiddleware` does. Around a project that has that one, or `meshlib.server.wsgi`'s,
    about its whole application it answers errors alone: those of the mesh that a view or another middleware lets pass,
    which Django would turn into 500 before they got so far. ``settings.MESHLIB_MAP_ERRORS = False`` leaves them alone.

    Raises:
        ConfigError: if the configuration of the mesh is wrong.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self.get_response = get_response
        self._serving = serving_of(mesh())
        self._map_errors = bool(getattr(settings, _MAP_ERRORS, True))
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Serve one request; in an async project, a coroutine that does."""
        if iscoroutinefunction(self):
            return self._close_behind(request) if self._serving.closing else self._serve_async(request)
        store = _store(request)
        if KEY in store:
            store[ENDS] = True
            return self._answer(request, self.get_response(request))
        entered = self._enter(request, store)
        if isinstance(entered, Waiting):
            entered = entered.wait_blocking()
        if isinstance(entered, Refusal):
            return _response_of(entered)
        if entered is None:
            return self.get_response(request)
        begun = _Begun(entered, store)
        try:
            response = begun.pieces.run(self.get_response, request)
        except BaseException:
            begun.served.end()
            raise
        return begun.end_with(request, self._answer(request, response))

    def _enter(self, request: Any, store: Any) -> Served | Refusal | Waiting | None:
        peer = wsgi.peer_of(store) if store is request.META else asgi.peer_of(store)
        path, mount = request.path, request.path.removesuffix(request.path_info)
        return self._serving.enter(peer, wsgi.WsgiHeaders(request.META), request.method, path, mount, store)

    async def _close_behind(self, request: Any) -> Any:
        response = await self._serve_async(request)
        scope = getattr(request, "scope", None)
        if scope is not None and is_kept(scope):
            response.headers["Connection"] = "close"
        return response

    async def _serve_async(self, request: Any) -> Any:
        store = _store(request)
        if KEY in store:
            store[ENDS] = True
            try:
                response = await self._in_time(request, store[KEY], self.get_response(request))
            except asyncio.CancelledError:
                self._left(request, store[KEY])
                raise
            return self._answer(request, response)
        entered = self._enter(request, store)
        if isinstance(entered, Waiting):
            entered = await entered.wait()
        if isinstance(entered, Refusal):
            return _response_of(entered)
        if entered is None:
            return await self.get_response(request)
        begun = _Begun(entered, store)
        work = begun.pieces.run_async(self.get_response, request)
        try:
            response = await (work if entered.observed else self._in_time(request, begun.arrival, work))
        except asyncio.CancelledError:
            begun.served.end(0, "disconnect")
            self._left(request, begun.arrival)
            raise
        except BaseException:
            begun.served.end()
            raise
        return begun.end_with(request, self._answer(request, response))

    async def _in_time(self, request: Any, arrival: Arrival, work: Awaitable[Any]) -> Any:
        """Await `work`; where handlers are cancelled, end it just before the deadline, and answer that.

        A view that is sync runs in a thread, which nothing can end. One that is async is ended here, in the task that
        Django gave it: to cancel Django's own, as a middleware about it would, leaves the view running. (So that one
        is told to leave it alone.)
        """
        deadline, task = arrival.request.deadline, asyncio.current_task()
        if deadline is None or task is None or not self._serving.cancels(request.method):
            return await work
        ended, cancelling = False, task.cancelling()

        def end() -> None:
            nonlocal ended
            match = request.resolver_match
            if match is not None and iscoroutinefunction(match.func):
                ended = task.cancel()

        left_s = deadline - context.monotonic() - self._serving.settings.server.min_remaining_s
        timer = asyncio.get_running_loop().call_later(max(0.0, left_s), end)
        try:
            response = await work
        except asyncio.CancelledError:
            if not ended or task.uncancel() > cancelling:
                raise
            arrival.late = True
            return _response_of(LATE)
        finally:
            timer.cancel()
        if ended:
            task.uncancel()
        return response

    def _left(self, request: Any, arrival: Arrival) -> None:
        """The client has gone, for which Django cancels its task; a sync view goes on in its thread."""
        if not self._serving.cancels(request.method):
            return
        match = request.resolver_match
        if match is not None and iscoroutinefunction(match.func):
            arrival.request.cancelled = "disconnect"
        else:
            arrival.request.abandon("disconnect", context.monotonic())

    def process_exception(self, request: Any, error: Exception) -> Any:
        """Answer an error of a view that neither it nor a middleware inside of this one took."""
        refusal = self._refusal_for(request, error)
        return None if refusal is None else _response_of(refusal)

    def _refusal_for(self, request: Any, error: BaseException) -> Refusal | None:
        arrival = _store(request).get(KEY)
        return refusal_for(error, trusted=arrival.trusted) if arrival is not None and self._map_errors else None

    def _answer(self, request: Any, response: Any) -> Any:
        """`response`, or what takes its place where Django made it of an error of the mesh."""
        error = _store(request).pop(_FAILED, None)
        if error is None or response.status_code != 500:
            return response
        refusal = self._refusal_for(request, error)
        return response if refusal is None else _response_of(refusal)


class _Begun:
    """One request in flight."""

    __slots__ = ("arrival", "pieces", "served")

    def __init__(self, served: Served, store: Any) -> None:
        self.arrival = served.arrival
        if not served.observed:
            store[KEY] = served.arrival
        self.pieces = in_pieces(served.arrival, observed=served.observed)
        self.served = served

    def end_with(self, request: Any, response: Any) -> Any:
        """Tell the caller of load and overload; and end, where nothing is left to run, or with the stream."""
        arrival = self.arrival
        if arrival.source is not None and request.resolver_match is not None:
            arrival.template = request.resolver_match.route
        # Under ASGI the headers go out before the first chunk is made, under WSGI with it.
        changes = self.served.answers(response.status_code, getattr(request, "scope", None) is not None)
        if changes is not None:
            for name in changes[0]:
                response.headers.pop(name.decode(), None)
            for name, value in changes[1]:
                response.headers[name.decode()] = value.decode()
        if not response.streaming or getattr(response, "file_to_stream", None) is not None:
            self.served.end(response.status_code)
        elif response.is_async:
            response.streaming_content = _AsyncStream(self, response)
        else:
            response.streaming_content = _Stream(self, response)
        return response


class _Ending:
    """What ends the request of a stream: its end, its failure, its being closed, or its being dropped by others."""

    def __init__(self, begun: _Begun, response: Any) -> None:
        self._begun = begun
        self._status: int = response.status_code
        self._chunks = response.streaming_content

    def begins(self) -> None:
        self._begun.served.begins()

    def ended(self) -> None:
        self._begun.served.end(self._status)

    def close(self) -> None:
        # Django calls it with the response's own `close`, behind that of the application's generator. Unless the end
        # was before, the server takes no more: its client has gone.
        self._begun.served.end(self._status, "disconnect")

    __del__ = close


class _Stream(_Ending):
    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            chunk: bytes = self._begun.pieces.run(next, self._chunks)
        except StopIteration:
            self.ended()
            raise
        except BaseException:
            self._begun.served.end()
            raise
        self.begins()
        return chunk


class _AsyncStream(_Ending):
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            chunk: bytes = await self._begun.pieces.run_async(anext, self._chunks)
        except StopAsyncIteration:
            self.ended()
            raise
        except BaseException:
            self._begun.served.end()
            raise
        return chunk


def _store(request: Any) -> Any:
    """Where the arrival of a request stands: its ASGI scope or its WSGI environ."""
    scope = getattr(request, "scope", None)
    return request.META if scope is None else scope


def _response_of(refusal: Refusal) -> Any:
    return HttpResponse(refusal.body, status=refusal.status.value, headers=dict(refusal.headers))


def _note_failure(*, request: Any = None, **_: object) -> None:
    # What a middleware lets pass reaches no `process_exception`, and nothing but this signal tells of it.
    error = sys.exc_info()[1]
    if isinstance(error, MeshError) and request is not None:
        _store(request)[_FAILED] = error


def _forget(*, setting: str, **_: object) -> None:
    if setting == _SETTING:
        mesh.cache_clear()


got_request_exception.connect(_note_failure, dispatch_uid="meshlib")
setting_changed.connect(_forget, dispatch_uid="meshlib")  # a test overrides it
