"""The hashes are Envoy's, with and without the package, and the same in every process."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import example, given
from hypothesis import strategies as st

from meshlib.balance import hashing
from meshlib.balance.hashing import hash_of, murmur2, xxh64, xxh64_in_python

GOLDEN = json.loads((Path(__file__).parent.parent / "data" / "envoy_hash_balancers.json").read_text())


@pytest.mark.parametrize(("text", "value"), GOLDEN["xxhash"].items())
def test_xxhash_is_envoys(text: str, value: int) -> None:
    assert xxh64(text.encode()) == xxh64_in_python(text.encode()) == hash_of("xxhash")(text.encode()) == value


@pytest.mark.parametrize(("text", "value"), GOLDEN["murmur2"].items())
def test_murmur2_is_envoys(text: str, value: int) -> None:
    assert murmur2(text.encode()) == hash_of("murmur2")(text.encode()) == value


@given(st.binary(max_size=200), st.integers(0, 2**64 - 1))
@example(bytes(31), 0)
@example(bytes(32), 1)
@example(b"\xff" * 64, 2**64 - 1)
def test_both_implementations_agree(data: bytes, seed: int) -> None:
    assert xxh64_in_python(data, seed) == xxhash.xxh64_intdigest(data, seed)


def test_without_the_package_python_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "xxhash":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    hashing._fastest.cache_clear()
    try:
        assert xxh64(b"foo") == GOLDEN["xxhash"]["foo"]
        assert hashing._fastest() is xxh64_in_python
    finally:
        monkeypatch.undo()
        hashing._fastest.cache_clear()


def test_every_process_has_the_same_hashes() -> None:
    code = "from meshlib.balance.hashing import murmur2, xxh64; print(xxh64(b'user-7'), murmur2(b'user-7'))"
    seeds = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout]
    assert seeds == [f"{xxh64(b'user-7')} {murmur2(b'user-7')}\n"]
