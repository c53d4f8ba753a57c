"""The middleware for ASGI applications: FastAPI, Starlette, and any other.

It is plain ASGI, not one of Starlette's `BaseHTTPMiddleware`, which runs the application in a task of its own and ends
a response only when its background tasks have ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry import context as otel_context

from meshlib.context import reset_scope, set_scope
from meshlib.errors import DeadlineExceeded, MeshError
from meshlib.propagation import INCOMING, Headers
from meshlib.server.cancellation import Cancellation
from meshlib.server.closing import closing
from meshlib.server.departure import Departure
from meshlib.server.intake import KEY, UNIX, HasSettings, IntakeCounts
from meshlib.server.interface import takes
from meshlib.server.refusal import Refusal, refusal_for
from meshlib.server.served import Observed, Served
from meshlib.server.serving import serving_of
from meshlib.server.waiting import Waiting

if TYPE_CHECKING:
    from meshlib.server.cancellation import Reason
    from meshlib.server.intake import Arrival
    from meshlib.server.load import LoadReporter

__all__ = ["ASGIApp", "MeshMiddleware", "Message", "Receive", "Response", "Scope", "Send"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_TRACE = frozenset({"traceparent", "tracestate"})
_NAMES = frozenset({*INCOMING, *_TRACE})
_KNOWN = {name.encode(): name for name in _NAMES}


class MeshMiddleware:
    """Lets every meshed call inside a handler inherit what came with the request being served.

    From trusted peers it takes in deadline, criticality, baggage and trace; it answers 504 to a request whose deadline
    has passed, without calling the application; it cancels handlers that nobody waits for (`ServerSettings.cancel`);
    and it ends the deadline with the last byte of the response, so that a streamed body keeps it and a background task
    has none. An answer of 429 or from 500 to a request for which a meshed call failed by overload bears
    ``x-envoy-overloaded``, so that callers do not repeat it. Anything but HTTP passes through untouched.

    ``app.add_middleware(MeshMiddleware, mesh=mesh)``

    Args:
        app: the application.
        mesh: whose settings hold (`ServerSettings` and the mode, both as they are at each request); None for the
            defaults.
        map_errors: answer 504 or 503 for the error of a meshed call that the application lets pass, instead of 500: see
            `meshlib.server.refusal.refusal_for`.
        load: tells trusted peers how loaded this process is.

    Raises:
        ConfigError: if a trusted peer is not written as CIDR.
        TypeError: if `app` is no ASGI application, `mesh` no mesh, or `load` no reporter.
    """

    def __init__(
        self,
        app: ASGIApp,
        mesh: HasSettings | None = None,
        *,
        map_errors: bool = True,
        load: LoadReporter | None = None,
    ) -> None:
        if not takes(app, 3):
            raise TypeError(f"{app!r} is no ASGI application: there are meshlib.server.wsgi and meshlib.server.django")
        self.app = app
        self._serving = serving_of(mesh)
        if load is not None:
            self._serving.report_by(load)
        self._map_errors = map_errors

    @property
    def counts(self) -> IntakeCounts:
        """What was not taken as it came."""
        return self._serving.intake.counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection of `scope`, as ASGI has it."""
        if scope["type"] != "http" or KEY in scope:
            await self.app(scope, receive, send)
            return
        if self._serving.closing:
            send = closing(scope, send)
        headers, mount = _AsgiHeaders(scope["headers"]), scope.get("root_path", "")
        entered = self._serving.enter(peer_of(scope), headers, scope["method"], scope["path"], mount, scope)
        if isinstance(entered, Waiting):
            await self._wait(entered, scope, receive, send)
        elif entered is None:
            await self.app(scope, receive, send)
        elif isinstance(entered, Observed):
            await self._observe(entered, scope, receive, send)
        else:
            await self._go_on(entered, scope, receive, send)

    async def _wait(self, waiting: Waiting, scope: Scope, receive: Receive, send: Send) -> None:
        departure = Departure(scope, receive)
        try:
            entered = await waiting.wait(departure)
            await self._go_on(entered, scope, departure.receive if departure.begun else receive, send)
        finally:
            departure.close()

    async def _observe(self, observed: Observed, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave a request to the application, untouched."""
        if self._serving.cancels(scope["method"]):
            observed.cut_at = observed.arrival.request.deadline
        if observed.ticket is not None:
            send = observed.ticket.timed(send)
        response = Response(send, observed)
        try:
            await self.app(scope, receive, response.send)
        except BaseException as error:
            observed.end(0, "" if isinstance(error, Exception) else "server")
            raise
        observed.end(response.status, "disconnect" if response.status else "")

    async def _go_on(self, served: Served | Refusal, scope: Scope, receive: Receive, send: Send) -> None:
        if isinstance(served, Refusal):
            await _answer(send, scope["method"], served)
            return
        arrival = served.arrival
        if served.load is not None:
            served.load.seen_loop()
        if served.ticket is not None:
            send = served.ticket.timed(send)
        response = Response(send, served)
        cancellation = None
        if self._serving.cancels(scope["method"]):
            cancellation = Cancellation.begin(scope, receive, response, arrival.request)
            if cancellation is not None:
                receive = cancellation.receive
        scope[KEY] = arrival
        attached = None if arrival.trace is None else otel_context.attach(arrival.trace)
        token = set_scope(arrival.inherited())
        try:
            await self.app(scope, receive, response.send)
        except BaseException as error:
            if cancellation is None or not await cancellation.ended(error):
                refusal = self._refusal_for(error, arrival, response)
                if refusal is None:
                    served.end(0, "" if isinstance(error, Exception) else "server")
                    raise
                await _answer(response.send, scope["method"], refusal)
        else:
            if cancellation is not None and cancellation.reason:
                await cancellation.ended()
        finally:
            reset_scope(token)
            if cancellation is not None:
                cancellation.leave()
            if not response.complete:
                # Where the end of a response that had begun was not sent, its caller had gone.
                cut = response.cut or arrival.request.cancelled
                served.end(response.status, cut or ("disconnect" if response.status else ""))
            if attached is not None:
                otel_context.detach(attached)

    def _refusal_for(self, error: BaseException, arrival: Arrival, response: Response) -> Refusal | None:
        if response.status or not self._map_errors or not isinstance(error, MeshError):
            return None
        return refusal_for(error, trusted=arrival.trusted)


class Response:
    """Watches the messages of a response go by, and ends the request behind its last byte.

    Attributes:
        status: once the response has begun; 0 before.
        complete: whether the application has sent its last byte.
        cut: why nobody waits for it any more; empty while somebody does. To go on streaming is an error then.
    """

    __slots__ = ("_answered", "_broken_off", "_send", "_served", "_trailers", "complete", "cut", "status")

    def __init__(self, send: Send, served: Served) -> None:
        self.status = 0
        self.complete = False
        self.cut: Reason = ""
        self._answered = False
        self._broken_off: DeadlineExceeded | None = None
        self._send = send
        self._served = served
        self._trailers = False

    async def send(self, message: Message) -> None:
        """Pass on what the application sends.

        Raises:
            DeadlineExceeded: if more is to follow, and nobody waits for it.
        """
        kind = message["type"]
        last = False
        if kind == "http.response.start":
            if not self._answered:
                self.status = message["status"]
            self._trailers = bool(message.get("trailers"))
            changes = self._served.answers(self.status)
            if changes is not None:
                loses, gets = changes
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() not in loses]
                message = {**message, "headers": [*headers, *gets]}
        elif kind in _BODIES:
            more = message.get("more_body")
            if more and self.cut:
                raise self.broken_off
            last = not more and not self._trailers
        elif kind == "http.response.trailers":
            last = not message.get("more_trailers")
        if not self._answered:
            await self._send(message)
        if last:
            self.complete = True
            self._served.end(self.status, self.cut)
            if self.cut:
                self._served.arrival.request.cancelled = ""  # what the application does behind it is for nobody anyway

    @property
    def broken_off(self) -> DeadlineExceeded:
        """The error that ends a response that goes on for nobody."""
        if self._broken_off is None:
            self._broken_off = DeadlineExceeded(_WHY[self.cut], limit="deadline")
        return self._broken_off

    def answer(self, refusal: Refusal, method: str) -> Coroutine[Any, Any, None]:
        """Answer in the place of the application, whose own response is dropped from now on."""
        self._answered = True
        self.status = refusal.status.value
        load = self._served.load
        told = () if load is None else load.headers(self._served.arrival.asks)
        return _answer(self._send, method, refusal, told)


_WHY: dict[Reason, str] = {
    "deadline": "the deadline of the caller passed before the response began",
    "disconnect": "the caller went away before the response was complete",
}
_BODIES = frozenset({"http.response.body", "http.response.zerocopysend", "http.response.pathsend"})


class _AsgiHeaders:
    __slots__ = ("_found", "_raw", "_traced")

    def __init__(self, raw: Iterable[Sequence[bytes]]) -> None:
        self._raw = raw if isinstance(raw, (list, tuple)) else list(raw)
        self._found: dict[str, list[str]] | None = None

    def known(self) -> Headers:
        found: dict[str, list[str]] = {}
        traced: dict[str, list[str]] = {}
        for name, value in self._raw:
            known = _KNOWN.get(name)
            if known is not None:
                place = traced if known in _TRACE else found
                if known in place:
                    place[known].append(value.decode("latin-1"))
                else:
                    place[known] = [value.decode("latin-1")]
        self._found, self._traced = found, traced
        return found

    def values(self, name: str) -> Sequence[str]:
        if self._found is not None and name in _NAMES:
            return (self._traced if name in _TRACE else self._found).get(name, ())
        wanted = name.encode("latin-1", "replace")
        return [value.decode("latin-1") for key, value in self._raw if key == wanted]

    def names(self) -> Sequence[str]:
        return [name.decode("latin-1") for name, _ in self._raw]


def peer_of(scope: Scope) -> str | None:
    """The address of the peer, `UNIX`, or None if not known."""
    client = scope.get("client")
    if client:
        return str(client[0])
    server = scope.get("server")
    # ASGI writes the address of a Unix socket as its path and no port.
    return UNIX if server and server[1] is None else None


async def _answer(send: Send, method: str, refusal: Refusal, told: Iterable[tuple[bytes, bytes]] = ()) -> None:
    headers = [*((name.encode(), value.encode()) for name, value in refusal.headers), *told]
    await send({"type": "http.response.start", "status": refusal.status.value, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else refusal.body})
