"""What a call through the mesh is, whatever client makes it: one table of cases, run on each."""

from __future__ import annotations

import asyncio
import gc
import gzip
import io
import os
import pickle
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import meshlib
from meshlib import Mesh
from tests.adapters.support import Chunks, Origin, Seen, address, ok
from tests.clients.driving import DRIVERS, ByDeclarative, ByHttpx, ByRequests, Driver
from tests.net.wire_servers import RawServer, serving

URL = "http://orders/orders/42?full=yes"
FAST = {"backoff": {"base": "1ms", "max": "1ms"}}
BUSY = ok(b"busy", "503 Busy")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
BROKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nConnection: close\r\n\r\nabc"

Answering = Callable[[Seen, int], bytes | None]


class Shop:
    """One server for all cases, which answers as the case at hand says; and a second endpoint."""

    def __init__(self, origin: Origin, server: RawServer, dead: str) -> None:
        self.origin = origin
        self.server = server
        self.dead = dead

    def mesh(self, answer: Answering | None = None, **service: Any) -> Mesh:
        """A mesh whose `orders` are this server."""
        self.origin.seen.clear()
        self.origin.answer = answer or (lambda seen, number: ok())
        options = {name: service.pop(name) for name in ("mode", "egress", "server") if name in service}
        orders = {"endpoints": [address(self.server)], "retry": FAST, **service}
        return Mesh({"discovery": [], "services": {"orders": orders}, **options})

    @property
    def seen(self) -> list[Seen]:
        return self.origin.seen


@pytest.fixture(scope="module")
def _shop() -> Iterator[Shop]:
    origin = Origin()
    with serving(lambda peer: None) as gone:
        dead = address(gone)
    with serving(origin) as server:
        yield Shop(origin, server, dead)


@pytest.fixture
def shop(_shop: Shop) -> Shop:
    return _shop


def some(fits: Callable[[Driver], bool]) -> Any:
    """Run a case on those clients alone that it can concern."""
    return pytest.mark.parametrize(
        "driver", [pytest.param(each, id=name.replace(" ", "-")) for name, each in DRIVERS.items() if fits(each)]
    )


every_client = some(lambda driver: not driver.variant)
every_way = some(lambda driver: True)
"""Of each client those as well that are of one's own, or attached: for what can differ there."""
every_way_outside = some(lambda driver: driver.goes_outside)


def in_turn(*answers: bytes | None) -> Answering:
    return lambda seen, number: answers[min(number, len(answers)) - 1]


def in_flight(mesh: Mesh) -> int:
    (service,) = mesh.status().services
    return sum(cluster.in_flight for cluster in service.clusters)


# Retries


@every_way
def test_a_503_is_tried_again(driver: Driver, shop: Shop) -> None:
    with shop.mesh(in_turn(BUSY, ok(b"fine"))) as mesh:
        answer = driver.call(mesh, "GET", URL)
        assert (answer.status, answer.body) == (200, b"fine")
        assert [each.status for each in answer.record.attempts] == [503, 200]
        assert [seen.line for seen in shop.seen] == ["GET /orders/42?full=yes HTTP/1.1"] * 2
        assert in_flight(mesh) == 0


@every_client
def test_where_nobody_listens_another_endpoint_is_tried(driver: Driver, shop: Shop) -> None:
    with shop.mesh(endpoints=[shop.dead, address(shop.server)], load_balancing={"policy": "round_robin"}) as mesh:
        answers = [driver.call(mesh, "POST", URL, body=b"new") for _ in range(4)]
    assert [answer.status for answer in answers] == [200] * 4
    assert max(len(answer.record.attempts) for answer in answers) == 2
    assert [seen.body for seen in shop.seen] == [b"new"] * 4


@every_client
def test_a_post_is_not_repeated_unless_it_is_idempotent(driver: Driver, shop: Shop) -> None:
    with shop.mesh(in_turn(BUSY, ok(), BUSY, ok())) as mesh:
        assert driver.call(mesh, "POST", URL, body=b"once").status == 503
        shop.seen.clear()
        with meshlib.call(idempotent=True, route="/pay"):
            answer = driver.call(mesh, "POST", URL, body=b"twice")
    assert answer.status == 200
    assert [seen.body for seen in shop.seen] == [b"twice", b"twice"]


@every_client
def test_an_upload_is_sent_again_whole(driver: Driver, shop: Shop) -> None:
    bodies = [b"bytes", Chunks(b"by", b"tes"), io.BytesIO(b"bytes")]
    for body in bodies[: 2 if driver.is_async and isinstance(driver, ByHttpx) else 3]:  # httpx's async takes no files
        with shop.mesh(in_turn(None, ok())) as mesh:
            answer = driver.call(mesh, "PUT", URL, body=body)
        assert answer.status == 200
        assert [_unchunked(seen) for seen in shop.seen] == [b"bytes", b"bytes"]


@every_client
def test_json_is_sent_as_the_client_writes_it(driver: Driver, shop: Shop) -> None:
    with shop.mesh() as mesh:
        driver.call(mesh, "POST", URL, json={"id": 42})
    assert shop.seen[0].body.replace(b" ", b"") == b'{"id":42}'
    assert shop.seen[0].header("content-type") == "application/json"
    assert shop.seen[0].count("content-length") == 1


# Responses


@every_client
def test_a_body_is_read_as_it_comes(driver: Driver, shop: Shop) -> None:
    with shop.mesh(in_turn(CHUNKED)) as mesh:
        answer = driver.call(mesh, "GET", URL, stream=True)
        assert answer.body == b"abcdefg"
        if not isinstance(driver, ByDeclarative):  # whose streams are items, and nothing else
            assert answer.record.outcome == "success"
        assert in_flight(mesh) == 0


@every_client
def test_a_coded_body_is_decoded(driver: Driver, shop: Shop) -> None:
    coded = gzip.compress(b"hello" * 1000)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (coded[:20], coded[20:])) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    with shop.mesh(in_turn(ok(coded, Content_Encoding="gzip"), head + chunks)) as mesh:
        assert driver.call(mesh, "GET", URL).body == b"hello" * 1000
        assert driver.call(mesh, "GET", URL, stream=True).body == b"hello" * 1000


@every_client
def test_a_body_that_breaks_off_is_told(driver: Driver, shop: Shop) -> None:
    with shop.mesh(in_turn(BROKEN)) as mesh:
        with pytest.raises(meshlib.BodyBroken) as caught:
            driver.call(mesh, "GET", URL, stream=True)
        assert isinstance(caught.value, driver.errors.broken)
        assert meshlib.record(caught.value).attempts[-1].error == "BodyBroken"
        assert in_flight(mesh) == 0


@every_client
def test_a_redirect_is_a_call_of_its_own(driver: Driver, shop: Shop) -> None:
    with shop.mesh(in_turn(ok(b"", "302 Found", Location="/there"), BUSY, ok(b"there"))) as mesh:
        inside = {"follow_redirects": True} if isinstance(driver, ByHttpx) else {}
        answer = driver.call(mesh, "GET", URL, **inside)
    assert answer.body == b"there"
    assert [each.status for each in answer.record.attempts] == [503, 200]
    assert shop.seen[-1].line == "GET /there HTTP/1.1"


@every_client
def test_what_a_route_does_is_what_every_client_sees(driver: Driver, shop: Shop) -> None:
    edits = {"request": {"set": {"x-route": "1"}}, "response": {"set": {"x-answer": "2"}, "remove": ["x-secret"]}}
    routes: list[dict[str, Any]] = [
        {"match": [{"path": {"exact": "/here"}}], "direct_response": {"status": 418, "body": "tea"}},
        {"match": [{"path": {"exact": "/ill"}}], "fault": {"abort": {"status": 503, "percent": 100}}},
        {"rewrite": {"path": "/new"}, "headers": edits, "backends": [{"service": "orders"}]},
    ]
    with shop.mesh(in_turn(ok(x_secret="s")), routes=routes) as mesh:
        here = driver.call(mesh, "GET", "http://orders/here")
        ill = driver.call(mesh, "GET", "http://orders/ill", stream=True)
        sent = driver.call(mesh, "GET", "http://orders/old?q=1")
    assert (here.status, here.body, here.headers["content-type"]) == (418, b"tea", "text/plain")
    assert (ill.status, ill.record.fault) == (503, "status 503")
    assert (sent.headers["x-answer"], "x-secret" in sent.headers, sent.record.rewritten) == ("2", False, "/new")
    assert [(seen.line, seen.header("x-route")) for seen in shop.seen] == [("GET /new?q=1 HTTP/1.1", "1")]


@every_client
def test_answers_without_a_body(driver: Driver, shop: Shop) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Encoding: gzip\r\n\r\n"
    with shop.mesh(in_turn(head, b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n")) as mesh:
        answers = [driver.call(mesh, method, URL) for method in ("HEAD", "DELETE", "GET")]
        assert [(answer.status, answer.body) for answer in answers] == [(200, b""), (204, b""), (304, b"")]
        assert in_flight(mesh) == 0


@every_client
def test_a_large_body_comes_and_goes(driver: Driver, shop: Shop) -> None:
    with shop.mesh(lambda seen, number: ok(seen.body)) as mesh:
        answer = driver.call(mesh, "PUT", URL, body=b"x" * 900_000, stream=True)
    assert answer.body == b"x" * 900_000
    assert len(answer.pieces) > 1


# What goes out


@every_client
def test_what_the_mesh_adds_to_a_request(driver: Driver, shop: Shop) -> None:
    with shop.mesh(timeout="2s", per_try_timeout="1s") as mesh, meshlib.criticality("sheddable"):
        driver.call(mesh, "GET", URL, headers={"x-own": "1", "x-meshlib-deadline-ms": "7"})
    (seen,) = shop.seen
    assert (seen.header("host"), seen.header("x-own")) == ("orders", "1")
    assert seen.header("x-meshlib-criticality") == "sheddable"
    assert 900 < int(seen.header("x-meshlib-deadline-ms") or 0) <= 1000
    assert seen.header("x-envoy-attempt-count") == "1"
    assert [seen.count(name) for name in ("host", "user-agent", "accept-encoding", "x-meshlib-deadline-ms")] == [1] * 4


@every_client
def test_a_deadline_around_a_call_holds(driver: Driver, shop: Shop) -> None:
    with shop.mesh() as mesh, meshlib.timeout("500ms"):
        driver.call(mesh, "GET", URL)
    assert 300 < int(shop.seen[0].header("x-meshlib-deadline-ms") or 0) <= 500


@every_way
def test_a_timeout_given_to_the_client_is_told_to_the_callee(driver: Driver, shop: Shop) -> None:
    with shop.mesh() as mesh:
        driver.call(mesh, "GET", URL, timeout=0.7)
        with meshlib.call(timeout="600ms"):
            driver.call(mesh, "GET", URL)
    told = [int(seen.header("x-meshlib-deadline-ms") or 0) for seen in shop.seen]
    phases_only = isinstance(driver, ByRequests) and driver.variant
    assert told[0] == 10000 if phases_only else 500 < told[0] <= 700
    assert 400 < told[1] <= 600


# Errors


@every_way
def test_the_errors_are_those_of_the_client_too(driver: Driver, shop: Shop) -> None:
    cases: list[tuple[dict[str, Any], Answering, type[Exception], str]] = [
        ({"endpoints": [shop.dead]}, in_turn(ok()), meshlib.ConnectFailed, "connect"),
        ({"endpoints": []}, in_turn(ok()), meshlib.NoEndpoint, "connect"),
        ({"retry": {"max_retries": 0}}, in_turn(None), meshlib.Reset, "reset"),
    ]
    for options, answer, expected, kind in cases:
        with shop.mesh(answer, **options) as mesh:
            with pytest.raises(expected) as caught:
                driver.call(mesh, "GET", URL)
            error = caught.value
            assert isinstance(error, getattr(driver.errors, kind)), error
            assert meshlib.record(error) is not None
            assert len(shop.seen) == (kind == "reset")
            copy = pickle.loads(pickle.dumps(error))
            assert (type(copy), str(copy), copy.record) == (type(error), str(error), error.record)
            assert str(error).startswith("orders: ")
            assert in_flight(mesh) == 0


@every_client
def test_a_slow_answer_is_a_timeout(driver: Driver, shop: Shop) -> None:
    with serving(lambda peer: peer.wait_until_gone()) as silent:
        options = {"endpoints": [address(silent)], "retry": {"max_retries": 0}}
        for given, expected in (
            ({"timeout": "30ms"}, meshlib.DeadlineExceeded),
            ({"per_try_timeout": "30ms"}, meshlib.AttemptTimeout),
        ):
            with shop.mesh(**options, **given) as mesh:
                with pytest.raises(expected) as caught:
                    driver.call(mesh, "GET", URL)
                assert isinstance(caught.value, driver.errors.timeout)
                assert isinstance(caught.value, TimeoutError)
                assert in_flight(mesh) == 0


@every_client
def test_an_open_circuit_fails_at_once(driver: Driver, shop: Shop) -> None:
    breaker = {"min_calls": 2, "failure_percent": 50, "open_for": "60s"}
    with shop.mesh(in_turn(BUSY), circuit_breaker=breaker, retry={"max_retries": 0}) as mesh:
        with pytest.raises(meshlib.CircuitOpen) as caught:
            for _ in range(10):
                driver.call(mesh, "GET", URL)
    assert isinstance(caught.value, driver.errors.connect)
    assert 2 <= len(shop.seen) < 10


@every_way
def test_a_closed_mesh_says_so(driver: Driver, shop: Shop) -> None:
    mesh = shop.mesh()
    mesh.close()
    with pytest.raises(meshlib.MeshClosed) as caught:
        driver.call(mesh, "GET", URL)
    assert isinstance(caught.value, driver.errors.closed)


class Callers:
    """Stands for what the frames of a program hold."""


@some(lambda driver: not driver.is_async and not driver.variant)
def test_a_call_that_failed_holds_nothing_of_its_callers(driver: Driver, shop: Shop) -> None:
    def one_call() -> weakref.ref[Callers]:
        held = Callers()
        with pytest.raises(meshlib.MeshError):
            driver.call(mesh, "PUT", URL, body=b"body")
        return weakref.ref(held)

    for options, answer in (({"endpoints": [shop.dead]}, ok()), ({}, None)):
        with shop.mesh(in_turn(answer), **options) as mesh:
            gc.collect()
            gc.disable()
            try:
                assert one_call()() is None
            finally:
                gc.enable()


# Outside


@every_way_outside
def test_hosts_outside_get_nothing_of_the_mesh(driver: Driver, shop: Shop) -> None:
    with shop.mesh() as mesh, meshlib.timeout("5s"):
        answer = driver.call(mesh, "GET", f"http://{address(shop.server)}/x")
    assert (answer.status, answer.record) == (200, None)
    assert shop.seen[0].header("x-meshlib-deadline-ms") is None


@some(lambda driver: driver.goes_outside and not driver.variant)
def test_a_passed_deadline_holds_outside_too(driver: Driver, shop: Shop) -> None:
    with shop.mesh() as mesh, meshlib.timeout(0.000001):
        with pytest.raises(meshlib.DeadlineExceeded) as caught:
            driver.call(mesh, "GET", f"http://{address(shop.server)}/x")
    assert isinstance(caught.value, driver.errors.timeout)
    assert shop.seen == []


@every_way_outside
def test_egress_can_be_refused(driver: Driver, shop: Shop) -> None:
    with shop.mesh(egress="refuse") as mesh:
        with pytest.raises(meshlib.EgressRefused) as caught:
            driver.call(mesh, "GET", f"http://{address(shop.server)}/x")
        assert isinstance(caught.value, driver.errors.connect)
        assert driver.call(mesh, "GET", URL).status == 200
    assert len(shop.seen) == 1


@every_way_outside
def test_modes(driver: Driver, shop: Shop) -> None:
    own = f"http://{address(shop.server)}/x"
    hosts = {"hosts": [address(shop.server)], "endpoints": [shop.dead]}
    with shop.mesh(mode="off", **hosts) as mesh:
        assert driver.call(mesh, "GET", own).record is None
        mesh.mode = "observe"
        answer = driver.call(mesh, "GET", own)
        assert answer.status == 200
        assert answer.record.status == 200
        assert any("would go to" in each for each in answer.record.why)
        mesh.mode = "on"
        with pytest.raises(meshlib.ConnectFailed):
            driver.call(mesh, "GET", own)
    assert [seen.header("x-envoy-attempt-count") for seen in shop.seen] == [None, None]


# Threads and loops


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@some(lambda driver: not driver.is_async)
def test_a_forked_child_calls_as_its_parent_does(driver: Driver, shop: Shop) -> None:
    with shop.mesh() as mesh:
        driver.call(mesh, "GET", URL)
        pid = os.fork()
        if pid == 0:
            try:
                assert driver.call(mesh, "GET", URL).status == 200
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert driver.call(mesh, "GET", URL).status == 200


@some(lambda driver: driver.is_async)
def test_a_cancelled_call_leaves_nothing_behind(driver: Driver, shop: Shop) -> None:
    asked, acall = asyncio.Event(), driver.acall

    async def cancelled() -> None:
        loop = asyncio.get_running_loop()

        def answer(seen: Seen, number: int) -> bytes | None:
            loop.call_soon_threadsafe(asked.set)
            return b""

        with shop.mesh(answer) as mesh:
            call = asyncio.create_task(acall(mesh, "GET", URL))
            await asked.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert in_flight(mesh) == 0

    asyncio.run(cancelled())


def _unchunked(seen: Seen) -> bytes:
    if seen.header("transfer-encoding") != "chunked":
        return seen.body
    return b"".join(seen.body.split(b"\r\n")[1::2])
