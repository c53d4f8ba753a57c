"""HTTP/2 as the client sees it, without I/O, on h2: many streams over one connection.

httpcore's HTTP/2 connection is not used: there the timeout of one stream ends all others, and a stream that is given up
is never reset, so that it stays open at the peer and its bytes are never acknowledged. A mesh gives up streams by
design.

`Http2` is the connection's state, `Stream` that of one request. What the peer sends goes in through `receive`, which
leaves in `touched` the streams that have something new; what has to be written comes out of `outgoing`. Not
thread-safe.
"""

from __future__ import annotations

import re
import struct
from collections import deque
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from meshlib.errors import RequestBodyError, WireError
from meshlib.net.connection import Head, Prefetched, body_broken, not_http, reset
from meshlib.net.framing import NotHttp
from meshlib.net.wire import Progress, WireRequest

__all__ = ["Http2", "Refused", "Stream"]

MAX_STREAMS = 100
STREAM_WINDOW = 1024 * 1024
"""What a peer may send on one stream before it is read."""
CONNECTION_WINDOW = 16 * 1024 * 1024
MAX_HEADER_BYTES = 64 * 1024
_GOAWAY = 0x7
_NOT_IN_HTTP2 = frozenset(
    (b"connection", b"host", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)

# h2 looks at what it is sent, and not at what it is given to send. A gateway that passes a request on as HTTP/1.1 would
# take a line break in any of these for the end of a header, and what follows for headers or requests of their own.
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TARGET = re.compile(rb"[\x21-\x7e\x80-\xff]+")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_NOT_IN_VALUES = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|\A[ \t]|[ \t]\Z")


class Refused(Exception):
    """The peer says that it has not looked at the request."""


class Stream:
    """One request and its response."""

    __slots__ = ("answered", "chunks", "ended", "error", "head", "id", "unsent", "waiter")

    def __init__(self, stream_id: int) -> None:
        self.id = stream_id
        self.head: Head | None = None
        self.chunks: deque[tuple[bytes, int]] = deque()
        """Bytes of the body, each with what it counts for flow control."""
        self.ended = False
        self.answered = False
        self.unsent: int | None = None
        """How much of the request's body is still to come; None if nothing was announced."""
        self.error: Exception | None = None
        self.waiter: Any = None
        """For the shell: who waits for this stream."""

    def failure(self, endpoint: str, progress: Progress) -> WireError:
        """The error for what ended the stream before its head."""
        progress.answered = self.answered
        refused = isinstance(self.error, Refused)
        if refused:
            progress.bytes_written = False
        if isinstance(self.error, NotHttp):
            return not_http(endpoint, self.error)
        return reset(endpoint, self.error, refused=refused)

    def prefetch(self, endpoint: str) -> Prefetched:
        """Whether all of the body is here; its bytes stay, as they must be acknowledged one by one."""
        error = body_broken(endpoint, self.error) if self.error and not self.chunks else None
        return Prefetched([], complete=self.ended and not self.chunks, error=error)


class Http2:
    """The state of one HTTP/2 connection."""

    def __init__(self, scheme: bytes) -> None:
        config = h2.config.H2Configuration(client_side=True, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._scheme = scheme
        self._frames = bytearray()
        self.streams: dict[int, Stream] = {}
        self.touched: list[Stream] = []
        self.settled = False
        """Whether the peer's settings have come, so that its limits are known."""
        self.error: Exception | None = None
        """Why it takes no further request."""

    @property
    def capacity(self) -> int:
        """How many streams the peer allows at once; 0 when it takes no more."""
        if self.error is not None:
            return 0
        return min(self._h2.remote_settings.max_concurrent_streams, MAX_STREAMS)

    def start(self) -> None:
        """Say hello."""
        # Replaced whole: what is set on the existing ones would not be announced, but believed once they are confirmed.
        codes = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=True,
            initial_values={
                codes.ENABLE_PUSH: 0,
                codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
                codes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(CONNECTION_WINDOW)

    def outgoing(self) -> bytes:
        """What has to be written now; each byte is given once."""
        return self._h2.data_to_send()

    # Requests

    def begin(self, request: WireRequest) -> Stream:
        """Open a stream with the request's head; the body goes by `send`.

        Raises:
            RequestBodyError: if the request is not valid.
            Refused: if the connection takes no more streams.
        """
        if self.error is not None:
            raise Refused(str(self.error))
        host = b""
        headers: list[tuple[bytes, bytes]] = []
        length: int | None = None
        _check(_METHOD.fullmatch(request.method), "illegal characters in the method")
        _check(_TARGET.fullmatch(request.target), "illegal characters in the target")
        _check(request.trailers is None, "trailers of requests are sent over HTTP/1.1 alone")
        for name, value in request.headers:
            lower = name.lower()
            _check(_NAME.fullmatch(lower), "illegal header name")
            _check(not _NOT_IN_VALUES.search(value), "illegal header value")
            if lower == b"host":
                host = value
                continue
            if lower == b"content-length":
                _check(value.isdigit() and length in (None, int(value)), "bad Content-Length")
                length = int(value)
            if lower not in _NOT_IN_HTTP2 and (lower != b"te" or value == b"trailers"):
                headers.append((lower, value))
        pseudo = [(b":method", request.method), (b":scheme", self._scheme), (b":authority", host)]
        pseudo.append((b":path", request.target))
        if length is not None and isinstance(request.body, bytes):
            _check(length == len(request.body), "Content-Length is not that of the body")
        try:
            stream_id = self._h2.get_next_available_stream_id()
            self._h2.send_headers(stream_id, pseudo + headers, end_stream=request.body == b"")
        except h2.exceptions.NoAvailableStreamIDError as error:
            self.error = error
            raise Refused("no stream numbers are left") from error
        except h2.exceptions.TooManyStreamsError as error:
            raise Refused("the peer allows no more streams") from error
        except h2.exceptions.ProtocolError as error:
            raise RequestBodyError(f"the request is not valid HTTP/2: {type(error).__name__}") from None
        stream = self.streams[stream_id] = Stream(stream_id)
        stream.unsent = length
        return stream

    def send(self, stream: Stream, data: memoryview) -> int:
        """Send as much of the body as the peer's window takes; how many bytes that was.

        Raises:
            RequestBodyError: if it is more than ``Content-Length`` says.
        """
        if self.error is not None and stream.error is not None:
            return 0
        _check(stream.unsent is None or len(data) <= stream.unsent, "more of a body than Content-Length says")
        size = min(len(data), self.room(stream))
        if size:
            self._h2.send_data(stream.id, bytes(data[:size]))
            if stream.unsent is not None:
                stream.unsent -= size
        return size

    def room(self, stream: Stream) -> int:
        """How much of a body `send` would take now."""
        return max(0, min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size))

    def end(self, stream: Stream) -> None:
        """End the request's body.

        Raises:
            RequestBodyError: if it was shorter than ``Content-Length`` says.
        """
        _check(not stream.unsent, "less of a body than Content-Length says")
        self._h2.end_stream(stream.id)

    # Responses

    def receive(self, data: bytes) -> None:
        """Take in what the peer sent; ``b""`` for its end."""
        if not data:
            self.fail(ConnectionError("the peer closed the connection"))
            return
        self._frames += data
        frames = self._frames
        passed = at = 0
        try:
            while len(frames) - at >= 9:
                size = 9 + int.from_bytes(frames[at : at + 3], "big")
                if size > 9 + self._h2.max_inbound_frame_size:
                    raise h2.exceptions.FrameTooLargeError("a frame is larger than allowed")
                if len(frames) - at < size:
                    break
                if frames[at + 3] == _GOAWAY:
                    # h2 would take it for the end of all streams, and fail those that the peer still serves.
                    self._pass(bytes(frames[passed:at]))
                    self._goaway(bytes(frames[at + 9 : at + size]))
                    passed = at + size
                at += size
            self._pass(bytes(frames[passed:at]))
        except (h2.exceptions.ProtocolError, struct.error) as error:
            self.fail(NotHttp(str(error) or type(error).__name__))
        del frames[:at]

    def consume(self, stream: Stream) -> bytes:
        """Take the next bytes of the body, and let the peer send as many more."""
        data, counted = stream.chunks.popleft()
        self._acknowledge(counted, stream.id)
        return data

    def drop(self, stream: Stream) -> None:
        """The exchange is over, complete or not."""
        if self.streams.pop(stream.id, None) is None:
            return
        while stream.chunks:
            self._acknowledge(stream.chunks.popleft()[1], stream.id)
        try:
            self._h2.reset_stream(stream.id, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError:
            pass  # both sides were done with it

    def fail(self, error: Exception) -> None:
        """The connection is broken: no stream will get any more."""
        self.error = self.error or error
        for stream in self.streams.values():
            self._fail_stream(stream, error)

    def goodbye(self) -> None:
        """Tell the peer that nothing more comes."""
        try:
            self._h2.close_connection()
        except h2.exceptions.ProtocolError:
            pass

    def _goaway(self, payload: bytes) -> None:
        last_id, code = struct.unpack(">LL", payload[:8])
        self.error = self.error or ConnectionError(f"the peer said goodbye (code {code})")
        for stream in self.streams.values():
            if stream.id > last_id & 0x7FFFFFFF:
                self._fail_stream(stream, Refused("the peer said goodbye before it looked at this request"))

    def _pass(self, data: bytes) -> None:
        if not data:
            return
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.RemoteSettingsChanged):
                self.settled = True
            elif isinstance(event, h2.events.WindowUpdated):
                if event.stream_id:
                    self._touch(self.streams.get(event.stream_id))
                else:
                    self.touched.extend(self.streams.values())
            elif isinstance(event, h2.events.DataReceived):
                self._data(event)
            elif isinstance(event, h2.events.ResponseReceived):
                self._response(event)
            elif isinstance(event, h2.events.InformationalResponseReceived):
                if event.stream_id in self.streams:
                    self.streams[event.stream_id].answered = True
            elif isinstance(event, h2.events.StreamEnded):
                stream = self.streams.get(event.stream_id)
                if stream is not None:
                    stream.ended = True
                    self._touch(stream)
            elif isinstance(event, h2.events.StreamReset) and event.stream_id in self.streams:
                refused = event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM
                why = f"the peer {'refused' if refused else 'reset'} the stream (code {int(event.error_code or 0)})"
                self._fail_stream(self.streams[event.stream_id], Refused(why) if refused else ConnectionError(why))

    def _response(self, event: h2.events.ResponseReceived) -> None:
        stream = self.streams.get(event.stream_id or 0)
        if stream is None:
            return
        status = 0
        headers: list[tuple[bytes, bytes]] = []
        for name, value in event.headers or ():
            if bytes(name) == b":status":
                status = int(value) if value.isdigit() else 0
            else:
                headers.append((bytes(name), bytes(value)))
        stream.answered = True
        if 200 <= status <= 999:
            stream.head = Head(status, headers, b"HTTP/2", b"")
            self._touch(stream)
        else:
            self._fail_stream(stream, NotHttp("the response has no valid status"))

    def _data(self, event: h2.events.DataReceived) -> None:
        stream = self.streams.get(event.stream_id or 0)
        counted = event.flow_controlled_length or 0
        if stream is None or not event.data:
            self._acknowledge(counted, event.stream_id or 0)
        else:
            stream.chunks.append((event.data, counted))
            self._touch(stream)

    def _acknowledge(self, counted: int, stream_id: int) -> None:
        try:
            self._h2.acknowledge_received_data(counted, stream_id)
        except (h2.exceptions.ProtocolError, KeyError, ValueError):
            pass  # the stream, or the connection, is over: nobody waits for it

    def _fail_stream(self, stream: Stream, error: Exception) -> None:
        if not stream.ended and stream.error is None:
            stream.error = error
            self._touch(stream)

    def _touch(self, stream: Stream | None) -> None:
        if stream is not None:
            self.touched.append(stream)


def _check(holds: object, otherwise: str) -> None:
    if not holds:
        raise RequestBodyError(f"the request is not valid HTTP/2: {otherwise}", retryable=False)
