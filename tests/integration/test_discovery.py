"""A mesh over real registries: instances come and die, the registry itself goes away and returns; no call is lost."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import Mesh
from tests.discovery.support import until
from tests.integration.calling import Caller
from tests.integration.processes import servers
from tests.net.wire_servers import Peer, serving
from tests.peers.consul import Consul


class Traffic:
    """Calls `orders` from threads of its own until it is told to stop; every answer is counted by its text."""

    def __init__(self, mesh: Mesh) -> None:
        self.answers: Counter[str] = Counter()
        self.lost: list[BaseException | int] = []
        self._client = mesh.client("orders")
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._begun = [0, 0, 0]
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(3)]

    def _call(self, number: int) -> None:
        while not self._over.wait(0.002):
            self._begun[number] += 1
            try:
                response = self._client.get("/x")
            except Exception as error:
                self.lost.append(error)
                continue
            with self._lock:
                self.answers[response.text] += 1
            if response.status_code != 200:
                self.lost.append(response.status_code)

    def more(self, calls: int = 60) -> Counter[str]:
        """The answers to this many calls that begin from now on."""
        begun = list(self._begun)
        until(lambda: all(now > then for now, then in zip(self._begun, begun, strict=True)))
        before = Counter(self.answers)
        until(lambda: sum(self.answers.values()) + len(self.lost) >= sum(before.values()) + calls)
        assert self.lost == []
        with self._lock:
            return self.answers - before

    def reaches(self, *names: str, calls: int = 60) -> None:
        """Of calls that begin from now on each of these answers some, one that was slow of late later; nobody else."""
        found: Counter[str] = Counter()

        def all_answered() -> bool:
            nonlocal found
            found += self.more(calls)
            return found.keys() >= {*names}

        until(all_answered, 30, f"each of {names} answers")
        assert found.keys() == {*names}

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._client.close()


def consul_config(consul: Consul, **more: Any) -> dict[str, Any]:
    source = {"address": consul.address, "retry_max": "500ms", "wait": "5s"}
    if consul.token is not None:
        source["token"] = consul.token
    return {"service": "orders", "discovery": [{"consul": source}], **more}


def local_config(directory: Path, **more: Any) -> dict[str, Any]:
    return {
        "service": "orders",
        "discovery": [{"local": {"directory": str(directory), "poll_interval": "50ms"}}],
        **more,
    }


def endpoints(mesh: Mesh) -> dict[str, str]:
    (cluster,) = mesh.status().services[0].clusters
    return {endpoint.address: endpoint.state for endpoint in cluster.endpoints}


def healthy(mesh: Mesh) -> set[str]:
    return {address for address, state in endpoints(mesh).items() if state == "healthy"}


@pytest.mark.slow
def test_no_call_is_lost_while_instances_die_and_consul_goes_and_returns(consul: Consul) -> None:
    config = consul_config(consul)
    events: list[Any] = []
    with servers(config, "a", "b", "c", check_interval="1s") as [a, b, c], Mesh(config) as mesh:
        mesh.on_event(events.append)
        mesh.wait_ready("orders", timeout="20s")
        until(lambda: healthy(mesh) == {a.address, b.address, c.address}, 20)
        with Traffic(mesh) as traffic:
            traffic.reaches("a", "b", "c", calls=200)

            a.kill()
            assert set(traffic.more()) <= {"a", "b", "c"}
            until(lambda: a.address not in healthy(mesh), 20, "Consul's check finds that a is dead")
            traffic.reaches("b", "c")

            path = f"/v1/agent/service/maintenance/{b.instance_id}"
            consul.put(f"{path}?enable=true&reason=test")
            until(lambda: b.address not in endpoints(mesh), 10, "an instance in maintenance is out, even for panic")
            traffic.reaches("c")
            consul.put(f"{path}?enable=false")
            until(lambda: b.address in healthy(mesh), 10)
            traffic.reaches("b", "c", calls=200)

            consul.kill()
            until(lambda: _service(mesh).age_s, 10, "the age of the last good set grows")
            traffic.reaches("b", "c", calls=200)
            assert "stale" in str(events).lower()

            consul.start()
            # The agent has forgotten everything; the instances enter themselves again, and a new one comes.
            with servers(config, "d", check_interval="1s") as [d]:
                until(lambda: d.address in healthy(mesh), 5, "who waits for Consul asks again twice a second")
                until(lambda: {b.address, c.address} <= healthy(mesh), 20)
                traffic.reaches("b", "c", "d", calls=200)
                assert _service(mesh).age_s == 0
        assert traffic.lost == []


def _service(mesh: Mesh) -> Any:
    return mesh.status().services[0]


@pytest.mark.slow
def test_no_call_is_lost_while_instances_come_and_go_in_the_local_registry(tmp_path: Path) -> None:
    config = local_config(tmp_path / "registry")
    with servers(config, "a", "b") as [a, b], Mesh(config) as mesh:
        mesh.wait_ready("orders")
        until(lambda: healthy(mesh) == {a.address, b.address})
        with Traffic(mesh) as traffic:
            traffic.reaches("a", "b", calls=100)
            a.kill()
            until(lambda: a.address not in endpoints(mesh), 5, "a killed process disappears by itself")
            traffic.reaches("b")
            with servers(config, "c", metadata={"version": "v2"}, weight=2) as [c]:
                until(lambda: c.address in healthy(mesh), 5)
                traffic.reaches("b", "c", calls=100)
                c.stop()
                until(lambda: c.address not in endpoints(mesh), 5)
            traffic.reaches("b")
        assert traffic.lost == []


def test_subsets_and_weights_come_from_the_registry(tmp_path: Path) -> None:
    routes = [{"name": "v2", "backends": [{"subset": "v2"}]}]
    services = {"orders": {"subsets": {"v2": {"version": "v2"}}, "routes": routes}}
    config = local_config(tmp_path / "registry")
    with (
        servers(config, "old"),
        servers(config, "new", metadata={"version": "v2"}) as [new],
        Mesh({**config, "services": services}) as mesh,
        mesh.client("orders") as client,
    ):
        until(lambda: new.address in mesh.status().__str__())
        assert {client.get("/x").text for _ in range(10)} == {"new"}


# Consul in trouble


def waiting(**more: Any) -> dict[str, Any]:
    return {"defaults": {"endpoint_wait": "300ms"}, **more}


def test_consul_unreachable_at_start_is_a_typed_error_after_a_short_wait(caller: Caller) -> None:
    config = {"discovery": [{"consul": {"address": "http://127.0.0.1:1"}}], **waiting()}
    with Mesh(config) as mesh:
        began = time.monotonic()
        with pytest.raises(httpx.ConnectError) as caught:
            caller.client(mesh)("GET", "/x")
        assert 0.25 < time.monotonic() - began < 2
        error = caught.value
        assert isinstance(error, meshlib.DiscoveryUnavailable)
        assert "127.0.0.1:1" in str(error)
        assert error.retryable
        assert error.record is not None
        assert {wait.reason for wait in error.record.waits} == {"endpoints"}
        # A deadline that is shorter than the wait is the one that counts.
        with pytest.raises(meshlib.DeadlineExceeded):
            caller.client(mesh)("GET", "/x", timeout=0.05)


def test_a_first_call_waits_for_a_consul_that_answers_late(consul: Consul, caller: Caller) -> None:
    config = consul_config(consul)
    with servers(config, "a", check_interval="1s") as [a], Mesh(config) as mesh:
        consul.suspend()
        resuming = threading.Timer(0.3, consul.resume)
        resuming.start()
        try:
            response = caller.client(mesh)("GET", "/x")
        finally:
            resuming.join()
        assert response.text == "a"
        record = meshlib.record(response)
        assert record is not None
        assert record.waits[0].reason == "endpoints"
        assert sum(wait.duration_s for wait in record.waits) > 0.2
        assert healthy(mesh) == {a.address}


def test_a_wrong_token_says_what_to_change(consul_factory: Callable[..., Consul], caller: Caller) -> None:
    consul = consul_factory(token="11111111-2222-3333-4444-555555555555")
    for token in (None, "99999999-2222-3333-4444-555555555555"):
        source = {"address": consul.address, **({} if token is None else {"token": token})}
        with Mesh({"discovery": [{"consul": source}], **waiting()}) as mesh:
            with pytest.raises(
                (meshlib.DiscoveryUnavailable, meshlib.UnknownService), match=r"(?i)token|acl"
            ) as caught:
                caller.client(mesh)("GET", "/x")
            assert token is None or token not in str(caught.value)


def _index(body: bytes, status: str = "200 OK", index: str = "7") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nX-Consul-Index: {index}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (_index(b"No cluster leader", "500 Internal Server Error"), "500"),
        (_index(b"<html>a proxy</html>"), "malformed"),
        (_index(b'{"not": "a list"}'), "malformed|list"),
        (b"\x00\x01\x02 rubbish\r\n\r\n", "127.0.0.1"),
        (b"", "127.0.0.1"),
    ],
    ids=["500", "html", "not a list", "rubbish", "hangs up"],
)
def test_a_consul_that_answers_badly_is_a_typed_error(caller: Caller, answer: bytes, says: str) -> None:
    def script(peer: Peer) -> None:
        while peer.request() is not None:
            if not answer:
                return
            peer.send(answer)

    with serving(script) as server:
        config = {"discovery": [{"consul": {"address": f"http://127.0.0.1:{server.port}"}}], **waiting()}
        with Mesh(config) as mesh, pytest.raises(meshlib.DiscoveryUnavailable, match=says):
            caller.client(mesh)("GET", "/x")


@contextmanager
def fake_consul(answers: Callable[[int], bytes]) -> Iterator[str]:
    """A Consul that answers blocking queries as told by their number, and holds those that have nothing new."""
    count, lock = [0], threading.Lock()

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            with lock:
                count[0] += 1
                number = count[0]
            time.sleep(0.02)
            peer.send(answers(number))

    with serving(script) as server:
        yield f"http://127.0.0.1:{server.port}"


def test_a_consul_whose_index_goes_back_and_that_fails_now_and_then_is_survived(tmp_path: Path) -> None:
    with servers(local_config(tmp_path / "registry"), "a") as [a]:
        entry = {
            "Node": {"Node": "n", "Address": "127.0.0.1"},
            "Service": {"ID": "a", "Service": "orders", "Address": "127.0.0.1", "Port": a.port},
            "Checks": [],
        }
        good = json.dumps([entry]).encode()

        def answers(number: int) -> bytes:
            match number % 5:
                case 2:
                    return _index(b"oops", "500 Internal Server Error")
                case 3:
                    return _index(good, index="3")
                case 4:
                    return _index(b"garbage")
            return _index(good, index=str(number + 100))

        with fake_consul(answers) as address:
            source = {"address": address, "retry_base": "10ms", "retry_max": "20ms"}
            with Mesh({"discovery": [{"consul": source}]}) as mesh, Traffic(mesh) as traffic:
                until(lambda: sum(traffic.answers.values()) >= 200)
                traffic.reaches("a", calls=200)
                assert traffic.lost == []


def test_a_service_that_consul_does_not_know_is_unknown_and_one_without_instances_has_no_endpoint(
    consul: Consul, caller: Caller
) -> None:
    with (
        Mesh({"discovery": [{"consul": {"address": consul.address}}]}) as mesh,
        pytest.raises(meshlib.UnknownService, match="nobody"),
    ):
        caller.client(mesh, "nobody")("GET", "/x")
    consul.put(
        "/v1/agent/service/register",
        {"Name": "orders", "ID": "o1", "Address": "127.0.0.1", "Port": 1, "Check": {"TTL": "60s", "Status": "passing"}},
    )
    consul.put("/v1/agent/service/maintenance/o1?enable=true")
    with Mesh({"discovery": [{"consul": {"address": consul.address}}]}) as mesh:
        with pytest.raises(httpx.ConnectError) as caught:
            caller.client(mesh)("GET", "/x")
        assert isinstance(caught.value, (meshlib.NoEndpoint, meshlib.UnknownService))


# Ready


def test_ready_says_what_is_missing(tmp_path: Path) -> None:
    with Mesh({**local_config(tmp_path / "registry"), "services": {"orders": {}}}) as mesh:
        with pytest.raises(meshlib.DeadlineExceeded, match=r"orders: no healthy endpoint within 0\.2s.*discovery: no"):
            mesh.wait_ready(timeout="200ms")
        with servers(local_config(tmp_path / "registry"), "a"):
            mesh.wait_ready(timeout="5s")
            mesh.wait_ready("orders", timeout=1)


def test_ready_follows_the_routes(tmp_path: Path) -> None:
    config = {
        **local_config(tmp_path / "registry"),
        "services": {
            "shop": {"routes": [{"backends": [{"service": "orders"}]}]},
            "site": {
                "routes": [
                    {"match": [{"path": {"prefix": "/"}}], "backends": [{"service": "orders"}]},
                    {"direct_response": {"status": 404}},
                ]
            },
            "closed": {"routes": [{"direct_response": {"status": 410}}]},
            "partners": {"hosts": ["*.partner.example"], "endpoints": ["*:443"]},
        },
    }
    with Mesh(config) as mesh:
        mesh.wait_ready("closed", "partners", timeout="100ms")
        for name in ("shop", "site"):
            with pytest.raises(meshlib.DeadlineExceeded, match=f"{name}: no healthy endpoint of orders within 0.1s"):
                mesh.wait_ready(name, timeout="100ms")
        with servers(local_config(tmp_path / "registry"), "a"):
            mesh.wait_ready(timeout="5s")


def test_ready_waits_for_health_and_not_for_presence(consul: Consul) -> None:
    check = {"CheckID": "c1", "TTL": "60s", "Status": "critical"}
    consul.put(
        "/v1/agent/service/register",
        {"Name": "orders", "ID": "o1", "Address": "127.0.0.1", "Port": 1, "Check": check},
    )
    with Mesh({"discovery": [{"consul": {"address": consul.address}}]}) as mesh:
        with pytest.raises(meshlib.DeadlineExceeded, match="1 endpoint, unhealthy"):
            mesh.wait_ready("orders", timeout="500ms")
        assert endpoints(mesh) == {"127.0.0.1:1": "unhealthy"}
        timer = threading.Timer(0.1, lambda: consul.put("/v1/agent/check/pass/c1"))
        timer.start()
        mesh.wait_ready("orders", timeout="5s")
        timer.join()
        assert healthy(mesh) == {"127.0.0.1:1"}


@pytest.mark.anyio
async def test_ready_in_an_event_loop(tmp_path: Path) -> None:
    async with Mesh({**local_config(tmp_path / "registry"), "services": {"orders": {}}}) as mesh:
        with pytest.raises(meshlib.DeadlineExceeded):
            await mesh.ready(timeout="100ms")
        with servers(local_config(tmp_path / "registry"), "a"):
            await mesh.ready("orders", timeout="5s")
    with pytest.raises(meshlib.MeshClosed):
        await mesh.ready("orders", timeout="1s")
