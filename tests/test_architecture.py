"""Which module may import which, and what importing the package may cost.

The layers, highest first; a module imports from its own layer and from those below, never from above:

    cli console sim testing
    mesh
    adapters server
    net discovery security telemetry fleet
    config
    policy balance routing
    context errors executor propagation degradation served_request
    dataclass durations signature

Within a layer the packages may use each other as long as no circle comes of it; policy, balance and routing are free of
that, for together they are one thing, the core that decides. `meshlib/__init__.py` hands out names
from everywhere, lazily, so only the highest layer may import from it. Imports for type checkers alone
(`if TYPE_CHECKING:`) do not count; imports inside functions do.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "meshlib"

LAYERS = (
    {"cli", "console", "sim", "testing"},
    {"mesh", "wiring", "reloading", "chains", "status"},
    {"adapters", "server"},
    {"net", "discovery", "security", "telemetry", "fleet"},
    {"config"},
    {"policy", "balance", "routing"},
    {"context", "errors", "executor", "propagation", "degradation", "served_request"},
    {"dataclass", "durations", "signature", "_version"},
)
RANK = {part: rank for rank, parts in enumerate(reversed(LAYERS)) for part in parts}
TOP = len(LAYERS) - 1
ROOT = {"__init__", "__main__"}

MAX_LINES = 450

NOT_IMPORTED_EARLY = (
    *("httpx", "httpx2", "httpcore", "httpcore2", "h11", "h2", "httptools", "anyio"),
    *("pydantic", "yaml", "tenacity", "opentelemetry", "pybreaker", "consul", "requests", "aiohttp"),
    *("fastapi", "starlette", "flask", "django", "asgiref", "uvicorn", "gunicorn", "click", "rich", "pytest"),
)
"""What `import meshlib` leaves alone: every dependency, needed or optional."""

IMPURE = {
    **dict.fromkeys(("time", "sched"), "time comes in as `now`"),
    **dict.fromkeys(("random", "secrets", "uuid"), "randomness comes in as `rng`"),
    **dict.fromkeys(("socket", "ssl", "select", "selectors", "subprocess", "http", "httpx"), "the core does no I/O"),
    **dict.fromkeys(("httpx2", "httpcore", "aiohttp", "requests", "anyio", "logging"), "the core does no I/O"),
    **dict.fromkeys(("asyncio", "threading", "concurrent", "multiprocessing"), "drivers wait, the core does not"),
    **dict.fromkeys(("pydantic", "yaml", "opentelemetry"), "belongs to the edge"),
}
"""What the pure packages do not import, with the reason."""

PURE = ("policy", "balance", "routing", "context")

ALLOWED = {
    ("policy", "threading.Lock"): "counters that threads share are exact, so each has a lock",
    ("balance", "threading.Lock"): "counters that threads share are exact, so each has a lock",
    ("policy", "random.Random"): "the type of `rng`",
    ("balance", "random.Random"): "the type of `rng`",
    ("routing", "random.Random"): "the type of `rng`",
    ("context", "time.monotonic"): "a deadline is a point on this clock",
}
"""Exceptions: what a part of the package uses of an impure module, and why it may."""


@dataclass(frozen=True, slots=True)
class Import:
    """One imported name: `from module import name`, or `import module` with what is used of it as the name."""

    module: str
    name: str
    line: int


class _Imports(ast.NodeVisitor):
    """Collects the imports of a module that happen when it runs."""

    def __init__(self, package: str) -> None:
        self._package = package
        self.found: list[Import] = []
        self._modules: dict[str, tuple[str, int]] = {}  # the name a module has here -> module, line
        self._used: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        test = node.test
        name = test.id if isinstance(test, ast.Name) else test.attr if isinstance(test, ast.Attribute) else ""
        for child in node.orelse if name == "TYPE_CHECKING" else [node.test, *node.body, *node.orelse]:
            self.visit(child)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.asname:
                self._modules[alias.asname] = (alias.name, node.lineno)
            else:
                self._modules[alias.name] = (alias.name, node.lineno)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level:
            base = self._package.split(".")
            module = ".".join([*base[: len(base) - node.level + 1], *([module] if module else [])])
        self.found += [Import(module, alias.name, node.lineno) for alias in node.names]

    def visit_Attribute(self, node: ast.Attribute) -> None:
        path = _dotted(node)
        for local, (module, _) in self._modules.items():
            if path is not None and path.startswith(local + "."):
                self.found.append(Import(module, path[len(local) + 1 :].split(".")[0], node.lineno))
                self._used.add(local)
        self.generic_visit(node)

    def finish(self) -> list[Import]:
        unused = [(module, line) for local, (module, line) in self._modules.items() if local not in self._used]
        return self.found + [Import(module, "", line) for module, line in unused]


def _dotted(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr}" if base else None
    return None


def imports_of(source: str, package: str) -> list[Import]:
    """The imports in `source`, a module of `package`, that happen at run time."""
    visitor = _Imports(package)
    tree = ast.parse(source)
    # Imports first: a function may stand above the import of what it uses.
    visitor.visit(ast.Module([node for node in tree.body if isinstance(node, ast.Import)], []))
    visitor.visit(tree)
    return visitor.finish()


@cache
def modules() -> dict[Path, list[Import]]:
    """Each module of the package, by its path below it, with its imports."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        relative = path.relative_to(SOURCE)
        package = ".".join(("meshlib", *relative.parts[:-1]))
        found[relative] = imports_of(path.read_text(), package)
    return found


def part_of(path: Path) -> str:
    """The part of the package that a module belongs to: its top folder, or its own name."""
    return path.parts[0] if len(path.parts) > 1 else path.stem


def imported_part(item: Import) -> str | None:
    """The part that an import refers to; None if it is another package; `__init__` for a public name."""
    first, _, rest = item.module.partition(".")
    if first != "meshlib":
        return None
    if rest:
        return rest.partition(".")[0]
    return item.name if item.name in RANK else "__init__"


def internal_imports() -> Iterator[tuple[Path, str, str, Import]]:
    for path, items in modules().items():
        if path.name in {"__init__.py", "__main__.py"} and len(path.parts) == 1:
            continue
        for item in items:
            if target := imported_part(item):
                yield path, part_of(path), target, item


def test_each_part_of_the_package_has_a_layer() -> None:
    unknown = {part_of(path) for path in modules()} - RANK.keys() - ROOT

    assert not unknown, f"say in LAYERS where {sorted(unknown)} belong"


def test_imports_point_from_higher_layers_to_lower_ones() -> None:
    wrong = []
    for path, part, target, item in internal_imports():
        if target == "__init__":
            if RANK.get(part) != TOP:
                wrong.append(f"{path}:{item.line} imports {item.name or 'meshlib'} from meshlib: name its own module")
        elif part != target and RANK.get(part, TOP) < RANK.get(target, 0):
            wrong.append(f"{path}:{item.line} imports {item.module}: {part} lies below {target}")

    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("layer", [sorted(layer) for layer in LAYERS if "policy" not in layer], ids=" ".join)
def test_the_parts_of_a_layer_do_not_import_each_other_in_a_circle(layer: list[str]) -> None:
    needs: dict[str, set[str]] = {part: set() for part in layer}
    for _, part, target, _ in internal_imports():
        if part in needs and target in needs and part != target:
            needs[part].add(target)

    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


def test_the_core_imports_neither_clock_nor_chance_nor_io() -> None:
    wrong = []
    for path, items in modules().items():
        part = part_of(path)
        if part not in PURE:
            continue
        for item in items:
            reason = IMPURE.get(item.module.partition(".")[0])
            if reason is not None and (part, f"{item.module}.{item.name}") not in ALLOWED:
                wrong.append(f"{path}:{item.line} uses {item.module}.{item.name}: {reason}")

    assert not wrong, "\n".join(wrong)


def test_each_exception_for_the_core_is_needed() -> None:
    used = {(part_of(path), f"{item.module}.{item.name}") for path, items in modules().items() for item in items}
    present = {part_of(path) for path in modules()}

    needless = [key for key in ALLOWED if key[0] in present and key not in used and key[1] != "random.Random"]

    assert not needless


def test_no_module_is_too_long_to_read() -> None:
    lengths = {str(path): len((SOURCE / path).read_text().splitlines()) for path in modules()}

    assert {path: length for path, length in lengths.items() if length > MAX_LINES} == {}


def test_annotations_are_text_where_they_are_read_as_text() -> None:
    """Without it, a class that `meshlib.dataclass` makes would have no fields on Python 3.14, and say nothing."""
    users = [path for path, imports in modules().items() if any(each.module == "meshlib.dataclass" for each in imports)]

    assert len(users) > 50
    assert [path for path in users if "\nfrom __future__ import annotations\n" not in (SOURCE / path).read_text()] == []


@pytest.mark.parametrize("statement", ["import meshlib", "import meshlib; dir(meshlib)"])
def test_importing_the_package_imports_no_dependency(statement: str) -> None:
    code = (
        f"{statement}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    )
    # Isolated, but with the package's path: what the environment adds on start-up is not the package's doing.
    path = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r})\n"
    before = run_isolated("import json, sys\nprint(json.dumps(sorted(sys.modules)))")

    after = run_isolated(path + code)

    assert set(after) & set(NOT_IMPORTED_EARLY) - set(before) == set()


NOT_IMPORTED_BY_A_CALL = (
    *("pydantic", "pydantic_core", "yaml", "tenacity", "opentelemetry", "consul", "httpcore", "h11", "h2", "anyio"),
    *("certifi", "difflib", "xxhash", "dns", "jwt", "cryptography"),
    *("meshlib.config.model", "meshlib.config.compile", "meshlib.config.load", "meshlib.config.documents"),
    *("meshlib.net.http2", "meshlib.net.sync_http2", "meshlib.net.async_http2", "meshlib.net.http1_h11"),
    *("meshlib.adapters.plan", "meshlib.adapters.readiness", "meshlib.discovery.registration"),
    *("meshlib.routing.regex", "meshlib.routing.index", "meshlib.routing.normalize", "meshlib.config.own_hosts", "re2"),
    *("meshlib.discovery.consul", "meshlib.telemetry.otlp", "meshlib.server", "meshlib.cli", "meshlib.testing"),
)
"""What the first call of a mesh with a plain configuration leaves alone, besides what httpx itself imports: so it is as
soon done as one of bare httpx, which makes a TLS context and a pool before its own.
"""

CALL = """
import meshlib
with meshlib.Mesh(services={{"orders": {{"endpoints": ["{address}"], "timeout": "5s"}}}}) as mesh:
    assert mesh.client("orders").get("/").status_code == 204
"""
ASYNC_CALL = """
import asyncio, meshlib
async def main():
    async with meshlib.Mesh(services={{"orders": {{"endpoints": ["{address}"], "timeout": "5s"}}}}) as mesh:
        assert (await mesh.async_client("orders").get("/")).status_code == 204
asyncio.run(main())
"""


class _NoContent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.parametrize(
    ("call", "others"),
    [
        (
            CALL,
            (
                "asyncio",
                "subprocess",
                "meshlib.discovery.control_loop",
                "meshlib.net.async_engine",
                "meshlib.net.async_dial",
                "meshlib.net.async_http1",
            ),
        ),
        (ASYNC_CALL, ("meshlib.discovery.control_loop", "meshlib.net.sync_dial", "meshlib.net.sync_http1")),
    ],
    ids=["sync", "async"],
)
def test_a_first_call_imports_only_what_it_uses(call: str, others: tuple[str, ...]) -> None:
    path = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r})\n"
    show = "import json, sys\nprint(json.dumps(sorted(sys.modules)))"
    before = run_isolated(f"import httpx\n{show}")
    with ThreadingHTTPServer(("127.0.0.1", 0), _NoContent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            after = run_isolated(f"{path}{call.format(address=f'127.0.0.1:{server.server_port}')}{show}")
        finally:
            server.shutdown()
            thread.join()

    assert set(after) & {*NOT_IMPORTED_BY_A_CALL, *others} - set(before) == set()
    assert "meshlib.net.sync_engine" in after


def run_isolated(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    names = json.loads(done.stdout)
    assert isinstance(names, list)
    return names


# The reader of imports is itself a piece of code that can be wrong.


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import time\ntime.sleep(1)", {("time", "sleep")}),
        ("import time as clock\nclock.monotonic()", {("time", "monotonic")}),
        ("import random", {("random", "")}),
        ("from random import Random, choice", {("random", "Random"), ("random", "choice")}),
        ("import concurrent.futures\nconcurrent.futures.Future()", {("concurrent.futures", "Future")}),
        ("def late():\n    from meshlib.net import pool", {("meshlib.net", "pool")}),
        ("def late():\n    return time.time()\nimport time", {("time", "time")}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import ssl", {("typing", "TYPE_CHECKING")}),
        (
            "import typing\nif typing.TYPE_CHECKING:\n    import ssl\nelse:\n    import json",
            {("json", ""), ("typing", "")},
        ),
        ("from . import call", {("meshlib.policy", "call")}),
        ("from ..errors import MeshError", {("meshlib.errors", "MeshError")}),
    ],
)
def test_imports_are_read_from_source(source: str, expected: set[tuple[str, str]]) -> None:
    assert {(item.module, item.name) for item in imports_of(source, "meshlib.policy")} == expected


@pytest.mark.parametrize("package", ["policy", "balance", "routing", "net", "discovery", "telemetry", "adapters"])
def test_packages_list_their_modules(package: str) -> None:
    folder = SOURCE / package
    words = re.findall(r"\w+\*?", ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "")
    listed = {word for word in words if not word.endswith("*")}
    groups = tuple(word[:-1] for word in words if word.endswith("*"))
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    assert {name for name in modules - listed if not name.startswith(groups)} == set()
