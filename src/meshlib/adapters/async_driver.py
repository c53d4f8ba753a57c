"""Runs one call from an event loop: carries out what the state machine asks for."""

from __future__ import annotations

from contextlib import suppress

from meshlib.adapters.exchange import Exchange
from meshlib.errors import AttemptTimeout, MeshError
from meshlib.net.body import ReadyBody
from meshlib.net.wire import AsyncWire, AsyncWireResponse, Progress, Target, WireLimits, WireRequest
from meshlib.policy.actions import Action, Cancel, Deliver, Fail, Reply, Start
from meshlib.policy.facts import Pause

__all__ = ["drive", "wait"]


async def drive(exchange: Exchange, wire: AsyncWire) -> tuple[AsyncWireResponse, bytes | None]:
    """Run the call.

    Returns:
        The response to deliver; and its body, if the call is one that wants all of it, or if it came with the head.
        Without, the caller reads ``response.body`` and reports its end to the call.

    Raises:
        MeshError: why there is no response; its record is set.
    """
    if exchange.call.facts.again is not None:
        from meshlib.adapters import first_routes

        await first_routes.async_wait(exchange)
    call, clock = exchange.call, exchange.plane.clock
    if call.facts.hedging is not None and exchange.in_memory:
        from meshlib.adapters import async_hedge

        return await async_hedge.drive(exchange, wire)
    response: AsyncWireResponse | None = None
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
                        await response.aclose()
                    response = None
                elif isinstance(action, Fail):
                    raise action.error
                elif isinstance(action, Reply):
                    from meshlib.adapters.local_reply import async_reply

                    exchange.ended()
                    return async_reply(action, call), action.body
            if start is None:
                actions = await wait(exchange)
                continue
            target, request, limits, progress = exchange.started(start)
            try:
                if isinstance(request.body, bytes) or limits.deadline is None:
                    response = await wire.send(target, request, limits, progress)
                else:
                    response = await _send_within(wire, target, request, limits, progress, clock.now())
            except MeshError as error:
                actions = exchange.failed(start, error, progress)
                continue
            except BaseException as error:
                exchange.cancelled(error, progress)
                raise
            actions, body = exchange.answered(start, response, progress), response.content
            if not actions:
                actions, body = await _read(exchange, start, response, progress)
    except MeshError as error:
        call.cancelled(clock.now())  # where the call did not fail by itself: the mesh was closed while it waited
        if error.record is None:
            error.record = exchange.record()
        exchange.ended()
        actions, action = [], None  # an error that its own frames hold would hold the request and all callers
        raise
    except BaseException as error:
        # First the counts, which nothing can interrupt; closing may be cancelled once more.
        exchange.cancelled(error)
        exchange.ended()
        if response is not None and response.content is None:
            await response.aclose()
        raise


async def _send_within(
    wire: AsyncWire, target: Target, request: WireRequest, limits: WireLimits, progress: Progress, now: float
) -> AsyncWireResponse:
    """Send an attempt whose body the caller's own code produces: the deadline holds over that code too."""
    import asyncio

    assert limits.deadline is not None
    try:
        async with asyncio.timeout(limits.deadline - now):
            return await wire.send(target, request, limits, progress)
    except TimeoutError as error:
        if isinstance(error, MeshError):
            raise
        text = f"its body was not there within the attempt's {limits.deadline - now:.3g}s"
        raise AttemptTimeout(text, endpoint=target.endpoint.address, phase=progress.phase) from None


async def _read(
    exchange: Exchange, start: Start, response: AsyncWireResponse, progress: Progress
) -> tuple[list[Action], bytes | None]:
    """Read the whole body: only then has the attempt succeeded."""
    source = response.body
    try:
        body = source.take() if isinstance(source, ReadyBody) else b"".join([chunk async for chunk in source])
    except MeshError as error:
        await response.aclose()
        return exchange.failed(start, error, progress, "body"), None
    await response.aclose()
    return exchange.call.body_end(exchange.plane.clock.now(), start.n), body


async def wait(exchange: Exchange) -> list[Action]:
    """Wait until something is to be done, while nothing is under way."""
    import asyncio

    call, clock = exchange.call, exchange.plane.clock
    token, wake_at = call.wait_on, call.next_wakeup
    delay_s = None if wake_at is None else max(0.0, wake_at - clock.now())
    if token is None or isinstance(token, Pause):
        assert delay_s is not None, "a call that waits for nothing would wait for ever"
        await clock.asleep(delay_s)
        return call.timer(clock.now())
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    def wake_from_any_thread() -> None:
        with suppress(RuntimeError):  # the loop has ended, and this call with it
            loop.call_soon_threadsafe(wake)

    token.on_ready(wake_from_any_thread)
    try:
        async with asyncio.timeout(delay_s):
            await ready
    except TimeoutError:
        # It was waited for in real time, whatever the clock says that a test has set.
        return call.timer(clock.now() if wake_at is None else max(wake_at, clock.now()))
    return call.woken(clock.now())
