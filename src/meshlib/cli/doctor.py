"""``meshlib doctor``: looks at this environment, and says what is there, what is missing and what is wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from meshlib._version import __version__
from meshlib.balance.endpoint import Locality
from meshlib.config.choose import choose_settings
from meshlib.config.find import find_file
from meshlib.config.settings import ConsulSettings, DiscoverySettings, LocalSettings, MeshSettings, RedisSettings
from meshlib.discovery.sidecar import find_sidecar, in_a_pod
from meshlib.errors import ConfigError, DiscoveryUnavailable, MeshError

__all__ = ["Finding", "examine"]

Level: TypeAlias = Literal["ok", "note", "warning", "error"]

_CONSUL_TIMEOUT_S = 3.0
_REDIS_TIMEOUT_S = 1.0

_OPTIONAL = (
    ("httpx2", "httpx2"),
    ("requests", "requests"),
    ("aiohttp", "aiohttp"),
    ("http2", "h2"),
    ("consul", "py-consul"),
    ("otel", "opentelemetry-sdk"),
    ("pybreaker", "pybreaker"),
    ("redis", "redis"),
    ("hash", "xxhash"),
    ("re2", "google-re2"),
    ("cli", "rich"),
    ("fastapi", "fastapi"),
    ("flask", "flask"),
    ("django", "Django"),
)
"""Extras, each with the distribution that shows whether it is there."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.

    Attributes:
        level: ``error`` is what would keep a mesh from working.
        about: a word.
        text: a sentence or a value.
    """

    level: Level
    about: str
    text: str

    @property
    def broken(self) -> bool:
        """Whether it is an error."""
        return self.level == "error"

    def __str__(self) -> str:
        return f"{self.level:8} {self.about:18} {self.text}"


def examine() -> list[Finding]:
    """Look at everything."""
    log = logging.getLogger("meshlib")
    level = log.level
    # It says the same as the findings, and would come in between.
    log.setLevel(logging.CRITICAL)
    try:
        return [*_versions(), *_optional(), *_namesake(), *_configuration()]
    finally:
        log.setLevel(level)


def _versions() -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}")
    yield Finding("ok", "meshlib-http", f"{__version__}, {Path(__file__).parents[1]}")
    yield Finding("ok", "httpx", _version("httpx") or "missing")


def _optional() -> Iterator[Finding]:
    for extra, distribution in _OPTIONAL:
        version = _version(distribution)
        if version is not None:
            yield Finding("ok", distribution, version)
        else:
            yield Finding("note", distribution, f'not installed; pip install "meshlib-http[{extra}]" brings it')


def _namesake() -> Iterator[Finding]:
    version = _version("meshlib")
    if version is not None:
        yield Finding(
            "warning",
            "meshlib",
            f"the distribution 'meshlib' {version} (3-D geometry) is installed here too and has the same import name; "
            "the two overwrite each other: pip uninstall meshlib meshlib-http && pip install meshlib-http",
        )


def _sidecar(settings: MeshSettings) -> Iterator[Finding]:
    found = asyncio.run(find_sidecar()) if settings.sidecar == "warn" and in_a_pod() else None
    if found is not None:
        text = (
            f"{found.proxy}: {found.evidence}; its retries multiply with those of the mesh, and TLS may be done twice: "
            "leave one of the two out, or write `sidecar: ignore`"
        )
        yield Finding("warning", "sidecar", text)


def _configuration() -> Iterator[Finding]:
    try:
        path = find_file()
        settings = choose_settings(None, {})
    except ConfigError as error:
        yield Finding("error", "configuration", str(error))
        return
    if path is None:
        yield Finding("note", "configuration", "none ($MESHLIB_CONFIG, ./mesh.yaml): the defaults hold")
    else:
        services = len(settings.services)
        told = f"valid, {services} service{'' if services == 1 else 's'}, mode {settings.mode}"
        yield Finding("ok", "configuration", f"{path}: {told}")
    ignored = sum(note.effect == "ignored" for note in settings.notes)
    if ignored:
        text = f"of what they say, {ignored} thing{' is' if ignored == 1 else 's are'} not honoured: `meshlib check`"
        yield Finding("warning", "documents", text)
    shadowed = sorted(name for name, service in settings.services.items() if service.clusters[None].shadow is not None)
    if shadowed:
        text = f"{', '.join(shadowed)}: policies run beside the live ones and decide nothing"
        yield Finding("note", "shadow", text)
    yield from _without_a_place(settings)
    yield from _sidecar(settings)
    if settings.redis is not None:
        yield _redis(settings.redis)
    yield from _registries(settings)


def _without_a_place(settings: MeshSettings) -> Iterator[Finding]:
    """Services that go by where this process runs, where nobody says where it does."""
    if settings.locality != Locality():
        return
    for field in ("failover", "zone_aware"):
        concerned = sorted(
            name for name, service in settings.services.items() if getattr(service.clusters[None].load_balancing, field)
        )
        if concerned:
            text = f"{', '.join(concerned)}: '{field}' does nothing until 'locality' says where this process runs"
            yield Finding("warning", "locality", text)


def _redis(settings: RedisSettings) -> Finding:
    """Whether the Redis of the fleet answers. Its URL may hold a password, so only the host is named."""
    where = urlsplit(settings.url).hostname or "its socket"
    try:
        import redis
    except ImportError:
        return Finding("error", "redis", 'not installed; pip install "meshlib-http[redis]" brings it')
    try:
        with redis.Redis.from_url(
            settings.url, socket_timeout=_REDIS_TIMEOUT_S, socket_connect_timeout=_REDIS_TIMEOUT_S
        ) as link:
            link.ping()
    except Exception as error:
        # What it says may have the URL in it.
        text = f"at {where}: no answer ({type(error).__name__}), and until there is one limits of the fleet do not hold"
        return Finding("warning", "redis", text)
    return Finding("ok", "redis", f"at {where}: it answers")


def _registries(settings: MeshSettings) -> Iterator[Finding]:
    for source in settings.discovery:
        if isinstance(source, (LocalSettings, ConsulSettings)):
            yield _registry(source)


def _registry(source: DiscoverySettings) -> Finding:
    try:
        if isinstance(source, ConsulSettings):
            return asyncio.run(_consul(source))
        assert isinstance(source, LocalSettings)
        return _local(source)
    except MeshError as error:
        return Finding("error", "registry", str(error))


async def _consul(settings: ConsulSettings) -> Finding:
    from meshlib.discovery.consul_http import ConsulHttp

    http = ConsulHttp(settings)
    async with http.client() as client:
        reply = await http.get(client, "/v1/status/leader", {}, timeout_s=_CONSUL_TIMEOUT_S, needs="no permission")
    if reply.body.strip() in (b"", b'""'):
        raise DiscoveryUnavailable(f"Consul at {http.address}: it answers, but its cluster has no leader")
    return Finding("ok", "registry", f"Consul at {http.address}: reachable, and has a leader")


def _local(settings: LocalSettings) -> Finding:
    from meshlib.discovery import local_files

    directory = os.path.abspath(settings.directory or local_files.default_directory())
    try:
        root = local_files.root_of(directory)
    except OSError as error:
        return Finding("error", "registry", f"the local registry at {directory} cannot be used: {error}")
    there = "in use" if root is not None else "not there yet; the first service that registers makes it"
    return Finding("ok", "registry", f"local, {directory}: {there}")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
