"""What httpx's users are used to, through the mesh: the same cases, on the same server, give what bare clients give."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import hypercorn
import hypercorn.asyncio
import pytest
import trustme
import uvicorn

import meshlib
from meshlib import Mesh
from meshlib.adapters import httpx2 as meshed_httpx2
from tests.adapters.habits import CASES
from tests.adapters.habits_app import app
from tests.adapters.habits_kit import Kit, plain, run_sync
from tests.adapters.support import address, mesh_of, origins

CONTEXT = ssl.create_default_context()  # made once, as it is most of what a bare client costs


@contextmanager
def served() -> Iterator[int]:
    # With its protocol, or asyncio leaves Nagle's algorithm on: 40 ms for an answer that is written in two pieces.
    with socket.socket(proto=socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(app, log_level="critical", ws="wsproto", lifespan="off", timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), name="habits")
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served() as port:
        yield port


@pytest.fixture(scope="module")
def mesh(port: int) -> Iterator[Mesh]:
    address = f"127.0.0.1:{port}"
    services = {
        "here": {"endpoints": [address], "hosts": [address]},
        "there": {"endpoints": [address], "hosts": [f"localhost:{port}"]},
        "nowhere": {"endpoints": ["127.0.0.1:1"], "hosts": ["127.0.0.1:1"], "retry": {"max_retries": 0}},
    }
    with Mesh({"discovery": [], "services": services}) as mesh:
        yield mesh


@pytest.fixture(params=["sync", "async"])
def sync(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "sync")


def clients(name: str, how: str, mesh: Mesh, *, sync: bool) -> Callable[..., Any]:
    library = import_module(name)
    if how == "attached":
        bare = library.Client if sync else library.AsyncClient
        return lambda **options: mesh.attach(bare(**options))
    if name == "httpx":
        return mesh.client if sync else mesh.async_client
    make = meshed_httpx2.client if sync else meshed_httpx2.async_client
    return lambda **options: make(mesh, **options)


@pytest.mark.parametrize("how", ["made", pytest.param("attached", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["httpx", pytest.param("httpx2", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_a_habit(case: str, name: str, how: str, sync: bool, mesh: Mesh, port: int) -> None:
    library = import_module(name)
    bare = library.Client if sync else library.AsyncClient

    def tried(make: Callable[..., Any]) -> Any:
        def made(**options: Any) -> Any:
            return make(**{"verify": CONTEXT, "trust_env": False, **options})

        kit = Kit(library, f"http://127.0.0.1:{port}", f"http://localhost:{port}", made, sync=sync)
        work = CASES[case](kit)
        return plain(run_sync(work) if sync else asyncio.run(work))

    assert tried(clients(name, how, mesh, sync=sync)) == tried(bare)


@pytest.mark.parametrize("how", ["made", "attached"])
@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_what_is_tried_goes_through_the_mesh(name: str, how: str, mesh: Mesh, port: int) -> None:
    with clients(name, how, mesh, sync=True)(verify=CONTEXT, trust_env=False) as client:
        assert isinstance(client, import_module(name).Client)
        record = meshlib.record(client.get(f"http://127.0.0.1:{port}/echo"))
    assert record is not None
    assert (record.service, record.outcome) == ("here", "success")


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_hosts_outside_are_reached_through_the_proxies_of_the_environment(
    name: str, sync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with origins(None) as ([proxy], [server]), mesh_of(server) as mesh:
        monkeypatch.setenv("HTTP_PROXY", address(server))
        monkeypatch.setenv("NO_PROXY", f"example.org,{address(server)}")
        make = clients(name, "made", mesh, sync=sync)

        def lines(*urls: str, **options: Any) -> list[str]:
            kit = Kit(import_module(name), "http://orders", "", make, sync=sync)
            del proxy.seen[:]

            async def calls() -> None:
                async with kit.client(verify=CONTEXT, **options) as client:
                    for url in urls:
                        await client.get(url)

            run_sync(calls()) if sync else asyncio.run(calls())
            return [seen.line for seen in proxy.seen]

        assert lines("http://example.com/a", "/b", f"http://{address(server)}/c") == [
            "GET http://example.com/a HTTP/1.1",
            "GET /b HTTP/1.1",
            "GET /c HTTP/1.1",
        ]
        given = {"proxy": f"http://{address(server)}", "trust_env": False}
        assert lines("http://example.org/a", "/b", **given) == ["GET http://example.org/a HTTP/1.1", "GET /b HTTP/1.1"]


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_an_application_may_be_the_wire(name: str, sync: bool) -> None:
    library = import_module(name)

    def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("content-type", "text/plain")])
        return [environ["REQUEST_METHOD"].encode(), b" ", environ["PATH_INFO"].encode()]

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": f"{scope['method']} {scope['path']}".encode()})

    async def call(make: Callable[..., Any]) -> str:
        transport = library.WSGITransport(app=wsgi) if sync else library.ASGITransport(app=asgi)
        async with Kit(library, "http://orders", "", make, sync=sync).client(transport=transport) as client:
            return str((await client.get("/a%20b?c=d")).text)

    with mesh_of(endpoints=["127.0.0.1:1"]) as mesh:
        bare = library.Client if sync else library.AsyncClient
        answers = [
            run_sync(call(make)) if sync else asyncio.run(call(make))
            for make in (clients(name, "made", mesh, sync=sync), bare)
        ]
    assert answers == ["GET /a b"] * 2


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_a_connection_is_upgraded(name: str, mesh: Mesh) -> None:
    headers = {
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
    with clients(name, "made", mesh, sync=True)(verify=CONTEXT) as client:
        with client.stream("GET", "http://here/ws", headers=headers) as response:
            assert response.status_code == 101
            # RFC 6455, section 1.3
            assert response.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
            response.extensions["network_stream"].write(b"\x81\x82\0\0\0\0hi")  # a masked frame of text
            assert response.extensions["network_stream"].read(100, timeout=5.0) == b"\x81\x06/ws hi"
        record = meshlib.record(response)
        assert record is not None and (record.outcome, record.status) == ("success", 101)


@contextmanager
def served_over_http2(authority: trustme.CA, folder: Path) -> Iterator[int]:
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    with socket.socket(proto=socket.IPPROTO_TCP) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    config = hypercorn.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.certfile = config.keyfile = str(folder / "server.pem")
    config.accesslog = config.errorlog = None
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async def until_over() -> None:
            ready.set()
            await asyncio.to_thread(over.wait)

        await hypercorn.asyncio.serve(app, config, mode="asgi", shutdown_trigger=until_over)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="http2")
    thread.start()
    ready.wait(10)
    try:
        yield port
    finally:
        over.set()
        thread.join()


@pytest.mark.slow
def test_http2(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    cases = ("json_and_forms", "streams", "redirects", "cookies_of_a_redirect", "basic_auth", "uploads")
    with served_over_http2(authority, tmp_path) as port:
        orders = {
            "hosts": [f"localhost:{port}"],
            "endpoints": [f"127.0.0.1:{port}"],
            "http2": True,
            "tls": {"ca_file": str(tmp_path / "ca.pem"), "server_name": "localhost"},
        }
        with Mesh({"discovery": [], "services": {"orders": orders}}) as mesh:
            for name in ("httpx", "httpx2"):
                library = import_module(name)

                def tried(make: Callable[..., Any], case: str, library: Any = library) -> Any:
                    def made(**options: Any) -> Any:
                        return make(**{"verify": context, "http2": True, "trust_env": False, **options})

                    return plain(
                        asyncio.run(CASES[case](Kit(library, f"https://localhost:{port}", "", made, sync=False)))
                    )

                for case in cases:
                    meshed = tried(clients(name, "made", mesh, sync=False), case)
                    assert meshed == tried(library.AsyncClient, case)
                    assert "HTTP/2" in str(meshed) or case == "streams"


@pytest.mark.parametrize("name", ["httpx", "httpx2"])
def test_a_call_is_cancelled(name: str, mesh: Mesh, port: int) -> None:
    async def calls(make: Callable[..., Any]) -> list[Any]:
        got: list[Any] = []
        async with make(verify=CONTEXT, trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
            for work in (client.get("/wait"), client.send(client.build_request("GET", "/wait"), stream=True)):
                try:
                    async with asyncio.timeout(0.05):
                        await work
                except TimeoutError as error:
                    got.append(type(error).__name__)
            try:
                async with asyncio.timeout(5), client.stream("GET", "/stream?n=1000") as response:
                    async for _ in response.aiter_bytes():
                        raise LookupError
            except LookupError:
                got.append(response.is_closed)
            got.append((await client.get("/echo")).status_code)
        return got

    bare = asyncio.run(calls(import_module(name).AsyncClient))
    assert asyncio.run(calls(clients(name, "made", mesh, sync=False))) == bare == ["TimeoutError"] * 2 + [True, 200]
    assert sum(each.in_flight for service in mesh.status().services for each in service.clusters) == 0
