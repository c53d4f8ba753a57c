"""What is compared with what, and the goal of each comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.loads import Load

Measure = Literal["cpu", "p99", "cpu once"]
"""CPU time per request or pick; the 99th percentile of latency; CPU time of a process that does a thing once."""


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    Attributes:
        name: for `--rows`.
        title: what the mesh is held against.
        group: rows of one group are measured in one process, in turns; its contenders share one load.
        ours, theirs: names in `contenders`, or of the group's own.
        in_flight: requests at once; 0 where that says nothing.
        goal: the greatest ratio of ours to theirs that will do; None for a figure that is only to be watched.
        needs: servers and packages, without which the row is left out.
        note: what a reader has to know.
    """

    name: str
    title: str
    group: str
    ours: str
    theirs: str
    in_flight: int
    goal: float | None
    measure: Measure = "cpu"
    needs: tuple[str, ...] = ()
    note: str = ""

    @property
    def load(self) -> Load:
        """What its contenders are asked to do."""
        kind = self.group.partition("-")[0]
        return Load(in_flight=self.in_flight or 32, threads=kind == "threads", uvloop=kind == "uvloop")


ROWS = (
    Row("aiohttp-32", "bare aiohttp", "async-32", "mesh", "aiohttp", 32, 1.0, needs=("nginx", "aiohttp")),
    Row("httpx-32", "bare httpx.AsyncClient", "async-32", "mesh", "httpx", 32, 0.10, needs=("nginx",)),
    Row("httpx-1", "bare httpx.AsyncClient", "async-1", "mesh", "httpx", 1, 0.22, needs=("nginx",)),
    Row("httpx2-32", "bare httpx2.AsyncClient", "async-32", "mesh", "httpx2", 32, 0.25, needs=("nginx", "httpx2")),
    Row("threads-16", "bare httpx.Client, 16 threads", "threads-16", "mesh", "httpx", 16, 0.40, needs=("nginx",)),
    Row(
        "requests-16",
        "bare requests, 16 threads",
        "threads-16",
        "mesh",
        "requests",
        16,
        None,
        needs=("nginx", "requests"),
    ),
    Row(
        "urllib3-16", "bare urllib3, 16 threads", "threads-16", "mesh", "urllib3", 16, None, needs=("nginx", "urllib3")
    ),
    Row(
        "by-aiohttp-32",
        "bare aiohttp, by a meshed session of aiohttp",
        "async-32",
        "mesh by aiohttp",
        "aiohttp",
        32,
        None,
        needs=("nginx", "aiohttp"),
    ),
    Row(
        "by-requests-16",
        "bare requests, by a meshed session of requests",
        "threads-16",
        "mesh by requests",
        "requests",
        16,
        None,
        needs=("nginx", "requests"),
    ),
    Row(
        "declared-32",
        "the same written by hand, by a declared call",
        "async-32",
        "mesh declared",
        "mesh by hand",
        32,
        None,
        needs=("nginx",),
        note="mesh.async_client() and pydantic",
    ),
    Row(
        "uvloop-32",
        "bare aiohttp, both on uvloop",
        "uvloop-32",
        "mesh",
        "aiohttp",
        32,
        None,
        needs=("nginx", "aiohttp", "uvloop"),
    ),
    Row(
        "envoy-32",
        "httpx through an Envoy sidecar",
        "async-32",
        "mesh",
        "envoy",
        32,
        0.08,
        needs=("nginx", "envoy"),
        note="Envoy's own CPU time is counted",
    ),
    Row(
        "handmade-32",
        "httpx + tenacity + pybreaker + OpenTelemetry",
        "traced-32",
        "mesh",
        "handmade",
        32,
        0.10,
        needs=("nginx", "pybreaker", "opentelemetry.sdk", "opentelemetry.instrumentation.httpx"),
        note="both traced and metered, every call sampled",
    ),
    Row(
        "limit-32",
        "the limit: asyncio protocol with httptools",
        "async-32",
        "mesh",
        "limit",
        32,
        4.0,
        needs=("nginx",),
        note="a stretch: it has no client API at all",
    ),
    Row(
        "core-1",
        "policy core alone against httpx on a null transport",
        "core-1",
        "core",
        "httpx",
        1,
        0.25,
        note="neither side does any I/O",
    ),
    Row(
        "client-1",
        "mesh.client() on a null wire against the same",
        "core-1",
        "mesh",
        "httpx",
        1,
        None,
        note="the core, and what the client adds to it",
    ),
    Row("pick", "a pick among 100 000 endpoints against among 10", "pick", "100000", "10", 1, 1.2),
    Row(
        "p99",
        "p99 latency at half of bare httpx's peak rate",
        "latency",
        "mesh",
        "httpx",
        0,
        0.5,
        measure="p99",
        needs=("nginx",),
    ),
    Row("import", "import meshlib against import httpx", "start", "import meshlib", "import httpx", 0, 1.0, "cpu once"),
    Row(
        "first-call",
        "from nothing to the end of the first call, against httpx",
        "start",
        "first call of the mesh",
        "first call of httpx",
        0,
        1.0,
        measure="cpu once",
        needs=("nginx",),
    ),
)
