"""The files of the embedded registry: alive while locked, never half written, nobody else's."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from meshlib.discovery import local_files as files
from tests.discovery.support import until


def entry(name: str = "orders-1", *, service: str = "orders", sequence: int = 1) -> files.Entry:
    return files.Entry(service, name, "127.0.0.1", 8000, 1.0, {"version": "v1"}, True, sequence, os.getpid())


def enter(directory: Path, made: files.Entry) -> files.Held:
    return files.enter(files.prepare(str(directory), made.service), made)


def test_an_entry_is_read_as_it_was_written_while_its_owner_holds_it(directory: Path) -> None:
    held = enter(directory, entry())
    assert files.read(held.path) == entry()
    assert held.exists()
    assert not files.is_dead(held.path)
    held.remove()
    assert files.read(held.path) is None
    assert not held.exists()


def test_everything_is_for_its_owner_alone(directory: Path) -> None:
    before = os.umask(0)
    try:
        held = enter(directory, entry())
    finally:
        os.umask(before)
    folder = Path(held.path).parent
    for path, mode in ((Path(held.path), 0o600), (folder, 0o700), (folder.parent, 0o700), (directory, 0o700)):
        assert path.stat().st_mode & 0o777 == mode
    held.remove()


def test_an_entry_whose_owner_has_died_is_dead_and_is_removed_by_whoever_reads_it(directory: Path) -> None:
    script = (
        "import sys, time; sys.path[:0] = sys.argv[2:]\n"
        "from tests.discovery.test_local_files import *\n"
        "print(enter(Path(sys.argv[1]), entry()).path, flush=True); time.sleep(60)"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script, str(directory), str(root), str(root / "src")], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        path = child.stdout.readline().strip()
        try:
            assert files.read(path) is not None
        finally:
            child.kill()
    assert files.read(path) is None
    assert not os.path.exists(path)


def test_many_readers_at_once_do_not_take_each_other_for_the_owner(directory: Path) -> None:
    folder = Path(files.prepare(str(directory), "orders"))
    for _ in range(30):
        held = enter(directory, entry())
        files.close_own(held.descriptor)
        barrier = threading.Barrier(8)
        found: list[object] = []

        def read(path: str = held.path, barrier: threading.Barrier = barrier, found: list[object] = found) -> None:
            barrier.wait()
            found.append(files.read(path))

        threads = [threading.Thread(target=read) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [None] * 8
    assert list(folder.iterdir()) == []


def test_the_last_to_leave_removes_the_folder_of_the_service(directory: Path) -> None:
    one, two = enter(directory, entry("a")), enter(directory, entry("b"))
    one.remove()
    assert Path(two.path).parent.exists()
    two.remove()
    assert not Path(two.path).parent.exists()


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "..", ".", "/etc/passwd", "a/b", "a\0b", "", "~root", "ä" * 300, "x" * 5000, "\udc80", "%2e"],
)
def test_hostile_names_stay_inside_the_directory_and_apart(directory: Path, name: str) -> None:
    held = enter(directory, entry(name, service=name))
    other = enter(directory, entry("plain", service="plain"))
    path = Path(held.path)
    assert path.parent.parent == directory / "v1"
    assert path.resolve() == path.absolute()
    assert path.parent != Path(other.path).parent
    read = files.read(held.path)
    assert read is not None
    assert (read.service, read.instance_id) == (name, name)
    held.remove()
    other.remove()


def test_different_names_never_share_a_folder() -> None:
    names = ["", "%", ".a", "%2Ea", "a", "A", "a.", "a/b", "a%2Fb", "x" * 300, "x" * 301, "..", "%2E%2E"]
    assert len({files.folder_of("/r", name) for name in names}) == len(names)


def test_a_directory_that_others_can_write_to_is_refused(directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(files.RegistryUnusable, match=r"can be written by others \(mode 777\)"):
        files.root_of(str(directory))
    with pytest.raises(files.RegistryUnusable, match="chmod go-w"):
        files.prepare(str(directory), "orders")
    assert list(directory.iterdir()) == []


def test_a_directory_of_another_user_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.prepare(str(directory), "orders")
    real = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: real + 1)
    with pytest.raises(files.RegistryUnusable, match=f"belongs to user {real}"):
        files.root_of(str(directory))


def test_a_symbolic_link_in_the_place_of_the_directory_is_refused(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(files.RegistryUnusable, match="symbolic link"):
        files.prepare(str(directory), "orders")


def test_a_file_in_the_place_of_the_directory_is_refused(directory: Path) -> None:
    directory.write_text("")
    with pytest.raises(files.RegistryUnusable, match="not a directory"):
        files.root_of(str(directory))


def test_a_directory_that_is_not_there_is_no_error(directory: Path) -> None:
    assert files.root_of(str(directory)) is None


HELD = {
    "service": "orders",
    "instance_id": "a",
    "host": "h",
    "port": 1,
    "weight": 1,
    "metadata": {},
    "healthy": True,
    "sequence": 1,
    "pid": 1,
}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"{}",
        b"[" * 60_000,
        json.dumps({"service": "orders", "instance_id": "a", "host": "h", "port": 0}).encode(),
        json.dumps(
            {"service": "orders", "instance_id": "a", "host": "h", "port": 1, "weight": -1, "metadata": {}} | {"pid": 1}
        ).encode(),
        b"x" * (files._MAX_ENTRY_BYTES + 1),
        json.dumps(HELD | {"host": "a\r\nevil"}).encode(),
        json.dumps(HELD | {"weight": 10**400}).encode(),
        json.dumps(HELD | {"weight": float("nan")}).encode(),
    ],
)
def test_garbage_that_somebody_holds_is_no_entry(directory: Path, body: bytes) -> None:
    held = enter(directory, entry())
    with open(held.path, "r+b") as file:
        file.truncate()
        file.write(body)
    with pytest.raises((ValueError, RecursionError)):
        files.read(held.path)
    assert held.exists()
    held.remove()


def test_foreign_files_are_neither_entries_nor_removed(directory: Path, tmp_path: Path) -> None:
    folder = Path(files.prepare(str(directory), "orders"))
    (folder / "notes.json").write_text("{}")
    (folder / "directory.json").mkdir()
    (folder / "link.json").symlink_to(tmp_path / "target")
    os.mkfifo(folder / "pipe.json")
    for name in sorted(files.names(str(folder))):
        with pytest.raises((ValueError, OSError)):
            files.read(str(folder / name))
    assert len(list(folder.iterdir())) == 4


def test_what_a_killed_writer_left_is_swept_but_not_while_it_may_still_be_written(directory: Path) -> None:
    folder = Path(files.prepare(str(directory), "orders"))
    young, old = folder / ".new-aaaa", folder / ".new-bbbb"
    young.write_text("{")
    old.write_text("{")
    os.utime(old, (1, 1))
    assert list(files.names(str(folder))) == []
    assert young.exists()
    assert not old.exists()


@pytest.mark.parametrize("failing", ["write", "rename"])
def test_a_full_disk_leaves_nothing_behind(directory: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = Path(files.prepare(str(directory), "orders"))
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        files.enter(str(folder), entry())
    monkeypatch.undo()
    assert list(folder.iterdir()) == []
    assert not files._locked


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_keep_its_parents_entry_alive(directory: Path) -> None:
    held = enter(directory, entry())
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        os.read(reading, 1)  # lives on until the parent lets it go
        os._exit(0)
    os.close(reading)
    try:
        assert not files.is_dead(held.path)
        files.close_own(held.descriptor)  # as the kernel does when the parent dies
        until(lambda: files.is_dead(held.path), what="the child lets go as soon as it runs")
    finally:
        os.close(writing)
        os.waitpid(pid, 0)


def test_the_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MESHLIB_LOCAL_DIR", "/given")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    assert files.default_directory() == "/given"
    monkeypatch.delenv("MESHLIB_LOCAL_DIR")
    assert files.default_directory() == "/run/user/1/meshlib"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert files.default_directory().endswith(f"meshlib-{os.getuid()}")
