"""What the meshes of the shop say of themselves: their state and their events, from where they are to the demo."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

__all__ = ["Seen", "Watch"]


_DISCOVERY = frozenset({"discovery_ready", "discovery_stale", "discovery_unwell", "service_empty", "service_unknown"})


@dataclass(frozen=True, slots=True)
class Seen:
    """An event, and the instance whose mesh had it."""

    by: str
    kind: str
    text: str
    time: float

    @property
    def worth_a_line(self) -> bool:
        """Whether to show it: of what all of them find out about the registry, one is enough."""
        return self.by == "storefront" or self.kind not in _DISCOVERY


class Watch:
    """In the demo: asks the services again and again.

    Attributes:
        events: of all of them, as they came in.
        states: of each address, as the storefront's mesh sees it: ``healthy``, ``ejected``, ``circuit open``, ...
        zero: when watching began, in seconds since the epoch.
    """

    def __init__(self) -> None:
        self.events: list[Seen] = []
        self.states: dict[str, str] = {}
        self.zero = time.time()
        self._next: dict[str, int] = {}
        self._client = httpx.AsyncClient(timeout=1.0, trust_env=False)

    async def ask(self, meshes: Mapping[str, str]) -> None:
        """Ask once. `meshes` are base URLs by instance name; what does not answer is left for the next time."""
        await asyncio.gather(*(self._ask(name, url) for name, url in meshes.items()))

    async def _ask(self, name: str, url: str) -> None:
        since = self._next.get(url, 0)
        try:
            response = await self._client.get(f"{url}/mesh", params={"since": since})
        except httpx.HTTPError:
            return
        if response.is_error:
            return
        told = response.json()
        self._next[url] = told["next"]
        self.events += [Seen(name, event["kind"], event["text"], event["time"]) for event in told["events"]]
        if name == "storefront":
            self.states = _states(told["status"])

    async def aclose(self) -> None:
        await self._client.aclose()


def _states(status: Mapping[str, Any]) -> dict[str, str]:
    """The worst that any cluster says of each address."""
    states: dict[str, str] = {}
    for service in status["services"]:
        for cluster in service["clusters"]:
            circuit = cluster["breaker"].replace("_", " ")
            for endpoint in cluster["endpoints"]:
                state = endpoint["state"]
                if state == "healthy" and circuit in ("open", "half open"):
                    state = f"circuit {circuit}"
                if states.get(endpoint["address"], "healthy") == "healthy":
                    states[endpoint["address"]] = state
    return states
