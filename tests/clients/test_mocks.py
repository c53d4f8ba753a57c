"""Suites of users that patch their client go on working: what is patched above the mesh, and what below (``stock``)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
import requests
import requests_mock
import responses
from aioresponses import aioresponses
from multidict import CIMultiDict, CIMultiDictProxy

import meshlib
from meshlib import Mesh
from meshlib.adapters import aiohttp as meshed_aiohttp
from meshlib.adapters import requests as meshed_requests

URL = "http://orders/orders/42?full=yes"
CONFIG: dict[str, Any] = {
    "wire": "stock",
    "discovery": [],
    "services": {
        "orders": {"endpoints": ["10.0.0.1:8080"], "retry": {"backoff": {"base": "1ms", "max": "1ms"}}},
        "moved": {"routes": [{"rewrite": {"path": "/new"}, "backends": [{"service": "moved"}]}]},
    },
}


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    with Mesh(CONFIG) as mesh:
        yield mesh


# requests


@responses.activate
def test_responses_sees_each_attempt_at_the_url_that_the_caller_wrote(mesh: Mesh) -> None:
    responses.get(URL, status=503)
    responses.get(URL, body=requests.ConnectTimeout("no"))
    responses.get(URL, json={"id": 42}, headers={"Set-Cookie": "a=b"})
    session = meshed_requests.session(mesh, "orders")
    response = session.get("/orders/42?full=yes")
    assert response.json() == {"id": 42}
    assert session.cookies["a"] == "b"
    record = meshlib.record(response)
    assert record is not None
    assert [attempt.status for attempt in record.attempts] == [503, None, 200]
    assert [call.request.url for call in responses.calls] == [URL] * 3
    assert responses.calls[2].request.headers["x-envoy-attempt-count"] == "3"


@responses.activate
def test_responses_gets_bodies_and_answers_outside_the_mesh_too(mesh: Mesh) -> None:
    responses.post(URL, status=502, match=[responses.matchers.json_params_matcher({"id": 1})])
    responses.get("https://api.example.com/", status=204)
    session = mesh.attach(requests.Session())
    assert session.post(URL, json={"id": 1}).status_code == 502
    assert session.get("https://api.example.com/").status_code == 204
    assert len(responses.calls) == 2


@responses.activate
@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (requests.ConnectTimeout("no"), meshlib.ConnectTimeout),
        (requests.ReadTimeout("no"), meshlib.AttemptTimeout),
        (requests.ConnectionError("no"), meshlib.Reset),
        (requests.exceptions.SSLError("no"), meshlib.TLSFailed),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_responses_raises_is_the_mesh_s_error_and_that_of_requests(
    mesh: Mesh, raised: Exception, expected: type[Exception]
) -> None:
    responses.get(URL, body=raised)
    with pytest.raises(expected) as caught:
        meshed_requests.session(mesh).get(URL)
    assert isinstance(caught.value, type(raised))
    assert len(responses.calls) == 3


@responses.activate
@pytest.mark.parametrize(
    ("raised", "attempts"), [(requests.ConnectTimeout("no"), 3), (requests.exceptions.SSLError("cut off"), 1)]
)
def test_what_may_have_been_sent_is_not_sent_again(mesh: Mesh, raised: Exception, attempts: int) -> None:
    responses.post(URL, body=raised)
    with pytest.raises(type(raised)):
        meshed_requests.session(mesh).post(URL, json={"amount": 1})
    assert len(responses.calls) == attempts


@responses.activate
def test_a_route_s_new_path_is_what_responses_sees(mesh: Mesh) -> None:
    responses.get("http://moved/new", body="there")
    assert meshed_requests.session(mesh).get("http://moved/old").text == "there"


def test_requests_mock_answers_in_place_of_the_mesh(mesh: Mesh) -> None:
    with requests_mock.Mocker() as mock:
        mock.get(URL, json={"id": 42})
        response = meshed_requests.session(mesh).get(URL)
    assert response.json() == {"id": 42}
    assert meshlib.record(response) is None


def test_an_adapter_of_requests_mock_beneath_the_mesh_sees_each_attempt(mesh: Mesh) -> None:
    mock = requests_mock.Adapter()
    mock.register_uri("GET", URL, [{"status_code": 503}, {"text": "fine"}])
    session = requests.Session()
    session.mount("http://", meshed_requests.adapter(mesh, fallback=mock))
    assert session.get(URL).text == "fine"
    assert mock.call_count == 2


# aiohttp


class Answered(aiohttp.ClientResponse):
    """What aioresponses 0.7.9 is to make: of itself it cannot make those of aiohttp 3.14."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"stream_writer": SimpleNamespace(output_size=0), **kwargs})


def test_aioresponses_answers_in_place_of_the_mesh(mesh: Mesh) -> None:
    async def run() -> None:
        with aioresponses() as mock:
            mock.get(URL, payload={"id": 42}, response_class=Answered)
            async with meshed_aiohttp.session(mesh, "orders") as session:
                async with session.get("/orders/42", params={"full": "yes"}) as response:
                    assert await response.json() == {"id": 42}
                    assert meshlib.record(response) is None
            mock.assert_called_once()

    asyncio.run(run())


def test_a_middleware_that_answers_in_a_test_sees_each_attempt(mesh: Mesh) -> None:
    seen: list[str] = []

    async def answer(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        seen.append(f"{request.url} {request.headers['x-envoy-attempt-count']}")
        if len(seen) == 1:
            raise aiohttp.ServerDisconnectedError
        return await canned(request, 503 if len(seen) == 2 else 200)

    async def run() -> None:
        through = meshed_aiohttp.middleware(mesh)
        async with aiohttp.ClientSession(middlewares=[through, answer]) as session:
            async with session.get(URL) as response:
                assert (response.status, await response.text()) == (200, "canned")
                record = meshlib.record(response)
                assert record is not None
                assert [attempt.status for attempt in record.attempts] == [None, 503, 200]
            async with session.get("http://moved/old"):
                pass

    asyncio.run(run())
    assert seen == [f"{URL} 1", f"{URL} 2", f"{URL} 3", "http://moved/new 1"]
    assert sum(each.in_flight for service in mesh.status().services for each in service.clusters) == 0


async def canned(request: aiohttp.ClientRequest, status: int) -> aiohttp.ClientResponse:
    """A response as a mock makes one: without a connection."""
    response = Answered(
        request.method,
        request.url,
        writer=None,
        continue100=None,
        timer=None,
        request_info=request.request_info,
        traces=[],
        loop=request.loop,
        session=request.session,
    )
    response.status, response.reason = status, "Canned"
    response._headers = CIMultiDictProxy(CIMultiDict())
    response._raw_headers = ()
    protocol: Any = SimpleNamespace(connected=True, resume_reading=lambda **_: None)
    response.content = aiohttp.StreamReader(protocol, 65536, loop=request.loop)
    response.content.feed_data(b"canned")
    response.content.feed_eof()
    return response
