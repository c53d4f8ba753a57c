"""Of those that serve one port one holds its entry: who is first, who takes over, and who is last."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshlib.discovery.claim import Claim

Make = Callable[..., Claim]


@pytest.fixture
def claim(tmp_path: Path) -> Iterator[Make]:
    made = []

    def make(key: str = "orders 8000") -> Claim:
        made.append(Claim(str(tmp_path / "registry"), key))
        made[-1].prepare()
        return made[-1]

    yield make
    for each in made:
        each.leave()
        each.drop()


def test_all_that_serve_a_port_have_the_id_of_the_first(claim: Make) -> None:
    first, second = claim(), claim()
    assert first.join("a") == ("a", "")
    assert second.join("b") == ("a", "")
    assert (first.take(), second.take(), first.take()) == (True, False, True)
    assert claim("orders 8001").join("c") == ("c", "")


def test_when_the_holder_is_gone_another_takes_over(claim: Make) -> None:
    first, second = claim(), claim()
    first.join("a"), second.join("b")
    first.take()
    first.entered()
    first.leave()
    assert not first.close_if_last()
    first.drop()
    assert not first.taken_over(), "nobody has yet"
    assert second.take()
    assert not first.taken_over(), "it holds it, and has not entered"
    second.entered()
    assert first.taken_over()
    assert claim().join("c") == ("a", ""), "and the id is the same"


def test_the_last_one_keeps_others_out_until_its_entry_is_removed(claim: Make) -> None:
    last, new = claim(), claim()
    last.join("a")
    last.take()
    last.entered()
    last.leave()
    assert last.close_if_last()
    assert new.join("b") is None
    last.closed()
    assert new.join("b") == ("b", "")
    assert new.take()


def test_what_those_before_left_behind_is_known_by_its_id(claim: Make) -> None:
    killed = claim()
    killed.join("a")
    killed.take()
    killed.entered()
    killed.leave()  # as the kernel does for a process that is killed
    killed.drop()
    assert claim().join("b") == ("b", "a")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_holds_nothing(claim: Make) -> None:
    mine, other = claim(), claim()
    mine.join("a")
    mine.take()
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(ready[1], b"!" if not mine.held else b"?")
            os.read(go[0], 1)
        finally:
            os._exit(0)
    try:
        assert os.read(ready[0], 1) == b"!"
        assert not other.take()
        mine.leave()
        mine.drop()
        assert other.take(), "while the child lives"
    finally:
        os.write(go[1], b"!")
        os.waitpid(pid, 0)
        for end in (*ready, *go):
            os.close(end)


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(OSError, match="can be written by others"):
        Claim(str(tmp_path / "open"), "orders").prepare()
