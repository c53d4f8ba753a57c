"""Traffic: the same request to both storefronts at the same moment, at a steady rate.

Requests start on schedule whatever became of those before them (an open loop), or a slow shop would be asked less, and
look better than it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import httpx

from meshlib.cli.demo.figures import SIDES, Attempt, Figures, Page, Side

__all__ = ["PAGES_PER_S", "Traffic"]

PAGES_PER_S = 15.0
"""To each storefront. Modest: a laptop or a small build machine has other things to do."""
_GIVE_UP_S = 5.0


class Traffic:
    """Requests to both storefronts.

    Args:
        storefronts: base URLs.
        figures: where to note what came of them.

    Attributes:
        phase: in which requests that start now are counted.
    """

    def __init__(self, storefronts: Mapping[Side, str], figures: Figures) -> None:
        self.phase = ""
        self._figures = figures
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        self._clients = {
            side: httpx.AsyncClient(base_url=url, limits=limits, timeout=_GIVE_UP_S, trust_env=False)
            for side, url in storefronts.items()
        }
        self._under_way: set[asyncio.Task[None]] = set()

    async def flow(self) -> None:
        """Send requests until cancelled."""
        interval_s = 1.0 / PAGES_PER_S
        next_at, number = time.monotonic(), 0
        while True:
            # In turns, so that neither side is always the one that waits for the other.
            for side in SIDES if number % 2 else reversed(SIDES):
                task = asyncio.create_task(self._request(side, number, self.phase))
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
            number += 1
            now = time.monotonic()
            # A busy machine may miss its time; making up for it at once would be a burst.
            next_at = max(next_at + interval_s, now)
            await asyncio.sleep(next_at - now)

    async def settle(self) -> None:
        """Wait for the requests that are under way."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_GIVE_UP_S + 1.0)

    async def deadlines(self) -> list[dict[str, Any]]:
        """How long each service was given, along the way of one request: what the storefront's mesh passes on."""
        answer = await self._clients["mesh"].get("/deadline")
        answer.raise_for_status()
        hops: list[dict[str, Any]] = answer.json()
        return hops

    async def aclose(self) -> None:
        for task in list(self._under_way):
            task.cancel()
        for client in self._clients.values():
            await client.aclose()

    async def _request(self, side: Side, number: int, phase: str) -> None:
        began = time.monotonic()
        try:
            answer = await self._clients[side].get(f"/pages/{number}")
            told = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            at = time.monotonic()
            text = f"no answer from the storefront: {type(error).__name__} {error}"
            self._figures.pages.append(Page(side, phase, at, (at - began) * 1000, False, text))
            return
        self._figures.pages.append(_page(side, phase, answer.is_success, told))


def _page(side: Side, phase: str, ok: bool, told: dict[str, Any]) -> Page:
    at = time.monotonic()
    if "calls" not in told:
        return Page(side, phase, at, 0.0, False, f"the storefront failed: {told}")
    calls = told["calls"]
    return Page(
        side,
        phase,
        at,
        told["ms"],
        ok,
        error="; ".join(f"{call['service']}: {call['error']}" for call in calls if call["error"]),
        calls=len(calls),
        attempts=tuple(
            Attempt(call["service"], attempt["endpoint"], at, attempt["ms"], attempt["ok"])
            for call in calls
            for attempt in call["attempts"]
        ),
    )
