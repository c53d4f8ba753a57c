"""Consul: endpoints by blocking queries on ``/v1/health/service/:name``, and registration with the agent.

Choices, and why:

- **All instances**, not ``?passing``: those with a critical check come as unhealthy, for the balancer's panic; those in
  maintenance do not come at all, as their operator wants.
- **The default consistency**, not ``?stale``: a blocking query reads once per change, so the leader has little to do;
  and a cluster without a leader shows as unwell (with the last good endpoints kept and their age counted) instead of as
  a fresh answer of unknown age.
- **A missing service** is an empty list in Consul, so it is `UNKNOWN` here. A service whose instances are all in
  maintenance is known, and empty.
- **Connections**: an agent takes 200 from one address (``http_max_conns_per_client``), and a blocking query holds one.
  So a process holds at most `BLOCKING_WATCHES`; further services are polled through the agent's cache (``?cached``),
  each look on a connection that is closed again.
- **Names** in the form of Consul's DNS, ``orders.service.dc2.consul``, are asked for as it means them.
- **Discovery chains** are followed where the settings say so: see `meshlib.discovery.consul_chain`.
- **Features** of newer servers are read where they are present in the answer and never asked for, because Consul
  ignores parameters that it does not know.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from meshlib.config.settings import ConsulSettings
from meshlib.discovery.consul_agent import ConsulAgent
from meshlib.discovery.consul_blocking import NON_BLOCKING_TIMEOUT_S, BlockingQuery
from meshlib.discovery.consul_chain import ChainWatch, Slots, TakeChain
from meshlib.discovery.consul_http import ConsulHttp, Reply
from meshlib.discovery.consul_names import ConsulName
from meshlib.discovery.consul_payload import Incarnations, endpoints_of
from meshlib.discovery.resolver import Retry
from meshlib.discovery.source import UNKNOWN, Answer, Instance, Standing
from meshlib.discovery.threads import renew_in_child

if TYPE_CHECKING:
    import httpx

__all__ = ["BLOCKING_WATCHES", "ConsulSource"]

BLOCKING_WATCHES = 20
"""Blocking queries of one process at a time: eight workers on one host stay within what an agent allows."""

_POLL_S = 2.0
_MAX_CACHE_AGE_S = 10
_NOTHING = (b"[]", b"null")
_ANY_HEALTH = frozenset({200, 404, 429, 503})


class ConsulSource:
    """A `Source` and a `Registrar` over a Consul agent.

    Attributes:
        retry: the back-off that the directory uses for it.

    Raises:
        ConfigError: if the address is no HTTP URL.
    """

    name = "consul"
    notice_s = 1.0

    def __init__(self, settings: ConsulSettings) -> None:
        self._settings = settings
        self._http = ConsulHttp(settings)
        self.place = str(self._http.address)
        self._agent = ConsulAgent(settings, self._http)
        self._slots = Slots(BLOCKING_WATCHES)
        self._take_chain: TakeChain | None = None
        self._sees_nodes = False
        self._incarnations: dict[str, Incarnations] = {}
        self.retry = Retry(settings.retry_base_s, settings.retry_max_s)
        renew_in_child(self)

    def __repr__(self) -> str:
        return f"<ConsulSource {self._http.address} [{self._slots.held} blocking queries]>"

    def follow_chains(self, take: TakeChain) -> None:
        """Tell `take` of the discovery chain of each service that is watched, if the settings say so."""
        if self._settings.chain:
            self._take_chain = take

    async def watch(self, service: str) -> AsyncGenerator[Answer, None]:
        """Yield the instances of `service` at each change that matters to a caller.

        Raises:
            DiscoveryUnavailable: if Consul cannot be asked, refuses, or answers something else.
        """
        incarnations = self._incarnations.setdefault(service, Incarnations())
        incarnations.interrupted()
        query = BlockingQuery(self._settings.wait_s)
        blocking = False
        last: Answer | None = None
        chain: asyncio.Task[None] | None = None
        async with self._http.client() as client:
            try:
                if self._take_chain is not None and not ConsulName.of(service).is_dns:
                    watch = ChainWatch(service, self._settings, self._http, self._slots, self._take_chain)
                    chain = await watch.begin()
                while True:
                    blocking = blocking or self._slots.take()
                    reply = await self._ask(client, service, query, blocking)
                    answer = self._understand(reply, service, query, incarnations)
                    if answer is not None and answer != last:
                        if answer is UNKNOWN:
                            await self._verify_permissions(client, service)
                        last = answer
                        yield answer
                    if not blocking:
                        await asyncio.sleep(_POLL_S * random.uniform(0.75, 1.25))
            finally:
                self._slots.give(blocking)
                if chain is not None:
                    chain.cancel()
                    await asyncio.gather(chain, return_exceptions=True)
                if incarnations.empty and self._incarnations.get(service) is incarnations:
                    del self._incarnations[service]  # there are names without end, and few that are services

    async def register(self, instance: Instance) -> None:
        """Register `instance` with the agent, and again whenever the agent has lost it.

        Raises:
            RegistrationFailed: if the agent does not take it, or `py-consul` is not installed.
        """
        await self._agent.register(instance)

    async def deregister(self, instance: Instance) -> None:
        """Remove `instance` from the agent."""
        await self._agent.deregister(instance)

    async def hand_over(self, instance: Instance) -> None:
        """Look after `instance` no more; the agent keeps it."""
        await self._agent.hand_over(instance)

    def standing(self, instance: Instance) -> Standing | None:
        """Whether the agent still knows `instance`, which is looked at about once a second."""
        return self._agent.standing(instance)

    async def clear(self, instance: Instance) -> None:
        """Remove `instance`, whoever registered it."""
        await self._agent.clear(instance)

    async def own_host(self) -> str:
        """Return the address under which others reach this host: the one that leads to the agent, or the agent's own.

        Raises:
            RegistrationFailed: if it cannot be told.
        """
        return await self._agent.own_host()

    async def aclose(self) -> None:
        """Remove what this process has registered."""
        await self._agent.aclose()

    async def _ask(self, client: httpx.AsyncClient, service: str, query: BlockingQuery, blocking: bool) -> Reply:
        ask = query.next(time.monotonic(), blocking=blocking)
        await asyncio.sleep(ask.delay_s)
        params, name = dict(ask.params), ConsulName.of(service)
        if datacenter := name.datacenter or self._settings.datacenter:
            params["dc"] = datacenter
        if tag := name.tag or self._settings.tag:
            params["tag"] = tag
        if not blocking:
            params["cached"] = ""
        return await self._http.get(
            client,
            f"/v1/health/service/{quote(name.service, safe='')}",
            params,
            timeout_s=ask.timeout_s,
            needs=_needs(name.service),
            service=service,
            keep_connection=blocking,
        )

    def _understand(
        self, reply: Reply, service: str, query: BlockingQuery, incarnations: Incarnations
    ) -> Answer | None:
        """Return what the reply says, or None if it is what the last one said."""
        if reply.status != 200:
            raise self._http.malformed(f"status {reply.status}; is this Consul?", service)
        restarts = query.restarts
        try:
            changed = query.answered(reply.headers.get("x-consul-index"), reply.body)
            if query.restarts != restarts:
                incarnations.interrupted()
            self._refuse_doubtful(reply, service)
            if not changed:
                return None
            endpoints = endpoints_of(reply.body, incarnations)
        except ValueError as error:
            raise self._http.malformed(error, service) from error
        return endpoints if reply.body.strip() not in _NOTHING else UNKNOWN

    async def _verify_permissions(self, client: httpx.AsyncClient, service: str) -> None:
        """Raise if an empty answer may be for want of permission.

        Consul answers one who may not see a service with an empty list, as if there were none, and only newer servers
        say so in a header. To take that for "unknown" would send calls out of the mesh; so the agent is asked something
        that it refuses openly.
        """
        name = ConsulName.of(service)
        if self._settings.datacenter or name.datacenter:
            return  # the agent could only speak for its own
        path = f"/v1/agent/health/service/name/{quote(name.service, safe='')}"
        needs = _needs(name.service)
        ask = partial(self._http.get, client, needs=needs, service=service, timeout_s=NON_BLOCKING_TIMEOUT_S)
        await ask(path, {}, accept=_ANY_HEALTH)
        if not self._sees_nodes:
            members = await ask("/v1/agent/members", {})
            if members.status == 200 and members.body.strip() in _NOTHING:
                raise self._http.refused(f"it shows no nodes: the token lacks {needs}", service)
            self._sees_nodes = True

    def _refuse_doubtful(self, reply: Reply, service: str) -> None:
        """Raise if the answer is one that Consul itself does not stand behind."""
        if reply.headers.get("x-consul-results-filtered-by-acls") == "true" and reply.body.strip() in _NOTHING:
            raise self._http.refused(f"it hides the instances: the token lacks {_needs(service)}", service)
        if reply.headers.get("x-consul-knownleader") == "false":
            raise self._http.refused("it has no leader", service)
        age = reply.headers.get("age", "0")
        if age.isdigit() and int(age) > _MAX_CACHE_AGE_S:
            raise self._http.refused(f"it has been cut off from its servers for {age} s", service)

    def _after_fork(self) -> None:
        self._slots = Slots(BLOCKING_WATCHES)
        self._incarnations = {}


def _needs(service: str) -> str:
    return f"`service:read` for {service!r} and `node:read` for its nodes"
