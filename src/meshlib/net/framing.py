"""The seam between the bytes of HTTP/1.1 and the shells that move them: what a framing is, whatever parses for it.

There are two: `meshlib.net.http1` on httptools (llhttp), which is the default, and `meshlib.net.http1_h11` on h11,
which configuration can choose. Neither does I/O. One framing belongs to one connection and serves one exchange after
another:

    begin(request), then data(chunk)* and end() while `body_open`    gives the bytes to write
    receive(bytes)                                                   takes in what was read; b"" is its end
    head, chunks, trailers, complete, broken                         what that has led to
    finish()                                                         whether another exchange may follow

`receive` parses all that it is given at once and never raises, so a shell that is called by an event loop need not look
at its results before somebody waits for them. Whoever reads takes the bytes of the body out of `chunks`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from meshlib.net.connection import Head
from meshlib.net.http1_request import NO_BODY, BodyWriter, request_head
from meshlib.net.wire import Headers, WireRequest

__all__ = ["CONTINUE_WAIT_S", "MAX_HEAD_BYTES", "Framing", "NotHttp", "Truncated"]

MAX_HEAD_BYTES = 100 * 1024
"""Of a response's head and the informational ones before it, of its trailers, and of whatever else comes without a byte
of its body. Where a peer may go on for ever, a loop that reads as fast as it can has no time left for deadlines."""

CONTINUE_WAIT_S = 1.0
"""How long a request with ``Expect: 100-continue`` waits for an answer before it sends its body all the same, as RFC
9110, section 10.1.1, lets it: there are servers that do not know of it. curl waits as long."""


class NotHttp(Exception):
    """The peer broke the rules of HTTP; the text says which, and has little of what it sent."""


class Truncated(NotHttp):
    """The peer closed in the middle of a message."""


class Framing(ABC):
    """The state of one HTTP/1.1 connection. Requests are written here; whoever parses adds how responses are read.

    Attributes:
        body_open: whether `begin` left the body, or the rest of it, to `data` and `end`.
        awaits_continue: whether the body is to wait for `continued`, for `head`, or for `CONTINUE_WAIT_S`.
        continued: whether the peer has asked for the body with a 100.
        head: that of the final response, when it is there. Informational responses are passed over.
        chunks: the bytes of the body that nobody has taken yet.
        trailers: the fields after a chunked body; there when `complete` is.
        complete: whether all of the response is there.
        broken: why no more of it will come; `Truncated` if the peer closed too early.
        switched: whether the connection speaks another protocol from here on (status 101, or CONNECT).
        leftover: what came in that protocol.
        stained: whether the peer said more than it was asked: such a connection is not used again.
    """

    __slots__ = (
        "_barren",
        "_ended",
        "_request",
        "_writer",
        "awaits_continue",
        "body_open",
        "broken",
        "chunks",
        "complete",
        "continued",
        "head",
        "leftover",
        "stained",
        "switched",
        "trailers",
    )

    def __init__(self) -> None:
        self._ended = False
        """Whether the peer has closed."""
        self._writer: BodyWriter = NO_BODY
        self.stained = False
        self._reset(b"")
        self.complete = True  # nothing is asked yet, so whatever comes is too much

    def _reset(self, method: bytes) -> None:
        """Get ready for the response to a request with this method."""
        self._request = method
        self._barren = 0
        """Bytes that came since there was a byte of a body."""
        self.body_open = False
        self.awaits_continue = False
        self.continued = False
        self.head: Head | None = None
        self.chunks: list[bytes] = []
        self.trailers: Headers = []
        self.complete = False
        self.broken: NotHttp | None = None
        self.switched = False
        self.leftover = b""

    def begin(self, request: WireRequest) -> bytes:
        """The bytes of the head, and of the body if it is in memory, small, and need not wait.

        Raises:
            RequestBodyError: if the request is not valid HTTP/1.1; nothing was sent.
        """
        head, writer = request_head(request)
        self._reset(request.method)
        self._writer = writer
        if writer is NO_BODY:
            return head
        if writer.joins(request.body):
            return head + writer.whole(request.body)
        self.awaits_continue = writer.expects
        self.body_open = True
        return head

    def data(self, chunk: bytes) -> bytes:
        """The bytes for a piece of the body.

        Raises:
            RequestBodyError: if it is not bytes, or more than ``Content-Length`` says.
        """
        return self._writer.data(chunk)

    def end(self) -> bytes:
        """The bytes that end the body, trailers included.

        Raises:
            RequestBodyError: if it was shorter than ``Content-Length`` says.
        """
        ending = self._writer.end()
        self.body_open = False
        return ending

    @abstractmethod
    def receive(self, data: bytes | memoryview) -> None:
        """Take in what the peer sent; ``b""`` for its end. Does not raise: see `broken`.

        Nothing of `data` itself is kept: it may be a view of a buffer that is used again.
        """

    @abstractmethod
    def finish(self) -> bool:
        """Whether the exchange is over on both sides and the connection may take another one."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what it holds; it is of no more use."""
