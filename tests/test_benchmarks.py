"""The benchmarks run, and what they write can be read. Nothing here is about how fast anything is."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import balancers, latency, middleware, pages, report, results, routes, sampling, worker
from benchmarks.__main__ import DATA, PAGE, main
from benchmarks.latency import percentile
from benchmarks.loads import SCENARIOS, TABLES, TASKS
from benchmarks.rows import ROWS, Row
from benchmarks.run import Effort, measure
from benchmarks.servers import Peers
from benchmarks.streaming import DIRECTIONS
from tests.peers import fixtures

pytestmark = pytest.mark.slow  # what is measured does not depend on the Python

ROOT = Path(__file__).resolve().parent.parent
ROW = Row("it", "something", "group", "mesh", "httpx", 32, 0.5)


def missing(package: str) -> bool:
    return importlib.util.find_spec(package) is None


def results_of(directory: Path, *options: str) -> Any:
    file = directory / "results.json"
    run(*options, "--json", str(file))
    return json.loads(file.read_text())


def run(*options: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--rounds", "1", "--seconds", "0.001", *options],
        capture_output=True,
        text=True,
        timeout=170,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(180)
def test_rows_without_a_server_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "results.json"

    text = run("--rows", "core-1", "client-1", "import", "--json", str(file))

    found = json.loads(file.read_text())
    assert [row["name"] for row in found["rows"]] == ["core-1", "client-1", "import"]
    assert all(row["ours_us"] > 0 and row["theirs_us"] > 0 and row["ratio"] > 0 for row in found["rows"])
    assert found["left_out"] == {}
    assert found["machine"]["cpus"] >= 1
    assert set(found["samples"]["core-1"]) == {"core", "mesh", "httpx"}
    assert "policy core alone" in text
    assert pages.sections(found, {})["rows"].count("\n|") >= 4


SERVED = ["httpx-1", "threads-16", "limit-32", "p99"]
LOADS = ["async-endpoints-100", "async-upload-64k", "sync-tls"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of one run with real servers, which takes most of its time to start."""
    fixtures.require("nginx")
    return results_of(tmp_path_factory.mktemp("results"), "--rows", *SERVED, "profile", *LOADS, "--rates")


@pytest.mark.peer
@pytest.mark.timeout(180)
@pytest.mark.xdist_group("benchmarks")
def test_rows_with_real_servers_are_measured(found: Any) -> None:
    measured = {row["name"] for row in found["rows"]}
    assert measured | set(found["left_out"]) == set(SERVED)
    assert {"httpx-1", "threads-16", "p99"} <= measured
    assert set(found["profiles"]) == {"mesh", "httpx"}


@pytest.mark.peer
@pytest.mark.timeout(180)
@pytest.mark.xdist_group("benchmarks")
def test_each_kind_of_load_of_the_matrix_is_measured(found: Any) -> None:
    assert set(found["matrix"]) == set(LOADS)
    assert all({"mesh", "httpx"} <= cell.keys() for cell in found["matrix"].values())
    assert all(figures["us"] > 0 for cell in found["matrix"].values() for figures in cell.values())


@pytest.mark.peer
@pytest.mark.timeout(180)
@pytest.mark.xdist_group("benchmarks")
def test_latency_at_fixed_rates_is_measured(found: Any) -> None:
    assert set(found["rates"]) == {"async", "sync"}
    for callers in found["rates"].values():
        assert all(caller["peak_per_s"] > 0 for caller in callers.values())
        for percentiles in (each for caller in callers.values() for each in caller["rates"].values()):
            assert 0 < percentiles["p50"] <= percentiles["p99"] <= percentiles["p99.9"]


@pytest.mark.peer
@pytest.mark.timeout(180)
@pytest.mark.skipif(any(map(missing, ("aiohttp", "requests", "httpx2"))), reason="needs what `bench` installs")
def test_long_bodies_are_measured(tmp_path: Path) -> None:
    fixtures.require("nginx")

    found = results_of(tmp_path, "--streaming", "--quick")

    samples = found["streaming"]["samples"]
    assert all(samples[way][name]["wall_s"][0] > 0 for way in DIRECTIONS for name in ("mesh async", "mesh sync"))
    assert [line[0] for line in report.streaming_goals(found)[1:]] == [
        *("download, async", "download, sync", "upload, async", "upload, sync")
    ]


def test_balancers_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancers, "SIZES", (10, 1000))
    monkeypatch.setattr(balancers, "UPDATED", 100)
    monkeypatch.setattr("gc.collect", lambda: 0)  # of all that the tests of this process hold: half a second each
    order = {"contenders": [], "load": asdict(TASKS), "peers": Peers().as_dict(), "rounds": 1, "seconds": 1e-6}

    found = worker.run({"group": "balancers", **order})

    assert set(found["picks"]) == {balancers.FLOOR, *(choice.name for choice in balancers.CHOICES)}
    assert all(us > 0 for by_size in found["picks"].values() for us in by_size.values())
    assert all(ms > 0 for ms in found["updates"].values())
    assert all(100 < size < 5000 for size in found["memory"].values())


def test_routes_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "SIZES", (10, 20))
    monkeypatch.setattr("gc.collect", lambda: 0)
    order = {"contenders": [], "load": asdict(TASKS), "peers": Peers().as_dict(), "rounds": 1, "seconds": 1e-6}

    measured = worker.run({"group": "routes", **order})

    assert set(measured["found"]) == set(measured["index"]) == {kind.name for kind in routes.KINDS}
    assert all(us > 0 for sizes in measured["found"].values() for ways in sizes.values() for us in ways.values())
    assert all(0 < index["bytes"] < 2000 for index in measured["index"].values())


def test_a_row_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rows", "httpx-31"])

    assert "no row httpx-31; there are: aiohttp-32" in capsys.readouterr().err


def test_what_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))

    found = measure(["import", "core-1"], Effort(1, 0.001, quick=True))

    assert found["failed"] == {"start": "status 1", "core-1": "status 1"}
    assert found["rows"] == []
    assert "failed: core-1: status 1" in report.as_text(found)


def test_every_load_of_a_table_is_there_and_every_load_is_in_a_table() -> None:
    assert {name for table in TABLES for _, name in table.rows} == set(SCENARIOS)


def test_latency_counts_from_when_a_request_was_due() -> None:
    async def call() -> None:
        time.sleep(0.02)  # the loop is blocked: those due meanwhile are late, though each is as fast as the first

    ordered = sorted(asyncio.run(latency.at_rate(call, rate=1000, seconds=0.01)))

    assert len(ordered) == 10
    assert ordered[-1] >= 10 * 20 - 10


def test_so_do_threads() -> None:
    with ThreadPoolExecutor(1) as pool:
        ordered = sorted(latency.at_rate_in_threads(pool, lambda: time.sleep(0.02), rate=1000, seconds=0.01))

    assert len(ordered) == 10
    assert ordered[-1] >= 10 * 20 - 10


def test_a_client_is_asked_for_no_rate_beyond_its_reach() -> None:
    caller = latency.Caller(burst=lambda count: time.sleep(0.01), at_rate=lambda rate, seconds: [1.0])
    refusing = latency.Caller(burst=caller.burst, at_rate=lambda rate, seconds: [1 / 0])

    found = latency.at_rates({"it": caller, "refuses": refusing}, rates=[10, 10**6], rounds=2, seconds=0.01, requests=1)

    assert found["it"]["rates"] == {"10": {"count": 2, "p50": 1.0, "p99": 1.0, "p99.9": 1.0}}
    assert found["refuses"]["rates"] == {}
    assert "ZeroDivisionError" in found["refuses"]["failed"]["10"]


def test_names_of_rows_are_unique_and_a_group_has_one_load() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for group in {row.group for row in ROWS}:
        assert len({row.in_flight for row in ROWS if row.group == group}) == 1


def test_the_ratio_is_that_of_the_medians_and_its_spread_that_of_the_rounds() -> None:
    row = results.compare(ROW, [1.0, 2.0, 90.0], [4.0, 4.0, 4.0])

    assert row["ratio"] == 0.5
    assert row["passed"] is True
    assert row["ratio_quartiles"] == [0.375, 11.5]
    assert report.verdict(row) == "PASS"
    assert report.verdict(results.compare(ROW, [4.0], [4.0])) == "2.0 x the goal"


def test_percentiles_are_of_what_was_measured() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 3.0
    assert percentile([1.0, 2.0], 99) == 2.0


@pytest.mark.parametrize(
    ("file", "layer"),
    [
        ("/x/site-packages/httpx/_models.py", "httpx: client, request, response"),
        ("/x/meshlib/policy/call.py", "policy core: routing, balance, policy, snapshot"),
        ("/x/meshlib/adapters/httpx.py", "adapter"),
        ("/x/meshlib/net/http1.py", "net: HTTP/1.1 parser"),
        ("/x/meshlib/net/pool.py", "net: connection, pool"),
        ("/x/lib/python3/asyncio/events.py", "event loop, with system calls"),
        ("/x/lib/python3/random.py", None),
    ],
)
def test_a_sample_falls_into_the_layer_of_its_file(file: str, layer: str | None) -> None:
    assert sampling.layer_of(file) == layer


FOUND: dict[str, Any] = {
    "rows": [{**results.compare(ROW, [1.0, 2.0], [4.0, 4.0]), "group": "async-32"}],
    "matrix": {"async-1": {"mesh": {"us": 20.0}}, "async-32": {"mesh": {"us": 10.0}, "httpx": {"us": 90.0}}},
    "rates": {
        "async": {
            "mesh": {"peak_per_s": 900, "failed": {}, "rates": {"250": {"p50": 1, "p99": 2, "p99.9": 3, "count": 9}}},
            "httpx": {"peak_per_s": 200, "failed": {"100": "ReadTimeout()"}, "rates": {}},
        }
    },
    "streaming": {
        "bytes": 1 << 30,
        "samples": {
            way: {
                name: {"wall_s": [seconds], "cpu_s": [0.5], "growth_mib": [growth]}
                for name, seconds, growth in [
                    *(("mesh async", 1.0, 0.5), ("mesh sync", 4.0, 99.0), ("aiohttp", 2.0, 0.5)),
                    *(("httpx async", 9.0, 0.5), ("httpx sync", 9.0, 0.5), ("requests", 9.0, 0.5)),
                ]
            }
            for way in DIRECTIONS
        },
    },
    "balancers": {
        "picks": {"`random`": {"10": 0.2, "1000": 0.25, "100000": 0.4}, "`maglev`": {"10": 0.3}},
        "updates": {"the first": 26.4},
        "memory": {"in a cluster": 681.2},
    },
    "routes": {
        "found": {"`exact`": {"10": {"scan": 2.5, "index": 1.5}, "10000": {"scan": 4321.0, "index": 1.6}}},
        "index": {"`exact`": {"ms": 25.4, "bytes": 310.2}},
    },
    "middleware": {"Flask": {"bare": 50.0, "meshed": 60.0, "bare, with headers": 55.0, "meshed, with headers": 70.5}},
    "profiles": {
        "mesh": {"us": 9.0, "in_flight": 32, "samples": 4, "layers": {"adapter": 3}, "functions": [["adapter", "f", 3]]}
    },
    "date": "2026-01-01",
    "machine": {"cpus": 2, "processor": "P", "architecture": "A", "system": "S", "python": "CPython 3"},
    "versions": {"meshlib": "0"},
    "rounds": 2,
    "seconds_per_round": 0.3,
    "left_out": {},
}


def test_the_middleware_is_measured_in_every_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(middleware._NEEDS, "Django")  # has one configuration in a process, and other tests need theirs
    order = {"contenders": [], "load": asdict(TASKS), "peers": Peers().as_dict(), "rounds": 1, "seconds": 1e-6}

    measured = worker.run({"group": "middleware", **order})

    assert list(measured) == ["Starlette", "FastAPI", "FastAPI on uvicorn", "Flask"]
    assert all(list(ways) == [*middleware.WAYS, *middleware.MORE] for ways in measured.values())
    assert all(us > 0 for ways in measured.values() for us in ways.values())


def test_a_stream_is_held_against_the_best_of_those_it_has_to_match() -> None:
    _, fast, slow, *_ = report.streaming_goals(FOUND)

    assert fast == ["download, async", "aiohttp", "0.50", "≤ 1.00", "PASS", "+ 0.5 MiB", "≤ 16 MiB", "PASS"]
    assert slow == ["download, sync", "aiohttp", "2.00", "≤ 1.00", "2.0 x the goal", "+ 99.0 MiB", "≤ 16 MiB", "missed"]


def test_every_family_has_its_place_on_the_page() -> None:
    parts = pages.sections(FOUND, {"matrix": "data/it.svg"})

    assert "| 32 | 10.0 | 90.0 |" in parts["matrix"]
    assert "| 1 | 20.0 |  |" in parts["matrix"]
    assert parts["matrix"].startswith("![CPU time per call by calls in flight and by endpoints](data/it.svg)")
    assert "| 250 | mesh | 1.00 | 2.00 | 3.00 | 9 |" in parts["rates"]
    assert "mesh 900, httpx 200. httpx failed at 100: ReadTimeout()." in parts["rates"]
    assert "| mesh async | 1024 | 0.50 | 0.5 |" in parts["streaming"]
    assert "| adapter | 75.0% | 6.8 |" in parts["profile"]
    assert "| among | 10 | 1 000 | 100 000 | last / first |" in parts["balancers"]
    assert "| `random` | 0.20 | 0.25 | 0.40 | 2.00 |\n| `maglev` | 0.30 |  |  |  |" in parts["balancers"]
    assert "| the first | 26.4 |" in parts["balancers"]
    assert "| in a cluster | 681 |" in parts["balancers"]
    assert "| `exact`, scan | 2.5 | 4321 |\n| `exact`, index | 1.5 | 1.6 |" in parts["routes"]
    assert "| `exact` | 25 | 310 |" in parts["routes"]
    assert "| Flask | 50.0 | 60.0 (+ 10.0) | 55.0 | 70.5 (+ 15.5) |" in parts["middleware"]
    assert all(pages.begin(name) in PAGE.read_text() for name in parts)


@pytest.mark.skipif(missing("matplotlib"), reason="needs what `bench` installs")
def test_plots_are_written_into_the_page_and_are_the_same_each_time(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.read_text())
    seen = []

    for _ in range(2):
        pages.write(page, tmp_path, FOUND)
        seen.append({file.name: file.read_text() for file in tmp_path.iterdir()})

    assert seen[0] == seen[1]
    assert all(f"]({tmp_path.name}/{name})" in seen[0]["page.md"] for name in seen[0] if name != "page.md")
    assert set(seen[0]) == {"page.md", *(f"bench-{name}.svg" for name in ("rows", "matrix", "rates", "profile"))}


def test_the_page_shows_the_newest_results() -> None:
    found = json.loads(max(DATA.glob("bench-*.json")).read_text())
    text = PAGE.read_text()

    for name, content in pages.sections(found, {}).items():
        place = text.partition(pages.begin(name))[2].partition(pages.end(name))[0]
        plots = re.findall(r"\]\((data/[\w.-]+)\)", place)
        assert place.strip().endswith(content)
        assert all((PAGE.parent / plot).exists() for plot in plots)
