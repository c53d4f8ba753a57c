"""What the environment says of services: ``ORDERS_URL``, and ``ORDERS_SERVICE_HOST`` with ``ORDERS_SERVICE_PORT``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from urllib.parse import SplitResult, urlsplit

from meshlib.cli.first_file import Found, FoundService, name_for

__all__ = ["found_in_environment"]

_URL = re.compile(r"([A-Z][A-Z0-9_]*?)(?:_SERVICE|_BASE)?_URL")
_HOST = re.compile(r"([A-Z][A-Z0-9_]*)_SERVICE_HOST")
_NOT_SERVICES = re.compile(r"MESHLIB|KUBERNETES|CONSUL_HTTP|OTEL_.*|.*PROXY")
_HOST_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?", re.IGNORECASE)


def found_in_environment(environ: Mapping[str, str]) -> Found:
    """The services that variables name, as docker-compose files and Kubernetes set them."""
    services: dict[str, FoundService] = {}
    claimed: dict[str, str] = {}
    for service in (*_addresses(environ), *_urls(environ)):
        if service.name in services or any(claimed.get(host, service.name) != service.name for host in service.hosts):
            continue
        services[service.name] = service
        claimed.update(dict.fromkeys(service.hosts, service.name))
    return Found("the environment", [services[name] for name in sorted(services)])


def _addresses(environ: Mapping[str, str]) -> Iterator[FoundService]:
    for variable in sorted(environ):
        found = _HOST.fullmatch(variable)
        if found is None or _NOT_SERVICES.fullmatch(found[1]) or not environ[variable].strip():
            continue
        name, port = name_for(found[1].replace("_", "-")), f"{found[1]}_SERVICE_PORT"
        if name and environ.get(port, "").isdigit():
            yield FoundService(name, (f"{variable} and {port}",), (), (f"${{{variable}}}:${{{port}}}",))


def _urls(environ: Mapping[str, str]) -> Iterator[FoundService]:
    for variable in sorted(environ):
        found = _URL.fullmatch(variable)
        if found is None or _NOT_SERVICES.fullmatch(found[1]):
            continue
        name, parts = name_for(found[1].replace("_", "-")), _split(environ[variable])
        if not name or parts is None or parts.hostname is None:
            continue
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        tls = parts.scheme == "https"
        address = f"{host}:{parts.port or (443 if tls else 80)}"
        comments = [variable]
        if parts.path.strip("/"):
            comments.append("the path of its URL stays with the caller")
        if parts.username or parts.password:
            comments.append("so do its user name and password, which are not written here")
        hosts = () if parts.hostname == name else (address,)
        server_name = parts.hostname if tls and parts.hostname != name else name if tls else ""
        yield FoundService(name, ("; ".join(comments),), hosts, (address,), server_name)


def _split(text: str) -> SplitResult | None:
    try:
        parts = urlsplit(text.strip())
        usable = parts.port != 0
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or not usable:
        return None
    return parts if ":" in parts.hostname or _HOST_NAME.fullmatch(parts.hostname) else None
