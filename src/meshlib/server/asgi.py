"""The middleware for ASGI applications: FastAPI, Starlette, and any other.

It is plain ASGI, not one of Starlette's `BaseHTTPMiddleware`, which runs the application in a task of its own and ends
a response only when its background tasks have ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry import context as otel_context

from meshlib.errors import MeshError
from meshlib.propagation import INCOMING, Headers
from meshlib.server.intake import KEY, UNIX, HasSettings, IntakeCounts
from meshlib.server.refusal import EXPIRED, OVERLOADED, Refusal, asks_for_peace, refusal_for
from meshlib.server.serving import Served, serving_of

if TYPE_CHECKING:
    from meshlib.server.intake import Arrival
    from meshlib.server.load import LoadReporter

__all__ = ["ASGIApp", "MeshMiddleware", "Message", "Receive", "Scope", "Send"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_INCOMING = {name.encode(): name for name in INCOMING}
_OVERLOADED = (OVERLOADED[0].encode(), OVERLOADED[1].encode())


class MeshMiddleware:
    """Lets every meshed call inside a handler inherit what came with the request being served.

    From trusted peers it takes in deadline, criticality, baggage and trace; it answers 504 to a request whose deadline
    has passed, without calling the application; and it ends the deadline with the last byte of the response, so that a
    streamed body keeps it and a background task has none. An answer of 429 or from 500 to a request for which a meshed
    call failed by overload bears ``x-envoy-overloaded``, so that callers do not repeat it. Anything but HTTP passes
    through untouched.

    ``app.add_middleware(MeshMiddleware, mesh=mesh)``

    Args:
        app: the application.
        mesh: whose settings hold (`ServerSettings` and the mode, both as they are at each request); None for the
            defaults.
        map_errors: answer 504 or 503 for a deadline, an open breaker, no endpoint or a limit reached that the
            application lets pass, instead of 500.
        load: tells trusted peers how loaded this process is.

    Raises:
        ConfigError: if a trusted peer is not written as CIDR.
    """

    def __init__(
        self,
        app: ASGIApp,
        mesh: HasSettings | None = None,
        *,
        map_errors: bool = True,
        load: LoadReporter | None = None,
    ) -> None:
        self.app = app
        self._load = load
        self._serving = serving_of(mesh)
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
        arrival = self._serving.intake.take(peer_of(scope), _AsgiHeaders(scope["headers"]))
        if arrival is None:
            await self.app(scope, receive, send)
        elif arrival.expired:
            await _answer(send, scope, EXPIRED)
        else:
            await self._serve(arrival, scope, receive, send)

    async def _serve(self, arrival: Arrival, scope: Scope, receive: Receive, send: Send) -> None:
        if self._load is not None:
            send = self._load.watch_asgi(send, arrival.trusted)
        served = self._serving.begin(arrival)
        response = _Response(send, served)
        scope[KEY] = arrival
        attached = None if arrival.trace is None else otel_context.attach(arrival.trace)
        try:
            with arrival.scope():
                await self.app(scope, receive, response.send)
        except MeshError as error:
            if response.status or not self._map_errors:
                raise
            refusal = refusal_for(error, trusted=arrival.trusted)
            if refusal is None:
                raise
            await _answer(response.send, scope, refusal)
        finally:
            served.end()
            if attached is not None:
                otel_context.detach(attached)


class _Response:
    """Watches the messages of a response go by, and closes the request behind its last byte."""

    __slots__ = ("_send", "_served", "_trailers", "status")

    def __init__(self, send: Send, served: Served) -> None:
        self.status = 0
        self._send = send
        self._served = served
        self._trailers = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            request = self._served.arrival.request
            self._trailers = bool(message.get("trailers"))
            if request.overloaded and asks_for_peace(self.status, request):
                headers = [pair for pair in message.get("headers", ()) if pair[0].lower() != _OVERLOADED[0]]
                message = {**message, "headers": [*headers, _OVERLOADED]}
        await self._send(message)
        if kind == "http.response.trailers":
            last = not message.get("more_trailers")
        elif kind in _BODIES:
            last = not message.get("more_body") and not self._trailers
        else:
            last = False
        if last:
            self._served.end(self.status)


_BODIES = frozenset({"http.response.body", "http.response.zerocopysend", "http.response.pathsend"})


class _AsgiHeaders:
    __slots__ = ("_raw",)

    def __init__(self, raw: Iterable[Sequence[bytes]]) -> None:
        self._raw = raw if isinstance(raw, (list, tuple)) else list(raw)

    def known(self) -> Headers:
        found: dict[str, list[str]] = {}
        for name, value in self._raw:
            known = _INCOMING.get(name)
            if known is not None:
                found.setdefault(known, []).append(value.decode("latin-1"))
        return found

    def values(self, name: str) -> Sequence[str]:
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


async def _answer(send: Send, scope: Scope, refusal: Refusal) -> None:
    headers = [(name.encode(), value.encode()) for name, value in refusal.headers]
    await send({"type": "http.response.start", "status": refusal.status.value, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else refusal.body})
