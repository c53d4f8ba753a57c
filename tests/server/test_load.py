"""A server tells trusted callers how loaded it is, and an untrusted one nothing."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from random import Random
from typing import Any

import httpx
import pytest
from flask import Flask

from meshlib import Mesh
from meshlib.balance.load_report import HEADER, parse_report
from meshlib.balance.reported import parse_in_flight
from meshlib.propagation import LOAD, LOAD_PROBE
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.flask import MeshExtension
from meshlib.server.load import LoadReporter
from meshlib.server.wsgi import MeshMiddleware as WsgiMiddleware


class Times:
    """Two clocks that are set by hand."""

    def __init__(self) -> None:
        self.now = self.cpu = 100.0

    def reporter(self, utilization: Callable[[], float] | None = None, **options: Any) -> LoadReporter:
        options.setdefault("backlog", lambda: None)  # of this process, other tests may have one
        return LoadReporter(utilization, clock=lambda: self.now, cpu_clock=lambda: self.cpu, **options)


def test_a_measure_that_is_no_function_is_refused() -> None:
    with pytest.raises(TypeError, match=r"the utilization has to be a function that measures it, not 0\.5"):
        LoadReporter(0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["window_s", "cpus"])
def test_a_window_and_cpus_that_nothing_can_be_divided_by_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is to be a number above 0"):
        LoadReporter(**{name: value})  # type: ignore[arg-type]


def test_rates_are_those_of_the_last_seconds() -> None:
    times = Times()
    reporter = times.reporter()
    for number in range(5000):
        times.now += 0.01
        reporter.arrived()
        reporter.ended(0, 0.001, number % 4 == 0)
    found = reporter.report()
    assert found.rps_fractional == pytest.approx(100, rel=0.05)
    assert found.eps == pytest.approx(25, rel=0.05)
    times.now += 100
    assert reporter.report().rps_fractional < 0.01


def test_cpu_time_is_a_share_of_the_cpus_that_there_are() -> None:
    times = Times()
    one, four = times.reporter(), times.reporter(cpus=4.0)
    times.now, times.cpu = times.now + 2.0, times.cpu + 1.0
    assert one.report().cpu_utilization == 0.5
    assert four.report().cpu_utilization == 0.125
    times.now += 0.5  # too soon for another sample
    assert one.report().cpu_utilization == 0.5


def test_clocks_that_jump_and_a_fork_do_no_harm() -> None:
    times = Times()
    reporter = times.reporter()
    times.now, times.cpu = times.now + 2.0, times.cpu + 1.0
    reporter.arrived()
    reporter.header()
    for now, cpu in ((-1e6, 0.0), (1e9, 0.5), (1e9 + 2, 1.5)):
        times.now, times.cpu = now, cpu
        reporter.arrived()
        reporter.ended(0, now - 100.0, False)
        assert parse_report(reporter.header().decode()) is not None
    assert reporter.report().cpu_utilization == 0.5


@pytest.mark.parametrize("value", [0.75, float("nan"), -1.0, float("inf"), None])
def test_an_applications_own_measure_is_told_if_it_is_one(value: Any) -> None:
    reporter = Times().reporter(lambda: value)
    assert reporter.report().application_utilization == (value if value == 0.75 else 0.0)


def test_a_measure_that_raises_is_none_and_is_told_of_when_it_begins_to(caplog: pytest.LogCaptureFixture) -> None:
    fails = True

    def broken() -> float:
        if fails:
            raise RuntimeError("secret")
        return 0.5

    reporter = Times().reporter(broken)
    assert [reporter.report().application_utilization for _ in range(3)] == [0.0] * 3
    fails = False
    assert reporter.report().application_utilization == 0.5
    fails = True
    reporter.report()
    assert [record.getMessage() for record in caplog.records] == [
        "the application's own measure of its load fails: RuntimeError"
    ] * 2


def test_a_header_is_written_ten_times_a_second_at_most() -> None:
    times, asked = Times(), []

    def measure() -> float:
        asked.append(times.now)
        return 0.5

    reporter = times.reporter(measure)
    for _ in range(100):
        times.now += 0.01
        assert reporter.header() == b"TEXT application_utilization=0.5"
    assert len(asked) <= 11


async def hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.mark.parametrize(("peer", "told"), [("10.1.2.3", True), ("8.8.8.8", False)])
def test_an_asgi_application_reports_to_trusted_peers(peer: str, told: bool) -> None:
    reporter = Times().reporter(lambda: 0.25)
    transport = httpx.ASGITransport(MeshMiddleware(hello, load=reporter), client=(peer, 1))

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return await client.get("/")

    response = asyncio.run(get())
    report = parse_report(response.headers.get(HEADER, ""))
    assert (report is not None) is told
    assert response.headers["x-own"] == "1"
    if report is not None:
        assert (report.application_utilization, report.rps_fractional) == (0.25, 0.1)


@pytest.mark.parametrize(("peer", "told"), [("10.1.2.3", True), ("8.8.8.8", False)])
def test_a_wsgi_application_reports_to_trusted_peers(peer: str, told: bool) -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("500 Oh", [("x-own", "1")])
        return [b"oh"]

    reporter = Times().reporter(lambda: 0.25)
    transport = httpx.WSGITransport(WsgiMiddleware(app, load=reporter), remote_addr=peer)
    with httpx.Client(transport=transport, base_url="http://a") as client:
        response = client.get("/")
    report = parse_report(response.headers.get(HEADER, ""))
    assert (report is not None) is told
    assert reporter.report().eps == pytest.approx(0.1)


class Asked:
    """An ASGI application behind the middleware, and what it tells of its load."""

    def __init__(self, mode: str = "asked") -> None:
        self.mesh = Mesh.from_dict({"server": {"load": mode}})
        self.app = MeshMiddleware(hello, self.mesh)

    def get(self, path: str = "/", peer: str = "10.1.2.3", **headers: str) -> httpx.Response:
        async def get() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, client=(peer, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
                return await client.get(path, headers={name.replace("_", "-"): each for name, each in headers.items()})

        return asyncio.run(get())


def test_who_asks_is_told_and_nothing_is_measured_before() -> None:
    asked = Asked()
    assert LOAD not in asked.get().headers
    assert HEADER not in asked.get().headers
    assert asked.mesh.serving.load is None
    told = asked.get(x_meshlib_load="orca, in-flight").headers
    assert parse_in_flight(told[LOAD].encode()) == (1.0, 0.0)  # that request itself
    report = parse_report(told[HEADER])
    assert report is not None
    assert report.named_metrics["in_flight"] == 1.0
    told = asked.get(x_meshlib_load="in-flight").headers
    assert HEADER not in told
    found = parse_in_flight(told[LOAD].encode())
    assert found is not None
    assert 0.0 <= found[1] < 5.0


@pytest.mark.parametrize(
    ("mode", "headers", "peer", "told"),
    [
        ("always", {}, "10.1.2.3", True),
        ("always", {}, "8.8.8.8", False),
        ("asked", {"x_meshlib_load": "orca"}, "10.1.2.3", True),
        ("asked", {"x_meshlib_load": "orca"}, "8.8.8.8", False),
        ("asked", {"x_meshlib_load": "orca;" * 4000}, "10.1.2.3", True),
        ("off", {"x_meshlib_load": "orca"}, "10.1.2.3", False),
    ],
)
def test_the_configuration_says_who_is_told(mode: str, headers: dict[str, str], peer: str, told: bool) -> None:
    asked = Asked(mode)
    asked.get(peer=peer, **headers)
    assert (HEADER in asked.get(peer=peer, **headers).headers) is told


def test_a_probe_is_answered_by_the_middleware_to_whom_it_trusts() -> None:
    asked = Asked()
    answer = asked.get(LOAD_PROBE, x_meshlib_load="in-flight")
    assert (answer.status_code, answer.content) == (200, b"")
    assert parse_in_flight(answer.headers[LOAD].encode()) == (0.0, 0.0)
    assert asked.mesh.serving.ended == {}
    for other in (asked.get(LOAD_PROBE), asked.get(LOAD_PROBE, peer="8.8.8.8", x_meshlib_load="in-flight")):
        assert other.content == b"hello"
        assert LOAD not in other.headers
    assert Asked("off").get(LOAD_PROBE, x_meshlib_load="in-flight").content == b"hello"


def test_a_wsgi_application_answers_probes_too() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"hello"]

    with httpx.Client(transport=httpx.WSGITransport(WsgiMiddleware(app)), base_url="http://a") as client:
        probe = client.get(LOAD_PROBE, headers={LOAD: "in-flight"})
        told = client.get("/", headers={LOAD: "in-flight"})
    assert probe.content == b""
    assert parse_in_flight(probe.headers[LOAD].encode()) == (0.0, 0.0)
    assert parse_in_flight(told.headers[LOAD].encode()) is not None


def test_a_place_that_is_taken_is_a_share_of_those_that_there_are() -> None:
    reporter = Times().reporter()
    reporter.occupancy = lambda: (6, 3, 8)
    found = reporter.report()
    assert found.application_utilization == 0.75
    assert (found.named_metrics["in_flight"], found.named_metrics["waiting"]) == (9.0, 3.0)


def test_errors_do_not_look_fast() -> None:
    times = Times()
    reporter = times.reporter()
    for _ in range(50):
        reporter.ended(0, 0.0001, True)
    reporter.ended(0, 0.25, False)
    assert parse_in_flight(reporter.in_flight()) == (0.0, 0.25)


def test_a_flask_application_reports() -> None:
    app = Flask("a")
    app.add_url_rule("/", view_func=lambda: "hello")
    MeshExtension(app=app, load=Times().reporter(lambda: 0.25))
    response = app.test_client().get("/", environ_base={"REMOTE_ADDR": "127.0.0.1"})
    assert parse_report(response.headers[HEADER]) is not None


def test_what_is_reported_decides_who_is_called() -> None:
    """From end to end: two instances of one application, of which one says that it is half used."""
    from meshlib.balance.server_weights import ServerWeights
    from meshlib.balance.settings import ServerWeightSettings
    from tests.balance.test_schedules import members

    times, settings = Times(), ServerWeightSettings()
    some = members([1.0, 1.0])
    balancer = ServerWeights(some, settings, times.now, Random(1))
    servers = [times.reporter(lambda: 0.5), times.reporter(lambda: 1.0)]
    for _ in range(1200):
        times.now += 0.01
        for member, server in zip(some, servers, strict=True):
            server.arrived()
            reported = member.load.reported
            assert reported is not None
            reported.read([(HEADER.encode(), server.header())], times.now)
    times.now += 1
    picked = [balancer.pick(times.now, Random(2), None) for _ in range(300)]
    assert picked.count(some[0]) == pytest.approx(200, abs=3)
