"""The seam between the mesh and the bytes: what a wire is given for one attempt, and what it gives back.

A wire sends one attempt of a call to one endpoint. It knows connections and pools, and nothing of services, retries or
balancing. There is a sync one and an async one, with the same meaning; anything of this shape can stand in for them
(`transport=` of `Mesh.client()`, ``wire: stock``, the test kit).

A wire raises only `meshlib.errors.WireError` and its kind, `meshlib.errors.RequestBodyError`, and whatever the body's
own iterator raised. Before it raises, `Progress` tells how far the attempt had come.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import PoolSettings, TlsSettings
from meshlib.dataclass import dataclass, field

if TYPE_CHECKING:
    from meshlib.net.connection_cap import ConnectionCap

__all__ = [
    "AsyncWire",
    "AsyncWireResponse",
    "Headers",
    "Phase",
    "Progress",
    "SyncWire",
    "SyncWireResponse",
    "Target",
    "WireLimits",
    "WireRequest",
]

_DEFAULT_POOL = PoolSettings()

Headers: TypeAlias = list[tuple[bytes, bytes]]
Phase: TypeAlias = str
"""How far an attempt is: ``pool`` (waits for a connection), ``connect``, ``tls``, ``write``, ``headers``, ``body``."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where attempts go, and what a pool of connections is kept under.

    Attributes:
        endpoint: the address to connect to.
        tls: how; None for plain HTTP.
        server_name: for SNI and certificate verification (the service's name, while connecting to an address).
        pool: the pool's limits.
        http2: negotiate HTTP/2 by ALPN (with TLS), or speak it with prior knowledge (without).
        cap: on the connections to all endpoints of the service together; None for none.
    """

    endpoint: Endpoint
    tls: TlsSettings | None = None
    server_name: str = ""
    pool: PoolSettings = _DEFAULT_POOL
    http2: bool = False
    cap: ConnectionCap | None = field(default=None, repr=False, compare=False)

    @property
    def key(self) -> tuple[Any, ...]:
        """Two targets share connections only if this is equal: same instance, same address, same TLS identity."""
        return (self.endpoint.key, self.tls, self.server_name, self.http2)


@dataclass(slots=True)
class WireRequest:
    """One request, ready to be written.

    Attributes:
        method, target: as in the request line.
        headers: complete, ``Host`` and framing (``Content-Length`` or ``Transfer-Encoding``) included.
        body: bytes, or an iterator of bytes; ``b""`` for none.
        resendable: whether sending it twice does no harm and its body can be produced again. A stale connection costs
            such a request nothing: it is sent once more, on a new connection. A body with an attribute ``replayable``
            is asked once more at that moment.
        trailers: fields to send after a chunked body (RFC 9110, section 6.5); None for none.
        url: as the caller wrote it, in the form of the client library; None where there is none. For stand-ins that go
            by it, and not by the endpoint.
    """

    method: bytes
    target: bytes
    headers: Headers
    body: Any = b""
    resendable: bool = False
    url: Any = None
    trailers: Headers | None = None


@dataclass(slots=True)
class WireLimits:
    """Until when, on the monotonic clock, and how long each operation may take, in seconds; None for no limit.

    Attributes:
        deadline: by which the response's headers must be there; holds over all phases up to them.
        connect_s: for TCP and TLS together; capped by the deadline, as all that follow.
        pool_s: for waiting for a free connection.
        write_s: for each write.
        read_s: for each read up to the headers.
        body_idle_s: for each read of the body.
        body_deadline: by which the body must be there; None if nobody set one.
    """

    deadline: float | None = None
    connect_s: float | None = 1.0
    pool_s: float | None = None
    write_s: float | None = None
    read_s: float | None = None
    body_idle_s: float | None = None
    body_deadline: float | None = None


@dataclass(slots=True)
class Progress:
    """How far an attempt has come; the wire writes it, the driver reads it when the attempt ends.

    Attributes:
        phase: what it is doing, or was doing when it ended.
        bytes_written: whether any byte of the request may have left this process. False too where the peer vouches that
            it did not look at the request (HTTP/2: refused, or past its goodbye), which is as safe.
        answered: whether any byte of a response has come.
        reused: whether the connection had served a request before.
        resent: whether it was sent once more because a kept connection proved stale.
        connect_s: time spent on connecting; 0 on a kept connection.
        http_version: that the response came in, ``HTTP/1.1``; empty before there is one. The driver sets it.
        handle: the driver's, for whoever observes the attempt; None if nobody does, or no longer.
    """

    phase: Phase = "pool"
    bytes_written: bool = False
    answered: bool = False
    reused: bool = False
    resent: bool = False
    connect_s: float = 0.0
    http_version: bytes = b""
    handle: object | None = None


@dataclass(slots=True)
class SyncWireResponse:
    """A response whose headers are there. `body` yields its bytes; `close` must be called, read to the end or not.

    Attributes:
        content: the whole body, if it came with the head; then nothing is held, and neither `body` nor `close` need be
            touched.
    """

    status: int
    headers: Headers
    body: Iterator[bytes]
    close: Any
    http_version: bytes = b"HTTP/1.1"
    reason: bytes = b""
    extensions: dict[str, Any] = field(default_factory=dict)
    content: bytes | None = None


@dataclass(slots=True)
class AsyncWireResponse:
    """A response whose headers are there. `body` yields its bytes; `aclose` must be awaited, read to the end or not.

    Attributes:
        content: the whole body, if it came with the head; then nothing is held, and neither `body` nor `aclose` need be
            touched.
    """

    status: int
    headers: Headers
    body: AsyncIterator[bytes]
    aclose: Any
    http_version: bytes = b"HTTP/1.1"
    reason: bytes = b""
    extensions: dict[str, Any] = field(default_factory=dict)
    content: bytes | None = None


class SyncWire(Protocol):
    """Sends attempts from threads. One object serves any number of them."""

    def send(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncWireResponse:
        """Send one attempt and return when the response's headers are there.

        Raises:
            WireError: if it failed on the way.
            RequestBodyError: if the request's own body could not be read.
        """
        ...


class AsyncWire(Protocol):
    """Sends attempts from event loops; connections belong to the loop that runs when they are made."""

    async def send(
        self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress
    ) -> AsyncWireResponse:
        """Send one attempt and return when the response's headers are there; may be cancelled at any point.

        Raises:
            WireError: if it failed on the way.
            RequestBodyError: if the request's own body could not be read.
        """
        ...
