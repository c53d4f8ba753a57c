"""Where the time of a meshed call goes: a sampling profile, by layer.

A timer of CPU time interrupts the process, and the stack at that moment is one sample. Each goes to the innermost frame
that belongs to a layer, so that what a layer makes the standard library do is its own. A deterministic profiler would
charge for each call it sees, and so make layers of many small functions look dear.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

INTERVAL_S = 0.001

LAYERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("telemetry", ("meshlib/telemetry/", "meshlib/propagation", "opentelemetry/")),
    ("net: HTTP/1.1 parser", ("/h11/", "httptools/", "meshlib/net/http1", "meshlib/net/framing")),
    ("net: connection, pool", ("meshlib/net/", "meshlib/security/")),
    (
        "policy core: routing, balance, policy, snapshot",
        ("meshlib/policy/", "meshlib/balance/", "meshlib/routing/", "meshlib/config/", "meshlib/context"),
    ),
    ("discovery: says that a service is used", ("meshlib/discovery/", "meshlib/mesh.py")),
    ("adapter", ("meshlib/adapters/", "meshlib/")),
    ("httpx: client, request, response", ("/httpx/", "/httpcore/")),
    ("event loop, with system calls", ("/asyncio/", "/selectors.py", "/uvloop/")),
)
OTHER = "the benchmark itself"


@dataclass(frozen=True, slots=True)
class Profile:
    """Samples.

    Attributes:
        total: how many there are.
        layers: how many fell into each layer.
        functions: how many fell into each function of a layer, by layer and name.
    """

    total: int
    layers: Counter[str]
    functions: Counter[tuple[str, str]]


def sample(burst: Callable[[int], object], calls: int) -> Profile:
    """Run a burst under the sampler, in the main thread."""
    layers: Counter[str] = Counter()
    functions: Counter[tuple[str, str]] = Counter()
    known: dict[str, str | None] = {}

    def interrupted(number: int, frame: FrameType | None) -> None:
        while frame is not None:
            filename = frame.f_code.co_filename
            if filename not in known:
                known[filename] = layer_of(filename)
            layer = known[filename]
            if layer is not None:
                layers[layer] += 1
                functions[layer, frame.f_code.co_qualname] += 1
                return
            frame = frame.f_back
        layers[OTHER] += 1

    before = signal.signal(signal.SIGPROF, interrupted)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)
    try:
        burst(calls)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
    return Profile(layers.total(), layers, functions)


def layer_of(filename: str) -> str | None:
    """The layer that a source file belongs to; None for what works for whoever called it."""
    if "/benchmarks/" in filename:
        return OTHER
    for layer, marks in LAYERS:
        if any(mark in filename for mark in marks):
            return layer
    return None
