"""Active checks of real endpoints, by a mesh: who is left out and comes back, and what the checks themselves cost."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.net.health_probe import HealthProbe
from meshlib.policy.health_check import Finding
from meshlib.telemetry.events import CheckFailed, CheckPassed, Event, Returned
from tests.net.wire_servers import Peer, RawServer, serving, soon

HTTP = {"http": {"path": "/health"}, "interval": "20ms", "timeout": "5s", "no_traffic_interval": "20ms"}
IMPATIENT = {**HTTP, "timeout": "400ms", "unhealthy_threshold": 2}


class App:
    """A server whose health can be set: a status, ``None`` for silence, or a delay in seconds."""

    def __init__(self) -> None:
        self.health: int | float | None = 200
        self.header = self.goodbye = b""
        self.calls = self.checks = self.under_way = 0
        self._lock = threading.Lock()

    def __call__(self, peer: Peer) -> None:
        with self._lock:
            self.under_way += 1
        try:
            while (request := peer.request()) is not None:
                self.answer(peer, request.startswith(b"GET /health "))
        finally:
            with self._lock:
                self.under_way -= 1

    def answer(self, peer: Peer, check: bool) -> None:
        if check:
            self.checks += 1
        else:
            self.calls += 1
        health = self.health if check else 200
        if health is None:
            peer.wait_until_gone()
            return
        if isinstance(health, float):
            time.sleep(health)
            health = 200
        header = self.header if check else self.goodbye
        peer.send(b"HTTP/1.1 %d OK\r\n%sContent-Length: 2\r\n\r\nok" % (health, header))


@contextmanager
def mesh_over(
    *apps: App, check: dict[str, Any] = HTTP, **service: Any
) -> Iterator[tuple[Mesh, list[Event], list[str]]]:
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(app)) for app in apps]
        addresses = [f"127.0.0.1:{server.port}" for server in servers]
        in_turn = {"policy": "round_robin"}
        written = {"endpoints": addresses, "health_check": check, "load_balancing": in_turn, **service}
        mesh = stack.enter_context(Mesh(services={"orders": written}))
        told: list[Event] = []
        mesh.on_event(told.append)
        mesh.client("orders").get("/")
        yield mesh, told, addresses


def states(mesh: Mesh) -> list[str]:
    (service,) = mesh.status().services
    return [endpoint.state for endpoint in service.clusters[0].endpoints]


def called(mesh: Mesh, *apps: App, times: int = 30) -> list[bool]:
    for app in apps:
        app.calls = 0
    client = mesh.client("orders")
    for _ in range(times):
        client.get("/")
    return [app.calls > 0 for app in apps]


def test_an_endpoint_that_answers_badly_is_left_out_at_once_and_returns() -> None:
    bad, good = App(), App()
    with mesh_over(bad, good) as (mesh, told, addresses):
        soon(lambda: bad.checks >= 2 and good.checks >= 2)
        assert states(mesh) == ["healthy", "healthy"]
        bad.health = 503
        soon(lambda: states(mesh) == ["failed", "healthy"])
        soon(lambda: called(mesh, bad, good) == [False, True])
        plan = mesh.plan("GET", "http://orders/")
        assert [each.why_not for each in plan.candidates] == ["failed its active check", None]
        bad.health = 200
        soon(lambda: states(mesh) == ["healthy", "healthy"])
        soon(lambda: called(mesh, bad, good, times=5)[0])
        soon(lambda: [type(event) for event in told[1:]] == [CheckFailed, CheckPassed])
        assert told[1].text == f"{addresses[0]} fails its active check: HTTP status 503"


@pytest.mark.parametrize("health", [None, 1.0], ids=["hung", "slow"])
def test_an_endpoint_that_hangs_or_is_slow_is_left_out_after_some_checks_and_holds_up_no_other(
    health: float | None,
) -> None:
    bad, good = App(), App()
    bad.health = health
    with mesh_over(bad, good, check=IMPATIENT) as (mesh, _, _):
        soon(lambda: states(mesh) == ["failed", "healthy"])
        assert good.checks > bad.checks
        soon(lambda: called(mesh, bad, good) == [False, True])


def test_an_endpoint_that_is_killed_is_left_out_and_taken_back_when_it_is_there_again() -> None:
    doomed = RawServer(App())
    port = doomed.port
    with serving(App()) as other, ExitStack() as stack:
        service = {"endpoints": [f"127.0.0.1:{port}", f"127.0.0.1:{other.port}"], "health_check": HTTP}
        mesh = stack.enter_context(Mesh(services={"orders": {**service, "outlier_detection": False}}))
        mesh.client("orders").get("/")
        soon(lambda: states(mesh) == ["healthy", "healthy"])
        doomed.close()
        soon(lambda: states(mesh) == ["failed", "healthy"])
        stack.enter_context(serving(App(), listener=socket.create_server(("127.0.0.1", port))))
        soon(lambda: states(mesh) == ["healthy", "healthy"])


def test_one_that_asks_to_be_spared_is() -> None:
    spared, good = App(), App()
    spared.header = b"x-envoy-degraded: \r\n"
    with mesh_over(spared, good) as (mesh, _, _):
        soon(lambda: states(mesh) == ["degraded", "healthy"])


def test_one_that_asks_to_be_left_alone_in_answer_to_a_call_is_until_it_passes_its_checks_again() -> None:
    leaving, good = App(), App()
    check = {**HTTP, "interval": "200ms", "no_traffic_interval": "200ms"}
    with mesh_over(leaving, good, check=check) as (mesh, told, addresses):
        soon(lambda: states(mesh) == ["healthy", "healthy"] and leaving.checks and good.checks)
        leaving.goodbye = b"x-envoy-immediate-health-check-fail: true\r\n"
        soon(lambda: called(mesh, leaving, good, times=5) and states(mesh) == ["failed", "healthy"])
        soon(lambda: told[-1].text == f"{addresses[0]} fails its active check: it has asked to be left alone")
        leaving.goodbye = b""
        soon(lambda: states(mesh) == ["healthy", "healthy"])


def test_passing_a_check_brings_an_ejected_endpoint_back() -> None:
    flaky, good = App(), App()
    with mesh_over(flaky, good) as (mesh, told, addresses):
        soon(lambda: states(mesh) == ["healthy", "healthy"])
        cluster = mesh._wiring.snapshots.current.services["orders"].clusters[None]
        assert cluster.state.outlier is not None
        (member,) = [each for each in cluster.members if each.endpoint.address == addresses[0]]
        for _ in range(5):
            cluster.state.outlier.failed(member, mesh._wiring.clock.now())
        soon(lambda: any(isinstance(event, Returned) for event in told))
        (back,) = [event for event in told if isinstance(event, Returned)]
        assert back.text == f"{addresses[0]} is back: it passed its active check"
        assert states(mesh) == ["healthy", "healthy"]


def test_a_first_call_does_not_wait_for_checks_nor_fail_for_want_of_them() -> None:
    slow = App()
    slow.health = 0.1
    with mesh_over(slow, check={**HTTP, "timeout": "2s"}, load_balancing={"panic_percent": 0}) as (mesh, _, _):
        assert slow.calls == 1
        assert states(mesh) == ["healthy"]
        soon(lambda: slow.checks >= 2)
        assert states(mesh) == ["healthy"]


def test_an_endpoint_that_joins_is_left_out_until_its_first_check_has_passed() -> None:
    from meshlib.balance.cluster import Known
    from meshlib.balance.endpoint import Endpoint

    first, newcomer = App(), App()
    newcomer.health = None
    with mesh_over(first, check=IMPATIENT) as (mesh, _, _), serving(newcomer) as server:
        soon(lambda: first.checks >= 2)
        wiring = mesh._wiring
        old = wiring.snapshots.current.services["orders"].endpoints
        new = (*old, Endpoint("127.0.0.1", server.port))
        wiring.snapshots.publish("orders", new, Known.YES)
        assert states(mesh) == ["healthy", "failed"]
        wiring.control.call_soon(lambda: wiring._health_checks().follow(wiring.snapshots.current.services["orders"]))
        soon(lambda: newcomer.checks >= 1)
        assert states(mesh) == ["healthy", "failed"]
        newcomer.health = 200
        soon(lambda: states(mesh) == ["healthy", "healthy"])


def test_five_hundred_endpoints_are_checked_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    app, under_way, most = App(), 0, 0
    check_once = HealthProbe.check

    async def counted(probe: HealthProbe) -> tuple[Finding, str]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        try:
            return await check_once(probe)
        finally:
            under_way -= 1

    monkeypatch.setattr(HealthProbe, "check", counted)
    app.health = 0.01
    listener = socket.create_server(("0.0.0.0", 0), backlog=600)
    port = listener.getsockname()[1]
    addresses = [f"127.0.{i // 250}.{i % 250 + 1}:{port}" for i in range(500)]
    check = {**HTTP, "timeout": "5s", "interval": "60s", "max_concurrent": 16, "reuse_connection": False}
    service = {"endpoints": addresses, "health_check": check}
    with serving(app, listener=listener), Mesh(services={"orders": service}) as mesh:
        mesh.client("orders").get("/")
        soon(lambda: app.checks >= 500, 20.0)
        assert most == 16
        soon(lambda: states(mesh) == ["healthy"] * 500)


def test_a_connection_is_what_is_checked_over_tcp() -> None:
    app = App()
    with mesh_over(app, check={"tcp": {}, "interval": "20ms", "no_traffic_interval": "20ms"}) as (mesh, _, _):
        server_checks = mesh._wiring.snapshots.current.services["orders"].clusters[None].state.active
        assert server_checks is not None
        soon(lambda: server_checks.passed >= 3)
        assert app.checks == 0


def test_checks_end_with_the_mesh_and_with_the_watch_of_their_service() -> None:
    app = App()
    with mesh_over(app) as (mesh, _, _):
        soon(lambda: app.checks >= 2)
        wiring = mesh._wiring
        wiring.control.call_soon(lambda: wiring._publish("orders", None))
        soon(lambda: not wiring._checks._services)  # type: ignore[union-attr]
        soon(lambda: app.under_way <= 1)  # the connection of the call
        before = app.checks
        time.sleep(0.06)
        assert app.checks == before
        mesh.client("orders").get("/")
    with mesh_over(app) as (mesh, _, _):
        soon(lambda: app.checks >= before + 2)
    soon(lambda: app.under_way == 0)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_checks_from_its_own_first_call_on_and_leaves_the_parents_checks_alone() -> None:
    app = App()
    with mesh_over(app) as (mesh, _, _):
        soon(lambda: app.checks >= 2)
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            try:
                checks = mesh._wiring._checks
                assert checks is not None
                (service,) = checks._services.values()
                (session,) = service.sessions.values()
                idle = session.timer is None and not session.busy
                known = session.checkup.checked
                mesh.client("orders").get("/")
                active = mesh._wiring.snapshots.current.services["orders"].clusters[None].state.active
                assert active is not None
                passed = active.passed
                soon(lambda: active.passed >= passed + 3)
                os.write(write, json.dumps([idle, known]).encode())
                os._exit(0)
            finally:
                os._exit(1)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            text = pipe.read()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert json.loads(text) == [True, True]
        before = app.checks
        soon(lambda: app.checks > before)
        assert states(mesh) == ["healthy"]


def test_a_mesh_without_checks_loads_nothing_of_them() -> None:
    code = """
import sys, meshlib
with meshlib.Mesh(services={"orders": {"endpoints": ["127.0.0.1:1"], "retry": {"max_retries": 0}}}) as mesh:
    try:
        mesh.client("orders").get("/")
    except meshlib.MeshError:
        pass
print([name for name in sys.modules if name.endswith(("health_checks", "health_probe"))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
