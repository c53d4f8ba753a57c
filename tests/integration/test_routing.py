"""Routes over real sockets: who gets a call, what is changed on the way, and how long it may take."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

import meshlib
from meshlib import Mesh
from meshlib.mesh import MeshParts
from tests.adapters.support import Origin, Seen, address, ok, origins
from tests.integration.calling import Caller
from tests.net.wire_servers import Peer, RawServer, serving

FAST: dict[str, Any] = {"backoff": {"base": "1ms", "max": "2ms"}}


def at(server: RawServer | str, version: str) -> dict[str, Any]:
    where = server if isinstance(server, str) else address(server)
    return {"address": where, "metadata": {"version": version}}


@contextmanager
def routed(*endpoints: dict[str, Any], routes: list[dict[str, Any]], **service: Any) -> Iterator[Mesh]:
    subsets = {"v1": {"version": "v1"}, "v2": {"version": "v2"}}
    orders = {"endpoints": list(endpoints), "subsets": subsets, "routes": routes, "retry": FAST, **service}
    # The draws are the same in each run; how far chance may carry them away is not what is tested here.
    with Mesh({"discovery": [], "services": {"orders": orders}}, parts=MeshParts(rng=random.Random(3))) as mesh:
        yield mesh


def test_a_header_and_a_path_choose_a_subset(caller: Caller) -> None:
    routes = [
        {
            "name": "beta",
            "match": [{"path": {"path_prefix": "/v2"}, "method": "GET", "headers": {"end-user": {"exact": "jason"}}}],
            "backends": [{"subset": "v2"}],
        },
        {"name": "stable", "backends": [{"subset": "v1"}]},
    ]
    with origins(None, None) as ([v1, v2], [one, two]), routed(at(one, "v1"), at(two, "v2"), routes=routes) as mesh:
        call = caller.client(mesh)
        jason = {"end-user": "jason"}
        for url, headers, method in [
            ("/v2/x", jason, "GET"),
            ("/v2", jason, "GET"),
            ("/v2x", jason, "GET"),
            ("/v2/x", {}, "GET"),
            ("/v2/x", jason, "POST"),
        ]:
            call(method, url, headers=headers)
        assert [seen.line for seen in v2.seen] == ["GET /v2/x HTTP/1.1", "GET /v2 HTTP/1.1"]
        assert len(v1.seen) == 3
        record = meshlib.record(call("GET", "/v2/x", headers=jason))
        assert record is not None
        assert (record.route, record.attempts[0].cluster) == ("beta", "orders/v2")


def test_a_weighted_split_keeps_its_shares() -> None:
    routes = [{"name": "split", "backends": [{"subset": "v1", "weight": 80}, {"subset": "v2", "weight": 20}]}]
    with origins(None, None) as ([v1, v2], [one, two]), routed(at(one, "v1"), at(two, "v2"), routes=routes) as mesh:
        with mesh.client("orders") as client:
            for _ in range(2_000):
                client.get("/x")
        share = len(v2.seen) / (len(v1.seen) + len(v2.seen))
        assert 0.17 < share < 0.23  # 20 %, and more than three standard deviations to either side


def test_weights_of_endpoints_keep_their_shares() -> None:
    with origins(None, None) as ([light, heavy], [one, two]):
        endpoints = [{"address": address(one), "weight": 1}, {"address": address(two), "weight": 3}]
        # In turns: real latencies are never equal, and the default has regard to them.
        orders = {"endpoints": endpoints, "load_balancing": {"policy": "round_robin"}}
        with (
            Mesh({"discovery": [], "services": {"orders": orders}}) as mesh,
            mesh.client("orders") as client,
        ):
            for _ in range(1_000):
                client.get("/x")
        assert len(heavy.seen) / (len(light.seen) + len(heavy.seen)) == pytest.approx(0.75, rel=0.1)


def test_headers_are_edited_on_the_way_there_and_back(caller: Caller) -> None:
    edits = {
        "request": {"set": {"x-canary": "1"}, "add": {"x-more": "2"}, "remove": ["x-debug"]},
        "response": {"set": {"x-by": "mesh"}, "remove": ["server"]},
    }
    with (
        origins(lambda seen, n: ok(server="secret")) as ([origin], [server]),
        routed(at(server, "v1"), routes=[{"name": "edit", "headers": edits}]) as mesh,
    ):
        headers = {"x-canary": "0", "x-debug": "yes", "x-more": "1"}
        response = caller.client(mesh)("GET", "/x", headers=headers)
        (seen,) = origin.seen
        assert [value for name, value in seen.headers if name.lower() == "x-more"] == ["1", "2"]
        assert (seen.header("x-canary"), seen.count("x-canary"), seen.header("x-debug")) == ("1", 1, None)
        assert response.headers["x-by"] == "mesh"
        assert "server" not in response.headers


def test_a_route_has_a_timeout_of_its_own(caller: Caller) -> None:
    def hang(peer: Peer) -> None:
        peer.request()
        peer.wait_until_gone()

    slow = {"name": "slow", "match": [{"path": {"prefix": "/report"}}], "timeout": "150ms"}
    with serving(hang) as server, routed(at(server, "v1"), routes=[slow], timeout="20s") as mesh:
        with pytest.raises(meshlib.DeadlineExceeded, match=r"within 0\.15s") as caught:
            caller.client(mesh)("GET", "/report/1")
        assert caught.value.record is not None
        assert caught.value.record.route == "slow"


CANARY = [{"name": "canary", "backends": [{"subset": "v1", "weight": 90}, {"subset": "v2", "weight": 10}]}]


@pytest.mark.parametrize("how", ["503", "refused", "reset"])
def test_the_users_of_a_failing_canary_are_saved(caller: Caller, how: str) -> None:
    """What is drawn to the canary is drawn anew, since no other endpoint of it is left; until its circuit opens."""
    broken = ok(status="503 Broken") if how == "503" else None
    with origins(None, lambda seen, n: broken) as ([stable, canary], [one, two]):
        dead = at("127.0.0.1:1" if how == "refused" else two, "v2")
        with routed(at(one, "v1"), dead, routes=CANARY) as mesh:
            call = caller.client(mesh)
            responses = [call("GET", "/x") for _ in range(300)]
            assert [response.status_code for response in responses] == [200] * 300
            assert len(stable.seen) == 300
            attempts = [record.attempts for response in responses if (record := meshlib.record(response))]
            lost = sum(len(each) - 1 for each in attempts)
            assert 10 < lost <= 20, "so many failures open the circuit of the canary"
            assert all(each[-1].cluster == "orders/v1" for each in attempts)
            breakers = {cluster.name: cluster.breaker for cluster in mesh.status().services[0].clusters}
            assert breakers["orders/v1"] == "closed"
            assert breakers["orders/v2"] == ("open" if lost == 20 else "closed")
            assert len(canary.seen) == (0 if how == "refused" else lost)


def test_posts_to_a_failing_canary_end_with_its_open_circuit() -> None:
    """What is not retried is saved as soon as the canary's circuit is open."""
    breaker = {"min_calls": 5, "window": "10s", "failure_percent": 50, "open_for": "60s"}
    with (
        origins(None, lambda seen, n: ok(status="503 Broken")) as ([_, canary], [one, two]),
        routed(at(one, "v1"), at(two, "v2"), routes=CANARY, circuit_breaker=breaker) as mesh,
        mesh.client("orders") as client,
    ):
        statuses: list[int] = []
        while statuses[-100:] != [200] * 100:
            statuses.append(client.post("/x").status_code)
            assert len(statuses) < 2_000, "the circuit of the canary never opened"
        assert len(canary.seen) == statuses.count(503)
        breakers = {cluster.name: cluster.breaker for cluster in mesh.status().services[0].clusters}
        assert breakers == {"orders": "closed", "orders/v1": "closed", "orders/v2": "open"}


def test_a_subset_that_nobody_serves_is_not_drawn(caller: Caller) -> None:
    routes = [{"name": "canary", "backends": [{"subset": "v1", "weight": 1}, {"subset": "v2", "weight": 99}]}]
    with origins(None) as ([stable], [one]), routed(at(one, "v1"), routes=routes) as mesh:
        call = caller.client(mesh)
        assert [call("GET", "/x").status_code for _ in range(5)] == [200] * 5
    only = [{"name": "canary", "backends": [{"subset": "v2"}]}]
    with origins(None) as ([stable], [one]), routed(at(one, "v1"), routes=only) as mesh:
        with pytest.raises(meshlib.NoEndpoint, match="orders/v2"):
            caller.client(mesh)("GET", "/x")
        assert stable.seen == []


def test_a_backend_may_be_another_service(caller: Caller) -> None:
    with origins(None, None) as ([old, new], [one, two]):
        routes = [{"name": "next", "backends": [{"service": "orders-next"}]}]
        services = {
            "orders": {"endpoints": [address(one)], "routes": routes},
            "orders-next": {"endpoints": [address(two)]},
        }
        with Mesh({"discovery": [], "services": services}) as mesh:
            assert caller.client(mesh)("GET", "/x").status_code == 200
        assert (len(old.seen), len(new.seen)) == (0, 1)
        assert new.seen[0].header("host") == "orders"


@pytest.mark.parametrize("variant", ["service", "endpoint", "orders.example.com"])
def test_the_host_header_is_what_the_server_checks(caller: Caller, variant: str) -> None:
    with origins(None) as ([origin], [server]):
        orders = {"endpoints": [address(server)], "host_header": variant}
        with Mesh({"discovery": [], "services": {"orders": orders}}) as mesh:
            caller.client(mesh)("GET", "/x")
        expected = {"service": "orders", "endpoint": address(server)}.get(variant, variant)
        (seen,) = origin.seen
        assert (seen.header("host"), seen.count("host")) == (expected, 1)


def test_one_slow_and_one_failing_endpoint_among_five_cost_nobody_a_call() -> None:
    release = threading.Event()

    def slow(peer: Peer) -> None:
        while peer.request() is not None:
            release.wait(0.05)
            peer.send(ok())

    with ExitStack() as stack:
        good = [Origin() for _ in range(3)]
        servers = [stack.enter_context(serving(each)) for each in good]
        servers.append(stack.enter_context(serving(slow)))
        servers.append(stack.enter_context(serving(Origin(_failing))))
        endpoints = [address(server) for server in servers]
        mesh = stack.enter_context(
            Mesh({"discovery": [], "services": {"orders": {"endpoints": endpoints, "retry": FAST}}})
        )
        client = stack.enter_context(mesh.client("orders"))
        assert [client.get("/x").status_code for _ in range(300)] == [200] * 300
        assert sum(len(each.seen) for each in good) > 240


def _failing(seen: Seen, number: int) -> bytes:
    return ok(status="500 Oops") if number < 0 else ok(status="503 No")
