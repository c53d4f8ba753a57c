"""What cannot finish in time: how it is learnt what takes how long, and what is refused by that."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from meshlib.config.server_settings import HopelessSettings
from meshlib.propagation import DEADLINE_MS
from meshlib.server import asgi, wsgi
from meshlib.server.hopeless import FORGET_S, SAMPLES, Hopeless, path_kind, template_of
from tests.clock import Clock
from tests.server.standin import StandInMesh

pytestmark = pytest.mark.anyio

SETTINGS = HopelessSettings()


def learnt(*times_s: float, settings: HopelessSettings = SETTINGS, now: float = 100.0) -> Hopeless:
    hopeless = Hopeless(settings)
    for took_s in times_s:
        hopeless.took("GET /x", "", took_s, now)
    return hopeless


def test_a_request_with_less_time_than_one_in_twenty_takes_is_refused() -> None:
    hopeless = learnt(*(n / 100 for n in range(1, 41)))  # 10 ms to 400 ms
    assert hopeless.floor_s("GET /x") == 0.03  # the third of forty: two, which is 5 %, were quicker
    assert not hopeless.refuses("GET /x", 0.03, 100.0)
    assert not hopeless.refuses("GET /x", 0.0299, 100.0), "one is served, to learn"
    assert hopeless.refuses("GET /x", 0.0299, 100.0)
    assert not hopeless.refuses("GET /y", 0.0001, 100.0), "of which nothing is known"


def test_with_too_few_samples_none_is_refused() -> None:
    few = learnt(*[0.5] * 19)
    assert [few.refuses("GET /x", 0.001, 100.0) for _ in range(3)] == [False] * 3
    enough = learnt(*[0.5] * 20)
    assert [enough.refuses("GET /x", 0.001, 100.0) for _ in range(3)] == [False, True, True]


def test_one_a_second_is_served_so_that_it_is_learnt_that_things_are_faster() -> None:
    hopeless = learnt(*[0.5] * SAMPLES)
    served = [now / 10 for now in range(1000, 1050) if not hopeless.refuses("GET /x", 0.1, now / 10)]
    assert served == [100.0, 101.0, 102.0, 103.0, 104.0]
    for now in served:
        hopeless.took("GET /x", "", 0.05, now)
    assert hopeless.floor_s("GET /x") == 0.05
    assert not hopeless.refuses("GET /x", 0.1, 105.0)


def test_that_things_are_slower_is_learnt_too() -> None:
    hopeless = learnt(*[0.01] * SAMPLES)
    for _ in range(SAMPLES):
        hopeless.took("GET /x", "", 0.5, 101.0)
    assert hopeless.floor_s("GET /x") == 0.5


def test_what_was_not_seen_for_long_is_forgotten() -> None:
    hopeless = learnt(*[0.5] * SAMPLES)
    assert not hopeless.refuses("GET /x", 0.001, 100.0 + FORGET_S)
    hopeless.took("GET /x", "", 0.5, 100.0 + FORGET_S)
    assert hopeless.floor_s("GET /x") == 0.0


def test_a_clock_that_jumps_refuses_nothing_that_it_should_not() -> None:
    hopeless = learnt(*[0.5] * SAMPLES)
    assert not hopeless.refuses("GET /x", 0.001, 50.0)
    assert not hopeless.refuses("GET /x", 0.001, 100.0)
    assert hopeless.refuses("GET /x", 0.001, 100.5)
    hopeless.took("GET /x", "", -3.0, 100.5)
    hopeless.took("GET /x", "", float("nan"), 100.5)
    hopeless.took("GET /x", "", float("inf"), 100.5)
    assert hopeless.floor_s("GET /x") == 0.5


def test_paths_of_one_route_are_one_kind() -> None:
    hopeless = Hopeless(SETTINGS)
    for n in range(24):
        hopeless.took(path_kind("GET", f"/users/{'abcdefghijklmnopqrstuvwxyz'[n]}"), "/users/{name}", 0.5, 100.0)
    assert hopeless.floor_s("GET /users/a") == 0.5
    assert hopeless.floor_s("GET /users/z") == 0.0, "not seen yet"
    hopeless.took("GET /users/z", "/users/{name}", 0.5, 100.0)
    assert hopeless.floor_s("GET /users/z") == 0.5


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "GET /"),
        ("/v1/orders/42", "GET /v1/orders/*"),
        ("/orders/42/lines/7", "GET /orders/*/lines/*"),
        ("/by-id/3f2504e0-4f89-11d3-9a0c-0305e82c3301", "GET /by-id/*"),
        ("/users/alice", "GET /users/alice"),
        ("", "GET "),
        ("/" + "x" * 600, ""),
    ],
)
def test_what_paths_have_in_common(path: str, kind: str) -> None:
    assert path_kind("GET", path) == kind


def test_a_path_too_long_is_not_looked_at() -> None:
    hopeless = Hopeless(SETTINGS)
    for _ in range(100):
        hopeless.took("", "/x", 0.5, 100.0)
    assert not hopeless.refuses("", 0.001, 100.0)
    assert not hopeless._kinds


@given(st.lists(st.tuples(st.text(max_size=4), st.sampled_from(["", "/t", "/u"])), max_size=50))
def test_the_tables_are_bounded_whatever_is_asked_for(requests: list[tuple[str, str]]) -> None:
    hopeless = Hopeless(SETTINGS)
    for n in range(1500):
        hopeless.took(f"GET /{n}", f"/{n}" if n % 2 else "", 0.5, 100.0)
    for path, template in requests:
        hopeless.took(path_kind("GET", path), template, 0.5, 100.0)
    assert len(hopeless._kinds) == 256
    assert len(hopeless._routes) <= 1024
    assert hopeless._kinds.get("GET /0") is None, "what was not used for longest made place"


def test_the_template_that_a_framework_leaves_behind() -> None:
    assert template_of({"route": SimpleNamespace(path="/orders/{id}"), "root_path": "/api"}) == "/api/orders/{id}"
    flask = SimpleNamespace(url_rule=SimpleNamespace(rule="/orders/<id>"))
    assert template_of({"werkzeug.request": flask, "SCRIPT_NAME": "/api"}) == "/api/orders/<id>"
    nothing: list[dict[str, Any]] = [{}, {"route": None}, {"werkzeug.request": SimpleNamespace(url_rule=None)}]
    assert [template_of(each) for each in nothing] == ["", "", ""]


# In the middlewares


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("meshlib.context.monotonic", clock)
    return clock


async def test_asgi(clock: Clock) -> None:
    app = FastAPI()

    @app.get("/users/{name}")
    async def user(name: str) -> str:
        clock.now += 0.5
        return name

    @app.get("/other")
    async def other() -> str:
        clock.now += 0.001
        return "quick"

    mesh = StandInMesh(hopeless=SETTINGS, cancel="off")
    middleware = asgi.MeshMiddleware(app, mesh)
    transport = httpx.ASGITransport(middleware, client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://callee") as http:
        for name in "abcdefghijklmnopqrstuvwxyz":
            assert (await http.get(f"/users/{name}")).status_code == 200
        short = {DEADLINE_MS: "400"}
        answers = [await http.get("/users/a", headers=short) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 504, 504]
        assert answers[1].headers["x-meshlib-refused"] == "hopeless"
        assert (await http.get("/users/a")).status_code == 200, "without a deadline"
        assert (await http.get("/users/a", headers={DEADLINE_MS: "600"})).status_code == 200
        assert (await http.get("/other", headers=short)).status_code == 200
    assert middleware._serving.outcomes["refused", "hopeless"] == 2
    assert middleware._serving.in_flight == 0


def test_wsgi(clock: Clock) -> None:
    app = Flask(__name__)

    @app.get("/users/<name>")
    def user(name: str) -> str:
        clock.now += 0.5
        return name

    middleware = wsgi.MeshMiddleware(app.wsgi_app, StandInMesh(hopeless=SETTINGS))
    app.wsgi_app = middleware  # type: ignore[method-assign]
    http = app.test_client()
    for name in "abcdefghijklmnopqrstuvwxyz":
        assert http.get(f"/users/{name}", buffered=True).status_code == 200
    answers = [http.get("/users/a", headers={DEADLINE_MS: "400"}, buffered=True) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 504, 504]
    assert answers[1].headers["x-meshlib-refused"] == "hopeless"


async def test_failures_and_what_was_cut_are_not_counted(clock: Clock) -> None:
    app = FastAPI()

    @app.get("/fails")
    async def fails() -> None:
        clock.now += 0.5
        raise KeyError

    middleware = asgi.MeshMiddleware(app, StandInMesh(hopeless=SETTINGS))
    transport = httpx.ASGITransport(middleware, client=("127.0.0.1", 1), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://callee") as http:
        for _ in range(30):
            await http.get("/fails")
    assert middleware._serving.hopeless is not None
    assert middleware._serving.hopeless.floor_s("GET /fails") == 0.0


async def test_strangers_cannot_have_others_refused(clock: Clock) -> None:
    app = FastAPI()

    @app.get("/users/{name}")
    async def user(name: str) -> str:
        clock.now += 10.0
        return name

    middleware = asgi.MeshMiddleware(app, StandInMesh(hopeless=SETTINGS, cancel="off"))
    transport = httpx.ASGITransport(middleware, client=("203.0.113.9", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://callee") as http:
        for _ in range(30):
            assert (await http.get("/users/a")).status_code == 200
    assert middleware._serving.hopeless is not None
    assert middleware._serving.hopeless.floor_s("GET /users/a") == 0.0
