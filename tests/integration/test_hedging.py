"""Hedged calls against real servers, of which one does not answer: both wires, and what the losers leave behind."""

from __future__ import annotations

import asyncio
import gc
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

import meshlib
from meshlib import Hedge, Mesh, Service
from meshlib.telemetry.observer import Observer
from tests.adapters.support import address, mesh_of, ok, origins
from tests.integration.calling import Caller
from tests.integration.test_sharing import nothing_is_held
from tests.net.wire_servers import Peer, open_sockets, serving, soon

pytestmark = pytest.mark.slow  # many cases, with real servers

SOON = {
    "hedge": {"after": "20ms", "max_extra_percent": 100},
    "load_balancing": {"policy": "round_robin"},
    "retry_budget": {"tokens": 100_000},
    "retry": {"max_retries": 0},
}


class Silent:
    """A server that takes requests and never answers; it counts who gave up."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.left = 0

    def until_asked(self, times: int = 1) -> Iterator[None]:
        """For a loop of calls, until it had its share of them."""
        for _ in range(200):
            if len(self.asked) >= times:
                return
            yield
        pytest.fail("it was never asked")

    def __call__(self, peer: Peer) -> None:
        request = peer.request()
        if request is not None:
            self.asked.append(request)
            peer.wait_until_gone()
            self.left += 1


def answers(peer: Peer) -> None:
    while peer.request() is not None:
        peer.send(ok(b"here"))


def answers_in_two_parts(peer: Peer) -> None:
    while peer.request() is not None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhe")
        time.sleep(0.002)
        peer.send(b"re")


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, dict[str, Any]]:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("orders").configure_cert(context)
    return context, {"tls": {"ca_file": str(tmp_path / "ca.pem")}}


@pytest.mark.parametrize("how", ["plain", "tls", pytest.param("h11", marks=pytest.mark.slow), "two parts", "streamed"])
def test_one_silent_endpoint_of_three_costs_no_call_and_little_time(
    caller: Caller, certified: tuple[ssl.SSLContext, dict[str, Any]], how: str
) -> None:
    context, tls = certified
    silent = Silent()
    good = answers_in_two_parts if how == "two parts" else answers
    options: dict[str, Any] = {**SOON, **(tls if how == "tls" else {}), **({"wire": "h11"} if how == "h11" else {})}
    caller.run(asyncio.sleep(0))
    before = open_sockets()
    servers = [serving(script, context if how == "tls" else None) for script in (silent, good, good)]
    with servers[0] as first, servers[1] as second, servers[2] as third:
        with mesh_of(first, second, third, **options) as mesh:
            call = caller.client(mesh)
            began, hedged = time.monotonic(), 0
            for _ in silent.until_asked(2):
                if how == "streamed":
                    response, body = call.stream("GET", "/x")
                    assert body == b"here"
                else:
                    response = call("GET", "/x")
                    assert response.text == "here"
                record = meshlib.record(response)
                assert record is not None
                hedged += record.hedges
                if record.hedges:
                    assert [attempt.hedge for attempt in record.attempts] == [False, True]
                    assert sorted(attempt.outcome for attempt in record.attempts) == ["cancelled", "success"]
                outcomes = {attempt.endpoint: attempt.outcome for attempt in record.attempts}
                assert outcomes.get(address(first), "cancelled") == "cancelled"
            assert time.monotonic() - began < 5
            assert hedged >= len(silent.asked)
            nothing_is_held(mesh)
            soon(lambda: silent.left == len(silent.asked))  # over HTTP/1.1 the loser's connection is closed
    for _ in range(3):
        caller.run(asyncio.sleep(0))
    soon(lambda: open_sockets() <= before)


def test_over_http2_the_loser_is_reset_and_its_connection_serves_on(caller: Caller) -> None:
    pytest.importorskip("h2")
    from tests.net.test_http2 import H2Peer, H2Server

    def slow(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        if path == "/quick":
            peer.respond(stream_id, b"slow one")

    def quick(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        peer.respond(stream_id, body or b"quick one")

    with H2Server(slow) as one, H2Server(quick) as other:
        with mesh_of(one.raw, other.raw, **SOON, http2=True) as mesh:
            call = caller.client(mesh)
            # Both are connected to before there is a hedge, which on a busy machine would beat even that.
            soon(lambda: call("POST", "/quick").text and one.peers and other.peers)
            texts = [call("GET", "/x").text for _ in range(8)]
            assert set(texts) == {"quick one"}
            assert {call("GET", "/quick").text for _ in range(2)} == {"slow one", "quick one"}
            big = b"x" * 150_000  # more than a window
            assert call("PUT", "/x", content=big).content == call("PUT", "/x", content=big).content == big
            nothing_is_held(mesh)
            assert len(one.peers) == 1, "one connection for all, the losers' among them"
            soon(lambda: len(one.peers[0].reset_by_client) >= 4)


def test_what_loses_by_a_failure_loses_too(caller: Caller) -> None:
    def refuses(peer: Peer) -> None:
        while peer.request() is not None:
            time.sleep(0.05)
            peer.send(ok(status="503 Busy"))

    def late(peer: Peer) -> None:
        while peer.request() is not None:
            time.sleep(0.06)
            peer.send(ok(b"late"))

    with serving(refuses) as one, serving(late) as other, mesh_of(one, other, **SOON) as mesh:
        call = caller.client(mesh)
        for _ in range(4):
            assert call("GET", "/x").text == "late", "a 503 is dropped while the other may still succeed"
        nothing_is_held(mesh)


def test_when_none_answers_the_error_is_that_of_the_call(caller: Caller) -> None:
    silent = Silent()
    with serving(silent) as one, serving(silent) as other, mesh_of(one, other, **SOON, timeout="200ms") as mesh:
        with pytest.raises(meshlib.DeadlineExceeded) as caught:
            caller.client(mesh)("GET", "/x")
        record = caught.value.record
        assert record is not None
        assert [attempt.error or attempt.outcome for attempt in record.attempts] == ["DeadlineExceeded"] * 2
        nothing_is_held(mesh)
        soon(lambda: silent.left == 2)


def test_an_endpoint_that_cannot_be_reached_is_hedged_too(caller: Caller) -> None:
    import socket

    with socket.socket() as full:  # a backlog that is full: connections to it hang
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
            fillers.append(filler)
        with serving(answers) as good:
            endpoints = [f"127.0.0.1:{full.getsockname()[1]}", address(good)]
            services = {"orders": {"endpoints": endpoints, **SOON, "connect_timeout": "5s"}}
            with Mesh({"discovery": [], "services": services}) as mesh:
                call = caller.client(mesh)
                began = time.monotonic()
                for _ in range(4):
                    assert call("GET", "/x").text == "here"
                assert time.monotonic() - began < 4
                nothing_is_held(mesh)
        for filler in fillers:
            filler.close()


def test_names_that_are_looked_up_do_not_hold_up_a_hedge(caller: Caller) -> None:
    with serving(answers) as one, serving(answers) as other:
        endpoints = [f"localhost:{one.port}", f"localhost:{other.port}"]
        with Mesh({"discovery": [], "services": {"orders": {"endpoints": endpoints, **SOON}}}) as mesh:
            call = caller.client(mesh)
            assert {call("GET", "/x").text for _ in range(4)} == {"here"}
            nothing_is_held(mesh)


@pytest.mark.parametrize(
    ("method", "options", "hedged"),
    [
        ("GET", {}, True),
        ("PUT", {"content": b"x" * 100_000}, True),
        ("POST", {"content": b"x"}, False),
        ("POST", {"content": b"x", "extensions": meshlib.call(idempotent=True)}, True),
        ("POST", {"content": b"x", "headers": {"Idempotency-Key": "1"}}, True),
    ],
)
def test_only_safe_requests_are_hedged(caller: Caller, method: str, options: dict[str, Any], hedged: bool) -> None:
    silent = Silent()
    with serving(silent) as one, serving(answers) as other:
        with mesh_of(one, other, **SOON, per_try_timeout="300ms") as mesh:
            call = caller.client(mesh)
            failed = 0
            for _ in silent.until_asked():
                try:
                    assert call(method, "/x", **options).text == "here"
                except meshlib.AttemptTimeout:
                    failed += 1
            assert failed == (0 if hedged else len(silent.asked))
            nothing_is_held(mesh)


def test_a_body_that_is_not_in_memory_is_not_hedged(caller: Caller) -> None:
    silent = Silent()
    with serving(silent) as one, serving(answers) as other:
        with mesh_of(one, other, **SOON, per_try_timeout="200ms") as mesh:
            call = caller.client(mesh)

            def chunks() -> Iterator[bytes]:
                yield b"x"

            async def achunks() -> Any:
                yield b"x"

            failed = 0
            for _ in silent.until_asked():
                try:
                    call("PUT", "/x", content=chunks() if caller.name == "sync" else achunks())
                except meshlib.AttemptTimeout:
                    failed += 1
            assert failed == len(silent.asked)
            nothing_is_held(mesh)


def test_on_the_per_try_timeout_the_first_goes_on(caller: Caller) -> None:
    def late(peer: Peer) -> None:
        while peer.request() is not None:
            time.sleep(0.25)
            peer.send(ok(b"late"))

    options = {**SOON, "hedge": {"on_per_try_timeout": True}, "per_try_timeout": "100ms", "retry": {"max_retries": 1}}
    with serving(late) as one, serving(Silent()) as other, mesh_of(one, other, **options) as mesh:
        call = caller.client(mesh)
        for _ in range(2):
            response = call("GET", "/x")
            record = meshlib.record(response)
            assert record is not None
            assert response.text == "late"
            assert len(record.attempts) == 2
            assert record.attempts[1].hedge
            assert 0.05 < record.duration_s < 1.0
        nothing_is_held(mesh)


def test_many_threads_hedge_over_one_http2_connection_and_each_gets_its_own_answer() -> None:
    pytest.importorskip("h2")
    from tests.net.test_http2 import H2Peer, H2Server

    seen: set[str] = set()

    def now_and_then(peer: H2Peer, stream_id: int, path: str, body: bytes) -> None:
        if path in seen or not path.endswith("3"):
            peer.respond(stream_id, path.encode())
        seen.add(path)

    # Where the budget of hedges is used up, a retry has to do.
    options = {**SOON, "hedge": {"after": "5ms", "max_extra_percent": 100}, "per_try_timeout": "1s", "retry": {}}
    failed: list[BaseException] = []
    with (
        H2Server(now_and_then) as one,
        mesh_of(one.raw, **options, http2=True) as mesh,
        mesh.client("orders") as client,
    ):

        def work(name: int) -> None:
            try:
                for n in range(15):
                    assert client.get(f"/{name}-{n}").text == f"/{name}-{n}"
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not failed
        nothing_is_held(mesh)


def test_threads_that_wait_for_a_connection_hedge_meanwhile() -> None:
    """The pool of the first endpoint has one connection, which is busy: the wait for it is as long as any other."""
    busy = threading.Event()

    def held_up(peer: Peer) -> None:
        while peer.request() is not None:
            busy.set()
            peer.wait_until_gone()

    options = {**SOON, "pool": {"max_connections": 1}}
    with serving(held_up) as one, serving(answers) as other, mesh_of(one, other, **options) as mesh:
        with mesh.client("orders") as client:

            def occupy() -> None:
                with suppress(meshlib.MeshError):
                    client.post("/x", timeout=2)

            thread = threading.Thread(target=occupy)
            thread.start()
            assert {client.get("/x").text for _ in range(6)} == {"here"}
            thread.join(10)
        nothing_is_held(mesh)


def test_an_interrupted_thread_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the point at which a signal's handler raises: here each wait in turn."""
    from meshlib.adapters import sync_hedge

    real = sync_hedge.wait_for
    with serving(Silent()) as one, serving(answers_in_two_parts) as other, mesh_of(one, other, **SOON) as mesh:
        before = open_sockets()
        with mesh.client("orders") as client:
            for at in range(12):
                count = iter(range(100))

                def interrupted(*args: Any, at: int = at, count: Iterator[int] = count) -> set[int]:
                    if next(count) == at:
                        raise KeyboardInterrupt
                    return real(*args)

                monkeypatch.setattr(sync_hedge, "wait_for", interrupted)
                try:
                    assert client.get("/x").text == "here"
                except KeyboardInterrupt:
                    pass
            monkeypatch.setattr(sync_hedge, "wait_for", real)
            assert client.get("/x").text == "here"
            nothing_is_held(mesh)
    soon(lambda: open_sockets() <= before)


def _turns(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    while True:
        time.sleep(0.0003)
        loop.call_soon(loop.stop)
        loop.run_forever()
        yield


@pytest.mark.parametrize(
    "streamed", [pytest.param(False, id="whole"), pytest.param(True, id="streamed", marks=pytest.mark.slow)]
)
def test_a_hedged_call_cancelled_at_every_turn_of_its_loop_holds_nothing(streamed: bool) -> None:
    async def call(client: Any) -> str:
        if not streamed:
            return str((await client.get("/x")).text)
        async with client.stream("GET", "/x") as response:
            return "".join([text async for text in response.aiter_text()])

    before = open_sockets()
    options = {**SOON, "hedge": {"after": "2ms", "max_extra_percent": 100}}
    with serving(Silent()) as one, serving(answers_in_two_parts) as other, mesh_of(one, other, **options) as mesh:
        loop = asyncio.new_event_loop()
        client = mesh.async_client("orders")
        cut = 0
        for turns in range(60):
            task = loop.create_task(call(client))
            for _ in zip(range(turns), _turns(loop), strict=False):
                if task.done():
                    break
            task.cancel()
            try:
                assert loop.run_until_complete(task) == "here"
            except asyncio.CancelledError:
                cut += 1
            assert len(asyncio.all_tasks(loop)) == 0, "nothing goes on behind the call"
        assert cut > 10
        assert loop.run_until_complete(call(client)) == "here"
        nothing_is_held(mesh)
        loop.run_until_complete(client.aclose())
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    soon(lambda: open_sockets() <= before)


def test_a_percentile_is_found_out_by_the_calls() -> None:
    with origins(None, None) as (_, servers):
        services = {"orders": Service(endpoints=[address(server) for server in servers], hedge=Hedge(after="p95"))}
        with Mesh(discovery=[], services=services) as mesh, mesh.client("orders") as client:
            for _ in range(30):
                assert client.get("/x").text == "ok"
            nothing_is_held(mesh)
            ((_, after_s),) = mesh._wiring.view.hedgings().values()
            assert after_s is not None
            assert 0.001 <= after_s < 1.0


def test_an_injected_fault_is_delivered_to_a_hedged_call(caller: Caller) -> None:
    fault = {"delay": {"fixed": "1ms", "percent": 100}, "abort": {"status": 418, "percent": 100}}
    with serving(answers) as one, mesh_of(one, **SOON, fault=fault) as mesh:
        assert caller.client(mesh)("GET", "/x").status_code == 418
        nothing_is_held(mesh)


def test_a_wire_of_ones_own_is_not_hedged_from_threads_and_serves_on() -> None:
    with serving(Silent()) as one, serving(answers) as other, mesh_of(one, other, **SOON) as mesh:
        engine = mesh._wiring.plane.sync_wire

        class Own:
            def send(self, *args: Any) -> Any:
                return engine.send(*args)

        mesh._wiring.plane.sync_wire = Own()
        with mesh.client("orders") as client:
            outcomes = []
            for _ in range(4):
                with suppress(meshlib.DeadlineExceeded):
                    outcomes.append(client.get("/x", extensions=meshlib.call(timeout="200ms")).text)
        assert set(outcomes) <= {"here"}
        nothing_is_held(mesh)


def test_each_attempt_has_a_span_and_hedges_are_counted_apart(caller: Caller) -> None:
    sdk = pytest.importorskip("opentelemetry.sdk.trace")
    exports = pytest.importorskip("opentelemetry.sdk.trace.export")
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
    provider = sdk.TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(exports.SimpleSpanProcessor(memory))
    silent = Silent()
    with serving(silent) as one, serving(answers) as other, mesh_of(one, other, **SOON) as mesh:
        observer = mesh._wiring.plane.observer = Observer(mesh._wiring.view, tracer_provider=provider)
        call = caller.client(mesh)
        for _ in silent.until_asked():
            memory.clear()
            response = call("GET", "/x")
        record = meshlib.record(response)
        assert record is not None
        assert record.hedges == 1
        told = {
            span.attributes["network.peer.port"]: (
                span.attributes.get("error.type"),
                span.attributes.get("meshlib.hedge", False),
            )
            for span in memory.get_finished_spans()
        }
        assert {port: failure for port, (failure, _) in told.items()} == {one.port: "cancelled", other.port: None}
        assert sorted(hedge for _, hedge in told.values()) == [False, True]
        ((hedging, after_s),) = mesh._wiring.view.hedgings().values()
        assert hedging.sent >= hedging.won >= 1
        assert after_s == 0.02
        assert observer.retries() == {}


def test_nothing_of_a_hedged_call_is_left_to_the_garbage_collector(caller: Caller) -> None:
    def resets(peer: Peer) -> None:
        peer.request()
        peer.reset()

    def there() -> int:
        return sum(type(each).__name__ == "_Race" for each in gc.get_objects())

    async def calls(client: Any) -> None:
        for _ in range(2):  # all within one task: who makes a task for each has a circle of asyncio's own
            with suppress(meshlib.MeshError):
                await client.get("/x")

    for scripts in ((Silent(), answers), (resets, resets), (Silent(), Silent())):
        with serving(scripts[0]) as one, serving(scripts[1]) as other:
            with mesh_of(one, other, **SOON, timeout="150ms") as mesh:
                call = caller.client(mesh)
                gc.collect()
                gc.disable()
                try:
                    before = there()
                    if caller.name == "async":
                        caller.run(calls(call.client))
                    else:
                        for _ in range(2):
                            with suppress(meshlib.MeshError):
                                call("GET", "/x")
                    assert there() <= before
                finally:
                    gc.enable()
