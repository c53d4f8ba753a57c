"""What a mesh says of itself: plans, the status, events, and what is printed; and where its configuration is from."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import meshlib
from meshlib import Mesh
from meshlib.telemetry import events
from tests.adapters.support import address, mesh_of, ok, origins
from tests.integration.calling import Caller
from tests.integration.processes import environment
from tests.net.wire_servers import open_sockets, soon

ROUTES = [
    {
        "name": "beta",
        "match": [{"path": {"path_prefix": "/v2"}, "headers": {"end-user": {"exact": "jason"}}}],
        "backends": [{"subset": "v2", "weight": 90}, {"subset": "v1", "weight": 10}],
        "timeout": "700ms",
    }
]


def shop(*endpoints: Any, **more: Any) -> dict[str, Any]:
    versions = [{"address": each, "metadata": {"version": f"v{n}"}} for n, each in enumerate(endpoints, 1)]
    orders = {
        "endpoints": versions,
        "subsets": {"v1": {"version": "v1"}, "v2": {"version": "v2"}},
        "routes": ROUTES,
        **more,
    }
    return {"service": "checkout", "discovery": [], "services": {"orders": orders}}


# Plans


def test_a_plan_says_what_would_happen_and_why() -> None:
    with Mesh(shop("10.0.0.1:80", "10.0.0.2:80")) as mesh:
        mesh.wait_ready("orders")
        plan = mesh.plan("get", "http://orders/v2/x", {"End-User": "jason"})
        assert (plan.method, plan.service, plan.mode, plan.route) == ("GET", "orders", "on", "beta")
        assert plan.backends == (("orders/v2", 90.0), ("orders/v1", 10.0))
        assert [(each.address, each.cluster, each.why_not) for each in plan.candidates] == [
            ("10.0.0.2:80", "orders/v2", None),
            ("10.0.0.1:80", "orders/v1", None),
        ]
        assert plan.timeout_s == pytest.approx(0.7)
        assert (plan.limit, plan.safe) == ("timeout", True)
        assert "route beta: to orders/v2 90 %, orders/v1 10 %" in str(plan)

        other = mesh.plan("POST", "http://orders/v2/x", {"end-user": "anna"})
        assert other.route != "beta"
        ((name, reason),) = other.routes_not_taken
        assert name == "beta"
        assert "end-user" in reason
        assert not other.safe
        assert "not idempotent" in str(other)
        assert mesh.plan("POST", "http://orders/x", {"Idempotency-Key": "k"}).safe


def test_a_plan_knows_deadlines_blocks_and_modes_around_it() -> None:
    with Mesh(shop("10.0.0.1:80")) as mesh:
        with meshlib.timeout("300ms"):
            plan = mesh.plan("GET", "http://orders/x")
            assert plan.limit == "deadline"
            assert plan.timeout_s is not None
            assert 0.2 < plan.timeout_s <= 0.3
        with mesh.policy(timeout="4s", retry=meshlib.Retry(max_retries=7)):
            plan = mesh.plan("GET", "http://orders/x")
            assert plan.timeout_s == 4
            assert "retries 7" in str(plan)
        mesh.mode = "observe"
        assert mesh.plan("GET", "http://orders/x").mode == "observe"


@pytest.mark.parametrize(
    ("hedge", "said"),
    [
        ({}, ", hedged after p95"),
        ({"after": "50ms"}, ", hedged after 50ms"),
        ({"on_per_try_timeout": True}, ", hedged after the per-try timeout"),
        ({"after": "p99", "on_per_try_timeout": True}, ", hedged after p99 and the per-try timeout"),
    ],
)
def test_a_plan_says_when_a_call_is_hedged(hedge: dict[str, Any], said: str) -> None:
    with Mesh(services={"orders": {"endpoints": ["127.0.0.1:1"], "hedge": hedge}}) as mesh:
        assert f"retries 2{said}\n" in f"{mesh.plan('GET', 'http://orders/')}\n"
        assert "hedged" not in str(mesh.plan("POST", "http://orders/"))


def test_a_plan_of_the_outside_and_of_nonsense() -> None:
    with Mesh(shop("10.0.0.1:80")) as mesh:
        assert mesh.plan("GET", "http://example.com/").service is None
        assert "plain client" in str(mesh.plan("GET", "http://example.com/"))
        for nonsense in ("/x", "orders", ""):
            with pytest.raises(ValueError, match="absolute"):
                mesh.plan("GET", nonsense)
    with Mesh({"discovery": [], "egress": "refuse"}) as mesh:
        assert "refused" in str(mesh.plan("GET", "http://example.com/"))


def test_a_plan_does_no_io_and_changes_nothing() -> None:
    config = {"discovery": [{"consul": {"address": "http://127.0.0.1:1"}}]}
    mesh = Mesh({**shop("10.0.0.1:80", "10.0.0.2:80"), **config})
    sockets = open_sockets()
    state = mesh._wiring.plane.rng.getstate()
    plan = mesh.plan("GET", "http://orders/v2/x", {"end-user": "jason"})
    assert {candidate.address for candidate in plan.candidates} == {"10.0.0.1:80", "10.0.0.2:80"}
    plan = mesh.plan("GET", "http://unknown/x")
    assert any("no endpoints; discovery: pending" in note for note in plan.notes)
    assert mesh.status().services == ()
    assert not mesh._wiring.control.started
    assert mesh._wiring.plane.rng.getstate() == state
    assert open_sockets() == sockets
    mesh.close()


def test_a_plan_takes_no_probe_from_the_next_call(caller: Caller) -> None:
    breaker = {"min_calls": 2, "window": "10s", "failure_percent": 50, "open_for": "300ms"}
    retry = {"max_retries": 0}
    answers = ["503 No"] * 2 + ["200 OK"] * 10
    with (
        origins(lambda seen, n: ok(status=answers[n - 1])) as ([_origin], [server]),
        mesh_of(server, circuit_breaker=breaker, retry=retry, outlier_detection=False) as mesh,
    ):
        call = caller.client(mesh)
        for _ in range(2):
            call("GET", "/x")
        assert mesh.status().services[0].clusters[0].breaker == "open"
        assert "circuit is open" in str(mesh.plan("GET", "http://orders/x"))
        soon(lambda: "the next call is a probe" in str(mesh.plan("GET", "http://orders/x")))
        for _ in range(5):
            mesh.plan("GET", "http://orders/x")
        cluster = mesh.status().services[0].clusters[0]
        assert (cluster.breaker, cluster.in_flight, cluster.endpoints[0].in_flight) == ("open", 0, 0)
        response = call("GET", "/x")
        assert response.status_code == 200
        record = meshlib.record(response)
        assert record is not None
        assert record.attempts[0].probe
        assert mesh.status().services[0].clusters[0].breaker == "closed"


def test_a_plan_says_why_an_endpoint_would_not_be_picked() -> None:
    outlier = {"consecutive_errors": 1, "base_ejection": "30s"}
    with (
        origins(lambda seen, n: None, None) as (_, servers),
        mesh_of(*servers, outlier_detection=outlier, load_balancing={"policy": "round_robin"}) as mesh,
        mesh.client("orders") as client,
    ):
        for _ in range(4):
            client.get("/x")
        plan = mesh.plan("GET", "http://orders/x")
        why = {candidate.address: candidate.why_not or "" for candidate in plan.candidates}
        assert why[address(servers[0])].startswith("ejected for another")
        assert why[address(servers[1])] == ""


# The status


def test_the_status_shows_everything_in_use(caller: Caller) -> None:
    with origins(None) as (_, [server]), mesh_of(server) as mesh:
        caller.client(mesh)("GET", "/x")
        # The call did not wait for discovery, since its endpoint is written in the configuration.
        soon(lambda: mesh.status().services[0].age_s is not None)
        status = mesh.status()
        (service,) = status.services
        assert (service.name, service.mode, service.discovery, service.source) == ("orders", "on", "yes", "static")
        assert (service.age_s, service.detail, service.budget_open) == (0.0, "", True)
        (cluster,) = service.clusters
        assert (cluster.breaker, cluster.in_flight, cluster.pending, cluster.panic) == ("closed", 0, 0, False)
        (endpoint,) = cluster.endpoints
        assert (endpoint.address, endpoint.state, endpoint.in_flight) == (address(server), "healthy", 0)
        (pool,) = status.pools
        assert (pool.address, pool.busy, pool.idle) == (address(server), 0, 1)
        text = str(status)
        for part in ("mode on", "orders: known yes by static", f"{address(server)} healthy", "1 idle"):
            assert part in text


def test_what_is_printed_is_readable() -> None:
    mesh = Mesh(shop("10.0.0.1:80"))
    assert repr(mesh) == "<Mesh checkout [mode on, 1 service]>"
    mesh.start()
    assert repr(mesh) == "<Mesh checkout [mode on, 1 service]>"
    with pytest.raises(meshlib.UnknownService):
        mesh.client("other").get("/")
    assert repr(mesh) == "<Mesh checkout [mode on, 2 services]>"
    mesh.close()
    assert repr(mesh) == "<Mesh checkout [closed, 2 services]>"
    secret = Mesh({"discovery": [{"consul": {"token": "not-to-be-shown"}}]})
    for shown in (repr(secret), str(secret.status()), repr(secret.settings), repr(secret._wiring.sources)):
        assert "not-to-be-shown" not in shown
    secret.close()


# Events


def test_events_tell_what_happens_and_a_listener_that_fails_disturbs_nobody(
    caller: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="meshlib")
    seen: list[events.Event] = []
    outlier = {"consecutive_errors": 2, "base_ejection": "30s"}
    breaker = {"min_calls": 4, "window": "10s", "failure_percent": 50, "open_for": "30s"}
    with (
        origins(lambda seen, n: None, lambda seen, n: None) as (_, servers),
        mesh_of(*servers, outlier_detection=outlier, circuit_breaker=breaker, retry={"max_retries": 0}) as mesh,
    ):

        @mesh.on_event
        def broken(event: events.Event) -> None:
            raise RuntimeError("a listener's own fault")

        assert mesh.on_event(seen.append) is not None
        call = caller.client(mesh)
        for _ in range(8):
            with pytest.raises(meshlib.MeshError):
                call("GET", "/x")
        soon(lambda: any(isinstance(event, events.BreakerOpened) for event in seen))
        (ejected,) = [event for event in seen if isinstance(event, events.Ejected)]
        assert ejected.service == "orders"
        assert ejected.endpoint in {address(server) for server in servers}
        with pytest.raises(AttributeError):
            ejected.service = "another"  # type: ignore[misc]
        lines = [record.getMessage() for record in caplog.records if record.levelno < logging.ERROR]
        assert sum("ejected" in line for line in lines) == 1
        assert sum("circuit" in line and "open" in line for line in lines) == 1


# Where the configuration comes from


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_anything_the_defaults_hold_and_one_line_says_so(here: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="meshlib")
    with Mesh() as mesh:
        assert (mesh.mode, mesh.settings.service, dict(mesh.settings.services)) == ("on", "", {})
    (line,) = [record.getMessage() for record in caplog.records]
    assert "MESHLIB_CONFIG" in line
    assert "mesh.yaml" in line


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mesh.yaml", "service: shop"),
        ("mesh.toml", 'service = "shop"'),
        ("mesh.json", '{"service": "shop"}'),
    ],
)
def test_a_file_in_the_working_directory_is_found(here: Path, name: str, text: str) -> None:
    (here / name).write_text(text)
    with Mesh() as mesh:
        assert mesh.settings.service == "shop"


def test_the_environment_names_the_file_and_a_missing_one_is_an_error(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "mesh.yaml").write_text("service: not-this-one")
    (here / "other.yaml").write_text("service: this-one")
    monkeypatch.setenv("MESHLIB_CONFIG", str(here / "other.yaml"))
    with Mesh() as mesh:
        assert mesh.settings.service == "this-one"
    monkeypatch.setenv("MESHLIB_CONFIG", str(here / "othr.yaml"))
    with pytest.raises(meshlib.ConfigError, match=r"MESHLIB_CONFIG.*no such file.*other\.yaml"):
        Mesh()


def test_what_the_program_gives_comes_first(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "mesh.yaml").write_text("service: not-this-one")
    monkeypatch.setenv("MESHLIB_CONFIG", str(here / "nor-this.yaml"))
    with Mesh(service="mine", services={"orders": meshlib.Service(timeout="2s")}) as mesh:
        assert mesh.settings.service == "mine"
        assert mesh.plan("GET", "http://orders/").timeout_s == 2
    with pytest.raises(meshlib.ConfigError, match="not both"):
        Mesh({"service": "a"}, service="b")


# Another distribution of the same name


@pytest.mark.parametrize("stranger", ["mrmeshpy.so", "mrmeshnumpy.cpython-311-x86_64-linux-gnu.so", "mrviewerpy.pyd"])
def test_beside_the_geometry_library_the_import_fails_and_says_what_to_do(tmp_path: Path, stranger: str) -> None:
    package = Path(meshlib.__file__).parent

    def tried() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "import meshlib; print(meshlib.__file__)"],
            env={**environment(), "PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    shutil.copytree(package, tmp_path / "meshlib", ignore=shutil.ignore_patterns("__pycache__"))
    assert tried().stdout.strip() == str(tmp_path / "meshlib" / "__init__.py")
    (tmp_path / "meshlib" / stranger).touch()
    done = tried()
    assert done.returncode != 0
    assert "ImportError: two distributions share the import name 'meshlib'" in done.stderr
    assert 'pip install "meshlib-http"' in done.stderr
    assert os.listdir(tmp_path) == ["meshlib"]
