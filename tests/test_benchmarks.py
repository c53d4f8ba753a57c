"""The benchmarks run, and what they write can be read. Nothing here is about how fast anything is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import report, results, sampling
from benchmarks.__main__ import DATA, PAGE, main
from benchmarks.latency import percentile
from benchmarks.rows import ROWS, Row
from tests.peers import fixtures

ROOT = Path(__file__).resolve().parent.parent
ROW = Row("it", "something", "group", "mesh", "httpx", 32, 0.5)


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
    assert report.as_markdown(found).count("\n|") >= 4


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_rows_with_real_servers_are_measured(tmp_path: Path) -> None:
    fixtures.require("nginx")
    file = tmp_path / "results.json"

    run(
        "--rows",
        "httpx-1",
        "threads-16",
        "handmade-32",
        "limit-32",
        "p99",
        "first-call",
        "profile",
        "--json",
        str(file),
    )

    found = json.loads(file.read_text())
    measured = {row["name"] for row in found["rows"]}
    assert measured | set(found["left_out"]) == {
        "httpx-1",
        "threads-16",
        "handmade-32",
        "limit-32",
        "p99",
        "first-call",
    }
    assert {"httpx-1", "threads-16", "p99"} <= measured
    assert set(found["profiles"]) == {"mesh", "httpx"}


def test_a_row_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rows", "httpx-31"]) == 2
    assert "no row httpx-31; there are: aiohttp-32" in capsys.readouterr().err


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
        ("/x/meshlib/net/http1.py", "net: connection, pool"),
        ("/x/lib/python3/asyncio/events.py", "event loop, with system calls"),
        ("/x/lib/python3/random.py", None),
    ],
)
def test_a_sample_falls_into_the_layer_of_its_file(file: str, layer: str | None) -> None:
    assert sampling.layer_of(file) == layer


def test_the_page_shows_the_newest_results() -> None:
    newest = max(DATA.glob("bench-*.json"))

    assert report.as_markdown(json.loads(newest.read_text())) in PAGE.read_text()
