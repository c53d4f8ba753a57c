"""Runs one call from a thread: carries out what the state machine asks for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, cast

from meshlib.adapters.exchange import Exchange
from meshlib.errors import MeshError
from meshlib.net.body import ReadyBody
from meshlib.net.wire import Progress, SyncWire, SyncWireResponse
from meshlib.policy.actions import Action, Cancel, Deliver, Fail, Reply, Start
from meshlib.policy.facts import Pause

if TYPE_CHECKING:
    from meshlib.adapters.sync_hedge import SteppedWire

__all__ = ["drive", "wait"]


def drive(exchange: Exchange, wire: SyncWire) -> tuple[SyncWireResponse, bytes | None]:
    """Run the call.

    Returns:
        The response to deliver; and its body, if the call is one that wants all of it, or if it came with the head.
        Without, the caller reads ``response.body`` and reports its end to the call.

    Raises:
        MeshError: why there is no response; its record is set.
    """
    if exchange.call.facts.again is not None:
        from meshlib.adapters import first_routes

        first_routes.sync_wait(exchange)
    call, clock = exchange.call, exchange.plane.clock
    if call.facts.hedging is not None and exchange.in_memory and hasattr(wire, "send_steps"):
        from meshlib.adapters import sync_hedge

        return sync_hedge.drive(exchange, cast("SteppedWire", wire))
    response: SyncWireResponse | None = None
    body: bytes | None = None
    actions: list[Action] = []
    action: Action | None = None
    try:
        actions = call.begin(clock.now())
        while True:
            start: Start | None = None
            for action in actions:
                if isinstance(action, Start):
                    start = action
                elif isinstance(action, Deliver):
                    assert response is not None
                    exchange.ended()
                    return response, body
                elif isinstance(action, Cancel):
                    if response is not None and response.content is None:
                        response.close()
                    response = None
                elif isinstance(action, Fail):
                    raise action.error
                elif isinstance(action, Reply):
                    from meshlib.adapters.local_reply import sync_reply

                    exchange.ended()
                    return sync_reply(action, call), action.body
            if start is None:
                actions = wait(exchange)
                continue
            target, request, limits, progress = exchange.started(start)
            try:
                response = wire.send(target, request, limits, progress)
            except MeshError as error:
                actions = exchange.failed(start, error, progress)
                continue
            except BaseException as error:
                exchange.cancelled(error, progress)
                raise
            actions, body = exchange.answered(start, response, progress), response.content
            if not actions:
                actions, body = _read(exchange, start, response, progress)
    except MeshError as error:
        call.cancelled(clock.now())  # where the call did not fail by itself: the mesh was closed while it waited
        if error.record is None:
            error.record = exchange.record()
        exchange.ended()
        actions, action = [], None  # an error that its own frames hold would hold the request and all callers
        raise
    except BaseException as error:
        # First what cannot fail; closing may be interrupted once more.
        exchange.cancelled(error)
        exchange.ended()
        if response is not None and response.content is None:
            response.close()
        raise


def _read(
    exchange: Exchange, start: Start, response: SyncWireResponse, progress: Progress
) -> tuple[list[Action], bytes | None]:
    """Read the whole body: only then has the attempt succeeded."""
    source = response.body
    try:
        body = source.take() if isinstance(source, ReadyBody) else b"".join(source)
    except MeshError as error:
        response.close()
        return exchange.failed(start, error, progress, "body"), None
    response.close()
    return exchange.call.body_end(exchange.plane.clock.now(), start.n), body


def wait(exchange: Exchange) -> list[Action]:
    """Wait until something is to be done, while nothing is under way."""
    call, clock = exchange.call, exchange.plane.clock
    token, wake_at = call.wait_on, call.next_wakeup
    delay_s = None if wake_at is None else max(0.0, wake_at - clock.now())
    if token is None or isinstance(token, Pause):
        assert delay_s is not None, "a call that waits for nothing would wait for ever"
        clock.sleep(delay_s)
        return call.timer(clock.now())
    ready = threading.Event()
    token.on_ready(ready.set)
    if ready.wait(delay_s) or wake_at is None:
        return call.woken(clock.now())
    # It was waited for in real time, whatever the clock says that a test has set.
    return call.timer(max(wake_at, clock.now()))
