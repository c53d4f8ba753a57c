"""What can be served, and what is recorded of the requests that came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import httpx
import pytest

import meshlib
from meshlib.testing import MeshFixture, ReceivedRequest
from tests.testing.support import Async, Sync, fastapi_echo, flask_echo


@pytest.mark.parametrize(
    ("reply", "status", "content", "content_type"),
    [
        ({"id": 42}, 200, b'{"id":42}', "application/json"),
        ([1, 2], 200, b"[1,2]", "application/json"),
        ("text", 200, b"text", "text/plain; charset=utf-8"),
        (b"bytes", 200, b"bytes", None),
        (204, 204, b"", None),
        ((404, {"error": "none"}), 404, b'{"error":"none"}', "application/json"),
        ((201, b"", {"location": "/orders/1"}), 201, b"", None),
        (httpx.Response(418, text="teapot"), 418, b"teapot", "text/plain; charset=utf-8"),
    ],
)
@pytest.mark.parametrize("as_function", [True, False], ids=["function", "constant"])
def test_what_a_function_returns_becomes_the_response(
    mesh: MeshFixture, caller: Sync, reply: Any, status: int, content: bytes, content_type: str, as_function: bool
) -> None:
    mesh.serve("orders", (lambda request: reply) if as_function else reply)
    response = caller.get(mesh, "http://orders/orders/1")
    assert (response.status_code, response.content) == (status, content)
    assert response.headers.get("content-type") == content_type


@pytest.mark.parametrize("reply", [None, True, 3.5, object(), (200,), 7])
def test_what_is_no_response_is_said_to_be_none(mesh: MeshFixture, caller: Sync, reply: Any) -> None:
    mesh.serve("orders", lambda request: reply)
    with pytest.raises(TypeError, match="it can return a dict or list"):
        caller.get(mesh, "http://orders/")


def test_a_constant_that_is_no_response_is_refused_at_once(mesh: MeshFixture) -> None:
    with pytest.raises(TypeError, match="it can return a dict"):
        mesh.serve("orders", None)


def test_async_functions_are_awaited(mesh: MeshFixture, caller: Sync) -> None:
    async def handler(request: ReceivedRequest) -> dict[str, str]:
        return {"path": request.path}

    mesh.serve("orders", handler)
    assert caller.get(mesh, "http://orders/a").json() == {"path": "/a"}


@pytest.mark.parametrize("app", [fastapi_echo(), flask_echo()], ids=["fastapi", "flask"])
def test_applications_are_served(mesh: MeshFixture, caller: Sync, app: Any) -> None:
    mesh.serve("orders", app)
    response = caller.request(mesh, "POST", "http://orders/async/a%20b?x=1&y=%C3%A4", content=b"body")
    assert response.json()["query"] == {"x": "1", "y": "ä"}
    assert response.json()["body"] == "body"
    assert response.json()["path"].endswith("a b")


def test_handlers_in_a_framework_s_threads_are_served(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", fastapi_echo())
    assert [caller.get(mesh, f"http://orders/in-a-thread/{n}").json() for n in (1, 2)] == [{"number": 1}, {"number": 2}]


def test_async_applications_answer_sync_clients_inside_a_running_loop(mesh: MeshFixture) -> None:
    import asyncio

    mesh.serve("orders", fastapi_echo())

    async def test() -> httpx.Response:
        return Sync().get(mesh, "http://orders/async/x")

    assert asyncio.run(test()).status_code == 200


def test_a_function_may_take_more_with_defaults(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", lambda request, store={"a": 1}, more=None: store)
    assert caller.get(mesh, "http://orders/").json() == {"a": 1}


def test_streamed_responses_stream(mesh: MeshFixture) -> None:
    produced = []

    def numbers() -> Iterator[bytes]:
        for number in range(3):
            produced.append(number)
            yield b"%d\n" % number

    mesh.serve("orders", lambda request: httpx.Response(200, content=numbers()))
    with mesh.client("orders").stream("GET", "/") as response:
        lines = response.iter_lines()
        assert next(lines) == "0"
        assert produced == [0]
        assert list(lines) == ["1", "2"]


def test_the_answer_to_head_has_no_body(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", {"id": 1})
    response = caller.request(mesh, "HEAD", "http://orders/")
    assert (response.content, response.headers["content-length"]) == (b"", "8")


def test_the_body_of_a_request_is_whole_however_it_was_sent(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 200)
    pieces: Any = iter([b"ab", b"cd"])
    if isinstance(caller, Async):

        async def produced() -> Any:
            for piece in (b"ab", b"cd"):
                yield piece

        pieces = produced()
    caller.request(mesh, "POST", "http://orders/", content=pieces)
    caller.request(mesh, "POST", "http://orders/", json={"a": 1})
    assert [call.body for call in mesh.calls("orders")] == [b"abcd", b'{"a":1}']
    assert mesh.calls("orders")[1].json() == {"a": 1}


def test_requests_are_recorded_as_they_arrived(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 200)
    mesh.clock.advance("1500ms")
    with meshlib.timeout("700ms"):
        caller.get(mesh, "http://orders/a%20b/c?x=1&x=2&y=3", headers={"X-Own": "yes"})
    (call,) = mesh.calls("orders")
    assert (call.method, call.path, call.query) == ("GET", "/a b/c", {"x": "2", "y": "3"})
    assert call.url.params.get_list("x") == ["1", "2"]
    assert (call.service, call.instance, call.at) == ("orders", "orders-0", 1.5)
    assert call.headers["x-own"] == "yes"
    assert call.headers["host"] == "orders"
    assert call.headers["x-meshlib-deadline-ms"] == "700"
    assert call.headers["x-envoy-attempt-count"] == "1"
    assert (call.content, call.text) == (b"", "")
    assert str(call) == "GET /a%20b/c?x=1&x=2&y=3 to orders-0 at 1.5s"
    with pytest.raises(FrozenInstanceError):
        call.method = "POST"  # type: ignore[misc]


def test_a_function_is_given_what_is_recorded(mesh: MeshFixture) -> None:
    seen = []

    def handler(request: ReceivedRequest) -> int:
        seen.append(request)
        return 200

    mesh.serve("orders", handler)
    mesh.client("orders").get("/x")
    assert seen == mesh.calls()


def test_calls_can_be_asked_for_by_service_and_instance(mesh: MeshFixture) -> None:
    stable = mesh.serve("orders", "stable", instances=2)
    canary = mesh.serve("orders", "canary", name="canary")
    mesh.serve("users", 200)
    for _ in range(20):
        mesh.client("orders").get("/")
    mesh.client("users").get("/")
    assert len(mesh.calls()) == 21
    assert len(mesh.calls("orders")) == 20
    assert len(stable.calls) + len(canary.calls) == 20
    assert {call.instance for call in stable.calls} == {"orders-0", "orders-1"}
    assert canary.calls == mesh.calls("orders", instance="canary") == mesh.calls("orders", instance=2)
    assert mesh.calls("orders", instance=stable[0]) == mesh.calls("orders", instance=0)


def test_names_of_what_is_not_there_are_errors(mesh: MeshFixture) -> None:
    mesh.serve("orders", 200, instances=2)
    with pytest.raises(LookupError, match=r"users is not served here \(served are orders\)"):
        mesh.calls("users")
    with pytest.raises(LookupError, match="orders has no instance 5; it has orders-0, orders-1"):
        mesh.kill("orders", instance=5)
    with pytest.raises(ValueError, match="orders has an instance 'orders-1' already"):
        mesh.serve("orders", 200, name="orders-1")


def test_an_exception_of_the_application_fails_the_test(mesh: MeshFixture, caller: Sync) -> None:
    def handler(request: ReceivedRequest) -> int:
        assert request.path == "/expected"
        return 200

    mesh.serve("orders", handler)
    with pytest.raises(AssertionError):
        caller.get(mesh, "http://orders/other")
    mesh.serve("lenient", handler, raise_errors=False)
    assert caller.get(mesh, "http://lenient/other").status_code == 500


@pytest.mark.parametrize("error", [meshlib.Reset("by hand"), httpx.ReadError("by hand")], ids=["meshlib", "httpx"])
def test_a_function_may_raise_what_the_wire_would(mesh: MeshFixture, caller: Sync, error: Exception) -> None:
    def handler(request: ReceivedRequest) -> int:
        raise error

    mesh.serve("orders", handler)
    with pytest.raises(meshlib.Reset, match="by hand") as caught:
        caller.get(mesh, "http://orders/")
    assert caught.value.record is not None
    assert [attempt.error for attempt in caught.value.record.attempts] == ["Reset"] * 3


def test_a_failed_call_of_a_handler_s_own_is_a_500(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("users", 200)
    mesh.kill("users")
    mesh.serve("orders", lambda request: mesh.client("users").get("/").json())
    response = caller.get(mesh, "http://orders/")
    assert response.status_code == 500
    assert response.text.startswith("ConnectFailed: users:")
    assert len(mesh.calls("orders")) == 1


def test_a_service_without_instances_is_known_and_empty(mesh: MeshFixture, caller: Sync) -> None:
    mesh.serve("orders", 200, instances=0)
    with pytest.raises(meshlib.NoEndpoint):
        caller.get(mesh, "http://orders/")


def test_instances_have_weights(mesh: MeshFixture) -> None:
    heavy = mesh.serve("orders", 200, weight=3)
    light = mesh.serve("orders", 200)
    for _ in range(400):
        mesh.client("orders").get("/")
    assert 2.5 < len(heavy.calls) / len(light.calls) < 3.5


def test_json_bodies_are_what_clients_send(mesh: MeshFixture) -> None:
    mesh.serve("orders", lambda request: {"got": json.loads(request.content)})
    assert mesh.client("orders").put("/", json=[1]).json() == {"got": [1]}
