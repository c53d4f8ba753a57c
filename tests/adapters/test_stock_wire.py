"""``wire: stock``: suites built on respx and pytest-httpx go on working, with retries to be seen as repeated calls."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import httpx
import pytest
import pytest_httpx
import respx

import meshlib
from meshlib import Mesh
from meshlib.adapters.httpx import LIBRARY
from meshlib.adapters.httpx_wire import AsyncStockTransport, StockTransport
from tests.adapters.support import address, ok, origins

URL = "http://orders.internal:8080/orders/42?full=yes"
CONFIG = {
    "wire": "stock",
    "discovery": [],
    "services": {
        "orders": {
            "hosts": ["orders.internal:8080", "orders.internal"],
            "endpoints": ["10.0.0.1:8080", "10.0.0.2:8080"],
            "tls": {"mode": "simple"},
            "host_header": "endpoint",
            "retry": {"backoff": {"base": "1ms", "max": "1ms"}},
        }
    },
}


class Caller(Protocol):
    def __call__(self, mesh: Mesh, method: str, url: str, **options: Any) -> httpx.Response: ...


def by_client(mesh: Mesh, method: str, url: str, **options: Any) -> httpx.Response:
    with mesh.client() as client:
        return client.request(method, url, **options)


def by_transport(mesh: Mesh, method: str, url: str, **options: Any) -> httpx.Response:
    with httpx.Client(transport=mesh.transport()) as client:
        return client.request(method, url, **options)


def by_attach(mesh: Mesh, method: str, url: str, **options: Any) -> httpx.Response:
    with mesh.attach(httpx.Client(trust_env=False)) as client:
        return client.request(method, url, **options)


def in_a_loop(client_of: Callable[[Mesh], httpx.AsyncClient]) -> Caller:
    def call(mesh: Mesh, method: str, url: str, **options: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            async with client_of(mesh) as client:
                return await client.request(method, url, **options)

        return asyncio.run(run())

    return call


CALLERS = {
    "client": by_client,
    "transport": by_transport,
    "attach": by_attach,
    "async client": in_a_loop(lambda mesh: mesh.async_client()),
    "async transport": in_a_loop(lambda mesh: httpx.AsyncClient(transport=mesh.async_transport())),
    "async attach": in_a_loop(lambda mesh: mesh.attach(httpx.AsyncClient(trust_env=False))),
}


@pytest.fixture(params=CALLERS, ids=list(CALLERS))
def call(request: pytest.FixtureRequest) -> Caller:
    return CALLERS[request.param]


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Mesh(CONFIG) as mesh:
        yield mesh


def test_respx_sees_the_url_that_the_caller_wrote(mesh: Mesh, call: Caller, respx_mock: respx.MockRouter) -> None:
    route = respx_mock.get(URL).respond(json={"id": 42})
    response = call(mesh, "GET", URL)
    assert response.json() == {"id": 42}
    assert str(route.calls.last.request.url) == URL
    assert meshlib.record(response) is not None


def test_respx_sees_retries_as_calls(mesh: Mesh, call: Caller, respx_mock: respx.MockRouter) -> None:
    route = respx_mock.get(URL).mock(side_effect=[httpx.Response(503), httpx.ConnectError, httpx.Response(200)])
    response = call(mesh, "GET", URL)
    assert response.status_code == 200
    assert route.call_count == 3
    record = meshlib.record(response)
    assert record is not None
    assert [attempt.status for attempt in record.attempts] == [503, None, 200]


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (httpx.ConnectError("no"), meshlib.ConnectFailed),
        (httpx.ConnectTimeout("no"), meshlib.ConnectTimeout),
        (httpx.ReadTimeout("no"), meshlib.AttemptTimeout),
        (httpx.ReadError("no"), meshlib.Reset),
        (httpx.RemoteProtocolError("no"), meshlib.ProtocolError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_a_mock_raises_is_the_mesh_s_error_and_httpx_s_too(
    mesh: Mesh, call: Caller, respx_mock: respx.MockRouter, raised: httpx.TransportError, expected: type[Exception]
) -> None:
    route = respx_mock.get(URL).mock(side_effect=raised)
    with pytest.raises(expected) as caught:
        call(mesh, "GET", URL)
    assert isinstance(caught.value, httpx.TransportError)
    assert isinstance(caught.value, type(raised))
    assert caught.value.request.url == URL
    assert route.call_count == 3


def test_posts_are_sent_once_and_with_their_body(mesh: Mesh, call: Caller, respx_mock: respx.MockRouter) -> None:
    route = respx_mock.post(URL, json={"id": 1}).respond(502)
    assert call(mesh, "POST", URL, json={"id": 1}).status_code == 502
    assert route.call_count == 1


def test_what_respx_does_not_know_stays_its_own_error(mesh: Mesh, call: Caller, respx_mock: respx.MockRouter) -> None:
    with pytest.raises(respx.models.AllMockedAssertionError):
        call(mesh, "GET", "http://orders/unknown")


def test_hosts_outside_the_mesh_are_mocked_as_ever(mesh: Mesh, call: Caller, respx_mock: respx.MockRouter) -> None:
    respx_mock.get("https://api.example.com/").respond(204)
    assert call(mesh, "GET", "https://api.example.com/").status_code == 204


@pytest.mark.parametrize("url", ["https://orders/a", "http://orders/b", "http://users:81/c", "https://x.mesh/d%20e?f"])
def test_scheme_host_and_port_stay_as_written(mesh: Mesh, call: Caller, respx_mock: respx.MockRouter, url: str) -> None:
    route = respx_mock.route().respond(200)
    call(mesh, "GET", url, headers={"Host": "another.example"})
    assert str(route.calls.last.request.url) == url


def test_pytest_httpx_sees_the_url_and_the_retries(
    mesh: Mesh, call: Caller, httpx_mock: pytest_httpx.HTTPXMock
) -> None:
    httpx_mock.add_response(url=URL, status_code=503)
    httpx_mock.add_exception(httpx.ReadError("reset"), url=URL)
    httpx_mock.add_response(url=URL, json={"id": 42})
    assert call(mesh, "GET", URL).json() == {"id": 42}
    requests = httpx_mock.get_requests()
    assert [str(request.url) for request in requests] == [URL] * 3
    assert [request.headers["x-envoy-attempt-count"] for request in requests] == ["1", "2", "3"]


@pytest.mark.httpx_mock(can_send_already_matched_responses=True)
def test_pytest_httpx_answers_every_attempt(mesh: Mesh, call: Caller, httpx_mock: pytest_httpx.HTTPXMock) -> None:
    httpx_mock.add_response(url=URL, status_code=503)
    assert call(mesh, "GET", URL).status_code == 503
    assert len(httpx_mock.get_requests()) == 3


def test_pytest_httpx_streams(mesh: Mesh, httpx_mock: pytest_httpx.HTTPXMock) -> None:
    httpx_mock.add_response(url=URL, stream=pytest_httpx.IteratorStream([b"one", b"two"]))
    with mesh.client().stream("GET", URL) as response:
        assert list(response.iter_bytes()) == [b"one", b"two"]
    httpx_mock.add_response(url=URL, stream=pytest_httpx.IteratorStream([b"one", b"two"]))

    async def stream() -> list[bytes]:
        async with mesh.async_client() as client, client.stream("GET", URL) as response:
            return [chunk async for chunk in response.aiter_bytes()]

    assert asyncio.run(stream()) == [b"one", b"two"]


def test_the_environment_switches_it_on(
    monkeypatch: pytest.MonkeyPatch, respx_mock: respx.MockRouter, call: Caller
) -> None:
    monkeypatch.setenv("MESHLIB_WIRE", "stock")
    respx_mock.get(URL).respond(204)
    with Mesh({**CONFIG, "wire": "native"}) as mesh:
        assert call(mesh, "GET", URL).status_code == 204


def test_a_mesh_makes_no_transport_before_it_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(ssl, "create_default_context", lambda *args, **options: made.append(args))
    with Mesh(CONFIG) as mesh:
        mesh.client("orders").close()
    assert made == []


def test_real_connections_are_reused_and_closed_with_the_mesh() -> None:
    with origins(lambda seen, number: ok()) as ([origin], [server]):
        with Mesh({"wire": "stock", "discovery": [], "services": {"orders": {"hosts": [address(server)]}}}) as mesh:
            for _ in range(3):
                with mesh.client() as client:
                    assert client.get(f"http://{address(server)}/").status_code == 200
        assert len(origin.seen) == 3

        async def calls() -> None:
            async with mesh_of(address(server)) as mesh, mesh.async_client() as client:
                for _ in range(3):
                    assert (await client.get(f"http://{address(server)}/")).status_code == 200

        def mesh_of(host: str) -> Mesh:
            return Mesh({"wire": "stock", "discovery": [], "services": {"orders": {"hosts": [host]}}})

        asyncio.run(calls())
        assert len(origin.seen) == 6


def test_transports_serve_one_loop_after_another_and_can_be_used_after_close() -> None:
    with origins(lambda seen, number: ok(), lambda seen, number: ok()) as (_, [one, other]):
        stock, async_stock = StockTransport(LIBRARY), AsyncStockTransport(LIBRARY)

        async def get(url: str) -> int:
            response = await async_stock.handle_async_request(httpx.Request("GET", url))
            await response.aread()
            await response.aclose()
            await async_stock.aclose()
            return response.status_code

        assert [asyncio.run(get(f"http://{address(server)}/")) for server in (one, other)] == [200, 200]
        for _ in range(2):
            response = stock.handle_request(httpx.Request("GET", f"http://{address(one)}/"))
            assert response.read() == b"ok"
            response.close()
            stock.close()
