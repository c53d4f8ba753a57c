"""What routes do, as users of httpx see it: sync and async, lean and streamed, with real servers behind."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import meshlib
from meshlib import Mesh
from tests.adapters.support import Origin, Seen, address, mesh_of, ok, origins
from tests.integration.calling import Caller

BACK = [{"match": [{"path": {"prefix": "/old"}}], "redirect": {"prefix": "/new", "status": 302}}]
TEA = [{"direct_response": {"status": 418, "body": "short", "headers": {"x-by": "mesh"}}}]


def line(seen: Seen) -> str:
    return seen.line.split()[1]


def test_the_server_sees_another_path_and_host_and_is_told_those_asked_for(caller: Caller) -> None:
    routes = [
        {
            "match": [{"path": {"path_prefix": "/api"}}],
            "rewrite": {"prefix": "/", "host": "inner.example"},
            "headers": {
                "request": {"set": {"x-by": "route"}, "remove": ["x-debug"]},
                "response": {"add": {"x-via": "m"}},
            },
        }
    ]
    with (
        origins(lambda seen, number: ok(x_via="s")) as ((origin,), servers),
        mesh_of(*servers, routes=routes, host_header="endpoint") as mesh,
    ):
        orders = caller.client(mesh)
        sent: dict[str, Any] = {"headers": {"x-debug": "1", "x-by": "caller"}}
        for response in (orders("GET", "/api/a?b=c", **sent), orders.stream("GET", "/api/a?b=c", **sent)[0]):
            assert response.headers.get_list("x-via") == ["s", "m"]
            assert str(response.request.url) == "http://orders/api/a?b=c"
            record = meshlib.record(response)
            assert (record.path, record.rewritten) == ("/api/a", "/a")
        for seen in origin.seen:
            assert line(seen) == "/a?b=c"
            assert (seen.header("host"), seen.count("host")) == ("inner.example", 1)
            assert (seen.header("x-envoy-original-path"), seen.header("x-envoy-original-host")) == (
                "/api/a?b=c",
                "orders",
            )
            assert (seen.header("x-by"), seen.header("x-debug")) == ("route", None)
        orders("GET", "/other")
        assert (line(origin.seen[-1]), origin.seen[-1].header("host")) == ("/other", address(servers[0]))


def test_a_retry_at_another_backend_bears_that_backends_edits(caller: Caller) -> None:
    def backend(name: str, weight: int) -> dict[str, Any]:
        edits = {"set": {"x-backend": name, "host": f"{name}.example"}}
        return {"service": name, "weight": weight, "headers": {"request": edits, "response": {"set": {"x-from": name}}}}

    def fails(seen: Seen, number: int) -> bytes:
        return ok(status="503 Unavailable")

    routes = [{"backends": [backend("canary", 999999), backend("stable", 1)], "rewrite": {"prefix": "/v2"}}]
    routes[0]["match"] = [{"path": {"prefix": "/v1"}}]
    with origins(fails, None) as ((canary, stable), servers):
        services = {
            name: {"endpoints": [address(server)]} for name, server in zip(("canary", "stable"), servers, strict=True)
        }
        retry = {"backoff": {"base": "1ms", "max": "1ms"}}
        orders = {"endpoints": ["127.0.0.1:1"], "routes": routes, "retry": retry}
        with Mesh({"discovery": [], "services": {"orders": orders, **services}}) as mesh:
            response = caller.client(mesh)("GET", "/v1/a")
        assert (response.status_code, response.headers["x-from"]) == (200, "stable")
        for name, origin in (("canary", canary), ("stable", stable)):
            (seen,) = origin.seen
            assert (line(seen), seen.header("x-backend"), seen.header("host")) == ("/v2/a", name, f"{name}.example")


def test_a_redirect_is_the_callers_to_follow(caller: Caller) -> None:
    with origins(None) as ((origin,), servers), mesh_of(*servers, routes=BACK) as mesh:
        orders = caller.client(mesh)
        for response in (orders("GET", "/old/a?b=c"), orders.stream("GET", "/old/a?b=c")[0]):
            assert (response.status_code, response.headers["location"]) == (302, "http://orders/new/a?b=c")
            assert response.has_redirect_location
            assert response.extensions["meshlib.reply"] == "redirect to http://orders/new/a"
            record = meshlib.record(response)
            assert (record.reply, record.attempts) == ("redirect to http://orders/new/a", ())
        assert origin.seen == []
        followed = caller.client(mesh, follow_redirects=True)("GET", "/old/a?b=c")
        assert [each.status_code for each in (*followed.history, followed)] == [302, 200]
        assert [line(seen) for seen in origin.seen] == ["/new/a?b=c"]


def test_a_direct_response_is_a_response_like_any_other(caller: Caller) -> None:
    with origins(None) as ((origin,), servers), mesh_of(*servers, routes=TEA) as mesh:
        orders = caller.client(mesh)
        own = caller.attached(mesh)
        for response in (orders("POST", "/a", json={}), orders.stream("GET", "/a")[0], own("GET", "http://orders/a")):
            assert (response.status_code, response.text, response.headers["x-by"]) == (418, "short", "mesh")
            assert response.headers["content-type"] == "text/plain"
            assert meshlib.record(response).reply == "direct response"
        with pytest.raises(httpx.HTTPStatusError):
            orders("GET", "/a").raise_for_status()
        head = orders("HEAD", "/a")
        assert (head.content, head.headers["content-length"]) == (b"", "5")
        assert origin.seen == []
        (service,) = mesh.status().services
        assert (service.budget_tokens, service.clusters[0].in_flight) == (20, 0)


def test_nobody_needs_to_serve_what_is_answered_here(caller: Caller) -> None:
    services = {"gone": {"routes": [{"redirect": {"host": "successor"}}]}}
    with Mesh({"discovery": [], "services": services}) as mesh:
        assert caller.client(mesh, "gone")("GET", "/a").headers["location"] == "http://successor/a"


def test_answers_are_for_hedged_services_too(caller: Caller) -> None:
    hedge = {"after": "10ms"}
    with origins(None) as ((origin,), servers), mesh_of(*servers, routes=TEA, hedge=hedge) as mesh:
        assert caller.client(mesh)("GET", "/a").extensions["meshlib.reply"] == "direct response"
        assert origin.seen == []


def test_observed_nothing_is_changed_and_all_is_said(caller: Caller) -> None:
    routes = [*BACK, {"rewrite": {"path": "/new"}, "headers": {"request": {"set": {"x-by": "route"}}}}]
    with origins(None) as ((origin,), (server,)):
        orders = {"endpoints": ["127.0.0.1:1"], "hosts": [address(server)], "routes": routes}
        with Mesh({"discovery": [], "services": {"orders": orders}, "mode": "observe"}) as mesh:
            call = caller.attached(mesh)
            redirected, rewritten = (call("GET", f"http://{address(server)}{path}") for path in ("/old/a", "/b"))
        assert [response.status_code for response in (redirected, rewritten)] == [200, 200]
        assert [line(seen) for seen in origin.seen] == ["/old/a", "/b"]
        assert origin.seen[1].header("x-by") is None
        assert f"would answer 302 (redirect to http://{address(server)}/new/a)" in meshlib.record(redirected).why
        assert "would send the path '/new'" in meshlib.record(rewritten).why
        assert (meshlib.record(redirected).reply, meshlib.record(rewritten).rewritten) == (None, None)


def test_a_user_stays_at_one_backend(caller: Caller) -> None:
    names = ("one", "two")
    backends = [{"service": name, "headers": {"response": {"set": {"x-from": name}}}} for name in names]
    for sticky, given in (
        ({"cookie": "user"}, lambda user: {"headers": {"cookie": f"user={user}"}}),
        ({"query": "user"}, lambda user: {"params": {"user": user}}),
        ({"hash_key": True}, lambda user: {"extensions": meshlib.call(hash_key=user)}),
    ):
        with origins(None, None) as (_, servers):
            services = {name: {"endpoints": [address(server)]} for name, server in zip(names, servers, strict=True)}
            orders = {"routes": [{"backends": backends, "sticky": sticky}]}
            with Mesh({"discovery": [], "services": {"orders": orders, **services}}) as mesh:
                call = caller.client(mesh)
                seen = [
                    {call("GET", "/", **given(f"user-{user}")).headers["x-from"] for _ in range(3)} for user in range(8)
                ]
        assert all(len(each) == 1 for each in seen)
        assert {name for each in seen for name in each} == {*names}


def test_over_http2_the_authority_and_the_path_are_the_new_ones(caller: Caller) -> None:
    pytest.importorskip("h2")
    from tests.net.test_http2 import H2Peer, H2Server

    def tell(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        head = peer.heads[stream_id]
        peer.respond(stream_id, f"{head[':authority']} {path} {head['x-envoy-original-path']}".encode())

    route = {"rewrite": {"regex": {"pattern": "^/a", "substitution": "/b"}, "host": "inner.example"}}
    with H2Server(tell) as server, mesh_of(server.raw, routes=[route], http2=True) as mesh:
        assert caller.client(mesh)("GET", "/a/x?y").text == "inner.example /b/x?y /a/x?y"


def test_delegated_routes_act_in_the_place_of_the_one_that_hands_over(caller: Caller) -> None:
    settings = {
        "discovery": [],
        "route_sets": {
            "team": [
                {"name": "gone", "match": [{"path": {"path_prefix": "/v1/gone"}}], "direct_response": {"status": 410}},
                {"name": "rest", "rewrite": {"prefix": "/"}},
            ]
        },
    }
    routes = [{"name": "v1", "match": [{"path": {"path_prefix": "/v1"}}], "delegate": "team"}]
    with origins(Origin()) as ((origin,), (server,)):
        services = {"orders": {"endpoints": [address(server)], "routes": routes}}
        with Mesh({**settings, "services": services}) as mesh:
            orders = caller.client(mesh)
            responses = [orders("GET", path) for path in ("/v1/gone/a", "/v1/a", "/v2")]
        assert [response.status_code for response in responses] == [410, 200, 200]
        assert [meshlib.record(response).route for response in responses] == ["v1/gone", "v1/rest", "default"]
        assert [line(seen) for seen in origin.seen] == ["/a", "/v2"]
