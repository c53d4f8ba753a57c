"""This process's own entry: there from start to close, removed at exit, and only by the process that made it."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.balance.endpoint import Health
from meshlib.config.settings import ConsulSettings, LocalSettings, RegisterSettings, StaticSettings
from meshlib.discovery import local as local_module
from meshlib.discovery import local_files
from meshlib.discovery.build import make_source
from meshlib.discovery.consul import ConsulSource
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.local import LocalRegistry
from meshlib.discovery.registration import Registration, find_registrar, make_instance
from meshlib.discovery.source import Instance
from meshlib.discovery.watch import Directory
from meshlib.errors import ConfigError, RegistrationFailed
from meshlib.telemetry.events import Event, RegistrationLost, RegistrationRestored
from tests.discovery.support import Published, until
from tests.peers.consul import Consul

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def local(directory: Path) -> LocalRegistry:
    return LocalRegistry(LocalSettings(str(directory), poll_interval_s=0.02))


@pytest.fixture
def see(control: ControlPlane) -> Callable[[Any], Published]:
    def see(source: Any) -> Published:
        published = Published()
        Directory([source], control, published, on_event=published.event, empty_hold_s=0.0).use("orders")
        return published

    return see


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_an_instance_is_made_from_the_settings_with_an_id_of_its_own() -> None:
    settings = RegisterSettings(port=8000, weight=2, metadata={"version": "v2"}, check_path="/health")
    one, two = make_instance(settings, "orders"), make_instance(settings, "orders")
    assert (one.service, one.port, one.weight, one.metadata) == ("orders", 8000, 2, {"version": "v2"})
    assert one.instance_id != two.instance_id
    assert make_instance(RegisterSettings(port=1, service="mine"), "orders").service == "mine"


@pytest.mark.parametrize(("port", "service"), [(0, "orders"), (65536, "orders"), (80, "")])
def test_an_instance_without_a_name_or_a_port_is_refused(port: int, service: str) -> None:
    with pytest.raises(ConfigError):
        make_instance(RegisterSettings(port=port), service)


def test_the_first_source_that_takes_registrations_is_used_or_the_one_named(local: LocalRegistry) -> None:
    static, consul = make_source(StaticSettings()), make_source(ConsulSettings())
    assert repr(find_registrar([static, consul, local])) == repr(consul)
    assert repr(find_registrar([static, consul, local], "local")) == repr(local)
    with pytest.raises(ConfigError, match=r"there are: static"):
        find_registrar([static])
    with pytest.raises(ConfigError, match="'static' takes"):
        find_registrar([static, local], "static")


def test_with_enters_and_leaves(control: ControlPlane, local: LocalRegistry, see: Callable[..., Published]) -> None:
    published = see(local)
    with Registration(control, local, make_instance(RegisterSettings(port=8000), "orders")) as registration:
        until(lambda: published.ports("orders") == [8000])
        assert registration.active is True
        assert registration.instance.host == "127.0.0.1"
        registration.start()
    until(lambda: published.state("orders") == "unknown")
    assert "[not entered]" in repr(registration)
    registration.close()


def test_async_with_enters_and_leaves(
    control: ControlPlane, local: LocalRegistry, see: Callable[..., Published]
) -> None:
    published = see(local)

    async def main() -> None:
        async with Registration(control, local, make_instance(RegisterSettings(port=8000), "orders")):
            assert await asyncio.to_thread(until, lambda: published.ports("orders") == [8000])

    asyncio.run(main())
    until(lambda: published.state("orders") == "unknown")


def test_a_registration_that_fails_says_so_and_holds_nothing(control: ControlPlane, directory: Path) -> None:
    directory.mkdir(mode=0o700)
    directory.chmod(0o777)
    registration = Registration(
        control, LocalRegistry(LocalSettings(str(directory))), make_instance(RegisterSettings(port=8000), "orders")
    )
    with pytest.raises(RegistrationFailed, match="can be written by others"):
        registration.start()
    assert not registration.active


def test_a_registry_that_never_answers_fails_in_time(control: ControlPlane) -> None:
    class Hanging:
        name = "hanging"

        async def register(self, instance: Instance) -> None:
            await asyncio.Event().wait()

        async def deregister(self, instance: Instance) -> None:
            raise AssertionError("nothing was entered")

    began = time.monotonic()
    with pytest.raises(RegistrationFailed, match=r"within 0\.1 s"):
        Registration(control, Hanging(), Instance("orders", "h", 1, "i")).start(timeout_s=0.1)
    assert time.monotonic() - began < 2.0
    with pytest.raises(RegistrationFailed, match="needs a `host`"):
        Registration(control, Hanging(), Instance("orders", "", 1, "i")).start(timeout_s=0.1)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_removes_nothing(
    control: ControlPlane, local: LocalRegistry, see: Callable[..., Published]
) -> None:
    published = see(local)
    with Registration(control, local, make_instance(RegisterSettings(port=8000), "orders")) as registration:
        until(lambda: published.ports("orders") == [8000])
        pid = os.fork()
        if pid == 0:
            try:
                assert not registration.active
                registration.close()
                os._exit(0)
            except BaseException:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert local._kept
        folder = next(Path(local.directory).glob("v1/*"))
        assert len(list(folder.glob("*.json"))) == 1


def run_and_exit(settings: str, port: int) -> subprocess.CompletedProcess[str]:
    """A process that registers, and ends without closing anything."""
    script = f"""
        from meshlib.config.settings import *
        from meshlib.discovery.build import make_source
        from meshlib.discovery.control import ControlPlane
        from meshlib.discovery.registration import Registration, make_instance
        registration = Registration(
            ControlPlane(), make_source({settings}), make_instance(RegisterSettings(port={port}), "orders")
        ).start()
        print(repr(registration))
    """
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )


def test_at_exit_the_entry_is_removed(directory: Path) -> None:
    done = run_and_exit(f"LocalSettings({str(directory)!r})", 8000)
    assert "[entered]" in done.stdout
    assert done.stderr == ""
    assert not list(directory.glob("v1/*/*"))


# With a real Consul


def test_consul_gets_all_that_the_instance_says(
    consul: Consul, control: ControlPlane, see: Callable[..., Published], listening: int
) -> None:
    source = ConsulSource(ConsulSettings(consul.address))
    published = see(source)
    settings = RegisterSettings(port=listening, weight=2.5, metadata={"version": "v2"})
    with Registration(control, source, make_instance(settings, "orders")):
        until(lambda: published.state("orders") == "ok")
        resolution = published.now["orders"]
        assert resolution is not None
        (endpoint,) = resolution.endpoints
        assert (endpoint.host, endpoint.port, endpoint.weight) == ("127.0.0.1", listening, 2.5)
        assert dict(endpoint.metadata) == {"version": "v2"}
        assert endpoint.health is Health.HEALTHY, "what listens is well at once, not after the first check"
        (check,) = consul.get("/v1/agent/checks").values()
        assert check["Type"] == "tcp"
        assert consul.get("/v1/health/service/orders")[0]["Service"]["Weights"] == {"Passing": 2, "Warning": 2}
    until(lambda: published.state("orders") == "unknown")


def test_what_consul_lost_is_registered_again(
    consul: Consul, control: ControlPlane, see: Callable[..., Published], listening: int
) -> None:
    source, told = ConsulSource(ConsulSettings(consul.address)), list[Event]()
    instance = make_instance(RegisterSettings(port=listening), "orders")
    with Registration(control, source, instance, tell=told.append) as registration:
        consul.kill()
        consul.restart()
        began = time.monotonic()
        until(lambda: consul.get("/v1/agent/services"))
        assert time.monotonic() - began < 3.0
        consul.put(f"/v1/agent/service/deregister/{registration.instance.instance_id}")
        until(lambda: consul.get("/v1/agent/services"))
        until(lambda: len(told) == 4)
    assert [type(each) for each in told] == [RegistrationLost, RegistrationRestored] * 2
    assert consul.get("/v1/agent/services") == {}


@pytest.mark.slow
@pytest.mark.parametrize("check_path", [None, "/health"])
def test_an_instance_that_was_killed_is_unhealthy(
    consul: Consul, control: ControlPlane, see: Callable[..., Published], check_path: str | None
) -> None:
    source = ConsulSource(ConsulSettings(consul.address))
    published = see(source)
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd="/") as server:
        try:
            assert server.stdout is not None
            port = int(server.stdout.readline().split("port ")[1].split()[0])
            path = "/" if check_path else None
            settings = RegisterSettings(port=port, check_path=path, check_interval_s=1.0)

            def health() -> list[Health]:
                resolution = published.now.get("orders")
                return [each.health for each in resolution.endpoints] if resolution is not None else []

            with Registration(control, source, make_instance(settings, "orders")):
                until(lambda: health() == [Health.HEALTHY])
                server.kill()
                until(lambda: health() == [Health.UNHEALTHY])
        finally:
            server.kill()


def test_at_exit_consul_is_told(consul: Consul, listening: int) -> None:
    done = run_and_exit(f"ConsulSettings({consul.address!r})", listening)
    assert "[entered]" in done.stdout
    assert done.stderr == ""
    assert consul.get("/v1/agent/services") == {}


def test_the_token_of_the_configuration_is_used_and_not_that_of_the_environment(
    consul_factory: Callable[..., Consul], control: ControlPlane, monkeypatch: pytest.MonkeyPatch, listening: int
) -> None:
    token, other = "11111111-2222-3333-4444-555555555555", "99999999-2222-3333-4444-555555555555"
    consul = consul_factory(token=token)
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", other)
    monkeypatch.setenv("CONSUL_HTTP_ADDR", "127.0.0.1:1")
    instance = make_instance(RegisterSettings(port=listening), "orders")
    with Registration(control, ConsulSource(ConsulSettings(consul.address, token)), instance):
        assert list(consul.get("/v1/agent/services")) == [instance.instance_id]
    monkeypatch.setenv("CONSUL_HTTP_TOKEN", token)
    for wrong in (other, None):
        settings = ConsulSettings(consul.address, wrong)
        with pytest.raises(RegistrationFailed, match="lacks `service:write`") as caught:
            given = make_instance(RegisterSettings(port=listening, host="127.0.0.1"), "orders")
            Registration(control, ConsulSource(settings), given).start()
        assert other not in str(caught.value)
    with pytest.raises(RegistrationFailed, match="give `host`"):
        Registration(control, ConsulSource(ConsulSettings(consul.address, other)), instance_without_host()).start()


def instance_without_host() -> Instance:
    return make_instance(RegisterSettings(port=8000), "orders")


def test_metadata_that_consul_refuses_are_refused_with_its_words(
    consul: Consul, control: ControlPlane, listening: int
) -> None:
    settings = RegisterSettings(port=listening, metadata={"not/allowed": "x"})
    with pytest.raises(RegistrationFailed, match="not/allowed"):
        Registration(control, ConsulSource(ConsulSettings(consul.address)), make_instance(settings, "orders")).start()


def test_no_consul_is_a_clear_error(control: ControlPlane) -> None:
    given = make_instance(RegisterSettings(port=8000, host="127.0.0.1"), "orders")
    with pytest.raises(RegistrationFailed, match=r"Consul at http://127\.0\.0\.1:1"):
        Registration(control, ConsulSource(ConsulSettings("127.0.0.1:1")), given).start()


def test_without_py_consul_the_hint_names_the_extra(control: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "consul", None)
    given = make_instance(RegisterSettings(port=8000, host="127.0.0.1"), "orders")
    with pytest.raises(RegistrationFailed, match=r'pip install "meshlib-http\[consul\]"'):
        Registration(control, ConsulSource(ConsulSettings()), given).start()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"port": 99999}, "port"),
        ({"service": "My Orders"}, "'my-orders'"),
        ({"weight": -1}, "weight"),
        ({"check_path": "health"}, "'/health'"),
        ({"check_interval": "soon"}, "check_interval"),
    ],
)
def test_what_is_registered_from_code_is_checked_as_what_stands_in_a_file(wrong: dict[str, Any], said: str) -> None:
    with Mesh({"service": "orders"}) as mesh:
        assert mesh.register(port=8000).instance.service == "orders"
        with pytest.raises(ConfigError, match=said):
            mesh.register(**{"port": 8000, **wrong})


def test_an_entry_that_the_registry_loses_is_told_of_and_shown(
    directory: Path, monkeypatch: pytest.MonkeyPatch, listening: int
) -> None:
    monkeypatch.setattr(local_module, "_KEEP_S", 0.02)
    told: list[Event] = []
    with Mesh({"service": "orders", "discovery": [{"local": {"directory": str(directory)}}]}) as mesh:
        mesh.on_event(told.append)
        registration = mesh.register(port=listening)
        assert mesh.status().registrations == ()
        with registration, mesh.register(port=listening):
            first, second = mesh.status().registrations
            assert (first.service, first.address, first.state) == ("orders", f"127.0.0.1:{listening}", "registered")
            assert first.held_s is not None and 0.0 <= first.held_s < 60.0
            assert (second.state, second.held_s, second.instance_id) == ("standing by", None, first.instance_id)
            assert f"registration: orders at {first.address}: registered for" in str(mesh.status())
            enter = local_files.enter

            def fail(*args: object) -> None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

            monkeypatch.setattr(local_files, "enter", fail)
            for path in directory.glob("v1/orders/*.json"):
                path.unlink()
            until(lambda: registration.status.state == "lost")
            assert "is gone" in mesh.status().registrations[0].detail
            monkeypatch.setattr(local_files, "enter", enter)
            until(lambda: registration.status.state == "registered")
            until(lambda: len([each for each in told if each.family == "registration"]) == 2)
        assert mesh.status().registrations == ()
    lost, back = [each for each in told if each.family == "registration"]
    assert isinstance(lost, RegistrationLost) and isinstance(back, RegistrationRestored)
    assert (lost.service, lost.text) == ("orders", f"this process is not registered any more: {lost.detail}")
    assert back.text == f"this process is registered again as 127.0.0.1:{listening}"


def test_a_registration_that_waits_for_its_port_says_so(control: ControlPlane, local: LocalRegistry) -> None:
    # With its address: without one it would be the registry's answer, which may be there by now or not.
    instance = make_instance(RegisterSettings(port=1, host="127.0.0.1"), "orders")
    registration = Registration(control, local, instance).begin()
    assert registration.status.state == "waiting"
    assert "at 127.0.0.1:1: waiting" in str(registration.status)
    registration.close()
    assert registration.status.state == "not entered"
