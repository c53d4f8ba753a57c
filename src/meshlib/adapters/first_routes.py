"""The first calls to a service whose routes discovery tells: they wait until it has, and are made by these routes.

Where it tells nothing in time, a call goes by what is written, and waits for endpoints as any other.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from meshlib.config.views import EndpointsWaiter

if TYPE_CHECKING:
    from meshlib.adapters.exchange import Exchange

__all__ = ["async_wait", "sync_wait"]


def sync_wait(exchange: Exchange) -> None:
    """Wait, in a thread."""
    waiter, ready = _waiter(exchange), threading.Event()
    waiter.on_ready(ready.set)
    try:
        ready.wait(_left_s(exchange))
    finally:
        waiter.leave()
    _go_on(exchange)


async def async_wait(exchange: Exchange) -> None:
    """Wait, in an event loop."""
    import asyncio
    from contextlib import suppress

    loop, ready, waiter = asyncio.get_running_loop(), asyncio.Event(), _waiter(exchange)

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(ready.set)

    waiter.on_ready(wake)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_left_s(exchange)):
                await ready.wait()
    finally:
        waiter.leave()
    _go_on(exchange)


def _waiter(exchange: Exchange) -> EndpointsWaiter:
    return EndpointsWaiter(exchange.plane.snapshots, (exchange.call.facts.service,))


def _left_s(exchange: Exchange) -> float:
    policy, deadline = exchange.call.facts.policy, exchange.call.inherited
    now = exchange.plane.clock.now()
    limits = [policy.endpoint_wait_s, policy.timeout_s, None if deadline is None else deadline - now]
    return max(0.0, min(limit for limit in limits if limit is not None))


def _go_on(exchange: Exchange) -> None:
    again = exchange.call.facts.again
    call = None if again is None else again()
    if call is not None:
        exchange.anew(call)
