"""Ending what nobody waits for: an async handler whose caller went away, or whose deadline passed.

The application runs in the task that the server gave it, and that task is cancelled as `asyncio.timeout` does it: once,
from a callback of the loop, and taken back (`Task.uncancel`) when the cancellation has come through. So the application
sees an ordinary `asyncio.CancelledError` and may clean up with further awaits, and a cancellation from elsewhere stays
one.

    reason      the caller is told                             then
    deadline    504 at once                                    the handler is cancelled; what it still sends is dropped
    disconnect  nothing                                        the handler is cancelled

A response that has begun is not ended by the deadline: for most callers that ends with the headers, and who does not
want the rest goes away.

What runs in a thread cannot be interrupted. A task that waits for a worker thread of anyio (a sync handler) is not
cancelled meanwhile: its place among the threads would be given away while the thread is still busy, and a service whose
handlers hang would end up with a thread for each request. The 504 goes out all the same, and calls through the mesh
that the thread begins from then on fail at once.

A quick handler costs no task and no timer of its own. Each loop has one `Lookout`, which looks at its requests every
`LOOK_S` while there are any, and has those that have been there for a while watched for a disconnect.

Whoever reads the request is not disturbed. Where the body has not been read, at most one message of it is taken, and
kept for the application; and where the application waits for the disconnect itself, it is told, and not cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from opentelemetry import trace

from meshlib import context
from meshlib.errors import MeshError
from meshlib.server.refusal import LATE

if TYPE_CHECKING:
    from meshlib.context import ServedRequest
    from meshlib.server.asgi import Message, Receive, Response, Scope

__all__ = ["ENDS", "LOOK_S", "SAFE_METHODS", "Cancellation", "Reason"]

Reason: TypeAlias = Literal["", "deadline", "disconnect"]

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Those that change nothing (RFC 9110, section 9.2.1), so that to end one half way changes nothing either."""

LOOK_S: Final = 0.02
"""A handler that ends in this time is never watched, one that takes twice as long is."""

ENDS: Final = "meshlib.ends"
"""Stands in the scope of a request whose handler a middleware further in ends, and knows better how."""

_CLIENT_CLOSED_REQUEST = 499
"""As nginx writes it: the caller went away. No caller sees it, but logs and middlewares further out do."""

_ANYIO_THREAD = "run_sync_in_worker_thread"
_DEEPEST = 200


class Cancellation:
    """Ends one call of an application, where nobody waits for it any more.

    Attributes:
        reason: why it was ended; empty as long as it was not.
        look: of the `Lookout`.
    """

    reason: Reason = ""
    look = 0
    # Those that a quick handler leaves as they are stand here, and cost it nothing.
    _ahead: deque[Message] | None = None
    _answering: asyncio.Task[None] | None = None
    _body_read = _cancelled = _gone = _old = False
    _disconnected: Message | None = None
    _listening: asyncio.Task[None] | None = None
    _news: asyncio.Event | None = None
    _receiving = 0
    _timer: asyncio.TimerHandle | None = None

    @classmethod
    def begin(cls, scope: Scope, receive: Receive, response: Response, request: ServedRequest) -> Cancellation | None:
        """Be ready to end what the current task is about to do; None where there is no task of asyncio."""
        try:
            lookout = Lookout.here()
        except RuntimeError:  # another kind of loop, as of trio
            return None
        task = asyncio.current_task(lookout.loop)
        return None if task is None else cls(lookout, task, scope, receive, response, request)

    def __init__(
        self,
        lookout: Lookout,
        task: asyncio.Task[Any],
        scope: Scope,
        receive: Receive,
        response: Response,
        request: ServedRequest,
    ) -> None:
        self._lookout = lookout
        self._task = task
        self._context = contextvars.copy_context()
        self._scope = scope
        self._receive = receive
        self._response = response
        self._request = request
        lookout.enter(self)
        if request.deadline is not None and (left_s := request.deadline - context.monotonic()) < 3 * LOOK_S:
            self._call_later(left_s, self._deadline_passed)

    # What the application receives

    async def receive(self) -> Message:
        """The next message, in the place of the server's own ``receive``."""
        while self._listening is not None and not self._ahead and self._disconnected is None:
            if self._news is None:
                self._news = asyncio.Event()
            self._receiving += 1
            try:
                await self._news.wait()
            finally:
                self._receiving -= 1
        if self._ahead:
            return self._ahead.popleft()
        if self._disconnected is not None:
            return self._disconnected
        self._receiving += 1
        try:
            message = await self._receive()
        finally:
            self._receiving -= 1
        self._heard(message)
        if self._old:
            self._listen()
        return message

    def _heard(self, message: Message) -> None:
        if message["type"] == "http.disconnect":
            self._disconnected = message
        elif not message.get("more_body"):
            self._body_read = True

    def _listen(self) -> None:
        """Watch for the disconnect from now on, unless somebody does, or a body comes first."""
        if (
            self._listening is None
            and not self._gone
            and not self._receiving
            and not self._ahead
            and self._disconnected is None
            and not self._response.complete
            # Asking for the body would have the server tell the caller to send it.
            and (self._body_read or not any(name == b"expect" for name, _ in self._scope["headers"]))
        ):
            listening = self._start(self._hear())
            self._listening = None if listening.done() else listening  # an eager task may have ended already

    async def _hear(self) -> None:
        try:
            while True:
                message = await self._receive()
                self._heard(message)
                if self._disconnected is None:
                    self._ahead = self._ahead or deque()
                    self._ahead.append(message)
                waiting = self._receiving
                if self._news is not None:
                    self._news.set()
                    self._news = None
                if self._disconnected is not None:
                    if not waiting:
                        self._cut("disconnect")
                    return
                if not self._body_read:
                    return
        except Exception:  # a server that does not want to be asked is not asked again
            self._gone = True
        finally:
            self._listening = None
            if self._news is not None:
                self._news.set()
                self._news = None

    # When it is over

    def has_taken_long(self) -> None:
        """It is worth watching."""
        self._old = True
        if self._response.complete or self._gone or self._request.cancelled:
            return
        if self._timer is None and self._request.deadline is not None and not self._response.status:
            self._call_later(self._request.deadline - context.monotonic(), self._deadline_passed)
        self._listen()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # As if the application had: instrumentations of the server's side look for the span of the request.
        return self._context.copy().run(self._lookout.loop.create_task, work)

    def _call_later(self, delay_s: float, function: Callable[[], None]) -> None:
        self._timer = self._lookout.loop.call_later(max(0.0, delay_s), function, context=_NOWHERE)

    def _deadline_passed(self) -> None:
        self._cut("deadline")

    def _cut(self, reason: Reason) -> None:
        response = self._response
        if self._gone or self._request.cancelled or response.complete:
            return
        if reason == "deadline" and response.status:
            return
        self.reason = response.cut = self._request.cancelled = reason
        if reason == "deadline":
            self._answering = self._start(response.answer(LATE, self._scope["method"]))
            self._answering.add_done_callback(_look_at)
        self._interrupt()

    def _interrupt(self) -> None:
        if self._gone or self._response.complete:
            return
        if ENDS in self._scope or _waits_for_thread(self._task):
            now = context.monotonic()
            if self._request.deadline is None or self._request.deadline > now:
                self._request.deadline = now
            self._call_later(LOOK_S, self._interrupt)
        elif not self._task.cancelling():  # else it ends anyway
            self._cancelled = True
            self._task.cancel()

    def leave(self) -> bool:
        """The application has returned, and cannot be interrupted any more. Once more does nothing.

        Returns:
            Whether nobody but this has cancelled the task.
        """
        if self._gone:
            return True
        self._gone = True
        self._lookout.leave(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._listening is not None:
            self._end(self._listening)
        return not self._cancelled or not self._task.uncancel()

    def _end(self, task: asyncio.Task[None]) -> None:
        if not self._lookout.loop.is_closed():  # this may be a request that the collector finds, behind all
            task.cancel()

    async def ended(self, error: BaseException | None = None) -> bool:
        """What becomes of the response behind the end of the application.

        Args:
            error: that it let pass.

        Returns:
            Whether all is done; otherwise `error` is to be dealt with as any other.
        """
        alone = self.leave()
        response = self._response
        if self.reason:
            trace.get_current_span().set_attribute("meshlib.cancelled", self.reason)
        if not self.reason or (error is not None and not self._leads_to(error, alone)):
            if self._answering is not None:
                try:
                    if isinstance(error, Exception):
                        await asyncio.wait([self._answering])
                finally:  # a server that wants to end does not wait for a caller that takes its time to read
                    self._end(self._answering)
            return False
        if self._answering is not None:
            await self._answering
        elif not response.status:
            await response.send({"type": "http.response.start", "status": _CLIENT_CLOSED_REQUEST, "headers": []})
            await response.send({"type": "http.response.body", "body": b""})
        return True

    def _leads_to(self, error: BaseException, alone: bool) -> bool:
        """Whether `error` comes of the end that was made."""
        if isinstance(error, asyncio.CancelledError):
            return self._cancelled and alone
        if isinstance(error, MeshError):
            return True
        cause: BaseException | None = error
        while cause is not None:  # a framework may have made an error of its own of it
            if cause is self._response.broken_off:
                return True
            cause = cause.__cause__ or cause.__context__
        return False


class Lookout:
    """Looks every `LOOK_S` at the requests that are served in one loop, as long as there are any."""

    __slots__ = ("_looking", "_looks", "_young", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._young: dict[Cancellation, None] = {}
        self._looks = 0
        self._looking = False

    @staticmethod
    def here() -> Lookout:
        """That of the running loop.

        Raises:
            RuntimeError: if none of asyncio is running.
        """
        loop = asyncio.get_running_loop()
        lookout: Lookout | None = getattr(_local, "lookout", None)
        if lookout is None or lookout.loop is not loop:
            lookout = _local.lookout = Lookout(loop)
        return lookout

    def enter(self, request: Cancellation) -> None:
        """Look after `request` from now on."""
        request.look = self._looks
        self._young[request] = None
        if not self._looking:
            self._looking = True
            self.loop.call_later(LOOK_S, self._look, context=_NOWHERE)

    def leave(self, request: Cancellation) -> None:
        """And no longer."""
        self._young.pop(request, None)

    def _look(self) -> None:
        taken_long = []
        for request in self._young:
            if request.look == self._looks:  # came since the last look, as did all that follow
                break
            taken_long.append(request)
        self._looks += 1
        for request in taken_long:
            del self._young[request]
            request.has_taken_long()
        self._looking = bool(self._young)
        if self._looking:
            self.loop.call_later(LOOK_S, self._look, context=_NOWHERE)


_local = threading.local()
_NOWHERE = contextvars.Context()


def _look_at(answering: asyncio.Task[None]) -> None:
    if not answering.cancelled():
        answering.exception()  # so that nobody reports that it was not; whoever waits for the answer has it, too


def _waits_for_thread(task: asyncio.Task[Any]) -> bool:
    """Whether `task` waits for a worker thread of anyio, as far as that can be seen from outside."""
    awaited: Any = task.get_coro()
    for _ in range(_DEEPEST):
        code = getattr(awaited, "cr_code", None)
        if code is None:
            return False
        if code.co_name == _ANYIO_THREAD:
            return True
        awaited = awaited.cr_await
    return False
