"""The middleware for WSGI applications: Flask, and any other.

A WSGI server reuses its worker thread for request after request, and runs part of the application after it has
returned: a response may be a generator. So the scope and the trace are set for each piece of a request (the call, each
chunk, the close) and taken away behind it: nothing can reach the thread's next request, nor, under gevent, another
greenlet, which has a context of its own.

The pieces do not run in a copy of the context, neat as that would be. What the application keeps in variables of its
own must go on as without the mesh: Flask's test client, for one, ends outside what a streamed view began inside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeAlias

from meshlib.errors import MeshError
from meshlib.propagation import INCOMING, Headers
from meshlib.server.intake import KEY, UNIX, HasSettings, IntakeCounts
from meshlib.server.interface import takes
from meshlib.server.pieces import in_pieces
from meshlib.server.refusal import Refusal, refusal_for
from meshlib.server.serving import serving_of
from meshlib.server.waiting import Waiting

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from meshlib.context import HeldScope
    from meshlib.server.load import LoadReporter
    from meshlib.server.pieces import Pieces, Untouched
    from meshlib.server.served import Served

__all__ = ["MeshMiddleware"]

Refuse: TypeAlias = Callable[[MeshError], "bytes | None"]

_KNOWN = {"HTTP_" + name.upper().replace("-", "_"): name for name in INCOMING}
_TRACE = {"traceparent": "HTTP_TRACEPARENT", "tracestate": "HTTP_TRACESTATE", "baggage": "HTTP_BAGGAGE"}
_NO_ADDRESS = frozenset({"", "<local>"})
"""How gunicorn and Werkzeug write the peer at a Unix socket."""


class MeshMiddleware:
    """Lets every meshed call inside a handler inherit what came with the request being served.

    What `meshlib.server.asgi.MeshMiddleware` does, for WSGI: ``app.wsgi_app = MeshMiddleware(app.wsgi_app, mesh)``.

    Args:
        app: the application.
        mesh: whose settings hold (`ServerSettings` and the mode, both as they are at each request); None for the
            defaults.
        map_errors: answer 504 or 503 for the error of a meshed call that the application lets pass: see
            `meshlib.server.refusal.refusal_for`.
        load: tells trusted peers how loaded this process is.

    Raises:
        ConfigError: if a trusted peer is not written as CIDR.
        TypeError: if `app` is no WSGI application, `mesh` no mesh, or `load` no reporter.
    """

    def __init__(
        self,
        app: WSGIApplication,
        mesh: HasSettings | None = None,
        *,
        map_errors: bool = True,
        load: LoadReporter | None = None,
    ) -> None:
        if iscoroutinefunction(app) or iscoroutinefunction(type(app).__call__):
            raise TypeError(f"{app!r} is an ASGI application: meshlib.server.asgi.MeshMiddleware is for those")
        if not takes(app, 2):
            raise TypeError(f"{app!r} is no WSGI application: there are meshlib.server.asgi and meshlib.server.django")
        self.app = app
        self._serving = serving_of(mesh)
        if load is not None:
            self._serving.report_by(load)
        self._map_errors = map_errors

    @property
    def counts(self) -> IntakeCounts:
        """What was not taken as it came."""
        return self._serving.intake.counts

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request, as PEP 3333 has it."""
        if KEY in environ:
            return self.app(environ, start_response)
        method, mount = environ.get("REQUEST_METHOD", ""), environ.get("SCRIPT_NAME", "")
        path, headers = mount + environ.get("PATH_INFO", ""), WsgiHeaders(environ)
        entered = self._serving.enter(peer_of(environ), headers, method, path, mount, environ)
        if isinstance(entered, Waiting):
            entered = entered.wait_blocking()
        if isinstance(entered, Refusal):
            return [_answer(start_response, environ, entered)]
        return self.app(environ, start_response) if entered is None else self._serve(entered, environ, start_response)

    def _serve(self, served: Served, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        arrival, maps_errors = served.arrival, self._map_errors and not served.observed
        if not served.observed:
            environ[KEY] = arrival
        pieces = in_pieces(arrival, observed=served.observed)
        answer = _Answer(start_response, served)

        def refuse(error: MeshError) -> bytes | None:
            refusal = refusal_for(error, trusted=arrival.trusted) if maps_errors else None
            return None if refusal is None else _answer(answer.start, environ, refusal, sys.exc_info())

        try:
            response = pieces.run(self.app, environ, answer.start)
            if not _runs_nothing(response, environ):
                return _Response(pieces, response, answer, refuse)
        except BaseException as error:
            answer.end(failed=True)
            body = pieces.run(refuse, error) if isinstance(error, MeshError) else None
            if body is None:
                raise
            return [body]
        # Given on as it is, since the server sees from it what it may do: a list has a length, a file may go out by
        # sendfile().
        answer.end()
        return response


class _Answer:
    """Watches ``start_response``: tells callers of overload, and remembers the status for the end of the request."""

    __slots__ = ("_served", "_start_response", "_status")

    def __init__(self, start_response: StartResponse, served: Served) -> None:
        self._start_response = start_response
        self._served = served
        self._status = 0

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        self._status = int(status[:3]) if status[:3].isdigit() else 0
        changes = self._served.answers(self._status, False)
        if changes is not None:
            loses, gets = changes
            headers = [pair for pair in headers if pair[0].lower().encode("latin-1", "replace") not in loses]
            headers += [(name.decode(), value.decode()) for name, value in gets]
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)

    def begins(self) -> None:
        self._served.begins()

    def end(self, *, failed: bool = False) -> None:
        self._served.end(0 if failed else self._status)

    def left(self) -> None:
        """The server takes no more: its client has gone, unless the end was before."""
        self._served.end(self._status, "disconnect")


class _Response:
    """Iterates the application's response piece by piece, and closes the request behind its end."""

    __slots__ = ("_answer", "_begun", "_chunks", "_close", "_pieces", "_refuse", "_response")

    def __init__(
        self, pieces: HeldScope | Pieces | Untouched, response: Iterable[bytes], answer: _Answer, refuse: Refuse
    ) -> None:
        self._answer = answer
        self._pieces = pieces
        self._close: Callable[[], object] | None = getattr(response, "close", None)
        self._refuse = refuse
        self._response = response
        self._begun = False
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def _first(self) -> bytes:
        self._chunks = iter(self._response)
        return next(self._chunks)

    def __next__(self) -> bytes:
        chunks = self._chunks
        try:
            chunk = self._pieces.run(self._first) if chunks is None else self._pieces.run(next, chunks)
        except StopIteration:
            self._answer.end()
            raise
        except MeshError as error:
            self._answer.end(failed=True)
            # Until there was a chunk, the server has sent nothing and takes another status.
            body = None if self._begun else self._pieces.run(self._refuse, error)
            if body is None:
                raise
            self._chunks, self._begun = iter(()), True
            return body
        except BaseException:
            self._answer.end(failed=True)
            raise
        if chunk and not self._begun:
            self._begun = True
            self._answer.begins()
        return chunk

    def close(self) -> None:
        # First the request: what an application does on closing comes behind its response, as a background task does.
        self._answer.left()
        if self._close is not None:
            self._pieces.run(self._close)

    def __del__(self) -> None:
        self._answer.left()  # a middleware further out may drop a response without closing it


class WsgiHeaders:
    """The headers of an environ."""

    __slots__ = ("_environ",)

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ

    def known(self) -> Headers:
        environ = self._environ
        return {_KNOWN[key]: (environ[key],) for key in _KNOWN.keys() & environ.keys()}

    def values(self, name: str) -> Sequence[str]:
        value = self._environ.get(_TRACE.get(name) or "HTTP_" + name.upper().replace("-", "_"))
        return () if value is None else (value,)

    def names(self) -> Sequence[str]:
        return [key[5:].replace("_", "-").lower() for key in self._environ if key.startswith("HTTP_")]


def peer_of(environ: WSGIEnvironment) -> str | None:
    """The address of the peer, `UNIX`, or None if not known."""
    address: Any = environ.get("REMOTE_ADDR")
    if address is None:
        return None
    return UNIX if address in _NO_ADDRESS else str(address)


def _runs_nothing(response: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """Whether iterating `response` runs no code of the application."""
    if type(response) in (list, tuple):
        return True
    wrapper: Any = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(response, wrapper)


def _answer(
    start_response: StartResponse, environ: WSGIEnvironment, refusal: Refusal, failed: OptExcInfo | None = None
) -> bytes:
    headers = list(refusal.headers)
    if failed is None:
        start_response(refusal.status_line, headers)
    else:
        # With the error, so that a status that the application has set already is replaced.
        start_response(refusal.status_line, headers, failed)
    return b"" if environ.get("REQUEST_METHOD") == "HEAD" else refusal.body
