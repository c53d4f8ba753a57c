"""Which changes of files have a configuration read again, and which only look like one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from meshlib.config.choose import reader_of
from meshlib.config.file_watch import SOON_S, FileWatch, Signature, searched, signature
from meshlib.errors import ConfigError

NEVER = float("inf")


class Files:
    """Files by name, each with a number that a change makes another, and what reading them gives."""

    def __init__(self, *names: str) -> None:
        self.there: dict[str, int] = dict.fromkeys(names, 0)
        self.seen = set(names)
        self.wrong = False
        self.read = 0
        self.meanwhile: Callable[[], None] = lambda: None
        self.watch = FileWatch(names, self.reread, look=self.look)

    def look(self, paths: Iterable[str]) -> Signature:
        return {path: (self.there[path],) if path in self.there else None for path in paths}

    def reread(self, seen: set[str]) -> None:
        self.read += 1
        self.meanwhile()
        seen |= self.seen
        if self.wrong:
            raise ConfigError("it is wrong")

    def looks(self, times: int) -> list[tuple[float, bool]]:
        found = [self.watch.look() for _ in range(times)]
        return [(wait_s, refused is not None) for wait_s, refused in found]


def test_what_does_not_change_is_read_no_more() -> None:
    files = Files("a", "b")
    assert files.looks(5) == [(NEVER, False)] * 5
    assert files.read == 0


def test_a_change_is_read_once_it_has_stood_still_for_a_look() -> None:
    files = Files("a")
    for _ in range(4):
        files.there["a"] += 1
        assert files.looks(1) == [(SOON_S, False)]
    assert files.read == 0
    assert files.looks(3) == [(NEVER, False)] * 3
    assert files.read == 1


def test_what_changes_back_before_it_was_read_is_no_change() -> None:
    files = Files("a")
    files.there["a"] = 1
    files.looks(1)
    files.there["a"] = 0
    assert files.looks(2) == [(NEVER, False)] * 2
    assert files.read == 0


def test_what_changes_while_it_is_read_is_read_again() -> None:
    files = Files("a")
    files.there["a"] = 1
    files.meanwhile = lambda: files.there.update(a=2)
    files.looks(2)
    assert files.read == 1
    assert files.looks(2) == [(SOON_S, False), (NEVER, False)]
    assert files.read == 2


def test_what_is_wrong_is_refused_if_it_still_is_at_the_next_look_and_then_not_read_until_it_changes() -> None:
    files = Files("a")
    files.wrong = True
    files.there["a"] = 1
    assert files.looks(5) == [(SOON_S, False), (NEVER, False), (NEVER, True), (NEVER, False), (NEVER, False)]
    assert files.read == 2
    files.there["a"] = 2
    files.wrong = False
    assert files.looks(2) == [(SOON_S, False), (NEVER, False)]
    assert files.read == 3


def test_what_is_half_written_at_one_look_is_never_told_of() -> None:
    files = Files("a")
    files.wrong = True
    files.there["a"] = 1
    files.looks(2)
    files.wrong = False
    files.there["a"] = 2
    assert files.looks(3) == [(SOON_S, False), (NEVER, False), (NEVER, False)]


def test_a_file_that_goes_is_a_change_and_so_is_its_return() -> None:
    files = Files("a")
    del files.there["a"]
    files.wrong = True
    assert [refused for _, refused in files.looks(3)] == [False, False, True]
    files.there["a"] = 0
    files.wrong = False
    files.looks(2)
    assert files.read == 3


def test_what_is_included_since_is_followed_and_what_no_longer_is_is_not() -> None:
    files = Files("a", "b")
    files.there |= {"a": 1, "c": 0}
    files.seen = {"a", "c"}
    files.looks(2)
    files.there["b"] = 1
    assert files.looks(1) == [(NEVER, False)]
    files.there["c"] = 1
    assert files.looks(1) == [(SOON_S, False)]


def test_a_wrong_file_that_was_not_there_before_can_be_mended() -> None:
    files = Files("a")
    files.there |= {"a": 1, "c": 0}
    files.seen = {"a", "c"}
    files.wrong = True
    files.looks(3)
    files.there["c"] = 1
    files.wrong = False
    files.looks(2)
    assert files.read == 3


def test_somebody_else_may_have_read_the_files() -> None:
    files = Files("a")
    files.there["a"] = 1
    files.watch.settle({"a"})
    assert files.looks(2) == [(NEVER, False)] * 2
    assert files.read == 0


# With real files


def followed(*paths: Path) -> Callable[[], bool]:
    """Whether what the system keeps of these has changed since the last time."""
    last = signature(map(os.fspath, paths))

    def changed() -> bool:
        nonlocal last
        now = signature(map(os.fspath, paths))
        was, last = last, now
        return now != was

    return changed


def test_a_file_that_another_is_renamed_over_has_changed(tmp_path: Path) -> None:
    file, other = tmp_path / "mesh.yaml", tmp_path / ".mesh.yaml.swp"
    file.write_text("a: 1")
    changed = followed(file)
    other.write_text("a: 2")
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    assert not changed()
    other.rename(file)
    assert changed()


def test_a_config_map_has_changed_when_the_link_above_its_files_is_another(tmp_path: Path) -> None:
    """As the kubelet writes it: AtomicWriter in ``pkg/volume/util/atomic_writer.go``."""
    for name in ("..2026_11_22_10", "..2026_11_22_11"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mesh.yaml").write_text("a: 1")
    (tmp_path / "..data").symlink_to("..2026_11_22_10")
    (tmp_path / "mesh.yaml").symlink_to("..data/mesh.yaml")
    changed = followed(tmp_path / "mesh.yaml")
    (tmp_path / "..data_tmp").symlink_to("..2026_11_22_11")
    assert not changed()
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert changed()


def seen_of(file: Path) -> set[str]:
    seen: set[str] = set()
    try:
        reader_of(os.fspath(file), {})(seen)
    except ConfigError:
        pass
    return seen


def test_all_that_a_configuration_is_read_from_is_seen(tmp_path: Path) -> None:
    (tmp_path / "mesh.d").mkdir()
    (tmp_path / "whole").mkdir()
    (tmp_path / "mesh.yaml").write_text("include: ['mesh.d/*.yaml', whole, one.yaml, 'deep/**/*.yaml']")
    (tmp_path / "mesh.d" / "a.yaml").write_text("services: {a: {}}")
    (tmp_path / "whole" / "b.yaml").write_text("services: {b: {}}")
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "c.yaml").write_text("services: {c: {}}")
    (tmp_path / "one.yaml").write_text("service: {nothing of that kind}")
    names = {os.path.relpath(path, tmp_path) for path in seen_of(tmp_path / "mesh.yaml")}
    assert names == {
        *("mesh.yaml", "mesh.d", "mesh.d/a.yaml", "whole", "whole/b.yaml"),
        *("deep", "deep/er", "deep/er/c.yaml", "one.yaml"),
    }


def test_a_file_that_is_missing_is_seen_to_be(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("include: [other.yaml]")
    changed = followed(*map(Path, seen_of(tmp_path / "mesh.yaml")))
    (tmp_path / "other.yaml").write_text("services: {}")
    assert changed()


def test_a_new_file_in_a_searched_directory_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "mesh.d").mkdir()
    (tmp_path / "mesh.yaml").write_text("include: ['mesh.d/*.yaml']")
    changed = followed(*map(Path, seen_of(tmp_path / "mesh.yaml")))
    (tmp_path / "mesh.d" / "new.yaml").write_text("services: {}")
    assert changed()


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("*.yaml", {"."}), ("a/*.yaml", {"a"}), ("*/x.yaml", {".", "a", "a/b"}), ("a/**", {"a"}), ("none/*", {"none"})],
)
def test_the_directories_that_a_glob_is_looked_for_in(tmp_path: Path, pattern: str, found: set[str]) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    assert {os.path.relpath(each, tmp_path) for each in searched(os.fspath(tmp_path), pattern)} == found
    assert set(searched("/nowhere", os.path.join(tmp_path, "a", "*.yaml"))) == {os.path.join(tmp_path, "a")}


def test_a_look_costs_one_call_of_the_system_for_each_path(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path: (asked.append(path), real("/"))[1])
    paths = [f"/{number}" for number in range(5000)]
    watch = FileWatch(paths, lambda seen: None)
    asked.clear()
    watch.look()
    assert len(asked) == 5000


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mesh.yaml").write_text("service: shop")
    monkeypatch.chdir(tmp_path)
    read = reader_of("mesh.yaml", {})
    monkeypatch.chdir("/")
    assert read(set()).service == "shop"
