"""One entry for one port: processes share it, stand by, take over, and wait for the port to answer."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshlib.config.settings import ConsulSettings, LocalSettings, RegisterSettings
from meshlib.discovery import entry as module
from meshlib.discovery.consul import ConsulSource
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.local import LocalRegistry
from meshlib.discovery.registration import Registration, make_instance
from meshlib.discovery.source import Instance, Registrar
from meshlib.errors import RegistrationFailed
from tests.discovery.support import until
from tests.peers.consul import Consul
from tests.peers.process import free_port


def register(control: ControlPlane, registrar: Registrar, port: int) -> Registration:
    return Registration(control, registrar, make_instance(RegisterSettings(port=port), "orders"))


def entries(directory: Path) -> list[dict[str, Any]]:
    found = []
    for path in directory.glob("v1/orders/*.json"):
        try:
            found.append(json.loads(path.read_text()))
        except OSError:
            pass  # it went meanwhile
    return found


def local(directory: Path) -> LocalRegistry:
    """As another process has it."""
    return LocalRegistry(LocalSettings(str(directory), poll_interval_s=0.02))


def test_several_processes_of_one_port_are_one_entry_until_the_last_one_leaves(
    control: ControlPlane, directory: Path
) -> None:
    first, second, third = (register(control, local(directory), 8000).start() for _ in range(3))
    other = register(control, local(directory), 8001).start()
    assert [each.held for each in (first, second, third, other)] == [True, False, False, True]
    assert "[stands by]" in repr(second)
    ids = {each["instance_id"] for each in entries(directory) if each["port"] == 8000}
    assert len(entries(directory)) == 2
    third.close()
    assert len(entries(directory)) == 2
    first.close()
    assert second.held, "the one before waits for it, so that the entry is never away"
    assert {each["instance_id"] for each in entries(directory) if each["port"] == 8000} == ids
    second.close()
    assert [each["port"] for each in entries(directory)] == [8001]
    other.close()
    assert entries(directory) == []


def test_the_next_one_at_the_same_port_is_another_instance(control: ControlPlane, directory: Path) -> None:
    with register(control, local(directory), 8000) as before:
        pass
    with register(control, local(directory), 8000) as after:
        assert before.instance.instance_id != after.instance.instance_id


def test_it_is_entered_when_the_port_answers_and_not_before(control: ControlPlane, directory: Path) -> None:
    port = free_port()
    registration = register(control, local(directory), port).begin()
    assert registration.active
    until(lambda: control.started)
    assert entries(directory) == []
    assert not registration.known
    with socket.create_server(("127.0.0.1", port)):
        until(lambda: registration.held)
        assert [each["port"] for each in entries(directory)] == [port]
        registration.close()
    assert entries(directory) == []
    assert not registration.active


def test_a_port_that_never_answers_is_told_and_given_up(
    control: ControlPlane, directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_WONDER_AFTER_S", 0.0)
    with caplog.at_level(logging.WARNING, "meshlib"):
        registration = register(control, local(directory), port := free_port()).begin()
        until(lambda: f"nothing answers at 127.0.0.1:{port}" in caplog.text)
        registration.close()
    assert entries(directory) == []
    with register(control, local(directory), port) as again:
        assert again.held, "nothing of it is left"


class Moody:
    """A registrar of somebody else's that fails at first, and cannot share."""

    name = "moody"

    def __init__(self) -> None:
        self.fails = 1
        self.there: list[str] = []

    async def register(self, instance: Instance) -> None:
        if self.fails:
            self.fails -= 1
            raise RegistrationFailed("not now", service=instance.service)
        self.there.append(instance.instance_id)

    async def deregister(self, instance: Instance) -> None:
        self.there.remove(instance.instance_id)


def test_a_registry_that_is_away_at_first_is_asked_again(
    control: ControlPlane, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_AGAIN_S", 0.01)
    registrar = Moody()
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = RegisterSettings(port=server.getsockname()[1], host="127.0.0.1")
        registration = Registration(control, registrar, make_instance(settings, "orders")).begin()
        until(lambda: registration.held)
        assert registrar.there == [registration.instance.instance_id]
        assert "not registered yet: not now" in caplog.text
        registration.close()
        assert registrar.there == []


def test_where_the_processes_cannot_agree_each_has_an_entry_of_its_own(
    control: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Shared(Moody):
        place, notice_s, fails = "there", 0.1, 0

        async def hand_over(self, instance: Instance) -> None: ...

        async def clear(self, instance: Instance) -> None: ...

    (tmp_path / "file").touch()
    monkeypatch.setenv("MESHLIB_LOCAL_DIR", str(tmp_path / "file"))
    registrar = Shared()
    registrar.fails = 0
    settings = RegisterSettings(port=8000, host="127.0.0.1")
    one, two = (Registration(control, registrar, make_instance(settings, "orders")).start() for _ in range(2))
    assert len(registrar.there) == 2
    assert "has an entry of its own" in caplog.text
    one.close()
    two.close()
    assert registrar.there == []


@pytest.fixture
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_in_consul_the_entry_goes_on_through_a_takeover_and_what_was_left_behind_is_removed(
    consul: Consul, control: ControlPlane, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHLIB_LOCAL_DIR", str(tmp_path / "claims"))

    def there() -> list[str]:
        return list(consul.get("/v1/agent/services"))

    first, second = (register(control, ConsulSource(ConsulSettings(consul.address)), port).start() for _ in range(2))
    (entered,) = there()
    seen: list[list[str]] = []
    first.close()
    seen.append(there())
    until(lambda: second.held)
    seen.append(there())
    assert seen == [[entered], [entered]]

    # As if all were killed at once: the locks are gone, the entry is not.
    entry = second._entry
    assert entry is not None

    async def die() -> None:
        assert isinstance(entry._registrar, ConsulSource)
        await entry._registrar.hand_over(entry.instance)
        entry._give_up()

    control.run_sync(die, 5.0)
    third = register(control, ConsulSource(ConsulSettings(consul.address)), port).start()
    assert there() == [third.instance.instance_id] != [entered]
    third.close()
    assert there() == []


def test_a_host_that_cannot_reach_itself_is_believed_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def connect(host: str, port: int) -> Any:
        if host == "192.0.2.1":
            raise OSError("no route to host")
        return await connect_for_real(host, port)

    connect_for_real: Callable[..., Any] = asyncio.open_connection
    monkeypatch.setattr(asyncio, "open_connection", connect)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert asyncio.run(module._answers("192.0.2.1", server.getsockname()[1]))
    assert not asyncio.run(module._answers("192.0.2.1", free_port()))
    assert not asyncio.run(module._answers("127.0.0.1", free_port()))
