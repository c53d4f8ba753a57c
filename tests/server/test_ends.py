"""Requests that end in all ways at once, at random times: each is counted once, and nothing is left of any."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import anyio.to_thread
import pytest
from starlette.responses import PlainTextResponse, StreamingResponse

from meshlib.errors import DeadlineExceeded
from meshlib.propagation import DEADLINE_MS
from meshlib.server import cancellation
from meshlib.server.asgi import MeshMiddleware, Message, Receive, Scope, Send
from tests.server.standin import StandInMesh

pytestmark = pytest.mark.anyio

REQUESTS = 400
_MS = 1e-3


class Service:
    """An application that does something else each time."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rng, what = self.rng, self.rng.random()
        if what < 0.3:
            while (await receive()).get("more_body"):  # noqa: ASYNC110 - that is how a body is read
                await asyncio.sleep(rng.random() * 3 * _MS)
        if what < 0.1:
            raise KeyError("bug")
        if what < 0.2:
            pause_s = rng.random() * 10 * _MS
            await anyio.to_thread.run_sync(lambda: time.sleep(pause_s))
        elif what < 0.5:
            await StreamingResponse(self._chunks())(scope, receive, send)
            return
        try:
            await asyncio.sleep(rng.random() * 10 * _MS)
        except asyncio.CancelledError:
            if what < 0.9:
                await asyncio.sleep(_MS)
                raise
        await PlainTextResponse("done")(scope, receive, send)

    async def _chunks(self) -> AsyncIterator[bytes]:
        for _ in range(self.rng.randrange(8)):
            yield b"x"
            await asyncio.sleep(self.rng.random() * 4 * _MS)


async def one(middleware: MeshMiddleware, rng: Random) -> None:
    loop, gone, over = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    parts = [{"type": "http.request", "body": b"a", "more_body": n < 2} for n in range(3)]

    async def receive() -> Message:
        if parts:
            await asyncio.sleep(rng.random() * 2 * _MS)
            return parts.pop(0)
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        assert not over.is_set(), "nothing comes behind the end"
        if message["type"] == "http.response.body" and not message.get("more_body"):
            over.set()
        await asyncio.sleep(0)

    headers = [(DEADLINE_MS.encode(), str(rng.randrange(2, 15)).encode())] if rng.random() < 0.6 else []
    scope: dict[str, Any] = {"type": "http", "method": rng.choice(["GET", "POST"]), "path": "/", "headers": headers}
    scope |= {"client": ("127.0.0.1", 1), "asgi": {"spec_version": rng.choice(["2.3", "2.4"])}}
    task = asyncio.create_task(middleware(scope, receive, send))
    if rng.random() < 0.4:
        loop.call_later(rng.random() * 12 * _MS, gone.set)
    if rng.random() < 0.1:
        loop.call_later(rng.random() * 12 * _MS, task.cancel)
    with contextlib.suppress(asyncio.CancelledError, DeadlineExceeded, KeyError):
        await task
    assert task.cancelling() <= 1, "what the middleware began it has taken back"
    gone.set()


@pytest.mark.parametrize("seed", range(2))
async def test_whatever_happens_each_request_ends_once_and_leaves_nothing(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancellation, "LOOK_S", 2 * _MS)
    before, rng = asyncio.all_tasks(), Random(seed)
    middleware = MeshMiddleware(Service(rng), StandInMesh(cancel="all"))
    for _ in range(4):
        await asyncio.gather(*(one(middleware, rng) for _ in range(REQUESTS // 4)))
    for _ in range(10):  # what was cancelled comes to its end
        await asyncio.sleep(0)
    serving = middleware._serving
    assert serving.in_flight == 0
    assert sum(serving.outcomes.values()) == REQUESTS
    assert {"ok", "error", "cancelled"} <= set(serving.ended)
    assert asyncio.all_tasks() <= before
    assert not cancellation.Lookout.here()._young
    assert anyio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
