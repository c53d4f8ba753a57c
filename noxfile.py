"""The development sessions. `python3 dev.py SESSION` runs them from a bare checkout.

nox -s demo       the demo, with its own options after `--`
nox -s tests      the test suite on the Python that runs nox; with `tests-3.12` and so on, on another
nox -s envoy      side by side with a real Envoy, over more generated configurations than the test suite has
nox -s soak       a million calls to servers that go wrong now and then, and callers that do to a service
nox -s lint       ruff
nox -s types      mypy --strict, and pyright on what users write
nox -s bench      the benchmarks; with `-- --all`, all there are
nox -s fuzz       bytes of peers that break the parsers of HTTP/1.1, or, with `-- config`, configurations
nox -s docs       the documentation, warnings as errors
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "virtualenv"  # with pip in it, which fetches Envoy; uv fills it, where there is one
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).resolve().parent
OLDEST = 11
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PRIMARY = f"3.{sys.version_info.minor}"
PURE = (
    "tests/balance",
    "tests/policy",
    "tests/routing",
    "tests/sim",
    "tests/config/dialects",
    "tests/config/test_traffic_docs.py",
    "tests/test_architecture.py",
)
"""What is tested on the primary Python alone, unless somebody asks for it."""
WHOLE = ("tests/cli", "tests/config", "tests/integration", "tests/telemetry", "tests/testing")
"""What is tested as a whole on the primary and on the newest Python: those between are given its parts alone."""


def _pythons() -> list[str]:
    """Each Python 3.N from 3.11 on that the machine has and that runs; the one that runs nox comes last.

    Pyenv keeps its versions off PATH, and puts stand-ins there that fail for versions which are not switched on. So
    each candidate is started once, and the directory of what works is put in front for nox to find.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    directories = [Path(entry) for entry in os.environ.get("PATH", os.defpath).split(os.pathsep) if entry]
    directories += sorted(pyenv.glob("3.*/bin"), reverse=True)
    found: dict[int, Path] = {}
    for directory in directories:
        for candidate in directory.glob("python3.[1-9][0-9]"):
            minor = int(candidate.name.partition(".")[2])
            if minor >= OLDEST and minor != sys.version_info.minor and minor not in found and _runs(candidate, minor):
                found[minor] = directory
    primary = Path(getattr(sys, "_base_executable", sys.executable)).parent
    for directory in dict.fromkeys([*found.values(), primary]):
        os.environ["PATH"] = f"{directory}{os.pathsep}{os.environ['PATH']}"
    return [f"3.{minor}" for minor in sorted(found)] + [PRIMARY]


def _runs(python: Path, minor: int) -> bool:
    code = "import sys, ssl, sqlite3, ctypes; print(sys.version_info.minor, sys.version_info.releaselevel)"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    except OSError:
        return False
    return done.stdout.split() == [str(minor), "final"]


def _fill_by_uv(session: nox.Session, *wanted: str) -> bool:
    """Installs in a tenth of pip's time; False where there is no uv, or none that finds what pip finds."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if (uv := shutil.which("uv", path=path)) is None:
        return False
    # It reads no settings of pip's.
    told = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    index = re.search(r"""^\S+\.index-url=['"](.+)['"]$""", told.stdout, re.M)
    python = shutil.which("python", path=session.bin) or sys.executable
    command = [uv, "pip", "install", "--quiet", "--python", python, *wanted]
    try:
        session.run_install(*command, external=True, env={"UV_DEFAULT_INDEX": index[1]} if index else {})
    except nox.command.CommandFailed:
        session.log("uv could not: pip does it")
        return False
    return True


def _install(session: nox.Session, group: str, *, project: bool = True, extras: str = "") -> bool:
    """Installs a group of tools, and the project beside them; False if the environment has just these already."""
    wanted = nox.project.dependency_groups(PROJECT, group)
    # The group itself may ask for extras of this project: those are installed from the checkout too.
    own = [requirement for requirement in wanted if requirement.startswith("meshlib-http")]
    others = [requirement for requirement in wanted if requirement not in own]
    names = [extras, *(match[1] for name in own if (match := re.search(r"\[(.*)\]", name)))]
    joined = ",".join(name for name in names if name)
    state = "\n".join([(ROOT / "pyproject.toml").read_text(), sys.version, str(ROOT), group, joined])
    digest = hashlib.sha256(state.encode()).hexdigest()
    stamp = Path(session.virtualenv.location) / "meshlib-stamp"
    if stamp.exists() and stamp.read_text() == digest:
        session.log("the environment is up to date")
        return False
    target = ["--editable", f".[{joined}]" if joined else "."] if project else []
    if not _fill_by_uv(session, *target, *others):
        session.install("--quiet", *target, *others)
    stamp.write_text(digest)
    return True


PYTHONS = _pythons()
NEWEST = max(PYTHONS, key=lambda python: int(python.partition(".")[2]))


@nox.session
def demo(session: nox.Session) -> None:
    """Runs the demo: `nox -s demo -- --consul`."""
    _install(session, "demo", extras="httpx2")
    session.run("meshlib", "demo", *session.posargs)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Runs the test suite, with pytest's options after `--`.

    The Python that runs nox gets every test. The others leave out what does not depend on the Python: tests marked
    `peer` and `slow`, which hold how the mesh behaves towards real servers and over time, those of the core, which does
    no I/O, and most examples of properties; `-m` chooses for oneself. Pythons between the primary and the newest
    leave out how the parts go together, too.
    """
    session.env["PYTHONDONTWRITEBYTECODE"] = ""  # hundreds of processes import the package
    left_out = () if session.python == PRIMARY else PURE if session.python == NEWEST else (*PURE, *WHOLE)
    ignored = [f"--ignore={path}" for path in left_out]
    # The types are the same on each.
    if _install(session, "types" if session.python == PRIMARY else "test"):
        # So that the tests are compiled once, while other environments are made, and not by each worker for itself.
        collect = ["--collect-only", "-qq", *ignored]
        session.run_install("python", "-m", "pytest", *collect, silent=True, success_codes=range(6))
    options = list(session.posargs)
    if not any(re.match(r"-n|--numprocesses|--dist|--pdb|-p", option) for option in options):
        # Of three tests on two cores one waits, for a server or for time.
        options = ["-n", "3", "--dist", "loadgroup", *options]
    codes = [0]
    if session.python == PRIMARY:
        if not session.posargs:
            # Before the tests, so that no test's time limit counts the download. What is missing the tests report.
            session.run("python", "tests/peers/fetch.py", success_codes=[0, 1])
    elif not any(option.startswith("-m") for option in options):
        options += ["-m", "not peer and not slow", *ignored, "--hypothesis-profile", "few"]
        codes.append(5)  # nothing was left to run
    session.run("python", "-m", "pytest", *options, success_codes=codes)


@nox.session
def envoy(session: nox.Session) -> None:
    """Compares the mesh with a real Envoy: `nox -s envoy -- 20`, so many rounds; then pytest's options."""
    _install(session, "test")
    rounds, *options = session.posargs or ["20"]
    session.run("python", "tests/peers/fetch.py", success_codes=[0, 1])
    session.run("python", "-m", "pytest", "tests/envoy", *options, env={"MESHLIB_ENVOY_ROUNDS": rounds})


@nox.session
def soak(session: nox.Session) -> None:
    """Makes a million calls to servers that go wrong, and has callers that go wrong call a service: is anything lost?

    It looks for what grows, too. `nox -s soak -- callee --calls 50000` runs one side, for so long.
    """
    _install(session, "test")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Checks style and layout; `nox -s lint -- --fix` mends what can be mended."""
    _install(session, "lint", project=False)
    if "--fix" in session.posargs:
        session.run("ruff", "check", "--fix", ".")
        session.run("ruff", "format", ".")
    else:
        session.run("ruff", "check", ".")
        session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Checks the types of the package and of the typing tests; these by pyright as well. What follows is mypy's."""
    _install(session, "types")
    session.run("mypy", "--strict", *(session.posargs or ["src", "tests/typing"]))
    session.run("pyright", env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})  # it would ask for newer versions of itself


@nox.session
def bench(session: nox.Session) -> None:
    """Runs the benchmarks side by side: `nox -s bench -- --help`."""
    _install(session, "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Looks for a minute for bytes that break the parsers: `nox -s fuzz -- -max_total_time=3600`, libFuzzer's options.

    `nox -s fuzz -- config` looks for configurations, and documents of other meshes, that break the loader. What it
    finds is written to a file, which as an argument is run again. The corpus grows in `.cache/fuzz`.
    """
    try:
        _install(session, "fuzz")
    except nox.command.CommandFailed:
        session.skip(f"atheris cannot be installed on Python {PRIMARY}: it has wheels for Linux, 3.11 to 3.13")
    options = [option for option in session.posargs if option != "config"]
    subject = "config" if "config" in session.posargs else "net"
    corpus = ROOT / ".cache" / "fuzz" / ("config" if subject == "config" else "http1")
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(option.startswith("-max_total_time") for option in options):
        options = ["-max_total_time=60", *options]
    if all(option.startswith("-") for option in options):
        options = [
            str(corpus),
            *([f"-dict={ROOT / 'tests/net/fuzz/http1.dict'}"] if subject == "net" else []),
            "-max_len=4096",
            f"-artifact_prefix={corpus.parent}/",
            *options,
        ]
    session.run("python", "-m", f"tests.{subject}.fuzz.harness", *options, env={"PYTHONPATH": str(ROOT)})


@nox.session
def docs(session: nox.Session) -> None:
    """Builds the documentation into docs/_build/html."""
    _install(session, "docs", extras="django,flask,httpx2,requests,aiohttp")  # what the API pages import
    session.run("sphinx-build", "-q", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html", *session.posargs)
