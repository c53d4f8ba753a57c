"""Which calls are lean, which go httpx's own way, and that a lean one leaves nothing behind."""

from __future__ import annotations

import asyncio
import copy
import gc
import itertools
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import Mesh
from meshlib.adapters.httpx import LIBRARY, AsyncMeshClient, MeshClient, MeshTransport
from meshlib.adapters.httpx_lean import supported
from meshlib.adapters.httpx_lean_client import functions
from meshlib.adapters.httpx_lean_response import LeanResponse
from tests.adapters.support import AsyncCaller, Chunks, Origin, RawServer, SyncCaller, address, mesh_of, ok, origins

Caller = SyncCaller | AsyncCaller


@pytest.fixture
def server() -> Iterator[RawServer]:
    with origins(None) as (_, [server]):
        yield server


@pytest.fixture
def mesh(server: RawServer) -> Iterator[Mesh]:
    with mesh_of(server) as mesh:
        yield mesh


def is_lean(response: httpx.Response) -> bool:
    """Whether httpx was not asked for anything, not even for a request."""
    return isinstance(response, LeanResponse) and response._lean[0]._request is None


def is_sent_lean(response: httpx.Response) -> bool:
    """Whether httpx made the request, and was asked for nothing more."""
    return isinstance(response, LeanResponse) and response._lean[0]._request is not None


def opened(caller: Caller, mesh: Mesh, **options: Any) -> Any:
    """A way to make calls with a client that has made one."""
    call = caller.run(mesh, **options)
    assert not is_lean(call("GET", "/first")), "the first call opens httpx's client"
    return call


def test_the_installed_httpx_is_one_that_lean_calls_know() -> None:
    assert supported(LIBRARY)


def test_an_httpx_without_a_method_that_is_not_public_is_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(httpx.Client, "_send_single_request")
    assert not supported.__wrapped__(LIBRARY)
    assert functions(MeshClient, MeshTransport)[-1] is None


@pytest.mark.parametrize(
    ("method", "url", "arguments"),
    [
        ("GET", "/x", {}),
        ("get", "http://orders/x?y=1", {}),
        ("GET", httpx.URL("http://orders/x"), {}),
        ("GET", "/with space/\xe9#f", {}),
        ("POST", "/x", {"json": {"a": 1}}),
        ("PUT", "/x", {"content": b"x"}),
        ("PATCH", "/x", {"content": "x", "headers": {"content-type": "text/x"}}),
        ("DELETE", "/x", {"headers": [("a", "1"), ("a", "2")]}),
        ("HEAD", "/x", {"timeout": 2}),
        ("OPTIONS", "/x", {"timeout": httpx.Timeout(1.0)}),
        ("GET", "/x", {"timeout": None, "follow_redirects": True}),
        ("GET", "/x", {"extensions": meshlib.call(route="/x", timeout="1s")}),
        ("GET", "/x", {"extensions": {}}),
    ],
    ids=str,
)
def test_a_usual_call_is_lean(caller: Caller, mesh: Mesh, method: str, url: str, arguments: dict[str, Any]) -> None:
    assert is_lean(opened(caller, mesh)(method, url, **arguments))


@pytest.mark.parametrize(
    ("method", "url", "arguments"),
    [
        ("PURGE", "/x", {}),
        ("GET", "/x", {"params": {}}),
        ("POST", "/x", {"data": {"a": "1"}}),
        ("GET", "/x", {"headers": httpx.Headers({"a": "1"})}),
        ("GET", "/x", {"headers": {b"a": b"1"}}),
        ("GET", "/x", {"cookies": {"a": "1"}}),
        ("GET", "/x", {"auth": None}),
        ("GET", "/x", {"timeout": (1.0, 1.0, 1.0, 1.0)}),
        ("GET", "/x", {"extensions": {"timeout": httpx.Timeout(1.0).as_dict()}}),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:Setting per-request cookies")
def test_of_other_calls_httpx_makes_the_request(
    caller: Caller, mesh: Mesh, method: str, url: str, arguments: dict[str, Any]
) -> None:
    assert is_sent_lean(opened(caller, mesh)(method, url, **arguments))


@pytest.mark.parametrize("options", [{"params": {"a": "1"}}, {"cookies": {"a": "1"}}], ids=str)
def test_of_calls_to_which_the_client_adds_httpx_makes_the_request(
    caller: Caller, mesh: Mesh, options: dict[str, Any]
) -> None:
    assert is_sent_lean(opened(caller, mesh, **options)("GET", "/x"))


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("http://u:p@orders/x", {}),
        ("/x", {"files": {"f": b"x"}}),
        ("/x", {"content": Chunks(b"x")}),
        ("/x", {"auth": ("u", "p")}),
        ("/x", {"extensions": {"sni_hostname": "orders"}}),
    ],
    ids=str,
)
def test_what_only_httpx_can_do_goes_its_way(caller: Caller, mesh: Mesh, url: str, arguments: dict[str, Any]) -> None:
    response = opened(caller, mesh)("POST", url, **arguments)
    assert response.status_code == 200 and not isinstance(response, LeanResponse)


@pytest.mark.parametrize("options", [{"auth": ("u", "p")}, {"mounts": {"http://elsewhere": None}}], ids=str)
def test_a_client_that_does_more_for_each_call_goes_httpxs_way(
    caller: Caller, mesh: Mesh, options: dict[str, Any]
) -> None:
    assert not isinstance(opened(caller, mesh, **options)("GET", "/x"), LeanResponse)


def test_a_stream_goes_httpxs_way(mesh: Mesh) -> None:
    with mesh.client("orders") as client, client.stream("GET", "/x") as response:
        assert response.read() == b"ok" and not isinstance(response, LeanResponse)


@pytest.mark.parametrize(
    "change",
    [
        lambda client: setattr(client, "auth", ("u", "p")),
        lambda client: setattr(client, "params", {"a": "1"}),
        lambda client: client.cookies.set("a", "1"),
        lambda client: client.event_hooks["response"].append(Hook()),
        lambda client: setattr(client, "send", client.send),
        lambda client: setattr(client, "build_request", client.build_request),
        lambda client: setattr(client._transport, "handle_request", client._transport.handle_request),
        lambda client: setattr(client, "_transport", httpx.MockTransport(lambda request: httpx.Response(200))),
    ],
    ids=["auth", "params", "cookies", "hooks", "send", "build_request", "handle_request", "transport"],
)
def test_what_is_changed_later_counts_at_once(mesh: Mesh, change: Callable[[httpx.Client], None]) -> None:
    with mesh.client("orders") as client:
        assert is_lean(client.get("/x"))
        change(client)
        assert not is_lean(client.get("/x"))


class Hook:
    def __call__(self, response: httpx.Response) -> None:
        pass


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (httpx.Client, "request"),
        (httpx.Client, "send"),
        (httpx.Client, "build_request"),
        (httpx.Client, "_send_single_request"),
        (MeshClient, "send"),
        (MeshTransport, "handle_request"),
    ],
)
def test_tools_that_patch_httpx_see_every_call(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, cls: type[Any], name: str
) -> None:
    seen = []
    original = getattr(cls, name)

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(name)
        return original(self, *args, **kwargs)

    with mesh.client("orders") as client:
        assert is_lean(client.get("/x"))
        monkeypatch.setattr(cls, name, patched)
        assert not is_lean(client.get("/x"))
        assert seen == [name]
        monkeypatch.undo()
        assert is_lean(client.get("/x"))


def test_a_subclass_that_changes_how_calls_are_made_is_obeyed(mesh: Mesh) -> None:
    class Signs(MeshClient):
        def build_request(self, *args: Any, **kwargs: Any) -> httpx.Request:
            request = super().build_request(*args, **kwargs)
            request.headers["x-signed"] = "1"
            return request

    class Inner(MeshClient):
        def _send_single_request(self, request: httpx.Request) -> httpx.Response:
            return super()._send_single_request(request)

    class Counts(MeshClient):
        def request(self, *args: Any, **kwargs: Any) -> httpx.Response:
            return super().request(*args, **kwargs)

    for cls, lean in ((Signs, False), (Inner, False), (Counts, True)):
        with cls(transport=MeshTransport(mesh._wiring.plane, service="orders"), base_url="http://orders") as client:
            response = client.get("/x")
            assert is_lean(response) is lean
            assert ("x-signed" in response.request.headers) is (cls is Signs)


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_where_the_mesh_does_not_make_the_call_httpx_does(server: RawServer, mode: str) -> None:
    base = f"http://{address(server)}"
    with mesh_of(server, hosts=[address(server)]) as mesh, mesh.client("orders", base_url=base) as client:
        assert is_lean(client.get("/x"))
        mesh.set_mode(mode)
        assert not is_lean(client.get("/x"))
        mesh.set_mode("on")
        assert is_lean(client.get("/x"))


def test_a_host_outside_is_httpxs(mesh: Mesh, server: RawServer) -> None:
    with mesh.client("orders") as client:
        response = client.get(f"http://{address(server)}/x")
        assert meshlib.record(response) is None and not is_lean(response)


def test_a_name_that_nobody_knows_goes_outside_after_one_question(caller: Caller, server: RawServer) -> None:
    outside = httpx.MockTransport(lambda request: httpx.Response(299, text=str(request.url)))
    asked: list[str] = []
    with mesh_of(server) as mesh:
        call = opened(caller, mesh)
        call.client._transport._given = outside
        plane = mesh._wiring.plane
        service = plane.service
        plane.service = lambda name: asked.append(name) or service(name)
        response = call("GET", "http://nobody/x")
        assert (response.status_code, response.text, asked[:1]) == (299, "http://nobody/x", ["nobody"])
        assert str(response.request.url) == "http://nobody/x"
        assert asked.count("nobody") == 1


def test_headers_of_the_client_may_change_at_any_time(caller: Caller) -> None:
    with origins(None) as ([origin], [server]), mesh_of(server) as mesh:
        call = opened(caller, mesh, headers={"x-a": "1"})
        client = call.client
        for change in (
            lambda: None,
            lambda: client.headers.update({"X-A": "2"}),
            lambda: client.headers.__setitem__("x-a", "3"),
            lambda: client.headers.__delitem__("x-a"),
            lambda: setattr(client, "headers", {"x-a": "4"}),
        ):
            change()
            assert is_lean(call("GET", "/x"))
        assert [seen.header("x-a") for seen in origin.seen] == ["1", "1", "2", "3", None, "4"]


def test_routes_see_the_headers_and_the_key_that_makes_a_post_safe(caller: Caller) -> None:
    routes = [
        {"name": "beta", "match": [{"headers": {"user": {"exact": "jason"}}}], "backends": [{"weight": 1}]},
    ]
    with (
        origins(lambda seen, n: ok(status="503 No") if n == 2 else ok()) as ([origin], [server]),
        mesh_of(server, routes=routes) as mesh,
    ):
        call = opened(caller, mesh)
        record = meshlib.record(call("POST", "/x", headers={"User": "jason", "Idempotency-Key": "k"}))
        assert record is not None and (record.route, len(record.attempts)) == ("beta", 2)
        record = meshlib.record(call("POST", "/x", headers={"User": "tom"}))
        assert record is not None and record.route == "default"
        assert len(origin.seen) == 4


def test_limits_given_for_a_call_hold(caller: Caller, mesh: Mesh) -> None:
    call = opened(caller, mesh, timeout=7)
    limits = [
        ({}, 7.0),
        ({"timeout": 3}, 3.0),
        ({"timeout": None}, None),
        ({"extensions": meshlib.call(timeout="2s")}, 2.0),
        ({"extensions": meshlib.call(timeout="2s"), "timeout": 1}, 1.0),
    ]
    for given, expected in limits:
        response = call("GET", "/x", **given)
        assert is_lean(response)
        options = response.request.extensions["meshlib"]
        assert options.complete_body
        assert options.timeout_s == expected
    response = call("GET", "/x", timeout=httpx.Timeout(5.0, read=2.0))
    assert response.request.extensions["timeout"] == {"connect": 5.0, "read": 2.0, "write": 5.0, "pool": 5.0}
    with pytest.raises(ValueError, match="finite"):
        call("GET", "/x", timeout=float("nan"))


def test_a_client_that_was_used_cannot_be_entered_as_in_httpx(mesh: Mesh) -> None:
    client = mesh.client("orders")
    assert [is_lean(client.get("/x")) for _ in range(3)] == [False, True, True]
    with pytest.raises(RuntimeError, match="Cannot open a client instance more than once"), client:
        pass


def test_the_wire_that_a_client_was_given_is_told_the_url(mesh: Mesh) -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=[request.method, str(request.url.raw_path), request.content.decode()])

    with mesh.client("orders", transport=httpx.MockTransport(echo)) as client:
        response = client.post("/a%20b?c", content="d")
        assert is_lean(response) and response.json() == ["POST", "b'/a%20b?c'", "d"]


def test_what_is_looked_at_is_made_once(caller: Caller, mesh: Mesh) -> None:
    response = opened(caller, mesh)("GET", "/x")
    for name in ("headers", "request", "history", "extensions", "stream", "elapsed"):
        assert getattr(response, name) is getattr(response, name)
    response.history.append(response)
    response.headers["x"] = "y"
    assert response.history == [response] and response.headers["x"] == "y"
    duplicate = copy.copy(response)
    assert type(duplicate) is httpx.Response and duplicate.headers["x"] == "y"


def test_an_error_has_the_request(caller: Caller) -> None:
    with origins(lambda seen, n: ok() if n == 1 else None) as (_, [server]), mesh_of(server) as mesh:
        call = opened(caller, mesh)
        with pytest.raises(httpx.ReadError) as caught:
            call("POST", "/x", json=1, headers={"a": "b"})
        request = caught.value.request
        assert (request.method, str(request.url), request.content) == ("POST", "http://orders/x", b"1")
        assert isinstance(caught.value, meshlib.Reset)


def test_a_redirect_took_as_long_as_its_call(mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(seen: Any, number: int) -> bytes:
        return ok(status="302 Found", location="/end") if "/start" in seen.line else ok()

    with origins(Origin(answer)) as (_, [server]), mesh_of(server) as mesh, mesh.client("orders") as client:
        ticks = itertools.count(0, 1000)
        monkeypatch.setattr("meshlib.adapters.httpx_transport.perf_counter", lambda: float(next(ticks)))
        response = client.get("/start", follow_redirects=True)
        assert response.history[0].elapsed.total_seconds() == 1000
        assert response.elapsed.total_seconds() < 1000


def test_a_replayed_body_does_not_hold_its_response() -> None:
    stream = LIBRARY.replayed(b"x", 1.0)
    response = stream.belongs_to(httpx.Response(200, stream=stream))
    assert b"".join(response.iter_raw()) == b"x"
    assert response.elapsed.total_seconds() == 1.0
    gc.collect()
    gc.disable()
    try:
        del response
        assert stream._response is not None and stream._response() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_lean_call_leaves_nothing_to_the_garbage_collector(mesh: Mesh, kind: str) -> None:
    def in_thread() -> int:
        with mesh.client("orders") as client:
            for _ in range(3):
                client.get("/x")
            gc.collect()
            for number in range(20):
                response = client.post(f"/{number}", json={"a": number})
                assert response.status_code == 200 and response.request.url and response.headers
            del response
            return gc.collect()

    async def in_loop() -> int:
        async with mesh.async_client("orders") as client:
            for _ in range(3):
                await client.get("/x")
            gc.collect()
            for number in range(20):
                response = await client.post(f"/{number}", json={"a": number})
                assert response.status_code == 200 and response.request.url and response.headers
            del response
            return gc.collect()

    gc.disable()
    try:
        assert (in_thread() if kind == "sync" else asyncio.run(in_loop())) == 0
    finally:
        gc.enable()


def test_nothing_that_is_printed_shows_secrets(mesh: Mesh, caplog: pytest.LogCaptureFixture) -> None:
    with mesh.client("orders", headers={"authorization": "s3cret"}) as client, caplog.at_level(logging.INFO):
        response = client.get("/x", headers={"x-api-key": "s3cret"})
        assert is_lean(response)
        call = response._lean[0]  # type: ignore[attr-defined]
        shown = [repr(each) for each in (response, call, call.place, client, client._lean_headers)]
        assert "s3cret" not in " ".join(shown) + caplog.text


def test_async_subclasses_are_looked_at_too(mesh: Mesh) -> None:
    class Sends(AsyncMeshClient):
        async def send(self, request: httpx.Request, **kwargs: Any) -> httpx.Response:
            return await super().send(request, **kwargs)

    async def call(cls: type[AsyncMeshClient]) -> bool:
        through = mesh.async_transport()
        async with cls(transport=through, base_url="http://orders") as client:
            return is_lean(await client.get("/x"))

    assert [asyncio.run(call(cls)) for cls in (AsyncMeshClient, Sends)] == [True, False]


class Callers:
    """Stands for what the frames of a program hold."""


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_lean_call_that_failed_holds_nothing_of_its_callers(kind: str) -> None:
    def one_call(client: httpx.Client) -> weakref.ref[Callers]:
        held = Callers()
        with pytest.raises(httpx.ReadError):
            client.post("/x", json=1)
        return weakref.ref(held)

    async def one_async_call(client: httpx.AsyncClient) -> weakref.ref[Callers]:
        held = Callers()
        with pytest.raises(httpx.ReadError):
            await client.post("/x", json=1)
        return weakref.ref(held)

    async def in_loop(mesh: Mesh) -> bool:
        async with mesh.async_client("orders") as client:
            return (await one_async_call(client))() is None

    with origins(lambda seen, n: None) as (_, [server]), mesh_of(server) as mesh:
        gc.collect()
        gc.disable()
        try:
            if kind == "async":
                assert asyncio.run(in_loop(mesh))
            else:
                with mesh.client("orders") as client:
                    assert one_call(client)() is None
        finally:
            gc.enable()
