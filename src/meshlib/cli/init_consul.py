"""What Consul's catalog says of services."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from meshlib.cli.first_file import Found, FoundService, name_for
from meshlib.config.settings import ConsulSettings
from meshlib.discovery.consul_http import ConsulHttp

__all__ = ["found_in_consul"]

_TIMEOUT_S: Final = 10.0
_AT_ONCE: Final = 8
_MOST: Final = 1000


async def found_in_consul(
    settings: ConsulSettings, told: Callable[[int, int], None], *, by_variable: bool = False
) -> Found:
    """The services of a datacenter.

    Args:
        settings: where the agent is.
        told: called with how many services were looked at, and how many there are.
        by_variable: whether the token is that of ``$CONSUL_HTTP_TOKEN``, so that the file may name the variable.

    Raises:
        DiscoveryUnavailable: if the agent does not answer, or the token may not read.
    """
    http = ConsulHttp(settings)
    params = {"dc": settings.datacenter} if settings.datacenter else {}
    async with http.client() as client:
        reply = await http.get(client, "/v1/catalog/services", params, timeout_s=_TIMEOUT_S, needs="service:read")
        listed = _parsed(http, reply.body, dict)
        names = sorted(name for name in listed if name != "consul" and name_for(name) == name)
        left_out = len(listed) - len(names) - ("consul" in listed)
        gate, done = asyncio.Semaphore(_AT_ONCE), 0

        async def look(name: str) -> FoundService | None:
            nonlocal done
            async with gate:
                path = f"/v1/health/service/{name}"
                health = await http.get(client, path, params, timeout_s=_TIMEOUT_S, needs="service:read and node:read")
            done += 1
            told(done, min(len(names), _MOST))
            return _service(name, _parsed(http, health.body, list))

        services = [each for each in await asyncio.gather(*map(look, names[:_MOST])) if each is not None]
    notes = []
    if left_out:
        notes.append(f"{left_out} more in the catalog: their names are none that the mesh takes (lower case, '-', '.')")
    if len(names) > _MOST:
        notes.append(f"{len(names) - _MOST} more in the catalog")
    fields = {"address": str(http.address)}
    if by_variable:
        fields["token"] = "${CONSUL_HTTP_TOKEN}"
    if settings.datacenter:
        fields["datacenter"] = settings.datacenter
    return Found(f"Consul at {http.address}", services, ("consul", fields), tuple(notes))


def _parsed(http: ConsulHttp, body: bytes, kind: type) -> Any:
    try:
        found = json.loads(body)
    except ValueError as error:
        raise http.malformed(error, "") from None
    if not isinstance(found, kind):
        raise http.malformed(f"a {kind.__name__} is expected", "")
    return found


def _service(name: str, entries: list[Any]) -> FoundService | None:
    """None for what is no service to be called: proxies and gateways of Consul's own mesh."""
    instances = [entry for entry in entries if isinstance(entry, Mapping) and isinstance(entry.get("Service"), Mapping)]
    services = [entry["Service"] for entry in instances]
    if services and all(service.get("Kind") for service in services):
        return None
    passing = sum(
        all(check.get("Status") in ("passing", "warning") for check in entry.get("Checks") or ()) for entry in instances
    )
    tags = sorted({str(tag) for service in services for tag in service.get("Tags") or ()})
    told = f"{len(instances)} instance{'' if len(instances) == 1 else 's'}, {passing} healthy"
    versions = {str(meta["version"]) for service in services if "version" in (meta := service.get("Meta") or {})}
    comment = f"{told}; tags: {', '.join(tags)}" if tags else told
    return FoundService(name, (comment,), versions=tuple(sorted(each for each in versions if name_for(each))))
