"""Fixtures that hand real servers to tests.

A test that uses one of them gets the marker `peer` by itself. Where the program is missing and cannot be fetched, the
test is skipped with the reason; with `CI=true` it fails, so that a build never passes by testing less.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.peers import fetch
from tests.peers.consul import Consul
from tests.peers.process import Process, free_port
from tests.peers.servers import Envoy, Nginx, Redis

P = TypeVar("P", bound=Process)

PEER_FIXTURES = frozenset(
    {"consul_factory", "consul", "nginx_factory", "envoy_factory", "redis_server"}  # what makes a test a `peer` test
)


def require(name: str) -> Path:
    """The program `name`; where there is none, the test is skipped, or fails with `CI=true`."""
    found = _look_up(name)
    if isinstance(found, Path):
        return found
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{name} is needed, and CI=true: {found}", pytrace=False)
    pytest.skip(f"no {name} here: {found}")


@functools.cache
def _look_up(name: str) -> Path | str:
    try:
        return fetch.get(name)
    except fetch.PeerMissing as error:
        return str(error)


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not PEER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.peer)


class _Starter:
    """Starts servers, each in a directory of its own, and stops them all in the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._started: list[Process] = []

    def start(self, make: Callable[[Path], P]) -> P:
        directory = self._directory / str(len(self._started))
        directory.mkdir(parents=True)
        process = make(directory)
        self._started.append(process)
        process.start()
        return process

    def stop_all(self) -> None:
        for process in reversed(self._started):
            process.kill()


@pytest.fixture
def _peers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Starter]:
    starter = _Starter(tmp_path_factory.mktemp("peers"))
    try:
        yield starter
    finally:
        starter.stop_all()


@pytest.fixture(name="free_port")
def free_port_fixture() -> Callable[[], int]:
    """Gives free ports on 127.0.0.1: `port = free_port()`."""
    return free_port


@pytest.fixture
def consul_factory(_peers: _Starter) -> Callable[..., Consul]:
    """Starts Consul agents: `consul_factory(token="secret", node_meta={"zone": "a"})`. See `Consul`."""
    binary = require("consul")

    def start(**options: Any) -> Consul:
        return _peers.start(lambda directory: Consul(binary, directory, **options))

    return start


@pytest.fixture
def consul(consul_factory: Callable[..., Consul]) -> Consul:
    """A Consul agent with a leader and without access control."""
    return consul_factory()


@pytest.fixture
def nginx_factory(_peers: _Starter) -> Callable[..., Nginx]:
    """Starts nginx: `nginx_factory("server { listen 127.0.0.1:@port@; ... }")`. See `Nginx`."""
    binary = require("nginx")

    def start(body: str, **options: Any) -> Nginx:
        return _peers.start(lambda directory: Nginx(binary, directory, body, **options))

    return start


@pytest.fixture
def envoy_factory(_peers: _Starter) -> Callable[[dict[str, Any]], Envoy]:
    """Starts Envoy on a bootstrap configuration: `envoy_factory({"static_resources": ...})`. See `Envoy`."""
    binary = require("envoy")

    def start(bootstrap: dict[str, Any]) -> Envoy:
        return _peers.start(lambda directory: Envoy(binary, directory, bootstrap))

    return start


@pytest.fixture
def redis_server(_peers: _Starter) -> Redis:
    """A Redis that keeps nothing on disk."""
    binary = require("redis")
    return _peers.start(lambda directory: Redis(binary, directory))
