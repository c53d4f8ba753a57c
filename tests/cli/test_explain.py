"""``meshlib explain`` and ``meshlib override``."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from meshlib import Mesh
from meshlib.context import Override
from meshlib.routing.override import read_override
from meshlib.routing.override_settings import OverrideSettings

FILE = """
services:
  orders:
    endpoints: ["10.0.0.1:80", {address: "10.0.0.2:80", health: unhealthy}]
    subsets: {v2: {version: v2}}
    timeout: 2s
    retry: {max_retries: 1, on: [503]}
    routes:
      - name: beta
        match: [{headers: {end-user: {exact: jason}, authorization: {exact: s3cr3t}}}]
      - name: old
        match: [{path: {prefix: /old}}]
        redirect: {prefix: /new, status: 308}
      - name: split
        match: [{path: {prefix: /v2}, method: GET}]
        backends: [{weight: 95}, {subset: v2, weight: 5}]
        rewrite: {prefix: /api/v2}
        headers: {request: {set: {x-key: s3cr3t}, remove: [x-debug]}, response: {add: {x-served: "yes"}}}
        mirror: {service: shadow, percent: 5}
"""
Run = Callable[..., Result]


@pytest.fixture
def told(run: Run, tmp_path: Path) -> Callable[..., list[str]]:
    (tmp_path / "mesh.yaml").write_text(FILE)

    def lines(*arguments: str) -> list[str]:
        result = run("explain", *arguments)
        assert result.exit_code == 0, result.output
        return result.output.splitlines()

    return lines


def test_it_says_which_route_why_not_the_others_where_to_and_what_is_done(told: Callable[..., list[str]]) -> None:
    assert told("get", "http://orders/v2/x", "-H", "End-User: jane") == [
        "request   GET http://orders/v2/x",
        "service   orders, mode on",
        "not taken beta: header end-user is 'jane', not exact 'jason'",
        "not taken old: path '/v2/x' is not prefix '/old'",
        "route     split: path prefix '/v2' and method GET",
        "to        orders 95 %, orders/v2 5 %",
        "does      the path becomes /api/v2/x",
        "does      request header x-debug is removed",
        "does      request header x-key is set",
        "does      response header x-served is added",
        "does      a copy goes to shadow, for 5 % of calls",
        "endpoint  10.0.0.1:80 (orders, weight 1): may be picked",
        "endpoint  10.0.0.2:80 (orders, weight 1): not now: unhealthy in the registry",
        "timeout   2s (by timeout), per try 10s",
        "retries   up to 1 on 503",
        "note      cluster orders/v2: no endpoints; discovery: yes",
    ]


def test_an_answer_without_a_call_is_said_and_no_backend(told: Callable[..., list[str]]) -> None:
    lines = told("POST", "http://orders/old/x?token=s3cr3t")

    assert "does      it is answered with 308 and nobody is called: redirect to http://orders/new/x" in lines
    assert not any(line.startswith(("to ", "endpoint ", "timeout ", "retries ", "note ")) for line in lines)
    plan = json.loads("\n".join(told("POST", "http://orders/old/x", "--json")))
    assert (plan["backends"], plan["candidates"]) == ([], [])


def test_a_request_that_is_not_safe_is_said_to_be_retried_only_if_unsent(told: Callable[..., list[str]]) -> None:
    assert "retries   up to 1 on 503; only if nothing was sent: the request is not idempotent" in told(
        "POST", "http://orders/"
    )


def test_retries_are_told_by_statuses_wherever_those_are_written(run: Run, tmp_path: Path) -> None:
    retry = "{max_retries: 1, unsafe: true, on: [reset, retriable-status-codes], %s}"
    for statuses, on in (("retriable_status_codes: [409, 425]", "409, 425, reset"), ("", "reset")):
        (tmp_path / "mesh.yaml").write_text(f"services: {{orders: {{retry: {retry % statuses}}}}}")
        lines = run("explain", "POST", "http://orders/", "--config", "mesh.yaml").output.splitlines()
        assert f"retries   up to 1 on {on}" in lines


def test_a_host_outside_the_mesh_is_said_to_be_so(told: Callable[..., list[str]]) -> None:
    assert told("GET", "http://example.com/") == [
        "request   GET http://example.com/",
        "service   none: the host is outside the mesh",
        "note      it would go through the plain client",
    ]


def test_what_is_not_written_down_needs_discovery(told: Callable[..., list[str]]) -> None:
    assert "endpoint  none is written down; --live asks discovery" in told("GET", "http://stock/")


def test_a_name_that_is_nearly_declared_is_told_with_the_nearest(told: Callable[..., list[str]]) -> None:
    assert "note      'ordres' is not declared; did you mean 'orders'?" in told("GET", "http://ordres/")
    for other in ("orders-v2", "stock"):
        assert not any("did you mean" in line for line in told("GET", f"http://{other}/"))


def test_a_route_that_takes_a_share_by_chance_is_told_to_do_so(run: Run, tmp_path: Path) -> None:
    routes = """
  - {name: some, match: [{percent: 10, path: {prefix: /a}}, {percent: 30}, {path: {exact: /all}}]}
  - {name: set, match: [{percent: 40}], delegate: list}"""
    (tmp_path / "mesh.yaml").write_text(
        f"route_sets: {{list: [{{name: in, match: [{{percent: 50}}]}}]}}\nservices:\n orders:\n  routes: {routes}\n"
    )
    with Mesh("mesh.yaml") as mesh:
        share = "  route some takes 30 % of such requests, by chance; the others try the next one"
        assert share in str(mesh.plan("GET", "http://orders/a")).splitlines()
        assert "by chance" not in str(mesh.plan("GET", "http://orders/all"))
    (tmp_path / "mesh.yaml").write_text((tmp_path / "mesh.yaml").read_text().replace("percent: 30", "percent: 0"))
    assert "takes 40 % of such requests" in run("explain", "GET", "http://orders/b").output


def test_json_has_all_of_it_and_no_secret(told: Callable[..., list[str]]) -> None:
    text = "\n".join(told("GET", "http://orders/v2/x", "-H", "authorization: other", "--json"))
    plan = json.loads(text)

    assert "s3cr3t" not in text and "other" not in text.replace("other's", "")
    assert (plan["service"], plan["route"], plan["safe"]) == ("orders", "split", True)
    assert plan["backends"] == [{"cluster": "orders", "percent": 95.0}, {"cluster": "orders/v2", "percent": 5.0}]
    assert [each["route"] for each in plan["routes_not_taken"]] == ["beta", "old"]
    assert plan["policy"]["timeout_s"] == 2.0
    assert [each["address"] for each in plan["candidates"]] == ["10.0.0.1:80", "10.0.0.2:80"]


def test_of_many_routes_the_last_are_named(run: Run, tmp_path: Path) -> None:
    routes = [{"match": [{"path": {"exact": f"/{index}"}}]} for index in range(100)]
    (tmp_path / "many.json").write_text(json.dumps({"services": {"orders": {"routes": routes}}}))

    few = run("explain", "GET", "http://orders/99", "--config", "many.json").output
    all_of_them = run("explain", "GET", "http://orders/99", "--config", "many.json", "--all").output

    assert few.count("not taken") == 21
    assert "nor 79 routes before them; --all names them" in few
    assert all_of_them.count("not taken") == 99


def test_live_asks_discovery(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mesh.yaml").write_text("service: stock\n")
    with Mesh("mesh.yaml") as mesh, mesh.register(port=8123):
        live = run("explain", "GET", "http://stock/", "--live").output
    dead = run("explain", "GET", "http://nobody/", "--live", "--timeout", "50ms").output

    assert "127.0.0.1:8123 (stock, weight 1): may be picked" in live
    assert "note      " in dead and "no healthy endpoint within 0.05s" in dead


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["GET", "orders"], "not an absolute URL"),
        (["GET", "http://orders/", "-H", "secret"], "'NAME: VALUE' is expected"),
        (["GET", "http://orders/", "--config", "wrong.yaml"], "unknown field"),
    ],
)
def test_what_is_wrong_is_said_and_exits_with_2(arguments: list[str], word: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("sevices: {}")

    result = run("explain", *arguments)

    assert result.exit_code == 2
    assert word in result.output and "secret" not in result.output


KEY = "0123456789abcdef0123456789abcdef"


def test_an_override_is_signed_with_the_key_of_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHLIB_OVERRIDE_KEY", KEY)

    result = run("override", "users=users-dev", "billing=10.8.0.9:8080", "--for", "10m")

    name, _, value = result.output.strip().partition(": ")
    read = read_override([value], OverrideSettings(key=(KEY,), addresses=("10.8.0.0/16",)), time.time())
    assert name == "x-meshlib-override"
    assert isinstance(read, Override)
    assert KEY not in result.output


def test_an_override_is_signed_as_the_configuration_says(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(f"overrides: {{header: x-dev, key: {KEY}, max_age: 1h}}\n")
    (tmp_path / "key").write_text(f"{KEY}\n")

    signed = run("override", "users=users-dev", "--config", "mesh.yaml", "--for", "1h")
    assert signed.output.startswith("x-dev: users=users-dev; @exp=")
    bare = run("override", "users=users-dev", "--key-file", "key", "--value")
    assert bare.output.startswith("users=users-dev; @exp=")
    too_long = run("override", "users=users-dev", "--config", "mesh.yaml", "--for", "2h")
    assert (too_long.exit_code, "longer than" in too_long.output or "for longer" in too_long.output) == (2, True)


@pytest.mark.parametrize("arguments", [["users=users-dev"], ["users", "--key-file", "key"], ["a=b", "--for", "soon"]])
def test_an_override_that_cannot_be_signed_exits_with_2(arguments: list[str], run: Run, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY)
    assert run("override", *arguments).exit_code == 2
