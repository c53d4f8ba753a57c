"""An override reaches a developer's instance two hops on, by ASGI and WSGI; what is not to be believed does not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import flask
import httpx
import pytest
from fastapi import FastAPI, Request

import meshlib
from meshlib import Mesh, context
from meshlib.config.settings import MeshSettings, ServerSettings
from meshlib.routing.override import overriding, sign_override
from meshlib.routing.override_settings import AllowedOverride, OverrideSettings
from meshlib.server.asgi import MeshMiddleware
from meshlib.server.flask import MeshExtension
from meshlib.server.intake import Intake
from tests.server.conftest import Serve, ServeWsgi

KEY, HEADER = "a-key-that-nobody-guesses", "x-meshlib-override"
Config = dict[str, Any]


def signed(pairs: dict[str, str] | None = None, key: str = KEY, for_s: float = 600.0) -> dict[str, str]:
    text = sign_override(pairs or {"users": "users-dev-alice"}, key, expires_at=time.time() + for_s)
    return {HEADER: text}


def told(request_headers: Any) -> str:
    return str(request_headers.get(HEADER, ""))


def request_headers() -> dict[str, str]:
    """As many services do: the header copied over from the request being served."""
    return {HEADER: flask.request.headers[HEADER]} if HEADER in flask.request.headers else {}


class Shop:
    """storefront -> orders -> users, and users-dev-alice beside it; each hop has a mesh of its own."""

    def __init__(self, serve: Serve, serve_wsgi: ServeWsgi, first: str, overrides: dict[str, Any] | None) -> None:
        self.stack = ExitStack()
        self.seen: list[tuple[str, str]] = []
        self._serve, self._serve_wsgi = serve, serve_wsgi
        self.users = self.leaf("users")
        self.alice = self.leaf("users-dev-alice")
        self.outside = self.leaf("outside")
        both = {"users": self.users, "users-dev-alice": self.alice}
        make: tuple[Callable[..., str], ...] = (self.asgi, self.wsgi) if first == "asgi" else (self.wsgi, self.asgi)
        self.orders_mesh = self.mesh("orders", both, overrides)
        self.orders = make[1](self.orders_mesh, "http://users/")
        self.storefront_mesh = self.mesh("storefront", {**both, "orders": self.orders}, overrides)
        self.storefront = make[0](self.storefront_mesh, "http://orders/")

    def mesh(self, name: str, services: dict[str, str], overrides: dict[str, Any] | None, **more: Any) -> Mesh:
        endpoints = {each: {"endpoints": [url.removeprefix("http://")]} for each, url in services.items()}
        config: Config = {"service": name, "discovery": [], "services": endpoints, "overrides": overrides, **more}
        return self.stack.enter_context(Mesh(config))

    def leaf(self, name: str) -> str:
        app = FastAPI()

        @app.get("/")
        async def handler(request: Request) -> str:
            self.seen.append((name, told(request.headers)))
            return name

        return self._serve(app)

    def asgi(self, mesh: Mesh, then: str) -> str:
        app = FastAPI()
        app.add_middleware(MeshMiddleware, mesh=mesh)
        client = mesh.async_client()

        @app.get("/")
        async def handler(request: Request) -> str:
            copied = {HEADER: request.headers[HEADER]} if HEADER in request.headers else {}
            await client.get(self.outside + "/", headers={**copied, "connection": "close"})
            return str((await client.get(then, headers=copied)).json())

        return self._serve(app)

    def wsgi(self, mesh: Mesh, then: str) -> str:
        app = flask.Flask(__name__)
        MeshExtension(mesh).init_app(app)
        client = mesh.client()

        @app.get("/")
        def handler() -> flask.Response:
            client.get(self.outside + "/", headers={**request_headers(), "connection": "close"})
            return flask.jsonify(client.get(then, headers=request_headers()).json())

        return self._serve_wsgi(app)

    def ask(self, headers: dict[str, str] | list[tuple[str, str]]) -> str:
        self.seen.clear()
        return str(httpx.get(self.storefront + "/", headers=headers).json())

    def told(self, name: str) -> set[str]:
        return {header for each, header in self.seen if each == name}


@pytest.fixture
def shop(serve: Serve, serve_wsgi: ServeWsgi) -> Iterator[Callable[..., Shop]]:
    with ExitStack() as stack:

        def make(first: str = "asgi", **overrides: Any) -> Shop:
            made = Shop(serve, serve_wsgi, first, overrides or None)
            stack.push(made.stack)
            return made

        yield make


@pytest.mark.parametrize("first", ["asgi", "wsgi"])
def test_a_signed_override_reaches_the_developers_instance_two_hops_on(shop: Callable[..., Shop], first: str) -> None:
    it = shop(first, key=KEY)
    assert it.ask({}) == "users"
    sent = signed()
    assert it.ask(sent) == "users-dev-alice"
    assert it.told("users-dev-alice") == {sent[HEADER]}
    assert it.told("outside") == {""}
    assert it.orders_mesh._wiring.plane.replacements.read() == {("users", "replaced"): 1}


@pytest.mark.parametrize("first", ["asgi", "wsgi"])
def test_what_is_forged_expired_or_malformed_changes_nothing_and_goes_no_further(
    shop: Callable[..., Shop], first: str, caplog: pytest.LogCaptureFixture
) -> None:
    it = shop(first, key=["another-key-of-this-mesh", KEY])
    text = signed()[HEADER]
    attacks: list[Any] = [
        {HEADER: "users=users-dev-alice"},
        signed(key="the-key-of-somebody-else"),
        signed(for_s=-1.0),
        signed(for_s=1e8),
        {HEADER: text.replace("alice", "mallory")},
        {HEADER: text + "; orders=x"},
        {HEADER: "x" * 9000},
        [(HEADER, text), (HEADER, signed({"users": "users-dev-bob"})[HEADER])],
    ]
    with caplog.at_level(logging.WARNING, "meshlib.server"):
        for attack in attacks:
            assert it.ask(attack) == "users"
            assert it.told("users") == {""}
            assert it.told("outside") == {""}
    said = [record.getMessage() for record in caplog.records if "override" in record.getMessage()]
    assert {text.split(": ")[1].split(";")[0] for text in said} == {
        "malformed",
        "unsigned",
        "wrong signature",
        "expired",
        "valid for too long",
    }
    assert len(said) == 5
    assert not any("users" in line or "@sig" in line for line in said)


def test_what_is_allowed_by_name_needs_no_signature(shop: Callable[..., Shop]) -> None:
    it = shop(allow=[{"service": "users", "to": "users-dev-*"}])
    assert it.ask({HEADER: "users=users-dev-alice; orders=evil"}) == "users-dev-alice"
    assert it.told("users-dev-alice") == {"users=users-dev-alice"}
    assert it.ask({HEADER: "users=orders"}) == "users"


def test_without_a_configuration_the_header_is_neither_read_nor_passed_on(shop: Callable[..., Shop]) -> None:
    it = shop()
    assert it.ask(signed()) == "users"
    assert it.told("users") == {""}


class Values:
    """The headers of a request."""

    def __init__(self, *values: str) -> None:
        self._values = values

    def known(self) -> dict[str, list[str]]:
        return {}

    def values(self, name: str) -> tuple[str, ...]:
        return self._values if name == HEADER else ()

    def names(self) -> list[str]:
        return [HEADER]


class Settings:
    def __init__(self, **overrides: Any) -> None:
        self.settings = MeshSettings(
            server=ServerSettings(trusted_peers=("10.0.0.0/8",)), overrides=OverrideSettings(**overrides)
        )


def test_peers_that_are_not_trusted_are_heard_only_if_that_is_said_and_it_is_signed() -> None:
    text = signed()[HEADER]
    by_name = (AllowedOverride("users", ("users-dev-*",)),)
    cases: list[tuple[dict[str, Any], str, str, bool]] = [
        ({"key": (KEY,)}, "10.0.0.1", text, True),
        ({"key": (KEY,)}, "192.0.2.1", text, False),
        ({"key": (KEY,), "peers": "any"}, "192.0.2.1", text, True),
        ({"key": (KEY,), "peers": "any"}, "192.0.2.1", "users=users-dev-alice", False),
        ({"allow": by_name}, "10.0.0.1", "users=users-dev-alice", True),
        ({"allow": by_name, "peers": "any"}, "192.0.2.1", "users=users-dev-alice", False),
    ]
    for overrides, peer, value, believed in cases:
        intake = Intake(Settings(**overrides))
        arrival = intake.take(peer, Values(value))
        assert arrival is not None
        assert (arrival.override is not None) is believed
        assert intake.counts.override == (not believed)


def test_each_reason_is_logged_once_in_a_while_and_counted_always(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(context, "monotonic", lambda: now[0])
    intake = Intake(Settings(key=(KEY,)))
    with caplog.at_level(logging.WARNING, "meshlib.server"):
        for at in (100.0, 100.1, 159.0, 161.0, 50.0):  # at last the clock jumps back
            now[0] = at
            for value in ("nonsense", "users=a"):
                intake.take("10.0.0.1", Values(value))
    assert intake.counts.override == 10
    assert len(caplog.records) == 6


def test_a_header_of_ones_own_is_read_passed_on_and_never_copied_unread(serve: Serve, serve_wsgi: ServeWsgi) -> None:
    own = {"key": KEY, "header": "x-dev"}
    it = Shop(serve, serve_wsgi, "wsgi", own)
    text = signed()[HEADER]
    assert httpx.get(it.storefront + "/", headers={"X-Dev": text}).json() == "users-dev-alice"
    assert httpx.get(it.storefront + "/", headers={HEADER: text}).json() == "users"
    with it.storefront_mesh.client("users") as client:
        assert client.get("/", headers={"x-dev": text}).json() == "users"
    it.stack.close()


def test_code_of_ones_own_can_override_and_its_record_says_so(serve: Serve, serve_wsgi: ServeWsgi) -> None:
    it = Shop(serve, serve_wsgi, "asgi", {"key": KEY})
    with it.storefront_mesh.client("users") as client, overriding(signed()[HEADER]):
        response = client.get("/")
        record = meshlib.record(response)
        assert record is not None
        assert (response.json(), record.override) == ("users-dev-alice", "users-dev-alice")
        assert "overridden: users-dev-alice" in str(record)
    it.stack.close()
