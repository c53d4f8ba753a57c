"""Edge, shop, stock, depot: what the first is told reaches the last, with no line about it in any handler."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.processes import ROOT, environment
from tests.peers.process import free_port, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("chain")]

DEADLINE_MS = 300
LATE_S = 0.05
TRACE = "0af7651916cd43dd8448eb211c80319c"
TOLD = {
    "x-meshlib-deadline-ms": str(DEADLINE_MS),
    "x-meshlib-criticality": "critical_plus",
    "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
    "baggage": "tenant=acme",
}
SERVICES = ("edge", "shop", "stock", "depot")
GUNICORN = ("gunicorn", "--threads=8", "--no-control-socket", "--log-level=warning", "--bind=127.0.0.1:{port}")
UVICORN = ("uvicorn", "--log-level=warning", "--port={port}")  # by --fd its sockets would wait for delayed ACKs
COMMANDS = {
    "edge": (*UVICORN, "tests.integration.chain.edge:app"),
    "shop": (*GUNICORN, "tests.integration.chain.shop:app"),
    "stock": (*GUNICORN, "tests.integration.chain.stock:application"),
    "depot": (*UVICORN, "tests.integration.chain.depot:app"),
}


class Chain:
    """The four processes, and what their witnesses wrote.

    Attributes:
        url: of the edge.
    """

    def __init__(self, log: Path) -> None:
        self.url = ""
        self._log = log
        self._http = httpx.Client(timeout=30)

    def ask(self, run: str, method: str = "GET", slow_s: float = 0.0, **told: str) -> tuple[httpx.Response, float]:
        """A request to the edge, and how long the answer took."""
        began = time.monotonic()
        headers = {**TOLD, **told, "x-test-run": run}
        response = self._http.request(method, self.url, params={"slow": slow_s}, headers=headers)
        return response, time.monotonic() - began

    def close(self) -> None:
        self._http.close()

    def lines(self, run: str) -> list[dict[str, Any]]:
        """What the witnesses wrote of the requests of one run."""
        lines = [json.loads(line) for line in self._log.read_text().splitlines()]
        return [line for line in lines if line["run"] == run]

    def told(self, run: str, what: str, service: str = "depot") -> Callable[[], bool]:
        """Whether there is such a line by now."""
        return lambda: any((line["service"], line["what"]) == (service, what) for line in self.lines(run))

    def line(self, run: str, service: str, what: str, path: str | None = None) -> dict[str, Any]:
        """The one line of this kind."""
        (found,) = [
            line
            for line in self.lines(run)
            if (line["service"], line["what"]) == (service, what) and path in (None, line["path"])
        ]
        return found

    def lateness(self, run: str) -> float:
        """By how much the slowest of the callers (all but the last) answered after its own deadline, in seconds."""
        late = []
        for service in ("edge", "shop", "stock"):
            path = {"edge": "/", "shop": "/offers", "stock": "/levels"}[service]
            wait_until(self.told(run, "answered", service), f"{service} answers")  # its caller may be gone by then
            came = self.line(run, service, "came", path)
            left_s = int(came["told"]["x-meshlib-deadline-ms"]) / 1000
            late.append(self.line(run, service, "answered", path)["at"] - came["at"] - left_s)
        return max(late)


def start(running: ExitStack, directory: Path) -> Chain:
    log = directory / "witnessed"
    log.touch()
    chain, behind, address, processes = Chain(log), "", "", {}
    running.callback(chain.close)
    for service in reversed(SERVICES):
        port = free_port()
        mesh = {
            "service": service,
            "discovery": [],
            "services": {behind: {"endpoints": [address]}} if behind else {},
        }
        process = subprocess.Popen(
            [sys.executable, "-m", *(word.format(port=port) for word in COMMANDS[service])],
            cwd=ROOT,
            env=environment(CHAIN_SERVICE=service, CHAIN_MESH=json.dumps(mesh), CHAIN_LOG=str(log)),
            stdout=running.enter_context((directory / f"{service}.log").open("wb")),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        running.callback(end, process)
        behind, address = service, f"127.0.0.1:{port}"
        processes[service] = process
    chain.url = f"http://{address}/"

    def answers() -> bool:
        for service, process in processes.items():
            assert process.poll() is None, (directory / f"{service}.log").read_text()
        try:
            return chain.ask("warm", **{"x-meshlib-deadline-ms": "20000"})[0].status_code == 200
        except httpx.ConnectError:
            return False

    wait_until(answers, "it answers", timeout=30)
    return chain


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with ExitStack() as running:
        yield start(running, tmp_path_factory.mktemp("chain"))


def test_what_the_edge_is_told_reaches_every_service_and_the_deadline_shrinks(chain: Chain) -> None:
    response, _ = chain.ask("told", **{"x-meshlib-deadline-ms": "5000"})

    assert response.json() == {"edge": {"shop": {"stock": {"depot": 7}}}}
    told = [chain.line("told", service, "came")["told"] for service in SERVICES]
    left_ms = [int(each["x-meshlib-deadline-ms"]) for each in told]
    assert left_ms[0] == 5000 and left_ms == sorted(left_ms, reverse=True) and len(set(left_ms)) == 4
    assert {each["x-meshlib-criticality"] for each in told} == {"critical_plus"}
    assert {each["traceparent"].split("-")[1] for each in told} == {TRACE}
    assert {each["baggage"] for each in told} == {"tenant=acme"}


def test_every_caller_has_its_answer_by_its_deadline_when_the_last_is_slow(chain: Chain) -> None:
    lateness = []
    for n in range(5):
        response, took_s = chain.ask(f"slow-{n}", slow_s=2)
        assert response.status_code == 504
        lateness.append(max(took_s - DEADLINE_MS / 1000, chain.lateness(f"slow-{n}")))
    # The machine may be busy with other tests for a moment, but not each time.
    assert sorted(lateness)[1] < LATE_S, lateness


def test_no_call_starts_after_the_deadline(chain: Chain) -> None:
    chain.ask("fallback", slow_s=2)

    # The shop would ask the stock for what it last knew: the time is up, so it does not get that far.
    for service in ("shop", "stock"):  # the shop does not wait for the stock
        wait_until(chain.told("fallback", "answered", service), f"the {service} answers")
    came = [line for line in chain.lines("fallback") if (line["service"], line["what"]) == ("stock", "came")]
    assert [line["path"] for line in came] == ["/levels"]


def test_a_handler_nobody_waits_for_is_cancelled_if_it_is_safe(chain: Chain) -> None:
    chain.ask("safe", slow_s=20)
    wait_until(chain.told("safe", "cancelled"), "the handler is cancelled")

    came, cancelled = (chain.line("safe", "depot", what) for what in ("came", "cancelled"))
    left_s = int(came["told"]["x-meshlib-deadline-ms"]) / 1000
    assert cancelled["at"] - came["at"] < left_s + 1.0


def test_a_handler_of_a_post_finishes(chain: Chain) -> None:
    chain.ask("unsafe", "POST", slow_s=0.6)
    wait_until(chain.told("unsafe", "counted"), "the handler finishes")


def test_what_has_expired_on_its_way_is_not_begun(chain: Chain) -> None:
    response, _ = chain.ask("expired", **{"x-meshlib-deadline-ms": "0"})

    assert (response.status_code, response.headers["x-meshlib-refused"]) == (504, "expired")
    assert {line["service"] for line in chain.lines("expired")} == {"edge"}
