"""Real servers that are told to end, killed, reloaded: what is in the registry, and what their callers see."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from meshlib import Mesh
from tests.integration.rolling import Instance, Load, entered, fleet, until
from tests.integration.test_rolling_restart import CALLER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@contextmanager
def serving(kind: str, tmp_path: Path, **drain: Any) -> Iterator[tuple[Instance, Path]]:
    registry = tmp_path / "registry"
    config = {"discovery": [{"local": {"directory": str(registry)}}], "server": {"drain": drain}}
    instance = Instance(kind, config, tmp_path)
    with fleet(instance):
        until(lambda: bool(entered(registry)), lambda: instance.log)
        yield instance, registry


@pytest.mark.parametrize("kind", ["gunicorn-sync", "uvicorn-workers"])
def test_when_the_worker_that_holds_the_entry_is_killed_another_takes_it_over(kind: str, tmp_path: Path) -> None:
    with serving(kind, tmp_path) as (instance, registry):
        ((port, [entry]),) = entered(registry).items()
        assert port == instance.port
        # Both serve, so that there is another.
        url = f"http://127.0.0.1:{port}/"
        until(lambda: len({httpx.get(url).text for _ in range(8)}) == 2, lambda: instance.log)
        os.kill(entry.pid, signal.SIGKILL)
        killed = time.monotonic()

        def others() -> list[str]:
            return [each.instance_id for each in entered(registry).get(port, []) if each.pid != entry.pid]

        until(lambda: others() != [], lambda: instance.log)
        assert time.monotonic() - killed < 3.0
        assert others() == [entry.instance_id], "the same instance, to callers"
        instance.term()
        assert instance.wait() < 10.0
        assert entered(registry) == {}


def test_gunicorn_that_is_reloaded_loses_no_call(tmp_path: Path) -> None:
    with serving("gunicorn-sync", tmp_path) as (instance, registry):
        caller = {**CALLER, "discovery": [{"local": {"directory": str(registry)}}]}
        with Mesh(caller) as mesh, Load(mesh, threads=3) as load:
            until(lambda: len(load.since(0.0)) == 2, lambda: load.lost)
            before = load.since(0.0)
            os.kill(instance.pid, signal.SIGHUP)

            def replaced() -> bool:
                latest = load.since(time.monotonic() - 0.3)
                return len(latest) == 2 and not latest & before

            until(replaced, lambda: load.lost)
        assert load.lost == []
        until(lambda: bool(entered(registry)), lambda: instance.log)
        # And what is in flight at the end is finished, however long ago callers have heard.
        answers: list[str] = []
        long_one = threading.Thread(
            target=lambda: answers.append(
                httpx.post(f"http://127.0.0.1:{instance.port}/", content=b"2", timeout=9).text
            )
        )
        long_one.start()
        time.sleep(0.3)
        instance.term()
        assert instance.wait() < 10.0
        long_one.join()
        assert len(answers) == 1
        assert entered(registry) == {}


def test_it_goes_on_serving_whoever_comes_and_then_asks_them_to_go_elsewhere(tmp_path: Path) -> None:
    with serving("uvicorn", tmp_path, notice="1200ms") as (instance, registry):
        url = f"http://127.0.0.1:{instance.port}/"
        with httpx.Client() as kept:
            assert kept.get(url).status_code == 200
            instance.term()
            until(lambda: not entered(registry), lambda: instance.log)
            assert "connection" not in kept.get(url).headers
            assert httpx.get(url).status_code == 200, "a new connection"
            until(lambda: kept.get(url).headers.get("connection") == "close", lambda: instance.log, 2.0)
            assert httpx.get(url).status_code == 200, "new ones still are accepted"
        assert instance.wait() < 10.0


def test_told_twice_it_ends_at_once(tmp_path: Path) -> None:
    with serving("uvicorn", tmp_path, notice="50s") as (instance, registry):
        with socket.create_connection(("127.0.0.1", instance.port)) as caller:
            caller.sendall(b"POST / HTTP/1.1\r\nhost: orders\r\ncontent-length: 2\r\n\r\n30")
            time.sleep(0.1)
            instance.term()
            until(lambda: not entered(registry), lambda: instance.log)
            instance.term()
            assert instance.wait() < 5.0


@pytest.mark.parametrize("kind", ["uvicorn-command", "gunicorn-sync"])
def test_told_to_end_while_it_starts_it_is_never_registered(kind: str, tmp_path: Path) -> None:
    registry = tmp_path / "registry"
    config = {"discovery": [{"local": {"directory": str(registry)}}]}
    begun, seen = tmp_path / "begun", []
    instance = Instance(kind, config, tmp_path, ROLLING_SLOW_START=str(begun))
    with fleet(instance):
        until(begun.exists, lambda: instance.log)
        instance.term()
        ending = threading.Thread(target=instance.wait)
        ending.start()
        while ending.is_alive():
            seen.append(entered(registry))
            time.sleep(0.01)
        ending.join()
    assert not any(seen)
