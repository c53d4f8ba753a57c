"""Runs one call that may be hedged from a thread: several attempts under way, and no thread for them.

Each attempt is carried out in steps (`meshlib.net.steps`). The caller's own thread waits for all of their sockets at
once, and for the time at which the state machine wants to be asked again.
"""

from __future__ import annotations

import time
from typing import Protocol

from meshlib.adapters.exchange import Exchange
from meshlib.adapters.local_reply import sync_reply
from meshlib.adapters.sync_driver import wait
from meshlib.errors import MeshError
from meshlib.net.body import ReadyBody, SyncBodyReader
from meshlib.net.steps import Bell, Steps, Wait, wait_for
from meshlib.net.wire import Progress, SyncWire, SyncWireResponse, Target, WireLimits, WireRequest
from meshlib.policy.actions import Action, Cancel, Deliver, Fail, Reply, Start

__all__ = ["SteppedWire", "drive"]


class SteppedWire(SyncWire, Protocol):
    """A wire that can carry out attempts in steps."""

    def send_steps(
        self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress, bell: Bell
    ) -> Steps[SyncWireResponse]:
        """`send`, in steps, for a request whose body is in memory."""
        ...


class _Attempt:
    """One under way: until its headers are there, and then, if the call wants it, until its body is."""

    __slots__ = ("body", "head", "progress", "reading", "response", "start", "wait")

    def __init__(self, start: Start, progress: Progress, head: Steps[SyncWireResponse]) -> None:
        self.start = start
        self.progress = progress
        self.head = head
        self.reading: Steps[bytes] | None = None
        self.response: SyncWireResponse | None = None
        self.body: bytes | None = None
        self.wait: Wait | None = None
        """What it waits for; None while it can go on."""

    def close(self) -> None:
        """Give it up."""
        self.head.close()
        if self.reading is not None:
            self.reading.close()
        if self.response is not None and self.response.content is None:
            self.response.close()


def drive(exchange: Exchange, wire: SteppedWire) -> tuple[SyncWireResponse, bytes | None]:
    """Run the call; see `meshlib.adapters.sync_driver.drive`.

    Raises:
        MeshError: why there is no response; its record is set.
    """
    race = _Race(exchange, wire)
    try:
        exchange.call.may_hedge()
        race.actions = exchange.call.begin(exchange.plane.clock.now())
        while True:
            ended = race.carry_out()
            if ended is not None:
                exchange.ended()
                return ended
            race.go_on()
    except MeshError as error:
        exchange.call.cancelled(exchange.plane.clock.now())
        if error.record is None:
            error.record = exchange.record()
        exchange.ended()
        raise
    except BaseException as error:
        exchange.abandoned(error, {n: attempt.progress for n, attempt in race.under_way.items()})
        exchange.ended()
        raise
    finally:
        race.close()


class _Race:
    """The attempts of one call.

    Attributes:
        under_way: by their numbers.
        actions: what the state machine asks for. In no variable of a method: an error there would be held by the frames
            that it holds itself, and with it the request and all callers.
    """

    def __init__(self, exchange: Exchange, wire: SteppedWire) -> None:
        self.under_way: dict[int, _Attempt] = {}
        self.actions: list[Action] = []
        self._exchange = exchange
        self._wire = wire
        self._bell = Bell()

    def carry_out(self) -> tuple[SyncWireResponse, bytes | None] | None:
        """Do what the state machine asks for; the response and what there is of its body, if that is the end."""
        actions, self.actions = self.actions, []
        for action in actions:
            if isinstance(action, Start):
                target, request, limits, progress = self._exchange.started(action)
                steps = self._wire.send_steps(target, request, limits, progress, self._bell)
                self.under_way[action.n] = _Attempt(action, progress, steps)
            elif isinstance(action, Cancel):
                attempt = self.under_way.pop(action.n, None)
                if attempt is not None:
                    attempt.close()
                    self._exchange.given_up(action.n, attempt.progress)
            elif isinstance(action, Deliver):
                winner = self.under_way.pop(action.n)
                assert winner.response is not None
                return winner.response, winner.body
            elif isinstance(action, Fail):
                error = action.error
                del action, actions
                try:
                    raise error
                finally:
                    del error
            elif isinstance(action, Reply):
                return sync_reply(action, self._exchange.call), action.body
        return None

    def go_on(self) -> None:
        """Let the attempts go on until the state machine asks for something."""
        call, clock = self._exchange.call, self._exchange.plane.clock
        while self.under_way:
            for n, attempt in list(self.under_way.items()):
                if attempt.wait is None:
                    self._step(n, attempt)
                    if self.actions:
                        return
            until, wake_at = None, call.next_wakeup
            if wake_at is not None:
                left_s = wake_at - clock.now()
                if left_s <= 0:
                    self.actions = call.timer(clock.now())
                    if self.actions:
                        return
                until = time.monotonic() + max(0.0, left_s)
            self._wait(until)
        self.actions = wait(self._exchange)

    def _wait(self, until: float | None) -> None:
        waits = [attempt.wait for attempt in self.under_way.values() if attempt.wait is not None]
        if len(waits) < len(self.under_way):
            until = time.monotonic()  # one can go on
        ready = wait_for(waits, until)
        if ready:
            self._bell.quiet()
        now = time.monotonic()
        for attempt in self.under_way.values():
            if (waits_for := attempt.wait) is None:
                continue
            if not ready.isdisjoint(waits_for.files) or (waits_for.until is not None and now >= waits_for.until):
                attempt.wait = None

    def _step(self, n: int, attempt: _Attempt) -> None:
        exchange, reading = self._exchange, attempt.reading
        try:
            attempt.wait = next(attempt.head if reading is None else reading)
        except StopIteration as end:
            if reading is None:
                self._answered(attempt, end.value)
            else:
                attempt.body = end.value
                self.actions = exchange.call.body_end(exchange.plane.clock.now(), n)
        except MeshError as error:
            del self.under_way[n]
            attempt.close()
            self.actions = exchange.failed(attempt.start, error, attempt.progress, "" if reading is None else "body")

    def _answered(self, attempt: _Attempt, response: SyncWireResponse) -> None:
        attempt.response, attempt.body = response, response.content
        self.actions = self._exchange.answered(attempt.start, response, attempt.progress)
        if not self.actions:
            attempt.reading = _read_steps(response, self._bell)

    def close(self) -> None:
        """Give up what is still under way."""
        for attempt in self.under_way.values():
            attempt.close()
        self._bell.close()


def _read_steps(response: SyncWireResponse, bell: Bell) -> Steps[bytes]:
    source = response.body
    if isinstance(source, ReadyBody):
        return source.take()
    assert isinstance(source, SyncBodyReader)
    return (yield from source.read_steps(bell))
