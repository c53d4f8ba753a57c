"""Off, observe and on: globally, per service, live and by the environment. What goes outside, and what does not."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

import meshlib
from meshlib import ConfigError, Mesh
from tests.adapters.support import Seen, address, mesh_of, ok, origins
from tests.integration.calling import Caller
from tests.net.wire_servers import OK, Peer, serving, soon
from tests.peers.process import wait_until

MESH_HEADERS = frozenset(
    {
        "x-meshlib-deadline-ms",
        "x-meshlib-criticality",
        "x-envoy-expected-rq-timeout-ms",
        "x-envoy-attempt-count",
        "traceparent",
        "tracestate",
        "baggage",
    }
)


def added(seen: Seen) -> set[str]:
    """The mesh's own headers on a request."""
    return {name.lower() for name, _ in seen.headers} & MESH_HEADERS


def mesh_for(own: Any, *endpoints: Any, **options: Any) -> Mesh:
    """`own`, called by its own host and port, is the service `orders`, whose endpoints the mesh has elsewhere."""
    orders = {"endpoints": [address(server) for server in endpoints], "hosts": [address(own)], **options}
    settings = {name: orders.pop(name) for name in ("mode", "egress") if name in orders}
    service_mode = orders.pop("service_mode", None)
    if service_mode is not None:
        orders["mode"] = service_mode
    return Mesh({"discovery": [], "services": {"orders": orders}, **settings})


def cluster(mesh: Mesh) -> Any:
    (service,) = mesh.status().services
    return service.clusters[0]


# Off


def test_off_is_plain_httpx(caller: Caller) -> None:
    with origins(None, None) as ([own, other], [at, elsewhere]), mesh_for(at, elsewhere, mode="off") as mesh:
        response = caller.attached(mesh)("GET", f"http://{address(at)}/x")
        assert response.status_code == 200
        assert meshlib.record(response) is None
        assert (len(own.seen), len(other.seen)) == (1, 0)
        assert added(own.seen[0]) == set()
        assert own.seen[0].header("host") == address(at)


def test_off_retries_nothing_and_raises_what_httpx_raises(caller: Caller) -> None:
    with origins(lambda seen, n: None) as ([own], [at]), mesh_for(at, at, mode="off") as mesh:
        with pytest.raises(httpx.ReadError) as caught:
            caller.attached(mesh)("GET", f"http://{address(at)}/x")
        assert not isinstance(caught.value, meshlib.MeshError)
        assert len(own.seen) == 1


def hang(peer: Peer) -> None:
    peer.request()
    peer.wait_until_gone()


@pytest.mark.parametrize(("mode", "host"), [("off", "orders"), ("observe", "orders"), ("on", "elsewhere")])
def test_a_meshed_client_has_plain_timeouts_where_the_mesh_does_not_hold(
    caller: Caller, mode: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    class Stock(httpx.BaseTransport, httpx.AsyncBaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request.extensions["timeout"]["read"])
            return httpx.Response(200)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return self.handle_request(request)

    monkeypatch.setattr(httpx, "HTTPTransport", Stock)
    monkeypatch.setattr(httpx, "AsyncHTTPTransport", Stock)
    with Mesh({"discovery": [], "mode": mode, "services": {"orders": {}}}) as mesh:
        call = caller.client(mesh)
        url = f"http://{host}/x"
        call("GET", url)
        call("GET", url, timeout=2)
        call("GET", url, timeout=httpx.Timeout(None, read=3))
        call("GET", url, timeout=None)
        call("GET", url, extensions=meshlib.call(timeout="4s"))
        caller.client(mesh, timeout=7)("GET", url)
        caller.client(mesh, timeout=None)("GET", url)
    assert seen == [5.0, 2.0, 3, None, 4.0, 7.0, None]


# Observe


def test_observe_leaves_the_request_as_it_is_and_says_what_would_have_been_done(caller: Caller) -> None:
    with origins(None, None) as ([own, other], [at, elsewhere]), mesh_for(at, elsewhere, mode="observe") as mesh:
        mesh.wait_ready("orders")
        with meshlib.timeout("9s"):
            response = caller.attached(mesh)("GET", f"http://{address(at)}/x?q=1", headers={"x-a": "1"})
        plain = httpx.get(f"http://{address(at)}/x?q=1", headers={"x-a": "1"})
        assert plain.status_code == response.status_code == 200
        assert own.seen[0] == own.seen[1]
        assert other.seen == []
        record = meshlib.record(response)
        assert record is not None
        assert (record.service, record.outcome, record.status) == ("orders", "success", 200)
        assert any(f"would go to {address(elsewhere)}" in why for why in record.why), record.why


@pytest.mark.parametrize("how", ["attached", "client"])
def test_observe_counts_calls_and_believes_nothing_of_endpoints(caller: Caller, how: str) -> None:
    options: dict[str, Any] = {
        "mode": "observe",
        "circuit_breaker": {"min_calls": 4, "window": "10s", "failure_percent": 50, "open_for": "30s"},
        "outlier_detection": {"consecutive_errors": 1},
        "retry_budget": {"tokens": 4},
    }
    with (
        origins(lambda seen, n: ok(status="503 No"), None) as ([own, other], [at, elsewhere]),
        mesh_for(at, elsewhere, **options) as mesh,
    ):
        mesh.wait_ready("orders")
        call = caller.attached(mesh) if how == "attached" else caller.client(mesh)
        responses = [call("GET", f"http://{address(at)}/x") for _ in range(8)]
        assert [response.status_code for response in responses] == [503] * 8
        assert len(own.seen) == 8, "nothing is retried"
        assert other.seen == []
        status = mesh.status().services[0]
        assert status.clusters[0].breaker == "open"
        assert status.budget_tokens < 4
        assert all(endpoint.state == "healthy" for endpoint in status.clusters[0].endpoints)
        assert all(endpoint.in_flight == 0 for endpoint in status.clusters[0].endpoints)
        first, last = meshlib.record(responses[0]), meshlib.record(responses[-1])
        assert first is not None
        assert last is not None
        assert first.status == 503
        assert any("would retry" in why for why in first.why), first.why
        assert any("would fail: CircuitOpen" in why for why in last.why), last.why
        assert mesh.status().services[0].clusters[0].in_flight == 0


def test_observe_raises_the_callers_own_errors(caller: Caller) -> None:
    with (
        origins(lambda seen, n: None, None) as ([own, _], [at, elsewhere]),
        mesh_for(at, elsewhere, mode="observe") as mesh,
    ):
        mesh.wait_ready("orders")
        with pytest.raises(httpx.ReadError) as caught:
            caller.attached(mesh)("GET", f"http://{address(at)}/x")
        assert not isinstance(caught.value, meshlib.MeshError)
        assert len(own.seen) == 1
        assert cluster(mesh).in_flight == 0


def test_observe_streams_untouched(caller: Caller) -> None:
    with origins(lambda seen, n: ok(b"x" * 100_000)) as ([own], [at]), mesh_for(at, at, mode="observe") as mesh:
        response, body = caller.attached(mesh).stream("GET", f"http://{address(at)}/x")
        assert body == b"x" * 100_000
        assert added(own.seen[0]) == set()
        assert meshlib.record(response) is not None
        assert cluster(mesh).endpoints[0].in_flight == 0


def test_observe_sends_a_body_that_can_be_read_once(caller: Caller) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"one"

    def sync_chunks() -> Iterator[bytes]:
        yield b"one"

    with origins(None) as ([own], [at]), mesh_for(at, at, mode="observe") as mesh:
        url = f"http://{address(at)}/x"
        if caller.name == "sync":
            mesh.attach(client := httpx.Client())
            client.post(url, content=sync_chunks())
            client.close()
        else:

            async def go() -> None:
                async with mesh.attach(httpx.AsyncClient()) as client:
                    await client.post(url, content=chunks())

            asyncio.run(go())
        assert b"one" in own.seen[0].body


def test_observe_does_not_disturb_calls_when_the_mesh_is_closed(caller: Caller) -> None:
    with origins(None) as ([own], [at]):
        mesh = mesh_for(at, at, mode="observe")
        call = caller.attached(mesh)
        mesh.close()
        assert call("GET", f"http://{address(at)}/x").status_code == 200
        assert len(own.seen) == 1


def test_observe_does_not_refuse_the_outside(caller: Caller) -> None:
    with origins(None) as ([_own], [at]), Mesh({"discovery": [], "mode": "observe", "egress": "refuse"}) as mesh:
        assert caller.attached(mesh)("GET", f"http://{address(at)}/").status_code == 200


# Which mode


def test_a_service_has_a_mode_of_its_own_and_off_overrides_all(caller: Caller) -> None:
    with (
        origins(None, None) as ([own, other], [at, elsewhere]),
        mesh_for(at, elsewhere, mode="observe", service_mode="on") as mesh,
    ):
        call = caller.attached(mesh)
        call("GET", f"http://{address(at)}/")
        assert (len(own.seen), len(other.seen)) == (0, 1)
        mesh.mode = "off"
        call("GET", f"http://{address(at)}/")
        assert (len(own.seen), len(other.seen)) == (1, 1)


def test_the_mode_changes_live_and_says_so(caller: Caller) -> None:
    with origins(None, None) as ([own, other], [at, elsewhere]), mesh_for(at, elsewhere) as mesh:
        events: list[Any] = []
        mesh.on_event(events.append)
        call = caller.attached(mesh)
        url = f"http://{address(at)}/"
        call("GET", url)
        mesh.set_mode("off", service="orders")
        call("GET", url)
        mesh.set_mode("on", service="orders")
        call("GET", url)
        mesh.mode = "observe"
        assert mesh.mode == mesh.settings.mode == "observe"
        mesh.set_mode("observe", service="orders")
        call("GET", url)
        assert (len(own.seen), len(other.seen)) == (2, 2)
        expected = [
            ("orders", "on", "off"),
            ("orders", "off", "on"),
            ("", "on", "observe"),
            ("orders", "on", "observe"),
        ]

        def told() -> bool:
            changes = [event for event in events if type(event).__name__ == "ModeChanged"]
            return [(event.service, event.old, event.new) for event in changes] == expected

        wait_until(told, "the events have come")  # they are told on the control thread, in order
        with pytest.raises(ConfigError, match=r"'of'.*off, observe, on"):
            mesh.set_mode("of")  # type: ignore[arg-type]


def test_the_environment_sets_the_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHLIB_MODE", "off")
    with origins(None, None) as ([own, other], [at, elsewhere]), mesh_for(at, elsewhere, service_mode="on") as mesh:
        assert mesh.mode == "off"
        with mesh.attach(httpx.Client()) as client:
            client.get(f"http://{address(at)}/")
        assert (len(own.seen), len(other.seen)) == (1, 0)
    monkeypatch.setenv("MESHLIB_MODE", "maybe")
    with pytest.raises(ConfigError, match=r"MESHLIB_MODE.*maybe.*off, observe, on"):
        Mesh({"discovery": []})


# Inside or outside


def test_the_outside_gets_no_headers_and_no_retries(caller: Caller) -> None:
    with origins(lambda seen, n: ok(status="503 No")) as ([outside], [at]), Mesh({"discovery": []}) as mesh:
        with meshlib.timeout("9s"):
            response = caller.attached(mesh)("GET", f"http://{address(at)}/x")
        assert response.status_code == 503
        assert meshlib.record(response) is None
        assert len(outside.seen) == 1
        assert added(outside.seen[0]) == set()


def test_the_outside_may_be_refused(caller: Caller) -> None:
    with origins(None) as ([outside], [at]), Mesh({"discovery": [], "egress": "refuse"}) as mesh:
        call = caller.attached(mesh)
        for url in (f"http://{address(at)}/x", "http://nobody/x"):
            with pytest.raises(httpx.ConnectError) as caught:
                call("GET", url)
            assert isinstance(caught.value, meshlib.EgressRefused), url
            assert "egress: refuse" in str(caught.value)
        assert outside.seen == []


def test_a_name_that_nobody_knows_falls_outside_but_not_if_it_was_called_a_service(caller: Caller) -> None:
    with origins(None) as ([outside], [at]), Mesh({"discovery": []}) as mesh:
        proxied = httpx.HTTPTransport(proxy=f"http://{address(at)}")
        async_proxied = httpx.AsyncHTTPTransport(proxy=f"http://{address(at)}")
        call = caller.attached(mesh, transport=proxied if caller.name == "sync" else async_proxied)
        assert call("GET", "http://nobody/x").status_code == 200
        assert outside.seen[0].header("host") == "nobody"
        assert added(outside.seen[0]) == set()
        with pytest.raises(meshlib.UnknownService, match=r"nobody: .*asked: nobody.; give it endpoints"):
            caller.client(mesh, "nobody")("GET", "/x")
    with (
        origins(None) as ([outside], [at]),
        Mesh({"discovery": [], "services": {"nobody": {}}}) as mesh,
        pytest.raises(meshlib.UnknownService, match="nobody"),
    ):
        caller.attached(mesh)("GET", "http://nobody/x")


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        ("http://orders/", True),
        ("http://ORDERS/", True),
        ("http://orders:8080/", True),
        ("http://orders.internal:8080/", True),
        ("http://orders.internal/", False),
        ("http://orders.internal:8081/", False),
        ("http://orders.example.com/", True),
        ("http://orders.example.com:9/", True),
        ("http://default-port.example.com/", True),
        ("http://default-port.example.com:81/", False),
        ("http://orders.mesh/", False),  # looked up by its own name, which nobody knows
        ("http://known.mesh/", True),
        ("http://example.com/", False),
        ("http://localhost/", False),
        ("http://127.0.0.1/", False),
        ("http://[::1]/", False),
    ],
)
def test_which_hosts_are_in_the_mesh(caller: Caller, url: str, inside: bool) -> None:
    class Outside(httpx.BaseTransport, httpx.AsyncBaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(299)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(299)

    with origins(None) as (_, [server]):
        hosts = ["orders.internal:8080", "orders.example.com", "default-port.example.com:80"]
        services = {
            "orders": {"endpoints": [address(server)], "hosts": hosts},
            "known.mesh": {"endpoints": [address(server)]},
        }
        with Mesh({"discovery": [], "domains": ["*.mesh"], "services": services}) as mesh:
            response = caller.attached(mesh, transport=Outside())("GET", url)
            assert response.status_code == (200 if inside else 299)


def test_an_https_url_to_a_service_is_verified_by_its_name(caller: Caller, tmp_path: Path) -> None:
    import ssl

    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("orders").configure_cert(context)

    def script(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(OK)

    with serving(script, context) as server:
        with mesh_of(server, tls={"ca_file": str(tmp_path / "ca.pem")}) as mesh:
            call = caller.client(mesh)
            assert call("GET", "https://orders/x").status_code == 200
            assert call("GET", "http://orders/x").status_code == 200, "the mesh encrypts whatever the caller wrote"
        # Without `tls`, an https URL is still https, against the system's roots: never plain text by accident.
        with mesh_of(server) as mesh, pytest.raises(meshlib.TLSFailed) as caught:
            caller.client(mesh)("GET", "https://orders/x", timeout=5)
        assert isinstance(caught.value, httpx.ConnectError)


# Clients of one's own


def test_attaching_keeps_what_the_client_has_and_may_be_repeated(caller: Caller) -> None:
    outside: list[str] = []

    class Own(httpx.BaseTransport, httpx.AsyncBaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            outside.append(str(request.url))
            return httpx.Response(299)

        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return self.handle_request(request)

    with origins(None, None) as ([first, second], [one, two]), mesh_of(one) as mesh, mesh_of(two) as other:
        client = caller.plain(transport=Own(), mounts={"all://mounted": Own()}, headers={"x-own": "1"})
        assert mesh.attach(client) is client
        assert mesh.attach(client) is client
        call = caller.own(client)
        assert call("GET", "http://orders/").status_code == 200
        assert first.seen[0].header("x-own") == "1"
        assert call("GET", "http://example.com/").status_code == 299
        assert call("GET", "http://mounted/").status_code == 299
        assert outside == ["http://example.com/", "http://mounted/"]
        other.attach(client)
        assert call("GET", "http://orders/").status_code == 200
        assert (len(first.seen), len(second.seen)) == (1, 1)
        assert call("GET", "http://example.com/").status_code == 299


@pytest.mark.parametrize("stranger", [object(), "client", httpx])
def test_only_a_client_can_be_attached(stranger: Any) -> None:
    with Mesh({"discovery": []}) as mesh, pytest.raises(TypeError, match=r"httpx\.Client"):
        mesh.attach(stranger)


def test_a_transport_serves_a_client_of_ones_own_whose_timeouts_are_its_own(caller: Caller) -> None:
    def own(mesh: Mesh) -> Any:
        if caller.name == "sync":
            return httpx.Client(transport=mesh.transport(), timeout=httpx.Timeout(None, read=0.1))
        return httpx.AsyncClient(transport=mesh.async_transport(), timeout=httpx.Timeout(None, read=0.1))

    with serving(hang) as server, mesh_of(server, retry={"max_retries": 0}) as mesh:
        call = caller.own(own(mesh))
        with pytest.raises(httpx.ReadTimeout) as caught:
            call("GET", "http://orders/x")
        assert isinstance(caught.value, meshlib.AttemptTimeout)


def test_a_client_of_one_service_reaches_another_by_its_url(caller: Caller) -> None:
    with origins(None, None) as ([orders, stock], [one, two]):
        services = {"orders": {"endpoints": [address(one)]}, "stock": {"endpoints": [address(two)]}}
        with Mesh({"discovery": [], "services": services}) as mesh:
            call = caller.client(mesh)
            record = meshlib.record(call("GET", "http://stock/x"))
            assert record is not None
            assert record.service == "stock"
            assert (len(orders.seen), len(stock.seen)) == (0, 1)
            assert stock.seen[0].header("host") == "stock"


def test_a_given_transport_is_the_wire_beneath_the_mesh() -> None:
    calls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(str(request.url))
        return httpx.Response(503 if len(calls) == 1 else 200)

    with Mesh({"discovery": [], "services": {"orders": {"endpoints": ["127.0.0.1:1"]}}}) as mesh:
        with closing(mesh.client("orders", transport=httpx.MockTransport(answer))) as client:
            assert client.get("/x").status_code == 200
        assert calls == ["http://127.0.0.1:1/x"] * 2


def test_options_about_connections_hold_for_hosts_outside(caller: Caller, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)

    def answer(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(OK)

    with serving(answer, context) as server, Mesh({"discovery": []}) as mesh:
        url = f"https://127.0.0.1:{server.port}/"
        assert caller.client(mesh, verify=trusting)("GET", url).content == b"ok"
        with pytest.raises(httpx.ConnectError, match="certificate"):
            caller.client(mesh)("GET", url)


def test_a_deadline_bounds_calls_outside_the_mesh_too(caller: Caller) -> None:
    def hang(peer: Peer) -> None:
        peer.request()
        peer.wait_until_gone()

    with serving(hang) as server, Mesh({"discovery": []}) as mesh:
        call = caller.client(mesh)
        # Long enough for a connection, and all that the first call outside needs, on a busy machine.
        with meshlib.timeout("1s"), pytest.raises(httpx.TimeoutException):
            call("GET", f"http://127.0.0.1:{server.port}/")
        with meshlib.timeout(0), pytest.raises(httpx.TimeoutException) as passed:
            call("GET", f"http://127.0.0.1:{server.port}/")
        assert isinstance(passed.value, meshlib.DeadlineExceeded)
        soon(lambda: server.accepted == 1)


def test_the_nearest_name_is_told_for_one_that_nobody_knows() -> None:
    with Mesh({"discovery": [], "services": {"orders": {}, "stock": {}}}) as mesh:
        with pytest.raises(meshlib.UnknownService, match=r"\(asked: nobody; the nearest is 'orders'\); give it"):
            mesh.client("ordrs").get("/")
        for name in ("orders", "recommendations"):
            with pytest.raises(meshlib.UnknownService, match=r"\(asked: nobody\); give it"):
                mesh.client(name).get("/")


def test_a_mode_for_a_name_that_nobody_uses_is_told(caplog: pytest.LogCaptureFixture) -> None:
    level = caplog.at_level(logging.WARNING, "meshlib")  # other tests' servers may have set the root's
    with level, Mesh({"discovery": [], "services": {"orders": {}}}) as mesh:
        mesh.set_mode("off", service="order")
        assert "neither configured nor in use; the nearest is 'orders'" in caplog.text
