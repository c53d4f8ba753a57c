"""Which service a name in Linkerd's documents means."""

from __future__ import annotations

import re

from meshlib.config.dialects.draft import Draft, ServiceDraft
from meshlib.config.dialects.resources import Place

__all__ = ["backend_of", "drafts_of", "usual"]

_AUTHORITY = re.compile(r"(?P<host>.+?)(?::(?P<port>[0-9]{1,5}))?")


def backend_of(draft: Draft, authority: str, namespace: str, place: Place) -> str:
    """The name of the service that an authority means: a host, and a port or none."""
    found = _AUTHORITY.fullmatch(authority.strip())
    host, port = (found["host"], found["port"]) if found is not None else (authority, None)
    service = draft.port_service(host, namespace, int(port) if port else None, place)
    usual(service, place)
    return service.name


def drafts_of(draft: Draft, host: str, namespace: str, place: Place, port: int | None = None) -> list[ServiceDraft]:
    """The services that a Service is: one for each of its ports; of one port, if that is given."""
    entry = draft.inventory.services.get(draft.host_of(host, namespace))
    numbers: list[int | None] = [each.number for each in entry.ports] if entry is not None else []
    found = {each.name: each for each in (draft.port_service(host, namespace, n, place) for n in numbers)}
    if port is not None or not found:
        service = draft.port_service(host, namespace, port, place)
        found = {service.name: service}
    return list(found.values())


def usual(service: ServiceDraft, place: Place) -> None:
    """What Linkerd's proxies do where no document says anything."""
    service.put_usual("timeout", None, place)
    service.put_usual("per_try_timeout", None, place)
    service.put_usual("retry", {"max_retries": 0}, place)
    service.put_usual("load_balancing", {"policy": "peak_ewma", "panic_percent": 0}, place)
    service.put_usual("outlier_detection", False, place)
    service.put_usual("circuit_breaker", False, place)
