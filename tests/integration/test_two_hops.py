"""Storefront, orders, catalogue: real servers in processes of their own, each calling the next through its mesh."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import Mesh
from meshlib.context import Criticality, scoped
from tests.discovery.support import until
from tests.integration.processes import ROOT, environment
from tests.peers.process import accepts

Start = Callable[..., str]
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a service of `tests.integration.shop` under uvicorn or gunicorn; returns its address."""
    with ExitStack() as running:

        def run(kind: str, role: str, behind: str = "", address: str = "") -> str:
            listener = running.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
            fd = listener.fileno()
            server = {
                "fastapi": ["uvicorn", f"--fd={fd}", "--log-level=warning", "tests.integration.shop:fastapi_app"],
                "flask": [
                    "gunicorn",
                    f"--bind=fd://{fd}",
                    "--threads=4",
                    "--no-control-socket",
                    "--log-level=warning",
                    "tests.integration.shop:flask_app",
                ],
            }[kind]
            services = {behind: {"endpoints": [address]}} if behind else {}
            config = {"service": role, "discovery": [], "services": services}
            process = subprocess.Popen(
                [sys.executable, "-m", *server],
                cwd=ROOT,
                env=environment(SHOP_ROLE=role, SHOP_NEXT=behind, SHOP_MESH=json.dumps(config)),
                pass_fds=[fd],
                stdout=running.enter_context((tmp_path / f"{role}.log").open("wb")),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

            def stop() -> None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

            running.callback(stop)
            return f"127.0.0.1:{listener.getsockname()[1]}"

        yield run


def chain(start: Start, kinds: tuple[str, str, str]) -> tuple[str, str, str]:
    """The addresses of storefront, orders and catalogue, once they answer."""
    catalogue = start(kinds[2], "catalogue")
    orders = start(kinds[1], "orders", "catalogue", catalogue)
    storefront = start(kinds[0], "storefront", "orders", orders)
    for address in (catalogue, orders, storefront):
        assert accepts(int(address.rpartition(":")[2]))
        until(lambda url=f"http://{address}/told": httpx.get(url, timeout=20).status_code == 200, 20)
    return storefront, orders, catalogue


KINDS = [("fastapi", "flask", "fastapi"), ("flask", "fastapi", "flask")]


@pytest.mark.slow
@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
def test_what_the_edge_sets_is_seen_two_hops_on(start: Start, kinds: tuple[str, str, str]) -> None:
    storefront, orders, catalogue = chain(start, kinds)
    with (
        Mesh({"discovery": [], "services": {"storefront": {"endpoints": [storefront], "timeout": "60s"}}}) as mesh,
        mesh.client("storefront") as client,
    ):
        # A deadline set at the edge shrinks from hop to hop; no handler says a word about it.
        edge = scoped(lambda scope: replace(scope, criticality=Criticality.CRITICAL, baggage={"tenant": "a b"}))
        headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        with edge, meshlib.timeout("5s"):
            trail = client.get("/trail", headers=headers).json()
        assert [hop["role"] for hop in trail] == ["storefront", "orders", "catalogue"]
        left = [hop["remaining"] for hop in trail]
        assert 5 > left[0] > left[1] > left[2] > 0
        assert left[0] - left[1] > 0.015
        assert left[1] - left[2] > 0.015
        for hop in trail:
            assert hop["criticality"] == "CRITICAL"
            assert hop["baggage"] == {"tenant": "a b"}
            assert hop["baggage_headers"] == 1
            assert hop["trace"].split("-")[1] == TRACE
            assert hop["attempt"] == "1"

        # Without one each hop has what its caller's own timeouts leave.
        free = client.get("/trail").json()
        assert all(5 < hop["remaining"] <= 10 for hop in free)

        # What is expired is refused without being begun.
        before = httpx.get(f"http://{catalogue}/told").json()["served"]
        # To Envoy 0 means no limit.
        for expired in ({"x-meshlib-deadline-ms": "0"}, {"x-envoy-expected-rq-timeout-ms": "1"}):
            refused = httpx.get(f"http://{catalogue}/trail", headers=expired)
            assert refused.status_code == 504, expired
        assert httpx.get(f"http://{catalogue}/told").json()["served"] == before

        # A deadline that passes in the middle ends all hops: the edge hears of it in time, and so do those between.
        began = time.monotonic()
        # Those between have no more time than the edge, so their answer may just about come.
        with meshlib.timeout("400ms"), suppress(httpx.TimeoutException):
            assert client.get("/through", params={"seconds": 5}).status_code == 504
        assert time.monotonic() - began < 2
        own = httpx.get(f"http://{orders}/through?seconds=5", headers={"x-meshlib-deadline-ms": "200"}, timeout=10)
        assert own.status_code == 504
        assert "catalogue" in own.text or "passed while it was being served" in own.text

        # What outlives the response has no deadline: neither its own, nor the one of what it calls.
        with meshlib.timeout("2s"):
            assert client.get("/late").json() == {"begun": True}

        def told() -> list[Any]:
            answer: list[Any] = httpx.get(f"http://{storefront}/told").json()["afterwards"]
            return answer

        until(told, 10)
        ((remaining, of_the_next),) = told()
        assert remaining is None
        assert of_the_next > 2


@pytest.mark.slow
def test_traces_cross_both_hops_as_spans_of_one_tree(start: Start) -> None:
    """With an SDK at the edge, each service passes on the trace of the attempt that reached it."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from meshlib.telemetry.observer import Observer

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    storefront, *_ = chain(start, KINDS[0])
    with Mesh({"discovery": [], "services": {"storefront": {"endpoints": [storefront]}}}) as mesh:
        mesh._wiring.plane.observer = Observer(tracer_provider=provider)
        with mesh.client("storefront") as client, provider.get_tracer("test").start_as_current_span("page"):
            trail = client.get("/trail").json()
    attempt, page = exporter.get_finished_spans()
    assert attempt.parent is not None
    assert page.context is not None
    assert attempt.context is not None
    assert attempt.parent.span_id == page.context.span_id
    traces = {hop["trace"].split("-")[1] for hop in trail}
    assert traces == {f"{page.context.trace_id:032x}"}
    assert trail[0]["trace"].split("-")[2] == f"{attempt.context.span_id:016x}"
