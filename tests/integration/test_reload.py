"""The configuration changes while real calls are made: none fails, and each sees one configuration, whole."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from meshlib import ConfigError, Mesh, MeshClosed, record
from meshlib.telemetry.events import ConfigRefused, ConfigReloaded, Event, ModeChanged
from meshlib.testing import MeshFixture

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Server(ThreadingHTTPServer):
    """Answers with its number, and with what was set in the request; to ``/slow`` once it is let go on."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, number: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.number = number
        self.arrived, self.go_on = threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.server.arrived.set()
            self.server.go_on.wait(10)
        body = f"{self.server.number} {self.headers.get('x-config')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Silent."""


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made = [Server(number) for number in range(2)]
    yield made
    for server in made:
        server.go_on.set()
        server.shutdown()
        server.server_close()


def config_of(servers: list[Server], number: int, **fields: Any) -> dict[str, Any]:
    """All of it, endpoints, subset, route, edits and policies, says the same number."""
    text = str(number)
    edits = {"request": {"set": {"x-config": text}}, "response": {"set": {"x-answer": text}}}
    route = {"name": f"route-{text}", "backends": [{"subset": f"s{text}"}], "headers": edits}
    policies: list[dict[str, Any]] = [
        {"limits": {"max_in_flight": 50}, "load_balancing": {"policy": "round_robin"}},
        {"circuit_breaker": {"min_calls": 5}, "outlier_detection": False, "retry_budget": {"tokens": 7}},
    ]
    service = {
        "endpoints": [{"address": servers[number].address, "metadata": {"v": text}}],
        "subsets": {f"s{text}": {"v": text}},
        "routes": [route],
        **policies[number],
    }
    return {"services": {"orders": {**service, **fields}}}


def number_of(response: Any) -> str:
    """The number of the configuration that a call saw, which must be the same all over."""
    server, request = response.text.split()
    seen = {server, request, response.headers["x-answer"], record(response).route.removeprefix("route-")}
    assert len(seen) == 1, seen
    return str(server)


def in_flight(mesh: Mesh) -> int:
    nodes = mesh._wiring.snapshots.nodes().values()
    clusters = [cluster for service in mesh.status().services for cluster in service.clusters]
    return sum(node.in_flight for node in nodes) + sum(cluster.in_flight for cluster in clusters)


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.001)


def test_200_changes_under_load_fail_no_call_and_mix_no_two_configurations(servers: list[Server]) -> None:
    mesh, done = Mesh(config_of(servers, 0)), threading.Event()
    seen: list[str] = []
    errors: list[BaseException] = []

    def in_a_thread() -> None:
        client = mesh.client("orders")
        while not done.is_set():
            seen.append(number_of(client.get("/")))

    async def in_a_loop() -> None:
        client = mesh.async_client("orders")

        async def calls() -> None:
            while not done.is_set():
                seen.append(number_of(await client.get("/")))

        await asyncio.gather(calls(), calls())

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(in_a_thread,)) for _ in range(3)]
    threads.append(threading.Thread(target=guarded, args=(lambda: asyncio.run(in_a_loop()),)))
    for thread in threads:
        thread.start()
    for turn in range(200):
        before = len(seen)
        mesh.reload(config_of(servers, (turn + 1) % 2))
        wait_until(lambda before=before: errors or len(seen) > before, "calls go on")  # type: ignore[misc]
    done.set()
    for thread in threads:
        thread.join(20)
    assert errors == [], errors
    assert set(seen) == {"0", "1"}
    assert in_flight(mesh) == 0
    mesh.close()


def test_a_call_under_way_ends_with_what_it_began_with(servers: list[Server]) -> None:
    with Mesh(config_of(servers, 0)) as mesh:
        client, answers = mesh.client("orders"), []
        calling = threading.Thread(target=lambda: answers.append(number_of(client.get("/slow"))))
        calling.start()
        assert servers[0].arrived.wait(10)
        assert mesh.reload(config_of(servers, 1))
        assert number_of(client.get("/")) == "1"
        assert in_flight(mesh) >= 1
        servers[0].go_on.set()
        calling.join(10)
        assert answers == ["0"]
        wait_until(lambda: in_flight(mesh) == 0, "all calls are over")


def test_a_wrong_configuration_is_refused_with_every_fault_and_the_last_good_one_stays(
    servers: list[Server], tmp_path: Path
) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(f"services: {{orders: {{endpoints: ['{servers[0].address}']}}}}")
    events: list[Event] = []
    with Mesh(file) as mesh:
        mesh.on_event(events.append)
        client = mesh.client("orders")
        client.get("/")
        file.write_text("services: {orders: {endpoints: [nowhere], timeout: soon}}\nmood: bad")
        with pytest.raises(ConfigError) as refused:
            mesh.reload()
        assert len(refused.value.problems) == 3
        assert client.get("/").text == "0 None"
        file.write_text(f"services: {{orders: {{endpoints: ['{servers[1].address}']}}}}\nwire: h11")
        with pytest.raises(ConfigError, match="wire: cannot change from 'native' to 'h11'"):
            mesh.reload()
        assert client.get("/").text == "0 None"
        assert not [each for each in events if isinstance(each, ConfigReloaded)]


def test_what_is_different_is_told_once_and_nothing_is_where_nothing_is(servers: list[Server]) -> None:
    events: list[Event] = []
    with Mesh(config_of(servers, 0)) as mesh:
        mesh.on_event(events.append)
        number_of(mesh.client("orders").get("/"))
        assert mesh.reload() == ()
        changes = mesh.reload(config_of(servers, 0, timeout="3s"))
        assert any("timeout" in change for change in changes)
        wait_until(lambda: any(isinstance(each, ConfigReloaded) for each in events), "it is told")
        assert [each.changes for each in events if isinstance(each, ConfigReloaded)] == [changes]


def test_variables_are_read_again(servers: list[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text("services: {orders: {endpoints: ['${ORDERS}']}}")
    monkeypatch.setenv("ORDERS", servers[0].address)
    with Mesh(file) as mesh:
        client = mesh.client("orders")
        assert client.get("/").text == "0 None"
        monkeypatch.setenv("ORDERS", servers[1].address)
        mesh.reload()
        assert client.get("/").text == "1 None"


def test_a_host_means_another_service_from_now_on(servers: list[Server]) -> None:
    def config(number: int) -> dict[str, Any]:
        services: dict[str, Any] = {f"s{n}": {"endpoints": [servers[n].address]} for n in range(2)}
        services[f"s{number}"]["hosts"] = ["orders.internal"]
        return {"services": services}

    with Mesh(config(0)) as mesh:
        client = mesh.client()
        assert client.get("http://orders.internal/").text == "0 None"
        mesh.reload(config(1))
        assert client.get("http://orders.internal/").text == "1 None"


def test_a_mode_set_by_hand_outlasts_a_change(servers: list[Server]) -> None:
    events: list[Event] = []
    with Mesh({**config_of(servers, 0), "mode": "on"}) as mesh:
        mesh.on_event(events.append)
        mesh.reload({**config_of(servers, 0), "mode": "observe"})
        assert (mesh.mode, mesh.settings.mode) == ("observe", "observe")
        mesh.mode = "off"
        mesh.set_mode("on", service="orders")
        mesh.reload({**config_of(servers, 1), "mode": "on"})
        assert (mesh.mode, mesh.settings.mode) == ("off", "off")
        assert mesh._wiring.plane.service_modes == {"orders": "on"}
        wait_until(lambda: len([each for each in events if isinstance(each, ModeChanged)]) == 3, "told")


def test_a_listener_may_change_the_configuration_itself(servers: list[Server]) -> None:
    mesh = Mesh(config_of(servers, 0))
    told: list[tuple[str, ...]] = []

    def again(event: Event) -> None:
        if isinstance(event, ConfigReloaded):
            told.append(event.changes)
            mesh.reload(config_of(servers, 0))

    mesh.on_event(again)  # before the first call there is no control thread: it is told in this one
    mesh.reload({**config_of(servers, 1), "mode": "observe"})
    assert len(told) == 2
    assert number_of(mesh.client("orders").get("/")) == "0"
    mesh.reload(config_of(servers, 1))
    wait_until(lambda: len(told) == 4, "it was changed back")
    mesh.close()


def test_from_several_threads_at_once_the_last_to_read_wins(servers: list[Server]) -> None:
    with Mesh(config_of(servers, 0)) as mesh:
        client = mesh.client("orders")
        client.get("/")
        threads = [threading.Thread(target=mesh.reload, args=(config_of(servers, n % 2),)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        number_of(client.get("/"))


def test_in_an_event_loop_and_after_the_end(servers: list[Server]) -> None:
    async def run() -> None:
        async with Mesh(config_of(servers, 0)) as mesh:
            client = mesh.async_client("orders")
            assert number_of(await client.get("/")) == "0"
            assert await mesh.areload(config_of(servers, 1))
            assert number_of(await client.get("/")) == "1"
        with pytest.raises(MeshClosed):
            await mesh.areload()

    asyncio.run(run())


def test_in_a_forked_child(servers: list[Server]) -> None:
    mesh = Mesh({**config_of(servers, 0), "mode": "observe"})
    mesh.mode = "on"  # which a child keeps, and so does a reload
    number_of(mesh.client("orders").get("/"))
    mesh._wiring.plane.configure(mesh.settings)  # as if another thread were in the middle of a change
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert number_of(mesh.client("orders").get("/")) == "0"
            mesh.reload({**config_of(servers, 1), "mode": "off"})
            status = 0 if number_of(mesh.client("orders").get("/")) == "1" and mesh.mode == "on" else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert number_of(mesh.client("orders").get("/")) == "0"
    mesh.close()


def test_what_a_control_plane_lays_over_a_service_stays_over_a_reload(servers: list[Server]) -> None:
    with Mesh(config_of(servers, 0)) as mesh:
        laid = Mesh(config_of(servers, 0, timeout="9s")).settings.services["orders"]
        mesh._wiring.configure_service("orders", laid)
        assert mesh.plan("GET", "http://orders/").timeout_s == 9.0
        mesh.reload()
        assert mesh.plan("GET", "http://orders/").timeout_s == 9.0
        mesh._wiring.configure_service("orders", None)
        assert mesh.plan("GET", "http://orders/").timeout_s == 30.0


def test_active_checks_begin_change_and_end_with_the_configuration(servers: list[Server]) -> None:
    def checked(**check: Any) -> dict[str, Any]:
        return config_of(servers, 0, **({"health_check": {"interval": "20ms", **check}} if check else {}))

    def state(mesh: Mesh) -> str:
        (service,) = mesh.status().services
        return service.clusters[0].endpoints[0].state

    with Mesh(checked()) as mesh:
        client = mesh.client("orders")
        assert number_of(client.get("/")) == "0"
        mesh.reload(checked(http={"path": "/", "expected_statuses": ["500-599"]}))
        wait_until(lambda: state(mesh) == "failed", "it fails its check")
        mesh.reload(checked(http={"path": "/"}))
        wait_until(lambda: state(mesh) == "healthy", "it passes another")
        mesh.reload(checked(http={"path": "/", "expected_statuses": ["500-599"]}))
        wait_until(lambda: state(mesh) == "failed", "it fails again")
        mesh.reload(checked())
        wait_until(lambda: state(mesh) == "healthy", "nobody checks it any more")
        assert number_of(client.get("/")) == "0"


def test_connections_outlast_a_change_that_is_not_about_them(servers: list[Server]) -> None:
    with Mesh(config_of(servers, 0)) as mesh:
        client = mesh.client("orders")
        number_of(client.get("/"))
        (before,) = mesh.status().pools
        mesh.reload(config_of(servers, 0, timeout="3s", pool={"max_connections": 3}))
        number_of(client.get("/"))
        (after,) = mesh.status().pools
        assert (after.idle, after.address) == (before.idle, before.address) == (1, servers[0].address)
        pool = next(iter(mesh._wiring.engines[0]._pools.values()))
        assert pool.book.settings.max_connections == 3
        mesh.reload(config_of(servers, 0))
        number_of(client.get("/"))
        assert pool.book.settings.max_connections == 100


def test_a_limit_on_connections_that_comes_counts_those_that_there_are(servers: list[Server]) -> None:
    with Mesh(config_of(servers, 0)) as mesh:
        client = mesh.client("orders")
        number_of(client.get("/"))
        for maximum in (2, 1):
            mesh.reload(config_of(servers, 0, limits={"max_connections": maximum}))
            number_of(client.get("/"))
            member = mesh._wiring.snapshots.service("orders").clusters["s0"].members[0]
            cap = member.target.target.cap  # type: ignore[attr-defined]
            assert (cap.maximum, cap.open) == (maximum, 1)


def test_the_mesh_of_a_test_can_be_reloaded() -> None:
    with MeshFixture(services={"orders": {}}) as mesh:
        mesh.serve("orders", lambda request: request.headers.get("x-config", "none"))
        client = mesh.client("orders")
        assert client.get("/").text == "none"
        mesh.reload({"services": {"orders": {"routes": [{"headers": {"request": {"set": {"x-config": "1"}}}}]}}})
        assert client.get("/").text == "1"


# Files that are followed


def config_map(directory: Path, name: str, text: str) -> None:
    """Put a file into a volume as the kubelet does: AtomicWriter in ``pkg/volume/util/atomic_writer.go``."""
    (directory / name).mkdir()
    (directory / name / "mesh.yaml").write_text(text)
    (directory / "..data_tmp").symlink_to(name)
    (directory / "..data_tmp").rename(directory / "..data")
    if not (directory / "mesh.yaml").is_symlink():
        (directory / "mesh.yaml").symlink_to("..data/mesh.yaml")


def test_a_config_map_is_followed_a_wrong_one_refused_and_the_next_good_one_taken(
    servers: list[Server], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def text(number: int) -> str:
        address = servers[number].address
        return f"watch: {{interval: 50ms}}\nservices: {{orders: {{endpoints: ['{address}']}}}}"

    events: list[Event] = []
    config_map(tmp_path, "..2026_1", text(0))
    with Mesh.from_file(tmp_path / "mesh.yaml") as mesh:
        mesh.on_event(events.append)
        client = mesh.client("orders")
        assert client.get("/").text == "0 None"
        config_map(tmp_path, "..2026_2", text(1))
        wait_until(lambda: client.get("/").text == "1 None", "the new one is in force")
        config_map(tmp_path, "..2026_3", "services: {orders: {timeout: soon, retries: 3}}")
        wait_until(lambda: any(isinstance(each, ConfigRefused) for each in events), "it is refused")
        refused = [each for each in events if isinstance(each, ConfigRefused)]
        assert "soon" in refused[0].detail and "retries" in refused[0].detail
        lines = [line for line in caplog.messages if "was refused" in line]
        assert len(lines) == 1 and "\n" not in lines[0]
        assert client.get("/").text == "1 None"
        config_map(tmp_path, "..2026_4", text(0))
        wait_until(lambda: client.get("/").text == "0 None", "the good one is in force")
        (tmp_path / "..data").unlink()
        wait_until(lambda: len([e for e in events if isinstance(e, ConfigRefused)]) == 2, "its absence is told")
        assert client.get("/").text == "0 None"


def test_files_are_followed_only_where_that_is_asked_for(servers: list[Server], tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(f"services: {{orders: {{endpoints: ['{servers[0].address}']}}}}")
    for watch in (None, False):
        with Mesh(file, watch=watch) as mesh:
            mesh.client("orders").get("/")
            assert not mesh._wiring.reloading._following
    with Mesh(file, watch=True) as mesh:
        mesh.client("orders").get("/")
        assert mesh._wiring.reloading._following
    file.write_text(file.read_text() + "\nwatch: {}")
    with Mesh(file, watch=False) as mesh:
        mesh.client("orders").get("/")
        assert not mesh._wiring.reloading._following


def test_following_begins_and_ends_with_what_the_file_says(servers: list[Server], tmp_path: Path) -> None:
    file, off = tmp_path / "mesh.yaml", f"services: {{orders: {{endpoints: ['{servers[0].address}']}}}}"
    file.write_text(off)
    with Mesh(file) as mesh:
        reloading = mesh._wiring.reloading
        file.write_text(off + "\nwatch: {interval: 20ms}")
        mesh.reload()
        assert reloading._following
        file.write_text(off)
        wait_until(lambda: not reloading._following, "nobody looks any more")
        assert mesh.settings.watch is None
