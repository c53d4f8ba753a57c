"""Every instance of a fleet is restarted under load, and no call is lost: by no retry, and by no luck."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from meshlib import Mesh
from tests.integration.rolling import SERVERS, Instance, Load, entered, fleet, until
from tests.peers.consul import Consul

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

CALLER: dict[str, Any] = {
    # In turns, so that each has its share of the load; and nothing repeats what failed.
    "defaults": {"load_balancing": {"policy": "round_robin"}, "retry": {"max_retries": 0}, "timeout": "10s"},
    "services": {"orders": {}},
}


def restart(instances: list[Instance], present: Any) -> None:
    for instance in instances:
        instance.term()
    for instance in instances:
        assert instance.wait() < 10.0, instance.log
    for instance in instances:
        instance.start()
    until(present, lambda: [instance.log[-1500:] for instance in instances])


def test_no_call_is_lost_whatever_the_server(tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    config = {"discovery": [{"local": {"directory": str(registry)}}]}
    instances = [Instance(kind, config, tmp_path) for kind in SERVERS]
    ports = {instance.port for instance in instances}

    def present() -> bool:
        return set(entered(registry)) == ports

    with fleet(*instances):
        until(present, lambda: [instance.log[-1500:] for instance in instances])
        assert {port: len(entries) for port, entries in entered(registry).items()} == dict.fromkeys(ports, 1)
        with Mesh({**CALLER, **config}) as mesh, Load(mesh, threads=6) as load:
            until(lambda: len(load.answers) > 300, lambda: load.lost)
            before = load.since(0.0)
            for part in (instances[::2], instances[1::2]):
                restart(part, present)
                restarted = time.monotonic()
                until(lambda: len(load.since(restarted)) >= len(ports), lambda: load.lost)  # noqa: B023
        after = load.since(restarted)
        assert load.lost == []
        assert not before & after, "all were replaced"
        for instance in instances:
            instance.term()
        for instance in instances:
            instance.wait()
    assert entered(registry) == {}


def test_no_call_is_lost_with_consul(tmp_path: Path, consul: Consul) -> None:
    config = {"discovery": [{"consul": {"address": consul.address}}]}
    instances = [
        Instance(kind, config, tmp_path, MESHLIB_LOCAL_DIR=str(tmp_path / "claims"))
        for kind in ("uvicorn", "gunicorn-sync")
    ]

    def ports() -> set[int]:
        found = consul.get("/v1/health/service/orders?passing")
        return {each["Service"]["Port"] for each in found}

    def present() -> bool:
        return ports() == {instance.port for instance in instances}

    with fleet(*instances):
        until(present, lambda: [instance.log[-1500:] for instance in instances])
        with Mesh({**CALLER, **config}) as mesh, Load(mesh, threads=4) as load:
            until(lambda: len(load.answers) > 50, lambda: load.lost)
            for instance in instances:
                restart([instance], present)
        assert load.lost == []
        assert len(consul.get("/v1/agent/services")) == 2
        for instance in instances:
            instance.term()
        for instance in instances:
            instance.wait()
        assert consul.get("/v1/agent/services") == {}
