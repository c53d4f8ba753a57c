"""Mirrors: who gets a copy, what it has of the trace, and how many there may be."""

from __future__ import annotations

import threading
from random import Random

import pytest

from meshlib.policy.mirror import MirrorCounts, MirrorRoom, drawn, unsampled
from meshlib.routing.actions import Mirror


def test_one_number_decides_for_all_mirrors_as_envoys_does() -> None:
    some, more, none, all_ = Mirror("a", None, 5.0), Mirror("b", None, 10.0), Mirror("c", None, 0.0), Mirror("d")
    rng, hits = Random(1), {"a": 0, "b": 0, "c": 0, "d": 0}
    for _ in range(20_000):
        names = [mirror.service for mirror in drawn((some, more, none, all_), rng.random())]
        assert "a" not in names or "b" in names
        for name in names:
            hits[name] += 1
    assert hits["c"] == 0
    assert hits["d"] == 20_000
    assert abs(hits["a"] - 1000) < 150
    assert abs(hits["b"] - 2000) < 200
    assert drawn((none,), 0.0) == ()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (b"traceparent", b"00-aa-bb-01", b"00-aa-bb-00"),
        (b"Traceparent", b"00-aa-bb-03", b"00-aa-bb-02"),
        (b"traceparent", b"cc-aa-bb-01-more", b"cc-aa-bb-00-more"),
        (b"traceparent", b"nonsense", b"nonsense"),
        (b"traceparent", b"00-aa-bb-zz", b"00-aa-bb-zz"),
        (b"b3", b"aa-bb-1", b"aa-bb-0"),
        (b"b3", b"aa-bb-d-cc", b"aa-bb-0-cc"),
        (b"b3", b"1", b"0"),
        (b"X-B3-Sampled", b"1", b"0"),
        (b"uber-trace-id", b"aa:bb:0:1", b"aa:bb:0:0"),
        (b"uber-trace-id", b"aa", b"aa"),
        (b"x-other", b"00-aa-bb-01", b"00-aa-bb-01"),
    ],
)
def test_the_trace_of_a_copy_is_not_sampled(name: bytes, value: bytes, expected: bytes) -> None:
    assert unsampled([(name, value), (b"x-b3-flags", b"1")]) == [(name, expected)]


def test_room_is_bounded_in_number_and_in_bytes_and_comes_back() -> None:
    room = MirrorRoom(max_at_once=2, max_bytes=100)
    assert not room.take(101)
    assert room.take(60)
    assert not room.take(41)
    assert room.take(40)
    assert not room.take(0)
    room.give(60)
    assert room.take(0)
    room.give(40)
    room.give(0)
    assert (room.at_once, room.held) == (0, 0)


def test_counts_and_room_are_exact_among_threads() -> None:
    room, counts = MirrorRoom(10**6, 10**9), MirrorCounts()

    def work() -> None:
        for _ in range(2000):
            assert room.take(3)
            counts.add("a", "answered")
            room.give(3)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (room.at_once, room.held) == (0, 0)
    assert counts.read() == {("a", "answered"): 8000}
