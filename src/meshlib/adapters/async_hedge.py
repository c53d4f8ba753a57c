"""Runs one call that may be hedged from an event loop: a task for each of the attempts that are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from meshlib.adapters.async_driver import wait
from meshlib.adapters.clock import RealClock
from meshlib.adapters.exchange import Exchange
from meshlib.adapters.local_reply import async_reply
from meshlib.errors import MeshError
from meshlib.net.body import ReadyBody
from meshlib.net.wire import AsyncWire, AsyncWireResponse, Progress, Target, WireLimits, WireRequest
from meshlib.policy.actions import Action, Cancel, Deliver, Fail, Reply, Start

__all__ = ["drive"]


class _Attempt:
    """One under way: until its headers are there, and then, if the call wants it, until its body is."""

    __slots__ = ("body", "progress", "reading", "response", "start", "task")

    def __init__(self, start: Start, progress: Progress) -> None:
        self.start = start
        self.progress = progress
        self.task: asyncio.Task[None]
        self.response: AsyncWireResponse | None = None
        self.body: bytes | None = None
        self.reading = False

    async def send(self, wire: AsyncWire, target: Target, request: WireRequest, limits: WireLimits) -> None:
        """The first task. What it got is kept at once, so that nothing is lost if it is cancelled."""
        self.response = await wire.send(target, request, limits, self.progress)
        self.body = self.response.content

    async def read(self) -> None:
        """The second one."""
        assert self.response is not None
        source = self.response.body
        self.body = source.take() if isinstance(source, ReadyBody) else b"".join([chunk async for chunk in source])
        await self.response.aclose()

    async def close(self) -> None:
        """Let go of its response, if there is one."""
        if self.response is not None and self.response.content is None:
            await self.response.aclose()


async def drive(exchange: Exchange, wire: AsyncWire) -> tuple[AsyncWireResponse, bytes | None]:
    """Run the call; see `meshlib.adapters.async_driver.drive`.

    Raises:
        MeshError: why there is no response; its record is set.
    """
    race = _Race(exchange, wire)
    try:
        exchange.call.may_hedge()
        race.actions = exchange.call.begin(exchange.plane.clock.now())
        while True:
            ended = await race.carry_out()
            if ended is not None:
                exchange.ended()
                return ended
            await race.go_on()
    except MeshError as error:
        exchange.call.cancelled(exchange.plane.clock.now())
        if error.record is None:
            error.record = exchange.record()
        exchange.ended()
        raise
    except BaseException as error:
        # First the counts, which nothing can interrupt; what follows may be cancelled once more.
        exchange.abandoned(error, {n: attempt.progress for n, attempt in race.under_way.items()})
        exchange.ended()
        raise
    finally:
        await race.close()


class _Race:
    """The attempts of one call.

    Attributes:
        under_way: by their numbers.
        actions: what the state machine asks for. In no variable of a method: an error there would be held by the frames
            that it holds itself, and with it the request and all callers.
    """

    def __init__(self, exchange: Exchange, wire: AsyncWire) -> None:
        self.under_way: dict[int, _Attempt] = {}
        self.actions: list[Action] = []
        self._exchange = exchange
        self._wire = wire
        self._given_up: list[_Attempt] = []
        self._loop = asyncio.get_running_loop()
        self._news: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | asyncio.Task[None] | None = None
        self._wake_at: float | None = None

    async def carry_out(self) -> tuple[AsyncWireResponse, bytes | None] | None:
        """Do what the state machine asks for; the response and what there is of its body, if that is the end."""
        ended: tuple[AsyncWireResponse, bytes | None] | None = None
        actions, self.actions = self.actions, []
        for action in actions:
            if isinstance(action, Start):
                target, request, limits, progress = self._exchange.started(action)
                attempt = self.under_way[action.n] = _Attempt(action, progress)
                attempt.task = self._task(attempt.send(self._wire, target, request, limits))
            elif isinstance(action, Cancel):
                self._give_up(action.n)
            elif isinstance(action, Deliver):
                winner = self.under_way[action.n]
                assert winner.response is not None
                ended = winner.response, winner.body
            elif isinstance(action, Fail):
                error = action.error
                del action, actions
                try:
                    raise error
                finally:
                    del error
            elif isinstance(action, Reply):
                return async_reply(action, self._exchange.call), action.body
        if ended is None:
            await self._settle()
        else:
            # Until here the response is ours to close; after this nothing is awaited.
            await self._stop_timer()
            await self._settle()
            self.under_way.clear()
        return ended

    def _give_up(self, n: int) -> None:
        attempt = self.under_way.pop(n, None)
        if attempt is not None:
            attempt.task.cancel()
            self._given_up.append(attempt)
            self._exchange.given_up(n, attempt.progress)

    async def _settle(self) -> None:
        """Wait until those given up have let go of their connections, which they do without waiting."""
        while self._given_up:
            attempt = self._given_up[-1]
            await asyncio.gather(attempt.task, return_exceptions=True)
            await attempt.close()
            self._given_up.pop()
            del attempt.task  # what it raised holds the frame that holds the attempt

    async def go_on(self) -> None:
        """Let the attempts go on until the state machine asks for something."""
        call, clock = self._exchange.call, self._exchange.plane.clock
        while self.under_way:
            news = self._news = self._loop.create_future()  # before looking: what ends after that is told
            for n, attempt in list(self.under_way.items()):
                if attempt.task.done():
                    self._step(n, attempt)
                    if self.actions:
                        return
            wake_at = call.next_wakeup
            if wake_at is not None and wake_at <= clock.now():
                self.actions = call.timer(clock.now())
                if self.actions:
                    return
            if self._wake_at != wake_at:
                await self._stop_timer()
            if wake_at is not None and self._timer is None:
                self._start_timer(wake_at)
            await news
        self.actions = await wait(self._exchange)

    def _wake(self, ended: object = None) -> None:
        """A task has ended, or it is time: perhaps a little early, and then there is another timer."""
        if ended is self._timer or ended is None:
            self._timer = None
        news = self._news
        if news is not None and not news.done():
            news.set_result(None)

    def _start_timer(self, wake_at: float) -> None:
        clock = self._exchange.plane.clock
        delay_s, self._wake_at = max(0.0, wake_at - clock.now()), wake_at
        if isinstance(clock, RealClock):
            self._timer = self._loop.call_later(delay_s, self._wake)
        else:
            self._timer = self._task(clock.asleep(delay_s))

    async def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
            if isinstance(timer, asyncio.Task):
                await asyncio.gather(timer, return_exceptions=True)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        task.add_done_callback(self._wake)
        return task

    def _step(self, n: int, attempt: _Attempt) -> None:
        """A task of an attempt has ended."""
        exchange, response = self._exchange, attempt.response
        try:
            attempt.task.result()
        except MeshError as error:
            del self.under_way[n]
            self._given_up.append(attempt)
            self.actions = exchange.failed(attempt.start, error, attempt.progress, "body" if attempt.reading else "")
            return
        if attempt.reading:
            self.actions = exchange.call.body_end(exchange.plane.clock.now(), n)
            return
        assert response is not None
        self.actions = exchange.answered(attempt.start, response, attempt.progress)
        if not self.actions:
            attempt.reading, attempt.task = True, self._task(attempt.read())

    async def close(self) -> None:
        """Give up what is still under way."""
        for n in list(self.under_way):
            self._give_up(n)
        await self._settle()
        await self._stop_timer()
