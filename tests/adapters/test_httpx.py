"""What users of httpx expect of a meshed client, sync and async."""

from __future__ import annotations

import asyncio
import io
import pickle
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import Mesh
from tests.adapters.support import AsyncCaller, Chunks, Origin, Seen, SyncCaller, address, mesh_of, ok, origins
from tests.net.wire_servers import Peer, serving
from tests.peers.process import wait_until

Caller = SyncCaller | AsyncCaller


def test_a_call_reaches_an_endpoint_with_the_services_name_as_host(caller: Caller) -> None:
    with origins(None) as ([origin], [server]), mesh_of(server) as mesh:
        response = caller.run(mesh)("GET", "/x?q=1", headers={"x-a": "1"})
        assert (response.status_code, response.content, str(response.url)) == (200, b"ok", "http://orders/x?q=1")
        assert response.http_version == "HTTP/1.1"
        assert origin.seen[0].line == "GET /x?q=1 HTTP/1.1"
        assert origin.seen[0].header("host") == "orders"
        assert origin.seen[0].header("x-a") == "1"


@pytest.mark.parametrize("name", ["orders", "Orders", "orders.internal", "orders.internal:8080"])
def test_a_client_takes_the_name_of_a_service_or_another_name_of_it(name: str) -> None:
    hosts = ["orders.internal", "orders.internal:8080"]
    with origins(None) as (_, [server]), mesh_of(server, hosts=hosts) as mesh, mesh.client(name) as client:
        record = meshlib.record(client.get("/x"))
        assert record is not None
        assert (record.service, record.status) == ("orders", 200)


@pytest.mark.parametrize("name", ["", "Bad Name", "http://orders", "orders/x", "a@b", "orders:x"])
def test_a_client_of_what_cannot_be_a_name_is_refused(name: str) -> None:
    with Mesh({"discovery": []}) as mesh:
        for make in (mesh.client, mesh.async_client):
            with pytest.raises(ValueError, match="is not the name of a service"):
                make(name)


def test_the_record_tells_what_happened(caller: Caller) -> None:
    with (
        origins(lambda seen, n: ok(status="503 Sorry") if n == 1 else ok()) as ([_], [server]),
        mesh_of(server) as mesh,
    ):
        record = meshlib.record(caller.run(mesh)("GET", "/x"))
        assert record is not None
        assert [attempt.status for attempt in record.attempts] == [503, 200]
        assert (record.service, record.route, record.outcome, record.status) == ("orders", "default", "success", 200)
        assert record.waits[-1].reason == "backoff"


def test_a_response_of_a_plain_client_has_no_record() -> None:
    assert meshlib.record(httpx.Response(200)) is None


def test_a_reset_get_is_retried_elsewhere_and_a_post_is_not(caller: Caller) -> None:
    with origins(lambda seen, n: None, None) as ([_bad, _good], servers), mesh_of(*servers) as mesh:
        call = caller.run(mesh)
        assert [call("GET", "/x").status_code for _ in range(8)] == [200] * 8
    with origins(lambda seen, n: None, lambda seen, n: None) as ([one, two], servers), mesh_of(*servers) as mesh:
        with pytest.raises(httpx.ReadError) as caught:
            caller.run(mesh)("POST", "/pay", content=b"1")
        assert len(one.seen) + len(two.seen) == 1
        assert isinstance(caught.value, meshlib.Reset)
        assert caught.value.record is not None and "not idempotent" in str(caught.value.record.no_retry)


@pytest.mark.parametrize(
    "how",
    [{"headers": {"Idempotency-Key": "k"}}, {"extensions": meshlib.call(idempotent=True)}],
    ids=["header", "option"],
)
def test_a_post_that_is_declared_idempotent_is_retried(caller: Caller, how: dict[str, Any]) -> None:
    with origins(lambda seen, n: None if n == 1 else ok()) as ([origin], [server]), mesh_of(server) as mesh:
        assert caller.run(mesh)("POST", "/pay", content=b"body", **how).status_code == 200
        assert [seen.body for seen in origin.seen] == [b"body", b"body"]


def test_a_post_that_was_never_sent_is_retried(caller: Caller) -> None:
    with origins(None) as ([origin], [server]):
        orders = {"endpoints": ["127.0.0.1:1", address(server)], "load_balancing": {"policy": "round_robin"}}
        with Mesh({"discovery": [], "services": {"orders": orders}}) as mesh:
            call = caller.run(mesh)
            assert [call("POST", "/pay", content=b"x").status_code for _ in range(4)] == [200] * 4
            assert len(origin.seen) == 4


def test_a_get_that_must_not_be_repeated_is_not(caller: Caller) -> None:
    with origins(lambda seen, n: None if n == 1 else ok()) as ([origin], [server]), mesh_of(server) as mesh:
        with pytest.raises(meshlib.Reset):
            caller.run(mesh)("GET", "/x", extensions=meshlib.call(idempotent=False))
        assert len(origin.seen) == 1


def test_a_policy_may_take_the_risk_of_a_repeated_post_and_its_caller_may_not(caller: Caller) -> None:
    risky: dict[str, Any] = {"retry": {"unsafe": True, "backoff": {"base": "1ms", "max": "1ms"}}}
    with origins(lambda seen, n: None if n % 2 else ok()) as ([origin], [server]), mesh_of(server, **risky) as mesh:
        call = caller.run(mesh)
        assert call("POST", "/pay", content=b"x").status_code == 200
        assert len(origin.seen) == 2
        with pytest.raises(meshlib.Reset):
            call("POST", "/pay", content=b"x", extensions=meshlib.call(idempotent=False))
        assert len(origin.seen) == 3


def test_a_body_that_can_be_read_once_is_sent_again_from_a_buffer(caller: Caller) -> None:
    with origins(lambda seen, n: None if n == 1 else ok()) as ([origin], [server]), mesh_of(server) as mesh:
        response = caller.run(mesh)("PUT", "/x", content=Chunks(b"one", b"two"))
        assert response.status_code == 200
        bodies = [b"".join(part.split(b"\r\n")[1] for part in _chunks(seen.body)) for seen in origin.seen]
        assert bodies == [b"onetwo", b"onetwo"]


def _chunks(body: bytes) -> list[bytes]:
    lines = body.split(b"\r\n")
    return [b"\r\n".join(lines[i : i + 2]) for i in range(0, len(lines) - 1, 2)]


def test_a_body_beyond_the_buffer_is_not_sent_again(caller: Caller) -> None:
    with origins(lambda seen, n: None if n == 1 else ok()) as ([origin], [server]), mesh_of(server) as mesh:
        with pytest.raises(meshlib.Reset) as caught:
            caller.run(mesh)("PUT", "/x", content=Chunks(b"a" * 40000, b"b" * 40000))
        assert caught.value.record is not None
        assert "body" in str(caught.value.record.no_retry)
        assert len(origin.seen) == 1


def test_a_file_is_sent_from_where_it_stood_each_time(caller: Caller, tmp_path: Path) -> None:
    path = tmp_path / "body"
    path.write_bytes(b"skipped" + b"x" * 100_000)
    with origins(lambda seen, n: None if n == 1 else ok()) as ([origin], [server]), mesh_of(server) as mesh:
        with path.open("rb") as file:
            file.seek(7)
            assert caller.run(mesh)("PUT", "/x", content=file).status_code == 200
        assert [(seen.body, seen.header("content-length")) for seen in origin.seen] == [(b"x" * 100_000, "100000")] * 2


def test_json_forms_and_multipart_arrive(caller: Caller) -> None:
    with origins(None) as ([origin], [server]), mesh_of(server) as mesh:
        call = caller.run(mesh)
        call("POST", "/json", json={"a": 1})
        call("POST", "/form", data={"a": "1"})
        call("POST", "/file", files={"f": ("n.txt", io.BytesIO(b"content"))})
        assert origin.seen[0].body.replace(b" ", b"") == b'{"a":1}'
        assert origin.seen[1].body == b"a=1"
        assert b'filename="n.txt"' in origin.seen[2].body and b"content" in origin.seen[2].body


def test_redirects_cookies_auth_and_hooks_are_httpxs(caller: Caller) -> None:
    def answer(seen: Seen, number: int) -> bytes:
        if " /start " in seen.line:
            return ok(status="302 Found", location="/end", set_cookie="a=1")
        return ok()

    hooked: list[str] = []
    with origins(answer) as ([origin], [server]), mesh_of(server) as mesh:
        if caller.name == "sync":
            hooks: dict[str, list[Any]] = {"request": [lambda request: hooked.append(str(request.url))]}
        else:

            async def hook(request: httpx.Request) -> None:
                hooked.append(str(request.url))

            hooks = {"request": [hook]}
        call = caller.run(mesh, follow_redirects=True, auth=("u", "p"), event_hooks=hooks)
        response = call("GET", "/start")
        assert str(response.url) == "http://orders/end"
        assert [each.status_code for each in response.history] == [302]
        assert origin.seen[1].header("cookie") == "a=1"
        assert origin.seen[1].header("authorization") == "Basic dTpw"
        assert hooked == ["http://orders/start", "http://orders/end"]


def test_each_error_is_what_httpx_users_catch(caller: Caller) -> None:
    def hang(peer: Peer) -> None:
        peer.request()
        peer.wait_until_gone()

    with serving(hang) as server, mesh_of(server, timeout="200ms", retry={"max_retries": 0}) as mesh:
        with pytest.raises(httpx.TimeoutException) as caught:
            caller.run(mesh)("GET", "/x")
        error = caught.value
        assert isinstance(error, TimeoutError) and isinstance(error, meshlib.DeadlineExceeded)
        assert str(error.request.url) == "http://orders/x"
        assert error.limit == "timeout"
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error) and copy.record == error.record
    with Mesh({"discovery": [], "services": {"orders": {"endpoints": ["127.0.0.1:1"]}}}) as mesh:
        with pytest.raises(httpx.ConnectError) as refused:
            caller.run(mesh)("GET", "/x")
        assert isinstance(refused.value, meshlib.ConnectFailed)
        assert "127.0.0.1:1" in str(refused.value.record)
    with Mesh({"discovery": []}) as mesh:
        with pytest.raises(httpx.ConnectError) as unknown:
            caller.run(mesh)("GET", "/x")
        assert isinstance(unknown.value, meshlib.UnknownService)


def test_a_number_is_the_total_and_a_timeout_object_caps_phases(caller: Caller) -> None:
    def hang(peer: Peer) -> None:
        peer.request()
        peer.wait_until_gone()

    with serving(hang) as server, mesh_of(server, retry={"max_retries": 1}) as mesh:
        call = caller.run(mesh)
        began = time.monotonic()
        with pytest.raises(meshlib.DeadlineExceeded) as total:
            call("GET", "/x", timeout=0.2)
        assert time.monotonic() - began < 3.0
        assert total.value.limit == "client"
        with pytest.raises(meshlib.AttemptTimeout) as phase:
            call("GET", "/x", timeout=httpx.Timeout(None, read=0.1))
        assert phase.value.record is not None
        assert (phase.value.record.limit, len(phase.value.record.attempts)) == ("client", 2)


def test_a_timeout_of_the_client_is_the_total_of_each_call(caller: Caller) -> None:
    def hang(peer: Peer) -> None:
        peer.request()
        peer.wait_until_gone()

    with serving(hang) as server, mesh_of(server) as mesh, pytest.raises(meshlib.DeadlineExceeded):
        caller.run(mesh, timeout=0.1)("GET", "/x")


def test_the_per_try_timeout_moves_on_to_another_endpoint(caller: Caller) -> None:
    def hang(peer: Peer) -> None:
        peer.request()
        peer.wait_until_gone()

    with serving(hang) as dead, origins(None) as (_, [alive]):
        options: dict[str, Any] = {"per_try_timeout": "150ms", "load_balancing": {"policy": "round_robin"}}
        with mesh_of(dead, alive, **options) as mesh:
            call = caller.run(mesh)
            assert [call("GET", "/x").status_code for _ in range(4)] == [200] * 4


def test_timeouts_of_a_stream_end_with_the_headers(caller: Caller) -> None:
    def slow_body(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        for byte in b"slow":
            time.sleep(0.1)
            peer.send(bytes([byte]))
        peer.wait_until_gone()

    with serving(slow_body) as server, mesh_of(server, timeout="200ms") as mesh:
        response, body = caller.run(mesh).stream("GET", "/x")
        assert (response.status_code, body) == (200, b"slow")


def test_a_deadline_that_somebody_set_bounds_the_body_of_a_stream(caller: Caller) -> None:
    def drip(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            peer.send(b"x")
            time.sleep(0.02)

    with serving(drip) as server, mesh_of(server) as mesh:
        call = caller.run(mesh)
        began = time.monotonic()
        with meshlib.timeout("300ms"), pytest.raises(httpx.TimeoutException) as caught:
            call.stream("GET", "/x")
        assert time.monotonic() - began < 5.0
        assert isinstance(caught.value, meshlib.MeshError) and caught.value.record is not None


def test_a_body_that_breaks_half_way_is_retried_when_it_is_wanted_whole(caller: Caller) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhalf"
    with origins(lambda seen, n: half if n == 1 else ok(b"whole")) as ([_origin], [server]), mesh_of(server) as mesh:
        response = caller.run(mesh)("GET", "/x")
        assert response.content == b"whole"
        record = meshlib.record(response)
        assert record is not None
        assert [attempt.error for attempt in record.attempts] == ["BodyBroken", None]


def test_a_stream_that_breaks_half_way_raises_where_it_is_read(caller: Caller) -> None:
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nConnection: close\r\n\r\nhalf"
    with origins(lambda seen, n: half) as (_, [server]), mesh_of(server) as mesh:
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            caller.run(mesh).stream("GET", "/x")
        assert isinstance(caught.value, meshlib.BodyBroken)
        assert mesh.status().services[0].clusters[0].endpoints[0].in_flight == 0


def test_attempt_headers_carry_deadline_and_number_and_replace_copies(caller: Caller) -> None:
    copied = {"x-meshlib-deadline-ms": "999999", "x-envoy-attempt-count": "7", "X-Envoy-Expected-Rq-Timeout-Ms": "1"}
    with (
        origins(lambda seen, n: None if n == 1 else ok()) as ([origin], [server]),
        mesh_of(server, timeout="1s") as mesh,
    ):
        caller.run(mesh)("GET", "/x", headers=copied)
        first, second = origin.seen
        assert (first.header("x-envoy-attempt-count"), second.header("x-envoy-attempt-count")) == ("1", "2")
        left = [int(str(seen.header("x-meshlib-deadline-ms"))) for seen in origin.seen]
        assert 0 < left[1] <= left[0] <= 1000
        for name in ("x-meshlib-deadline-ms", "x-envoy-attempt-count", "x-envoy-expected-rq-timeout-ms"):
            assert first.count(name) == 1


def test_a_deadline_set_in_code_is_shortened_on_the_wire(caller: Caller) -> None:
    with origins(None) as ([origin], [server]), mesh_of(server) as mesh:
        call = caller.run(mesh)
        with meshlib.timeout("500ms"):
            call("GET", "/x")
            with meshlib.detached():
                call("GET", "/y")
        inside, outside = (int(str(seen.header("x-meshlib-deadline-ms"))) for seen in origin.seen)
        assert inside <= 500 < outside <= 10_000


def test_policy_blocks_change_calls_inside_only(caller: Caller) -> None:
    with origins(lambda seen, n: ok(status="503 No")) as ([origin], [server]), mesh_of(server) as mesh:
        call = caller.run(mesh)
        with mesh.policy(retry=meshlib.Retry(max_retries=0), timeout="700ms"):
            call("GET", "/x")
        assert len(origin.seen) == 1
        assert int(str(origin.seen[0].header("x-meshlib-deadline-ms"))) <= 700
        call("GET", "/x")
        assert len(origin.seen) == 4


def test_the_last_answer_is_delivered_when_retries_are_used_up(caller: Caller) -> None:
    with origins(lambda seen, n: ok(b"sorry", "503 No")) as ([origin], [server]), mesh_of(server) as mesh:
        response = caller.run(mesh)("GET", "/x")
        assert (response.status_code, response.content, len(origin.seen)) == (503, b"sorry", 3)
        record = meshlib.record(response)
        assert record is not None and record.no_retry == "all 2 retries are used"


def test_tenacity_strategies_decide(caller: Caller) -> None:
    tenacity = pytest.importorskip("tenacity")
    retry = meshlib.Retry(
        max_retries=5,
        wait=tenacity.wait_fixed(0.001),
        stop=tenacity.stop_after_attempt(3),
        retry=tenacity.retry_if_result(lambda response: response.status_code == 418),
    )
    with origins(lambda seen, n: ok(status="418 Teapot")) as ([origin], [server]), mesh_of(server) as mesh:
        with mesh.policy(retry=retry):
            assert caller.run(mesh)("GET", "/x").status_code == 418
        assert len(origin.seen) == 3


def test_a_client_is_cheap_and_closing_it_closes_no_pool(caller: Caller) -> None:
    with origins(None) as (_, [server]), mesh_of(server) as mesh:
        for _ in range(5):
            call = caller.run(mesh)
            call("GET", "/x")
            call.close()
        if caller.name == "sync":
            assert server.accepted == 1


def test_after_close_calls_are_refused(caller: Caller) -> None:
    mesh = Mesh({"discovery": [], "services": {"orders": {"endpoints": ["127.0.0.1:1"]}}})
    call = caller.run(mesh)
    mesh.close()
    mesh.close()
    with pytest.raises(meshlib.MeshClosed):
        call("GET", "/x")


def test_the_origin_helper_itself_counts_requests() -> None:
    with origins(Origin()) as ([origin], [server]), mesh_of(server) as mesh:
        mesh.client("orders").get("/a")
        assert [seen.line for seen in origin.seen] == ["GET /a HTTP/1.1"]


def test_explain_keeps_the_reasons_in_full(caller: Caller) -> None:
    routes = [{"name": "beta", "match": [{"headers": {"user": {"exact": "jason"}}}], "backends": [{"weight": 1}]}]
    with origins(None) as (_, [server]), mesh_of(server, routes=routes) as mesh:
        call = caller.run(mesh)
        call("GET", "/x")
        record = meshlib.record(call("GET", "/x", extensions=meshlib.call(explain=True, route="/x")))
        assert record is not None
        assert record.why[0] == "route beta: not taken: header user is absent, not exact 'jason'"
        assert record.why[1] == "route default: taken"
        assert record.why[2].startswith(f"endpoint {address(server)} (orders): may be picked")


def test_the_per_try_timeout_ends_with_the_headers_and_the_body_has_the_rest_of_the_call(caller: Caller) -> None:
    def slow_body(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            for byte in b"slow":
                time.sleep(0.1)
                peer.send(bytes([byte]))

    with serving(slow_body) as server, mesh_of(server, per_try_timeout="200ms", timeout="5s") as mesh:
        assert caller.run(mesh)("GET", "/x").content == b"slow"
        with pytest.raises(meshlib.DeadlineExceeded):
            caller.run(mesh)("GET", "/x", timeout=0.25)


def test_an_endpoint_that_falls_silent_in_the_middle_of_a_body_fails_the_attempt(caller: Caller) -> None:
    def half(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        peer.wait_until_gone()

    with serving(half) as silent, origins(None) as (_, [well]):
        options: dict[str, Any] = {"per_try_timeout": "150ms", "load_balancing": {"policy": "round_robin"}}
        with mesh_of(silent, well, **options) as mesh:
            call = caller.run(mesh)
            assert [call("GET", "/x").content for _ in range(4)] == [b"ok"] * 4


def test_written_endpoints_need_no_wait(caller: Caller) -> None:
    with origins(None) as (_, [server]), mesh_of(server) as mesh:
        assert [each.address for each in mesh.plan("GET", "http://orders/").candidates] == [address(server)]
        record = meshlib.record(caller.run(mesh)("GET", "/x"))
        assert record is not None
        assert record.waits == ()


def test_a_base_url_without_a_host_is_below_the_service(caller: Caller) -> None:
    with origins(None) as ([origin], [server]), mesh_of(server) as mesh:
        caller.run(mesh, base_url="/v1")("GET", "orders/42")
        assert origin.seen[0].line == "GET /v1/orders/42 HTTP/1.1"


def test_a_body_that_is_too_slow_is_called_so(caller: Caller) -> None:
    def drip(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            peer.send(b"x")
            time.sleep(0.02)

    with serving(drip) as server, mesh_of(server, timeout="200ms") as mesh:
        with pytest.raises(meshlib.DeadlineExceeded, match="its body was not complete within"):
            caller.run(mesh)("GET", "/x")


@pytest.mark.slow
def test_an_event_stream_outlives_the_timeouts_of_its_call() -> None:
    def events(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        for number in range(16):
            peer.send(b"data: %d\n\n" % number)
            time.sleep(0.2)

    async def listen(mesh: Mesh) -> bytes:
        async with mesh.async_client("orders") as client, client.stream("GET", "/events") as response:
            return await response.aread()

    limits = {"timeout": "1s", "per_try_timeout": "1s", "body_idle_timeout": "1s"}
    with serving(events) as server, mesh_of(server, **limits) as mesh, ThreadPoolExecutor(1) as threads:
        heard = threads.submit(lambda: asyncio.run(listen(mesh)))
        with mesh.client("orders").stream("GET", "/events") as response:
            lines = [line for line in response.iter_lines() if line]
        assert lines == [f"data: {number}" for number in range(16)]
        assert heard.result(30).count(b"data:") == 16


def test_closing_the_mesh_ends_calls_that_wait_for_endpoints(caller: Caller) -> None:
    with serving(lambda peer: peer.wait_until_gone()) as silent:
        mesh = Mesh({"discovery": [{"consul": {"address": f"http://{address(silent)}"}}]})
        call = caller.run(mesh)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(call, "GET", "/x")
            wait_until(lambda: bool(mesh._wiring.snapshots.current.services), "the call has begun")
            wait_until(
                lambda: any(s.state.waiting for s in mesh._wiring.snapshots.current.services.values()), "it waits"
            )
            began = time.monotonic()
            mesh.close()
            with pytest.raises(meshlib.MeshClosed):
                waiting.result(10)
        assert time.monotonic() - began < 4


def test_a_body_that_is_slow_to_come_ends_with_the_deadline() -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"some"
        await asyncio.sleep(60)

    async def call(mesh: Mesh) -> None:
        with pytest.raises(meshlib.DeadlineExceeded):
            await mesh.async_client("orders").put("/x", content=never(), timeout=0.2)

    with origins(None) as (_, [server]), mesh_of(server) as mesh:
        asyncio.run(call(mesh))
        assert mesh.status().services[0].clusters[0].endpoints[0].in_flight == 0


def test_a_timeout_that_is_none_is_told_at_once(caller: Caller) -> None:
    with Mesh({"discovery": []}) as mesh, pytest.raises(ValueError, match="finite"):
        caller.run(mesh)("GET", "/x", timeout=float("nan"))


@pytest.mark.parametrize("headers", [{"x-a": "1\r\nx-b: 2"}, {"x a": "1"}, {"x-a": "1\x00"}])
def test_a_request_that_is_not_valid_is_refused_as_httpx_does_it(caller: Any, headers: dict[str, str]) -> None:
    with origins(None) as ([origin], [server]), mesh_of(server) as mesh:
        call = caller.run(mesh)
        with pytest.raises(httpx.LocalProtocolError) as caught:
            call("GET", "/x", headers=headers)
        assert isinstance(caught.value, meshlib.RequestBodyError)
        call.close()
        with httpx.Client() as plain, pytest.raises(httpx.LocalProtocolError):
            plain.get(f"http://{address(server)}/x", headers=headers)
        assert origin.seen == []
