"""What users of aiohttp know of it, through the mesh."""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import pickle
import zlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession, ClientTimeout, web
from aiohttp.client_reqrep import ConnectionKey

import meshlib
from meshlib import Mesh, errors
from meshlib.adapters.aiohttp import MeshMiddleware, middleware, session
from meshlib.adapters.aiohttp_errors import _AS_AIOHTTP, as_aiohttp
from tests.adapters.support import Origin, Seen, address, mesh_of, ok, origins
from tests.net.wire_servers import Peer, serving

Act = Callable[[ClientSession], Coroutine[Any, Any, None]]


def answer(seen: Seen, number: int) -> bytes | None:
    path = seen.line.split()[1]
    match path.partition("?")[0]:
        case "/cookie":
            return ok(b"", Set_Cookie="a=b; Path=/")
        case "/digest" if not seen.header("authorization"):
            return ok(b"who?", "401 Unauthorized", WWW_Authenticate='Digest realm="r", nonce="n", qop="auth"')
        case "/moved":
            return ok(b"", "307 Temporary Redirect", Location="/there?x=1")
        case "/missing":
            return ok(b"no such thing", "404 Not Found")
        case "/lines":
            pieces = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (b"on", b"e\ntw", b"o\n"))
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
        case "/large":
            return ok(b"x" * 300_000)
        case "/reset":
            return None
    return ok(seen.body or path.encode())


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Origin, Mesh]]:
    with origins(answer) as ((origin,), servers), mesh_of(*servers, retry={"max_retries": 0}) as mesh:
        yield origin, mesh


@pytest.fixture
def origin(served: tuple[Origin, Mesh]) -> Origin:
    served[0].seen.clear()
    return served[0]


@pytest.fixture
def mesh(served: tuple[Origin, Mesh]) -> Mesh:
    return served[1]


@pytest.fixture
def within(mesh: Mesh, origin: Origin) -> Callable[..., None]:
    """Does something with a session, in a loop of its own; nothing stays in flight."""

    def run(act: Act, **options: Any) -> None:
        async def act_in_session() -> None:
            async with session(mesh, "orders", **options) as orders:
                await act(orders)

        asyncio.run(act_in_session())
        assert in_flight(mesh) == 0

    return run


def in_flight(mesh: Mesh) -> int:
    return sum(each.in_flight for service in mesh.status().services for each in service.clusters)


# Sessions


@pytest.mark.parametrize(
    ("base", "url", "expected"),
    [
        (None, "/a/b?c=d", "/a/b?c=d"),
        (None, "a", "/a"),
        (None, "http://orders/abs#part", "/abs"),
        (None, "/ä b", "/%C3%A4%20b"),
        ("v2/", "a", "/v2/a"),
        ("/v2/", "/a", "/a"),
    ],
)
def test_relative_urls_are_those_of_the_service(
    within: Any, origin: Origin, base: str | None, url: str, expected: str
) -> None:
    async def act(orders: ClientSession) -> None:
        async with orders.get(url) as response:
            assert str(response.real_url).startswith("http://orders")
            assert str(response.url).endswith(expected)

    within(act, base_url=base)
    assert origin.seen[0].line == f"GET {expected} HTTP/1.1"


@pytest.mark.parametrize("name", ["", "or ders", "a/b", "http://orders", "u@orders"])
def test_what_is_no_name_is_refused(mesh: Mesh, name: str) -> None:
    with pytest.raises(ValueError, match="is not the name of a service"):
        session(mesh, name)


def test_a_mesh_and_a_name_are_expected(mesh: Mesh) -> None:
    with pytest.raises(TypeError, match="a Mesh is expected, not str"):
        session("orders", mesh)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the name of a service is expected, such as 'orders', not 3"):
        session(mesh, 3)  # type: ignore[arg-type]


def test_cookies_params_and_authentication(within: Any, origin: Origin) -> None:
    async def act(orders: ClientSession) -> None:
        async with orders.get("/cookie") as response:
            assert response.cookies["a"].value == "b"
        async with orders.get("/x", params={"p": "q"}, cookies={"c": "d"}):
            pass
        async with orders.get("/x", headers={"Authorization": aiohttp.encode_basic_auth("u", "p")}):
            pass

    within(act)
    assert origin.seen[1].line == "GET /x?p=q HTTP/1.1"
    assert origin.seen[1].header("cookie") == "a=b; c=d"
    assert (origin.seen[2].header("authorization") or "").startswith("Basic ")


def test_a_total_below_zero_is_none_and_a_header_that_is_no_text_is_refused_as_by_aiohttp(within: Any) -> None:
    async def act(orders: ClientSession) -> None:
        async with orders.get("/x", timeout=ClientTimeout(total=-1)) as response:
            assert response.status == 200
        with pytest.raises(TypeError, match="the value of the header x is to be text"):
            await orders.get("/x", headers={"x": 3})  # type: ignore[dict-item]

    within(act)


def test_a_middleware_in_front_of_the_mesh_makes_calls_of_its_own(within: Any, origin: Origin) -> None:
    async def act(orders: ClientSession) -> None:
        async with orders.get("/digest") as response:
            assert response.status == 200

    within(act, middlewares=[aiohttp.DigestAuthMiddleware("u", "p")])
    assert [seen.header("authorization") is not None for seen in origin.seen] == [False, True]


def test_redirects_repeat_the_body(within: Any) -> None:
    async def act(orders: ClientSession) -> None:
        async with orders.post("/moved", data=io.BytesIO(b"body")) as response:
            assert (await response.read(), str(response.url)) == (b"body", "http://orders/there?x=1")
            assert [each.status for each in response.history] == [307]
        async with orders.get("/moved", allow_redirects=False) as response:
            assert response.status == 307

    within(act)


def test_raise_for_status_and_what_a_response_tells(within: Any) -> None:
    async def act(orders: ClientSession) -> None:
        with pytest.raises(aiohttp.ClientResponseError) as caught:
            await orders.get("/missing", raise_for_status=True)
        assert (caught.value.status, caught.value.message) == (404, "Not Found")
        async with orders.get("/missing") as response:
            assert (response.ok, response.reason, response.method) == (False, "Not Found", "GET")
            assert response.version == aiohttp.HttpVersion11
            assert response.headers.getone("content-length") == "13"
            assert (b"Content-Length", b"13") in response.raw_headers
            assert response.request_info.headers["host"] == "orders"
            assert "404 Not Found" in repr(response)

    within(act)


def test_traces_are_told_of_calls(within: Any) -> None:
    told: list[str] = []

    async def note(session: Any, context: Any, params: Any) -> None:
        told.append(type(params).__name__)

    trace = aiohttp.TraceConfig()
    trace.on_request_start.append(note)
    trace.on_request_end.append(note)
    trace.on_request_redirect.append(note)
    trace.on_response_chunk_received.append(note)
    trace.on_request_exception.append(note)

    async def act(orders: ClientSession) -> None:
        async with orders.get("/moved") as response:
            await response.read()
        with pytest.raises(meshlib.Reset):
            await orders.get("/reset")

    within(act, trace_configs=[trace])
    begun, ended = "TraceRequestStartParams", "TraceRequestEndParams"
    redirected, chunk = "TraceRequestRedirectParams", "TraceResponseChunkReceivedParams"
    assert told == [begun, redirected, ended, chunk, begun, "TraceRequestExceptionParams"]


def test_a_response_class_of_one_s_own_is_used(within: Any) -> None:
    class Own(aiohttp.ClientResponse):
        pass

    async def act(orders: ClientSession) -> None:
        async with orders.get("/x") as response:
            assert type(response) is Own

    within(act, response_class=Own)


def test_aiohttp_does_not_repeat_what_the_mesh_has_given_up(within: Any, origin: Origin) -> None:
    async def act(orders: ClientSession) -> None:
        for calls in (1, 2):
            with pytest.raises(meshlib.Reset) as caught:
                await orders.get("/reset")
            assert isinstance(caught.value, aiohttp.ServerDisconnectedError)
            assert caught.value.record is not None
            assert len(origin.seen) == calls

    within(act)


# Bodies


def test_uploads(within: Any, origin: Origin, tmp_path: Any) -> None:
    (tmp_path / "f").write_bytes(b"from a file")

    async def pieces() -> Any:
        yield b"a"
        yield b""
        yield b"bc"

    async def act(orders: ClientSession) -> None:
        form = aiohttp.FormData()
        form.add_field("f", io.BytesIO(b"part"), filename="name")
        with open(tmp_path / "f", "rb") as file:
            for data in (file, pieces(), "ä", b"", {"k": "v"}, form, bytearray(b"array")):
                async with orders.put("/x", data=data) as response:
                    await response.read()
        for coding in ("gzip", "deflate"):
            async with orders.put("/x", data=b"hello" * 100, compress=coding):
                pass
            async with orders.put("/x", data=io.BytesIO(b"hello" * 100), compress=coding):
                pass
        async with orders.post("/x"):
            pass
        for data in (b"12345", io.BytesIO(b"12345")):
            async with orders.put("/x", data=data, headers={"Content-Length": "3"}):
                pass

    within(act)
    file, chunks, text, empty, fields, form, array, *coded, none, cut, cut_file = origin.seen
    assert (cut.body, cut_file.body) == (b"123", b"123")
    assert (file.body, file.header("content-length")) == (b"from a file", "11")
    assert chunks.body == b"1\r\na\r\n2\r\nbc\r\n"
    assert (text.body, text.header("content-type")) == ("ä".encode(), "text/plain; charset=utf-8")
    assert (empty.body, empty.header("content-length")) == (b"", "0")
    assert (fields.body, fields.header("content-type")) == (b"k=v", "application/x-www-form-urlencoded")
    assert b'filename="name"' in form.body and b"part" in form.body
    assert array.body == b"array"
    for seen, decode in zip(coded, [gzip.decompress] * 2 + [zlib.decompress] * 2, strict=True):
        assert decode(b"".join(_unchunked(seen.body))) == b"hello" * 100
        assert seen.header("content-encoding") in ("gzip", "deflate")
    assert (none.header("content-length"), none.header("content-type")) == ("0", "application/octet-stream")


def _unchunked(body: bytes) -> Iterator[bytes]:
    while body:
        size, _, body = body.partition(b"\r\n")
        yield body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]


def test_an_upload_that_fails_on_its_own_is_no_failure_of_the_service(within: Any) -> None:
    async def body() -> Any:
        yield b"x"
        raise KeyError("mine")

    async def act(orders: ClientSession) -> None:
        with pytest.raises(KeyError, match="mine"):
            await orders.put("/x", data=body())

    within(act)


def test_an_upload_that_is_cancelled_leaves_no_task() -> None:
    async def run() -> None:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        async def endless() -> Any:
            while True:
                yield b"x" * 65536
                begun.set()

        class File(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                loop.call_soon_threadsafe(begun.set)
                return super().read(size)

        with serving(lambda peer: peer.wait_until_gone()) as sink, mesh_of(sink) as mesh:
            async with session(mesh, "orders") as orders:

                async def upload(body: Any) -> None:
                    async with orders.put("/", data=body):
                        pass

                for body in (endless(), File(b"x" * 20_000_000)):
                    begun.clear()
                    call = asyncio.create_task(upload(body))
                    await begun.wait()
                    call.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await call
                    await asyncio.sleep(0)
                    assert in_flight(mesh) == 0
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            if left:  # the loop closes generators that were abandoned
                await asyncio.wait(left, timeout=10)
            assert all(task.done() for task in left)

    asyncio.run(run())


def test_a_streamed_response(within: Any, mesh: Mesh) -> None:
    async def act(orders: ClientSession) -> None:
        async with orders.get("/large") as response:
            assert in_flight(mesh) == 1
            assert await response.content.readexactly(1000) == b"x" * 1000
            assert not response.closed
            assert response.connection is not None and not response.connection.closed
        assert response.closed
        await asyncio.sleep(0)
        assert in_flight(mesh) == 0
        async with orders.get("/large") as response:
            sizes = [len(each) async for each in response.content.iter_chunked(7777)]
            assert sum(sizes) == 300_000 and max(sizes) <= 7777
            assert response.closed and response.content.at_eof()
        async with orders.get("/lines") as response:
            assert [line async for line in response.content] == [b"one\n", b"two\n"]
        async with orders.get("/large") as response:
            await response.content.wait_eof()
            assert len(await response.read()) == 300_000
        async with orders.get("/lines") as response:
            assert b"".join([data async for data, _ in response.content.iter_chunks()]) == b"one\ntwo\n"
        response = await orders.get("/large")
        response.release()
        with pytest.raises(aiohttp.ClientConnectionError):
            await response.read()

    within(act)


def test_who_stops_waiting_for_a_piece_can_wait_again(mesh: Mesh) -> None:
    async def run() -> None:
        more = asyncio.Event()

        async def slowly(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"one\n")
            await more.wait()
            await response.write(b"two\n")
            return response

        async with aiohttp_server(slowly) as at, Mesh({"services": {"slow": {"endpoints": [at]}}}) as mesh:
            async with session(mesh, "slow") as slow, slow.get("/") as response:
                assert await response.content.readline() == b"one\n"
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(response.content.readline(), 0.01)
                more.set()
                assert await response.content.readline() == b"two\n"
                assert await response.content.readline() == b""
            assert in_flight(mesh) == 0

    asyncio.run(run())


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate", "none such"])
def test_coded_bodies(coding: str) -> None:
    plain = b"hello" * 20_000
    bare = zlib.compressobj(wbits=-15)
    coded = {
        "gzip": gzip.compress(plain),
        "deflate": zlib.compress(plain),
        "raw deflate": bare.compress(plain) + bare.flush(),
    }.get(coding, plain)
    name = coding.removeprefix("raw ")
    turns = {"/": ok(coded, Content_Encoding=name), "/bad": ok(b"\x07nonsense", Content_Encoding=name)}
    with origins(lambda seen, number: turns[seen.line.split()[1]]) as (_, servers), mesh_of(*servers) as mesh:

        async def run() -> None:
            async with session(mesh, "orders") as orders:
                async with orders.get("/") as response:
                    assert await response.read() == plain
                async with orders.get("/", auto_decompress=False) as response:
                    assert await response.read() == coded
                if coding != "none such":
                    async with orders.get("/bad") as response:
                        with pytest.raises(aiohttp.ClientPayloadError, match="content-encoding"):
                            await response.read()
            async with session(mesh, "orders", auto_decompress=False) as orders, orders.get("/") as response:
                assert await response.read() == coded

        asyncio.run(run())


def test_a_response_that_nobody_reads_is_settled(within: Any, mesh: Mesh) -> None:
    async def act(orders: ClientSession) -> None:
        response = await orders.get("/large")
        assert in_flight(mesh) == 1
        del response
        gc.collect()
        await asyncio.sleep(0)
        assert in_flight(mesh) == 0

    within(act)


# Timeouts and cancellation


def test_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    # aiohttp's own timer, which may be faster where the machine is slow.
    monkeypatch.setattr("aiohttp.client.TimeoutHandle.start", lambda self: None)
    with serving(lambda peer: peer.wait_until_gone()) as silent:
        with mesh_of(silent, retry={"max_retries": 0}) as mesh:

            async def run() -> None:
                async with session(mesh, "orders", timeout=ClientTimeout(total=0.05)) as orders:
                    with pytest.raises(meshlib.DeadlineExceeded) as caught:
                        await orders.get("/")
                    assert isinstance(caught.value, aiohttp.ServerTimeoutError)
                    assert caught.value.record is not None and caught.value.record.limit == "client"
                    with pytest.raises(meshlib.AttemptTimeout) as cut:
                        await orders.get("/", timeout=ClientTimeout(sock_read=0.02))
                    assert isinstance(cut.value, aiohttp.SocketTimeoutError)
                    own = ClientSession(middlewares=[middleware(mesh), passing_on], timeout=ClientTimeout(total=0.05))
                    async with own:  # a middleware further in hides what was asked for one request
                        with pytest.raises(meshlib.DeadlineExceeded):
                            await own.get("http://orders/")
                assert in_flight(mesh) == 0

            asyncio.run(run())


async def passing_on(request: Any, handler: Any) -> Any:
    return await handler(request)


def test_the_total_bounds_the_body_too() -> None:
    def never_ends(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab")
        peer.wait_until_gone()

    with serving(never_ends) as server, mesh_of(server) as mesh:

        async def run() -> None:
            async with session(mesh, "orders") as orders:
                async with orders.get("/", timeout=ClientTimeout(total=0.1)) as response:
                    with pytest.raises(TimeoutError):
                        await response.read()
                await asyncio.sleep(0.01)
                assert in_flight(mesh) == 0

        asyncio.run(run())


# Outside and around


def aiohttp_server(handler: Any) -> Any:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def run() -> Any:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        try:
            yield f"{host}:{port}"
        finally:
            await runner.cleanup()

    return run()


def test_websockets_go_aiohttp_s_own_way() -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def run() -> None:
        async with aiohttp_server(echo) as at:
            with Mesh({"services": {"chat": {"hosts": [at], "endpoints": ["10.255.255.1:1"]}}}) as mesh:
                async with session(mesh) as own, own.ws_connect(f"ws://{at}/") as socket:
                    await socket.send_str("hello")
                    assert (await socket.receive()).data == "hello"

    asyncio.run(run())


def test_outside_the_deadline_holds_and_the_connector_is_the_session_s(mesh: Mesh, origin: Origin) -> None:
    async def run() -> None:
        with serving(lambda peer: peer.wait_until_gone()) as silent:
            with meshlib.timeout(0.05):
                async with session(mesh) as own:
                    with pytest.raises(meshlib.DeadlineExceeded, match=r"before 127\.0\.0\.1 answered"):
                        await own.get(f"http://{address(silent)}/")
        connector = aiohttp.TCPConnector(limit=1)
        async with session(mesh, connector=connector) as own:
            assert own.connector is connector
            with suppress(aiohttp.ClientConnectorError):
                await own.get("http://127.0.0.1:1/")

    asyncio.run(run())


def test_attach(mesh: Mesh, origin: Origin) -> None:
    async def run() -> None:
        async with ClientSession(middlewares=[passing_on]) as own:
            assert mesh.attach(mesh.attach(own)) is own
            async with own.get("http://orders/x") as response:
                assert meshlib.record(response) is not None
            kept: Any = own._middlewares
            assert [type(each) for each in kept[1:]] == [MeshMiddleware] and kept[0] is passing_on
            del own._middlewares
            with pytest.raises(TypeError, match="middlewares="):
                mesh.attach(own)
            own._middlewares = ()

    asyncio.run(run())
    assert len(origin.seen) == 1


def test_a_session_of_one_mesh_changes_over_to_another(mesh: Mesh, origin: Origin) -> None:
    async def run() -> None:
        async with Mesh({"discovery": []}) as other, session(other, "orders") as moved:
            async with mesh.attach(moved).get("/x") as response:
                assert await response.read() == b"/x"

    asyncio.run(run())
    assert origin.seen[0].header("x-envoy-attempt-count") == "1"


def test_sessions_of_two_loops_side_by_side(mesh: Mesh, origin: Origin) -> None:
    import threading

    async def run() -> None:
        async with session(mesh, "orders") as orders:
            bodies = await asyncio.gather(*(_text(orders, f"/{number}") for number in range(20)))
        assert bodies == [f"/{number}" for number in range(20)]

    async def _text(orders: ClientSession, path: str) -> str:
        async with orders.get(path) as response:
            return await response.text()

    failures: list[BaseException] = []

    def in_thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=in_thread) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert in_flight(mesh) == 0


@pytest.mark.parametrize("cls", _AS_AIOHTTP, ids=lambda cls: cls.__name__)
def test_each_error_is_one_of_aiohttp_and_can_be_pickled(cls: type[errors.MeshError]) -> None:
    key = ConnectionKey("orders", 8080, False, True, None, None, None)
    request: Any = SimpleNamespace(connection_key=key)
    error = as_aiohttp(cls("why", service="orders"), request)
    assert isinstance(error, cls) and isinstance(error, aiohttp.ClientError)
    assert str(error) == "orders: why"
    if isinstance(error, aiohttp.ClientConnectorError):
        assert (error.host, error.port, error.ssl) == ("orders", 8080, True)
        assert isinstance(error.os_error, OSError)
    made = pickle.loads(pickle.dumps(error))
    assert (type(made), str(made), made.service) == (type(error), str(error), "orders")
    assert str(error.without_frames()) == str(error)
