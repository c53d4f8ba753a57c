"""Registration with a Consul agent, through `py-consul`.

The agent owns the entry: it runs the check, and carries the entry into the catalogue again after an outage of the
servers. What the agent does not survive is its own loss of data, so the entry is looked for about once a second, and
made again where it is missing. A process that is killed stays registered, with a critical check, until Consul removes
it; callers see it as unhealthy.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import random
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from meshlib.config.settings import ConsulSettings
from meshlib.discovery.consul_http import ConsulHttp
from meshlib.discovery.consul_payload import WEIGHT_KEY, whole_weight
from meshlib.discovery.probe import probe
from meshlib.discovery.source import Instance, Standing
from meshlib.discovery.threads import abandon, renew_in_child
from meshlib.errors import DiscoveryUnavailable, RegistrationFailed

if TYPE_CHECKING:
    import httpx

__all__ = ["ConsulAgent"]

_log = logging.getLogger("meshlib")

_LOOK_S = 1.0
_TIMEOUT_S = 5.0
_REMOVED_AFTER_S = 60
"""Consul's least: a process that stays critical for so long is taken out of the registry."""


class ConsulAgent:
    """The instances that this process has registered with one agent."""

    def __init__(self, settings: ConsulSettings, http: ConsulHttp) -> None:
        self._token = settings.token
        self._http = http
        self._kept: dict[str, _Kept] = {}
        renew_in_child(self)

    async def register(self, instance: Instance) -> None:
        """See `ConsulSource.register`."""
        await self._put(instance)
        if (old := self._kept.pop(instance.instance_id, None)) is not None:
            await old.end()
        kept = self._kept[instance.instance_id] = _Kept(instance)
        name = f"meshlib keep {instance.instance_id}"
        kept.task = asyncio.get_running_loop().create_task(self._keep(instance, kept), name=name)

    async def deregister(self, instance: Instance) -> None:
        """See `ConsulSource.deregister`."""
        if await self.hand_over(instance):
            await self.clear(instance)

    async def hand_over(self, instance: Instance) -> bool:
        """See `ConsulSource.hand_over`. Returns whether it was looked after here."""
        kept = self._kept.pop(instance.instance_id, None)
        if kept is not None:
            await kept.end()
        return kept is not None

    def standing(self, instance: Instance) -> Standing | None:
        """See `ConsulSource.standing`."""
        kept = self._kept.get(instance.instance_id)
        return None if kept is None else kept.standing

    async def clear(self, instance: Instance) -> None:
        """See `ConsulSource.clear`."""
        try:
            await asyncio.to_thread(self._call, lambda consul: consul.agent.service.deregister(instance.instance_id))
        except RegistrationFailed as error:
            text = "%s could not be removed from Consul, which will remove it %d s after its check fails: %s"
            _log.warning(text, instance.instance_id, _REMOVED_AFTER_S, error.message)

    async def own_host(self) -> str:
        """See `ConsulSource.own_host`."""
        address = self._http.address
        try:
            found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)
            towards = _source_address(found[0])
        except OSError as error:
            raise RegistrationFailed(f"the way to Consul at {address} is not known: {error}") from error
        if not ipaddress.ip_address(towards.partition("%")[0]).is_loopback:
            return towards
        # The agent is on this host, so what it tells others of itself holds for us.
        try:
            async with self._http.client() as client:
                reply = await self._http.get(client, "/v1/agent/self", {}, timeout_s=_TIMEOUT_S, needs="`agent:read`")
            return str(json.loads(reply.body)["Member"]["Addr"])
        except DiscoveryUnavailable as error:
            text = f"the address of this host cannot be asked of the agent ({error.message}); give `host`, or mend this"
            raise RegistrationFailed(text) from error
        except (ValueError, KeyError, TypeError) as error:
            text = "Consul does not tell the address of this host (no Member.Addr in its answer); give `host`"
            raise RegistrationFailed(text) from error

    async def aclose(self) -> None:
        """Remove all instances."""
        for kept in list(self._kept.values()):
            await self.deregister(kept.instance)

    async def _put(self, instance: Instance) -> None:
        # Consul holds a new check for critical until its first run; what is well already should not wait for that.
        problem = await probe(instance.host, instance.port, instance.check_path, timeout_s=1.0)
        entry = _entry(instance, "passing" if problem is None else "critical")
        await asyncio.to_thread(self._call, lambda consul: consul.agent.service.register(**entry), instance.service)

    async def _keep(self, instance: Instance, kept: _Kept) -> None:
        complaint = ""
        async with self._http.client() as client:
            while True:
                await asyncio.sleep(_LOOK_S * random.uniform(0.5, 1.0))
                try:
                    if await self._is_entered(client, instance):
                        complaint = ""
                        kept.standing.there()
                        continue
                    kept.standing.lost(f"the Consul agent at {self._http.address} does not know it any more")
                    async with kept.writing:
                        await self._put(instance)
                    kept.standing.there()
                except (DiscoveryUnavailable, RegistrationFailed) as error:
                    if error.message != complaint:
                        complaint = error.message
                        _log.warning("%s cannot be looked after in Consul: %s", instance.instance_id, complaint)

    async def _is_entered(self, client: httpx.AsyncClient, instance: Instance) -> bool:
        path = f"/v1/agent/service/{quote(instance.instance_id, safe='')}"
        needs = f"`service:read` for {instance.service!r}"
        reply = await self._http.get(client, path, {}, timeout_s=_TIMEOUT_S, needs=needs, service=instance.service)
        return reply.status == 200

    def _call(self, act: Any, service: str = "") -> None:
        """Do ``act(client)``. Blocks; runs in a thread of its own."""
        try:
            import consul
            import requests
        except ModuleNotFoundError as error:
            text = 'registration in Consul needs py-consul: pip install "meshlib-http[consul]"'
            raise RegistrationFailed(text, service=service, retryable=False) from error
        address = self._http.address
        where = f"Consul at {address}"
        # Every setting is explicit, and the token is set afterwards: py-consul prefers what it finds in the
        # environment, $CONSUL_HTTP_TOKEN even to a token that was given.
        client = consul.Consul(
            address.host if ":" not in address.host else f"[{address.host}]",
            address.port,
            scheme=address.scheme,
            verify=True,
            connections_timeout=_TIMEOUT_S,
        )
        client.token = self._token
        client.http.base_uri = str(address)
        client.http.session.trust_env = False
        try:
            act(client)
        except consul.ACLPermissionDenied as error:
            text = f"{where} refused: its token is unknown or lacks `service:write` ({self._scrub(error)})"
            raise RegistrationFailed(text, service=service, retryable=False) from error
        except (consul.ConsulException, requests.RequestException, OSError) as error:
            raise RegistrationFailed(f"{where}: {self._scrub(error)}", service=service) from error
        finally:
            client.http.session.close()

    def _scrub(self, error: Exception) -> str:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        return text.replace(self._token, "[token]") if self._token else text

    def _after_fork(self) -> None:
        abandon(*self._kept.values())
        self._kept = {}


class _Kept:
    """A registered instance, and the task that looks after it."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.standing = Standing()
        self.task: asyncio.Task[None] | None = None
        self.writing = asyncio.Lock()

    async def end(self) -> None:
        if self.task is not None:
            # Not in the middle of a registration: its thread would go on, and enter the instance once more.
            async with self.writing:
                self.task.cancel()
            await asyncio.wait([self.task])


def _entry(instance: Instance, status: str) -> dict[str, Any]:
    """Return the arguments of py-consul's ``agent.service.register``."""
    host = f"[{instance.host}]" if ":" in instance.host else instance.host
    interval_ms = round(max(1.0, instance.check_interval_s) * 1000)
    check = {
        "interval": f"{interval_ms}ms",
        "timeout": f"{min(interval_ms, 5000)}ms",
        "DeregisterCriticalServiceAfter": f"{_REMOVED_AFTER_S}s",
        "status": status,
    }
    if instance.check_path is not None:
        check["http"] = f"http://{host}:{instance.port}{instance.check_path}"
    else:
        check["tcp"] = f"{host}:{instance.port}"
    meta = dict(instance.metadata)
    weight = whole_weight(instance.weight)
    if weight != instance.weight:
        meta[WEIGHT_KEY] = repr(float(instance.weight))
    return {
        "name": instance.service,
        "service_id": instance.instance_id,
        "address": instance.host,
        "port": instance.port,
        "meta": meta,
        "weights": {"Passing": weight, "Warning": weight},
        "check": check,
        "replace_existing_checks": True,
    }


def _source_address(target: tuple[Any, ...]) -> str:
    """Return the address from which this host would send to `target`. Sends nothing."""
    family, _, _, _, address = target
    with socket.socket(family, socket.SOCK_DGRAM) as probe_socket:
        probe_socket.connect(address)
        return str(probe_socket.getsockname()[0])
