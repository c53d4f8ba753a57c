"""Whether the client goes away while its request waits: an ASGI server says so to whoever receives from it.

The body comes the same way, and is the application's. At most one message of it is taken, and kept for the application;
then the body is let lie where it is, and nothing can be seen of the client. A request without a body is watched for as
long as it waits; one whose client wants to be told to send the body (``Expect: 100-continue``) is not, as the server
tells it once somebody receives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.server.asgi import Message, Receive, Scope

__all__ = ["Departure"]


class Departure:
    """Receives for one request that waits, and hands on what it received.

    Attributes:
        gone: whether the client has gone away.
    """

    __slots__ = ("_kept", "_pending", "_receive", "_scope", "gone")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.gone = False
        self._scope = scope
        self._receive = receive
        self._kept: deque[Message] = deque()
        self._pending: asyncio.Task[Message] | None = None

    @property
    def begun(self) -> bool:
        """Whether anything was received, so that the application is to receive from here."""
        return self._pending is not None or bool(self._kept)

    async def wait(self) -> None:
        """Return when there is nothing more to be seen: the client has gone, or it sends a body."""
        if any(name == b"expect" for name, _ in self._scope["headers"]):
            return
        while not self.gone:
            try:
                message = await self._next()
            except Exception:  # a server that does not want to be asked is not asked again
                self._pending = None
                return
            self._kept.append(message)
            if message["type"] == "http.disconnect":
                self.gone = True
            elif message.get("more_body"):
                return

    async def receive(self) -> Message:
        """For the application, in the place of the server's own."""
        if self._kept:
            # A client that has gone stays gone, however often one asks.
            return self._kept[0] if self.gone and len(self._kept) == 1 else self._kept.popleft()
        return await self._next() if self._pending is not None else await self._receive()

    async def _next(self) -> Message:
        # Shielded: whoever waits for a message may give up, and the message is for the next one then.
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._received())
        message = await asyncio.shield(self._pending)
        self._pending = None
        return message

    async def _received(self) -> Message:
        return await self._receive()

    def close(self) -> None:
        """The request is over."""
        pending = self._pending
        if pending is not None and not pending.cancel() and not pending.cancelled():
            pending.exception()  # which nobody asked for
