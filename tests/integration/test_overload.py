"""Three tiers of real servers, each a mesh of its own: what fails at the bottom by overload is not multiplied above."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

import meshlib
from meshlib import Mesh, MeshError
from meshlib.server.wsgi import MeshMiddleware
from tests.adapters.support import Origin, address, ok, origins


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def tier(behind: str, **policy: Any) -> Iterator[tuple[str, Mesh]]:
    """A service that asks the one behind it, and passes on what that says: its address, and its mesh."""
    mesh = Mesh({"discovery": [], "services": {"next": {"endpoints": [behind], **policy}}})
    client = mesh.client("next")

    def application(environ: Any, start_response: Any) -> list[bytes]:
        try:
            answer = client.get(environ["PATH_INFO"])
            status, body = f"{answer.status_code} {answer.reason_phrase}", answer.content
        except MeshError as error:
            status, body = "500 Internal Server Error", str(error).encode()
        start_response(status, [("Content-Length", str(len(body)))])
        return [body]

    with mesh:
        app = MeshMiddleware(application, mesh)
        with make_server("127.0.0.1", 0, app, server_class=_Server, handler_class=_Quiet) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield f"127.0.0.1:{server.server_port}", mesh
            finally:
                server.shutdown()
                thread.join()


@contextmanager
def three_tiers(answer: Any, **policy: Any) -> Iterator[tuple[Mesh, Origin, Mesh]]:
    """The mesh at the edge, what stands at the bottom, and the mesh that asks it."""
    fast = {"retry": {"backoff": {"base": "0ms"}, **policy.pop("retry", {})}}
    with ExitStack() as stack:
        (bottom,), servers = stack.enter_context(origins(answer))
        inner, asks_bottom = stack.enter_context(tier(address(servers[0]), **fast, **policy))
        middle, _ = stack.enter_context(tier(inner, **fast))
        edge = stack.enter_context(Mesh({"discovery": [], "services": {"top": {"endpoints": [middle], **fast}}}))
        yield edge, bottom, asks_bottom


def test_a_server_that_asks_for_peace_is_asked_once() -> None:
    overloaded = lambda seen, number: ok(status="503 Service Unavailable", x_envoy_overloaded="true")  # noqa: E731
    with three_tiers(overloaded) as (edge, bottom, _), edge.client("top") as client:
        response = client.get("/a")
        assert (response.status_code, response.headers["x-envoy-overloaded"]) == (503, "true")
        assert meshlib.record(response).no_retry == "the server is overloaded and asked not to be retried"
        assert len(bottom.seen) == 1, "with three attempts in each of three tiers it would be 27"


def test_without_a_word_of_it_attempts_multiply_until_a_budget_is_used_up() -> None:
    failing = lambda seen, number: ok(status="503 Service Unavailable")  # noqa: E731
    with three_tiers(failing, circuit_breaker=False, outlier_detection=False) as (edge, bottom, _):
        with edge.client("top") as client:
            counts = []
            for _ in range(12):
                before = len(bottom.seen)
                client.get("/a")
                counts.append(len(bottom.seen) - before)
    # The innermost budget is the first that is used up, and then nobody above repeats what fails for want of it.
    assert counts[0] > 3
    assert counts[-8:] == [1] * 8


def test_a_circuit_that_is_open_below_is_no_reason_to_try_again_above() -> None:
    failing = lambda seen, number: ok(status="503 Service Unavailable")  # noqa: E731
    breaker = {"min_calls": 2, "failure_percent": 1, "open_for": "60s", "max_open_for": "60s"}
    policy: dict[str, Any] = {"circuit_breaker": breaker, "retry": {"max_retries": 0}, "outlier_detection": False}
    with three_tiers(failing, **policy) as (edge, bottom, asks_bottom), edge.client("top") as client:
        for _ in range(3):
            client.get("/a")
        assert asks_bottom.status().services[0].clusters[0].breaker == "open"
        before = len(bottom.seen)
        response = client.get("/a")
        record = meshlib.record(response)
        assert (response.status_code, response.headers["x-envoy-overloaded"]) == (500, "true")
        assert (len(record.attempts), len(bottom.seen)) == (1, before)


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found"])
def test_an_answer_that_is_no_failure_bears_nothing(status: str) -> None:
    with three_tiers(lambda seen, number: ok(status=status)) as (edge, _, _), edge.client("top") as client:
        assert "x-envoy-overloaded" not in client.get("/a").headers


def test_a_failure_of_another_kind_bears_nothing() -> None:
    with three_tiers(lambda seen, number: ok(status="500 Internal Server Error")) as (edge, _, _):
        with edge.client("top") as client:
            response = client.get("/a")
        assert response.status_code == 500
        assert "x-envoy-overloaded" not in response.headers
