"""The embedded registry between processes: who comes is seen, who goes is missed, however it goes."""

from __future__ import annotations

import asyncio
import errno
import http.server
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.config.settings import LocalSettings
from meshlib.discovery import local
from meshlib.discovery import local_files as files
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.local import LocalRegistry
from meshlib.discovery.source import Instance
from meshlib.discovery.watch import Directory
from meshlib.errors import RegistrationFailed
from tests.discovery.support import Published, until

ROOT = Path(__file__).resolve().parents[2]


def instance(port: int, *, service: str = "orders", **rest: Any) -> Instance:
    return Instance(service, "127.0.0.1", port, rest.pop("instance_id", f"{service}-{port}"), **rest)


@pytest.fixture
def registry(directory: Path, control: ControlPlane) -> Iterator[LocalRegistry]:
    made = LocalRegistry(LocalSettings(str(directory), poll_interval_s=0.02))
    yield made
    control.run_sync(made.aclose, 5)


@pytest.fixture
def published(registry: LocalRegistry, control: ControlPlane) -> Published:
    seen = Published()
    directory = Directory([registry], control, seen, on_event=seen.event, empty_hold_s=0.0)
    directory.use("orders")
    return seen


@contextmanager
def registering(directory: Path, port: int, mode: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that has entered itself under `port`; see `local_process`."""
    process = spawn(directory, port, mode)
    try:
        assert next_line(process) == "entered"
        yield process
    finally:
        end(process)


def spawn(directory: Path, port: int, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.discovery.local_process", str(directory), str(port), mode]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_service_that_nobody_entered_is_unknown(published: Published) -> None:
    until(lambda: published.state("orders") == "unknown")


def test_an_instance_comes_with_all_it_says_of_itself_and_goes(
    registry: LocalRegistry, control: ControlPlane, published: Published
) -> None:
    made = instance(8000, weight=2.5, metadata={"version": "v2", "region": "eu", "zone": "eu-1"})
    control.run_sync(lambda: registry.register(made), 5)
    until(lambda: published.state("orders") == "ok")
    resolution = published.now["orders"]
    assert resolution is not None
    assert resolution.endpoints == (
        Endpoint("127.0.0.1", 8000, 2.5, "orders-8000", Locality("eu", "eu-1"), made.metadata, Health.HEALTHY),
    )
    control.run_sync(lambda: registry.deregister(made), 5)
    until(lambda: published.state("orders") == "unknown")
    control.run_sync(lambda: registry.deregister(made), 5)


def test_a_killed_process_disappears_by_itself(directory: Path, published: Published) -> None:
    with registering(directory, 8001) as process:
        until(lambda: published.ports("orders") == [8001])
        with registering(directory, 8002):
            until(lambda: published.ports("orders") == [8001, 8002])
            process.send_signal(signal.SIGKILL)
            until(lambda: published.ports("orders") == [8002])
    until(lambda: published.state("orders") == "unknown")


def test_a_stopped_process_is_still_there(directory: Path, published: Published) -> None:
    with registering(directory, 8001) as process:
        until(lambda: published.ports("orders") == [8001])
        process.send_signal(signal.SIGSTOP)
        with registering(directory, 8002):
            until(lambda: published.ports("orders") == [8001, 8002])


def test_a_process_that_was_forked_from_a_registered_one_does_not_stand_in_for_it(
    directory: Path, published: Published
) -> None:
    with registering(directory, 8001, "fork") as process:
        child = int(next_line(process))
        try:
            until(lambda: published.ports("orders") == [8001])
            process.kill()
            until(lambda: published.state("orders") == "unknown")
            os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.slow
def test_twenty_processes_write_at_once_and_none_is_lost(directory: Path, published: Published) -> None:
    processes = [spawn(directory, port, "churn") for port in range(7000, 7020)]
    try:
        for process in processes:
            assert [next_line(process), next_line(process)] == ["entered", "done"]
        until(lambda: published.ports("orders") == list(range(7000, 7020)))
    finally:
        for process in processes:
            end(process)
    until(lambda: published.state("orders") == "unknown")
    folder = Path(files.folder_of(str(directory / "v1"), "orders"))
    assert not folder.exists() or not [path for path in folder.iterdir() if path.suffix == ".json"]


def test_an_entry_that_is_replaced_all_the_time_is_never_missing(
    registry: LocalRegistry, control: ControlPlane, published: Published
) -> None:
    made = instance(8000)
    control.run_sync(lambda: registry.register(made), 5)
    until(lambda: published.state("orders") == "ok")
    kept = registry._kept["orders", "orders-8000"]

    async def rewrite() -> None:
        for number in range(300):
            kept._healthy = bool(number % 2)
            kept.write()
            await asyncio.sleep(0.001)

    control.run_sync(rewrite, 20)
    until(lambda: len(published.all) > 3)
    resolutions = [each for _, each in published.all if each is not None and each.state.value != "unknown"]
    assert all(len(each.endpoints) == 1 for each in resolutions)
    assert [each for _, each in published.all[1:] if each is not None and each.state.value == "unknown"] == []


def test_of_two_entries_of_one_instance_the_newer_counts(directory: Path, registry: LocalRegistry) -> None:
    folder = files.prepare(str(directory), "orders")
    held = [
        files.enter(folder, files.Entry("orders", "one", "h", port, 1.0, {}, True, sequence, 1))
        for port, sequence in ((1, 10), (2, 20))
    ]
    scan = local._Scan(str(directory), "orders")
    scan.read_all()
    assert [each.port for each in scan.answer] == [2]  # type: ignore[union-attr]
    for each in held:
        each.remove()


def test_an_entry_that_somebody_removed_is_entered_again(
    directory: Path, registry: LocalRegistry, control: ControlPlane, published: Published
) -> None:
    control.run_sync(lambda: registry.register(instance(8000)), 5)
    until(lambda: published.state("orders") == "ok")
    shutil.rmtree(directory)
    until(lambda: published.state("orders") == "unknown")
    until(lambda: published.ports("orders") == [8000])


@pytest.mark.parametrize(
    ("number", "text"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "the disk is read-only")]
)
def test_a_disk_that_takes_nothing_refuses_the_registration_and_readers_go_on(
    directory: Path,
    registry: LocalRegistry,
    control: ControlPlane,
    published: Published,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    text: str,
) -> None:
    with registering(directory, 8001):
        until(lambda: published.ports("orders") == [8001])

        def fail(*args: object, **kwargs: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(files, "enter", fail)
        monkeypatch.setattr(os, "unlink", fail)
        with pytest.raises(RegistrationFailed, match=text) as caught:
            control.run_sync(lambda: registry.register(instance(8002)), 5)
        assert str(directory) in str(caught.value)
        assert published.ports("orders") == [8001]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system of its own needs root")
@pytest.mark.parametrize("options", ["size=16k", "ro"])
def test_a_really_full_and_a_really_read_only_disk(tmp_path: Path, control: ControlPlane, options: str) -> None:
    mounted = tmp_path / "small"
    mounted.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,{options}", "none", str(mounted)], check=False)
    if made.returncode:
        pytest.skip("this machine lets nobody mount anything")
    registry = LocalRegistry(LocalSettings(str(mounted / "registry")))
    try:
        if options != "ro":
            try:
                (mounted / "ballast").write_bytes(b"x" * 65536)
            except OSError:
                pass
        with pytest.raises(RegistrationFailed, match=r"the disk is (full|read-only)"):
            control.run_sync(lambda: registry.register(instance(8000)), 5)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_directory_that_others_can_write_to_is_unwell_not_empty(
    directory: Path, registry: LocalRegistry, control: ControlPlane
) -> None:
    directory.mkdir()
    directory.chmod(0o722)
    seen = Published()
    Directory([registry], control, seen, on_event=seen.event).use("orders")
    until(lambda: seen.state("orders") == "unwell")
    assert "can be written by others" in seen.events[0][2]
    with pytest.raises(RegistrationFailed, match="can be written by others"):
        control.run_sync(lambda: registry.register(instance(8000)), 5)


def test_garbage_is_ignored_with_one_line(
    directory: Path,
    registry: LocalRegistry,
    control: ControlPlane,
    published: Published,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = Path(files.prepare(str(directory), "orders"))
    (folder / "garbage.json").write_bytes(b"\x00{{{")
    (folder / "link.json").symlink_to("/etc/passwd")
    with caplog.at_level(logging.WARNING, "meshlib"):
        control.run_sync(lambda: registry.register(instance(8000)), 5)
        until(lambda: published.ports("orders") == [8000])
        control.run_sync(lambda: registry.register(instance(8001)), 5)
        until(lambda: published.ports("orders") == [8000, 8001])
        until(lambda: sum("ignores" in record.getMessage() for record in caplog.records) >= 2)
    assert sum("ignores" in record.getMessage() for record in caplog.records) == 2
    assert (folder / "garbage.json").exists()


@pytest.mark.parametrize(
    "made", [instance(0), instance(70000), instance(1, weight=0), instance(1, weight=float("nan"))]
)
def test_an_instance_that_cannot_be_called_is_refused(
    registry: LocalRegistry, control: ControlPlane, made: Instance
) -> None:
    with pytest.raises(RegistrationFailed, match="a port is 1 to 65535, a weight above 0"):
        control.run_sync(lambda: registry.register(made), 5)


class Checked(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(type(self).status)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


def test_an_instance_checks_itself_and_says_so(
    registry: LocalRegistry, control: ControlPlane, published: Published
) -> None:
    class Handler(Checked):
        pass

    def health() -> list[Health]:
        resolution = published.now.get("orders")
        return [each.health for each in resolution.endpoints] if resolution is not None else []

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            Handler.status = 503
            made = instance(server.server_port, check_path="/health", check_interval_s=0.05)
            control.run_sync(lambda: registry.register(made), 5)
            until(lambda: health() == [Health.UNHEALTHY])
            Handler.status = 204
            until(lambda: health() == [Health.HEALTHY])
            Handler.status = 500
            until(lambda: health() == [Health.UNHEALTHY])
        finally:
            server.shutdown()
            thread.join()


def test_a_long_directory_is_looked_at_in_turns(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_TESTS_PER_POLL", 10)
    monkeypatch.setattr(local, "_UNSETTLED_S", 0.0)
    folder = files.prepare(str(directory), "orders")
    held = [files.enter(folder, files.Entry("orders", f"i{n}", "h", n + 1, 1.0, {}, True, n, 1)) for n in range(35)]
    scan = local._Scan(str(directory), "orders")
    scan.read_all()
    assert len(scan.answer) == 35  # type: ignore[arg-type]
    tested: list[str] = []
    real = files.is_dead

    def test(path: str) -> bool:
        tested.append(path)
        return real(path)

    monkeypatch.setattr(files, "is_dead", test)
    for _ in range(4):
        before = len(tested)
        assert not scan.needs_reading()
        assert len(tested) - before <= 10
    assert len(set(tested)) == 35
    for each in held:
        each.remove()
