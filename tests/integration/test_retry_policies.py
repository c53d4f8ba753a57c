"""Retry policies from the configuration, with clients of every kind and real servers."""

from __future__ import annotations

import time
from typing import Any

import pytest

import meshlib
from meshlib import Mesh
from tests.adapters.support import Seen, mesh_of, ok, origins
from tests.integration.calling import Caller

AT_ONCE = {"base": "0ms"}


def first_then(first: bytes) -> Any:
    return lambda seen, number: first if number == 1 else ok()


@pytest.mark.parametrize(
    ("retry", "first", "attempts"),
    [
        ({"on": ["unavailable"]}, ok(grpc_status="14"), 2),
        ({"on": ["unavailable"]}, ok(grpc_status="13"), 1),
        ({"on": ["retriable-headers"], "retriable_headers": [{"name": "x-verdict", "prefix": "again"}]},
         ok(X_Verdict="again, please"), 2),
        ({"on": ["unavailable"]}, ok(grpc_status="14", grpc_retry_pushback_ms="-1"), 1),
        ({"on": ["retriable-4xx"]}, ok(status="409 Conflict"), 2),
        ({"on": [404]}, ok(status="404 Not Found"), 2),
        ({"on": ["5xx"]}, None, 2),
        ({"on": ["connect-failure"]}, None, 1),
        ({"on": ["5xx"]}, ok(status="503 Service Unavailable", x_envoy_ratelimited="true"), 1),
        ({"on": ["envoy-ratelimited"]}, ok(status="429 Too Many Requests", x_envoy_ratelimited="true"), 2),
        ({"on": ["5xx"]}, ok(status="503 Service Unavailable", grpc_retry_pushback_ms="-1"), 1),
        ({"on": ["5xx"]}, ok(status="503 Service Unavailable", finagle_http_nonretryable_nack="true"), 1),
        ({"on": ["5xx"], "retriable_methods": ["HEAD"]}, ok(status="503 Service Unavailable"), 1),
        ({"on": ["5xx"], "retriable_request_headers": [{"name": "x-again", "present": True}]},
         ok(status="503 Service Unavailable"), 1),
    ],
)  # fmt: skip
@pytest.mark.parametrize("headers", [{}, {"X-Again": "1"}], ids=["plain", "again"])
def test_what_is_written_is_what_is_retried(
    caller: Caller, retry: dict[str, Any], first: bytes | None, attempts: int, headers: dict[str, str]
) -> None:
    expected = 2 if "retriable_request_headers" in retry and headers else attempts
    with origins(first_then(first)) as ((origin,), servers):  # type: ignore[arg-type]
        with mesh_of(*servers, retry={"backoff": AT_ONCE, **retry}) as mesh:
            try:
                caller.client(mesh)("GET", "/a", headers=headers)
            except meshlib.MeshError:
                assert first is None
        assert len(origin.seen) == expected


def test_a_reset_header_says_how_long_to_wait(caller: Caller) -> None:
    def answer(seen: Seen, number: int) -> bytes:
        return ok(status="429 Too Many Requests", X_Reset=f"{int(time.time()) + 1}") if number == 1 else ok()

    headers = [{"name": "retry-after"}, {"name": "x-reset", "format": "unix_timestamp"}]
    retry = {"on": [429], "backoff": AT_ONCE, "rate_limited_backoff": {"reset_headers": headers}}
    with origins(answer) as (_, servers), mesh_of(*servers, retry=retry) as mesh:
        response = caller.client(mesh)("GET", "/a", extensions=meshlib.call(timeout="50ms"))
        assert response.status_code == 429
        assert meshlib.record(response).no_retry == "the deadline would pass before the retry"


@pytest.mark.parametrize(
    ("budget", "left"),
    [
        ({"tokens": 4}, 4),
        ({"kind": "rate", "min_per_second": 3, "ttl": "1s"}, 3),
        ({"kind": "concurrency", "max_retries": 7}, 7),
    ],
)
def test_the_status_shows_what_is_left_of_each_kind_of_budget(budget: dict[str, Any], left: float) -> None:
    orders = {"endpoints": ["127.0.0.1:1"], "retry_budget": budget, "retry": {"max_retries": 0}}
    with Mesh({"discovery": [], "services": {"orders": orders}}) as mesh:
        with pytest.raises(meshlib.ConnectFailed), mesh.client("orders") as client:
            client.post("/a")
        (service,) = mesh.status().services
        assert (service.budget_tokens, service.budget_open) == (left - (budget.get("kind") is None), True)


def test_calls_of_high_priority_have_a_concurrency_budget_of_their_own(caller: Caller) -> None:
    service = {
        "retry_budget": {"kind": "concurrency", "max_retries": 0},
        "retry": {"backoff": AT_ONCE},
        "routes": [{"match": [{"path": {"exact": "/high"}}], "priority": "high"}],
    }
    with origins(lambda seen, number: ok(status="503 Service Unavailable")) as (_, servers):
        with mesh_of(*servers, **service) as mesh:
            plain, high = caller.client(mesh)("GET", "/a"), caller.client(mesh)("GET", "/high")
            assert meshlib.record(plain).no_retry == meshlib.record(high).no_retry
            state = mesh.status().services[0]
            assert not state.budget_open
