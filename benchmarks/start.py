"""What it costs to import the package and to make the first call: a new interpreter for each, one after the other."""

from __future__ import annotations

import os
import sys

from benchmarks import cpu
from benchmarks.loads import TASKS
from benchmarks.servers import Peers

_PROGRAMS = {
    "nothing": "pass",
    "import meshlib": "import meshlib",
    "import httpx": "import httpx",
    "first call of the mesh": """\
import meshlib
with meshlib.Mesh(services={{"orders": {{"endpoints": ["127.0.0.1:{port}"]}}}}) as mesh:
    assert mesh.client("orders").get("{path}").status_code == 200
""",
    "first call of httpx": """\
import httpx
with httpx.Client() as client:
    assert client.get("http://127.0.0.1:{port}{path}").status_code == 200
""",
}


def measure(names: set[str], peers: Peers, rounds: int) -> dict[str, list[float]]:
    """CPU microseconds of each program beyond those of an interpreter that does nothing, one for each round."""
    port = peers.ports[0] if peers.ports else 0
    programs = {
        name: [sys.executable, "-c", text.format(port=port, path=TASKS.path)]
        for name, text in _PROGRAMS.items()
        if name in names or name == "nothing"
    }
    # Modules are compiled once and kept, as where they are installed, whatever the environment of this run says.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    for argv in programs.values():
        cpu.of_run(argv, environment)  # compiles what was not compiled
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, argv in programs.items():
            samples[name].append(cpu.of_run(argv, environment) * 1e6)
    nothing = sorted(samples.pop("nothing"))[rounds // 2]
    return {name: [max(0.0, each - nothing) for each in values] for name, values in samples.items()}
