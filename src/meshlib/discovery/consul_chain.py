"""Consul's discovery chains by blocking queries on ``/v1/discovery-chain/:name``: one for each service in use.

A chain is looked at before the endpoints of its service are told, so that no call goes by routes that are not those of
the chain. From then on each change is told at once, and while Consul is away the last one stands. What it means is not
decided here: `take` is told the chain as Consul has compiled it.

Consul wakes a query when an entry changes that has to do with the chain, or when the first such is written.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from meshlib.config.settings import ConsulSettings
from meshlib.discovery.consul_blocking import BlockingQuery
from meshlib.discovery.consul_http import ConsulHttp, Reply
from meshlib.discovery.resolver import Retry
from meshlib.errors import DiscoveryUnavailable

if TYPE_CHECKING:
    import httpx

__all__ = ["ChainWatch", "Slots", "TakeChain"]

TakeChain: TypeAlias = Callable[[str, Mapping[str, Any]], None]
"""Called on the control loop with a service and its chain."""

_POLL_S = 2.0
_log = logging.getLogger("meshlib")


class Slots:
    """How many blocking queries a process may have at a time."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.held = 0

    def take(self) -> bool:
        """Whether there is one more; it is held then."""
        taken = self.held < self.number
        self.held += taken
        return taken

    def give(self, taken: bool) -> None:
        """Give back what was taken, if it was."""
        self.held -= taken


class ChainWatch:
    """The watch of one service's chain.

    Args:
        service: whose.
        settings: of the agent.
        http: how to ask it.
        slots: of blocking queries.
        take: what is told of each change.
    """

    def __init__(self, service: str, settings: ConsulSettings, http: ConsulHttp, slots: Slots, take: TakeChain) -> None:
        self._service = service
        self._settings = settings
        self._http = http
        self._slots = slots
        self._take = take
        self._retry = Retry(settings.retry_base_s, settings.retry_max_s)

    async def begin(self) -> asyncio.Task[None]:
        """Learn the chain, and go on watching it in a task, which the caller ends.

        Raises:
            DiscoveryUnavailable: if Consul cannot be asked, refuses, or answers something else.
        """
        loop = asyncio.get_running_loop()
        known: asyncio.Future[None] = loop.create_future()
        task = loop.create_task(self._run(known), name=f"meshlib chain {self._service}")
        task.add_done_callback(lambda done: _pass_on(done, known))
        try:
            await known
        except BaseException:
            task.cancel()
            raise
        return task

    async def _run(self, known: asyncio.Future[None]) -> None:
        query = BlockingQuery(self._settings.wait_s)
        failures, complaint = 0, ""
        blocking = False
        rng = random.Random()
        async with self._http.client() as client:
            try:
                while True:
                    blocking = blocking or self._slots.take()
                    try:
                        reply = await self._ask(client, query, blocking)
                        self._understand(reply, query)
                    except DiscoveryUnavailable as error:
                        if not known.done():
                            raise
                        failures += 1
                        if error.message != complaint:
                            complaint = error.message
                            _log.warning("keeping the last discovery chain of %s: %s", self._service, complaint)
                        await asyncio.sleep(self._retry.delay_s(failures, rng))
                        continue
                    failures, complaint = 0, ""
                    if not known.done():
                        known.set_result(None)
                    if not blocking:
                        await asyncio.sleep(_POLL_S * rng.uniform(0.75, 1.25))
            finally:
                self._slots.give(blocking)

    async def _ask(self, client: httpx.AsyncClient, query: BlockingQuery, blocking: bool) -> Reply:
        ask = query.next(time.monotonic(), blocking=blocking)
        await asyncio.sleep(ask.delay_s)
        params = dict(ask.params)
        if self._settings.datacenter:
            params["dc"] = params["compile-dc"] = self._settings.datacenter
        return await self._http.get(
            client,
            f"/v1/discovery-chain/{quote(self._service, safe='')}",
            params,
            timeout_s=ask.timeout_s,
            needs=f"`service:read` for {self._service!r} and for the services that its chain leads to",
            service=self._service,
            keep_connection=blocking,
        )

    def _understand(self, reply: Reply, query: BlockingQuery) -> None:
        if reply.status != 200:
            raise self._http.malformed(f"status {reply.status}; Consul has discovery chains since 1.6", self._service)
        try:
            changed = query.answered(reply.headers.get("x-consul-index"), reply.body)
            answer = json.loads(reply.body) if changed else None
        except (ValueError, RecursionError) as error:
            raise self._http.malformed(error, self._service) from error
        if reply.headers.get("x-consul-knownleader") == "false":
            raise self._http.refused("it has no leader", self._service)
        if changed:
            chain = answer.get("Chain") if isinstance(answer, dict) else None
            if not isinstance(chain, dict):
                raise self._http.malformed("there is no Chain in it", self._service)
            try:
                self._take(self._service, chain)
            except Exception:
                _log.exception("the discovery chain of %s cannot be applied", self._service)


def _pass_on(task: asyncio.Task[None], known: asyncio.Future[None]) -> None:
    """Whoever waits for the first answer of a watch that has ended learns why."""
    error = None if task.cancelled() else task.exception()
    if known.done():
        if error is not None:
            _log.error("a discovery chain is no longer watched", exc_info=error)
    elif error is not None:
        known.set_exception(error)
    else:
        known.cancel()
