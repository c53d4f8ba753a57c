"""What is httpx2's own, besides what it has in common with httpx; and what is told of both side by side."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

import meshlib
from meshlib import Mesh
from meshlib.adapters import httpx2 as meshed
from meshlib.testing import MeshFixture
from tests.adapters.support import address, mesh_of, ok, origins
from tests.adapters.test_habits import served

SOURCE = Path(meshlib.__file__).parents[1]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served() as port:
        yield port


@pytest.fixture
def mesh(port: int) -> Iterator[Mesh]:
    orders = {"endpoints": [f"127.0.0.1:{port}"], "hosts": [f"127.0.0.1:{port}"]}
    down = {"endpoints": ["127.0.0.1:1", f"127.0.0.1:{port}"], "load_balancing": {"policy": "round_robin"}}
    with Mesh({"discovery": [], "services": {"orders": orders, "down": down}}) as mesh:
        yield mesh


def test_server_sent_events(mesh: Mesh) -> None:
    with meshed.client(mesh, "orders") as client, client.sse("/events") as source:
        events = [(event.event, event.data, event.id) for event in source]

    async def hear() -> list[Any]:
        async with meshed.async_client(mesh, "orders") as client, client.sse("/events") as source:
            return [(event.event, event.data, event.id) async for event in source]

    assert events == asyncio.run(hear()) == [("a", "1", ""), ("message", "2\n3", "7")]


@pytest.mark.parametrize("url", ["/ws", "http://orders/ws", "ws://orders/ws"])
def test_a_websocket(mesh: Mesh, url: str) -> None:
    with meshed.client(mesh, "orders") as client, client.websocket(url) as socket:
        socket.send_text("one")
        assert socket.receive_text() == "/ws one"
        assert in_flight(mesh) == 1
    assert in_flight(mesh) == 0

    async def talk() -> str:
        async with meshed.async_client(mesh, "orders") as client, client.websocket(url) as socket:
            await socket.send_text("two")
            return await socket.receive_text()

    assert asyncio.run(talk()) == "/ws two"
    assert in_flight(mesh) == 0


def in_flight(mesh: Mesh) -> int:
    return sum(each.in_flight for service in mesh.status().services for each in service.clusters)


def test_a_websocket_goes_to_an_endpoint_that_answers(mesh: Mesh) -> None:
    for _ in range(4):
        with meshed.client(mesh, "down") as client, client.websocket("/ws") as socket:
            socket.send_text("hello")
            assert socket.receive_text() == "/ws hello"


def test_a_websocket_that_is_refused(mesh: Mesh) -> None:
    from httpx2.websockets import WebSocketUpgradeError

    with meshed.client(mesh, "orders") as client, pytest.raises(WebSocketUpgradeError):
        with client.websocket("/refused"):
            pass
    assert in_flight(mesh) == 0


def test_a_websocket_of_a_client_that_was_attached(mesh: Mesh, port: int) -> None:
    with mesh.attach(httpx2.Client(trust_env=False)) as client, client.websocket(f"ws://127.0.0.1:{port}/ws") as socket:
        socket.send_text("one")
        assert socket.receive_text() == "/ws one"
        assert in_flight(mesh) == 1


def test_a_query_is_sent(mesh: Mesh) -> None:
    with meshed.client(mesh, "orders") as client:
        told = client.query("/echo", json={"a": 1}).json()
    assert (told["method"], told["body"]) == ("QUERY", '{"a":1}')


def test_errors_are_httpx2s_and_can_be_pickled() -> None:
    with mesh_of() as mesh, meshed.client(mesh, "orders") as client:
        with pytest.raises(httpx2.ConnectError) as caught:
            client.get("/x")
    error = caught.value
    assert isinstance(error, meshlib.MeshError)
    assert str(error.request.url) == "http://orders/x"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))
    assert again.record == error.record
    with pytest.raises(AttributeError):
        _ = meshed.NoSuchError


ALONE = """
import sys
sys.path.insert(0, {source!r})
from meshlib import Mesh
from meshlib.adapters import {adapter}
mesh = Mesh({{"discovery": [], "wire": {wire!r}, "services": {{"orders": {{"endpoints": [{address!r}]}}}}}})
with mesh, {make} as client:
    assert client.get({url!r}).text == "ok"
print(*sorted({{"httpx", "httpx2"}} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("adapter", "make", "wire"),
    [
        ("httpx2", "httpx2.client(mesh, 'orders')", "native"),
        ("httpx2", "httpx2.client(mesh)", "stock"),
        ("httpx", "mesh.client('orders')", "native"),
    ],
)
def test_neither_library_is_imported_for_the_other(adapter: str, make: str, wire: str) -> None:
    with origins(lambda seen, number: ok()) as (_, [server]):
        at = address(server)
        url = f"http://{at}/" if wire == "stock" else "/"
        code = ALONE.format(source=str(SOURCE), adapter=adapter, make=make, wire=wire, address=at, url=url)
        done = subprocess.run(
            [sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False
        )
    assert (done.stdout.split(), done.stderr) == ([adapter], "")


def test_without_httpx2_it_is_said_what_to_install() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); sys.modules['httpx2'] = None\n"
        "from meshlib.adapters import httpx2"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.rstrip().endswith('ImportError: this adapter needs httpx2: pip install "meshlib-http[httpx2]"')


def test_the_stock_wire_is_httpx2s(monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[str] = []

    def answer(transport: Any, request: httpx2.Request) -> httpx2.Response:
        came.append(str(request.url))
        return httpx2.Response(200 if len(came) > 1 else 503, stream=httpx2.ByteStream(b"mocked"))

    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", answer)
    with Mesh({"wire": "stock", "discovery": [], "services": {"orders": {}}}) as mesh:
        with meshed.client(mesh, "orders") as client:
            assert client.get("/x").text == "mocked"
    assert came == ["http://orders/x"] * 2


def test_a_fixture_serves_httpx2_too() -> None:
    with MeshFixture() as mesh:
        mesh.serve("orders", {"id": 42}, instances=2)
        mesh.serve("api.example.com", "outside")
        mesh.fail_next("orders")
        with meshed.client(mesh, "orders") as client:
            assert client.get("/").json() == {"id": 42}
            assert client.get("http://api.example.com/").text == "outside"
            with pytest.raises(httpx2.ConnectError, match="no network in a MeshFixture"):
                client.get("http://other.example.com/")
        with mesh.attach(httpx2.Client(trust_env=False)) as client:
            assert client.get("http://orders/").json() == {"id": 42}
            assert client.get("http://api.example.com/").text == "outside"

        async def test() -> Any:
            async with meshed.async_client(mesh, "orders") as client:
                assert (await client.get("http://api.example.com/")).text == "outside"
            async with httpx2.AsyncClient(transport=meshed.async_transport(mesh)) as client:
                return (await client.get("http://orders/")).json()

        assert asyncio.run(test()) == {"id": 42}
        assert len(mesh.calls("orders")) == 4


@pytest.mark.parametrize("library", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_a_duration_is_no_timeout_of_httpx_and_what_takes_it_is_told(library: Any) -> None:
    with MeshFixture() as mesh:
        mesh.serve("orders", 200)
        make: Any = mesh.client if library is httpx else partial(meshed.client, mesh)
        told = r"timeout is to be in seconds, not '1s', which meshlib.call\(timeout='1s'\) takes"
        with pytest.raises(TypeError, match=told):
            make("orders", timeout="1s")
        client = make("orders")
        for how in ({}, {"params": {"a": "b"}}):
            with pytest.raises(TypeError, match=told):
                client.get("/", timeout="1s", **how)
        with pytest.raises(TypeError, match=told), client.stream("GET", "/", timeout="1s"):
            pass
        assert mesh.calls("orders") == []


@pytest.mark.parametrize("error", [meshlib.Reset, meshlib.BodyBroken])
@pytest.mark.parametrize("theirs", ["ReadError", "RemoteProtocolError"])
def test_a_connection_that_ends_is_caught_by_either_name(error: Any, theirs: str) -> None:
    with MeshFixture() as mesh:
        mesh.serve("orders", 200)
        mesh.fail_next("orders", error=error, times=None)
        for library, client in ((httpx, mesh.client("orders")), (httpx2, meshed.client(mesh, "orders"))):
            with pytest.raises(getattr(library, theirs)) as caught:
                client.get("/")
            assert isinstance(caught.value, error)
            again = pickle.loads(pickle.dumps(caught.value))
            assert type(again) is type(caught.value)


def test_only_a_mesh_makes_clients() -> None:
    with pytest.raises(TypeError, match="a Mesh is expected, not str"):
        meshed.client("orders")  # type: ignore[arg-type]
