"""The two hashes of Envoy's consistent hashing: xxHash64 and Murmur2-64A, 64 bits each, little end first.

xxHash64 (Yann Collet) hashes what calls are told apart by, and endpoints. The package ``xxhash`` does it in 60 ns,
extra ``meshlib-http[hash]``; without it the same is done here, in Python, in some microseconds. Murmur2-64A (Austin
Appleby) hashes endpoints on request, with the seed of libstdc++'s ``std::hash``, which Envoy took over: its
``MURMUR_HASH_2``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from meshlib.balance.settings import HashName

__all__ = ["MURMUR_SEED", "hash_of", "murmur2", "xxh64", "xxh64_in_python"]

MURMUR_SEED = 0xC70F6907
_MASK = 0xFFFFFFFFFFFFFFFF
_P1 = 0x9E3779B185EBCA87
_P2 = 0xC2B2AE3D27D4EB4F
_P3 = 0x165667B19E3779F9
_P4 = 0x85EBCA77C2B2AE63
_P5 = 0x27D4EB2F165667C5
_MURMUR = 0xC6A4A7935BD1E995


@cache
def _fastest() -> Callable[[bytes, int], int]:
    """The package's function where it is installed."""
    try:
        from xxhash import xxh64_intdigest
    except ImportError:
        return xxh64_in_python
    return xxh64_intdigest


def xxh64(data: bytes, seed: int = 0) -> int:
    """xxHash64 of `data`."""
    return _fastest()(data, seed)


def xxh64_in_python(data: bytes, seed: int = 0) -> int:
    """The same without the package. Source: the specification of xxHash, ``xxhash_spec.md``."""
    length, at = len(data), 0
    if length >= 32:
        lanes = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK]
        while at <= length - 32:
            for lane in range(4):
                lanes[lane] = _round(lanes[lane], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        one, two, three, four = lanes
        value = (_rotated(one, 1) + _rotated(two, 7) + _rotated(three, 12) + _rotated(four, 18)) & _MASK
        for lane in range(4):
            value = ((value ^ _round(0, lanes[lane])) * _P1 + _P4) & _MASK
    else:
        value = (seed + _P5) & _MASK
    value = (value + length) & _MASK
    while at <= length - 8:
        value ^= _round(0, int.from_bytes(data[at : at + 8], "little"))
        value = (_rotated(value, 27) * _P1 + _P4) & _MASK
        at += 8
    if at <= length - 4:
        value ^= (int.from_bytes(data[at : at + 4], "little") * _P1) & _MASK
        value = (_rotated(value, 23) * _P2 + _P3) & _MASK
        at += 4
    for byte in data[at:]:
        value ^= (byte * _P5) & _MASK
        value = (_rotated(value, 11) * _P1) & _MASK
    value = ((value ^ (value >> 33)) * _P2) & _MASK
    value = ((value ^ (value >> 29)) * _P3) & _MASK
    return value ^ (value >> 32)


def _rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK


def _round(lane: int, word: int) -> int:
    return (_rotated((lane + word * _P2) & _MASK, 31) * _P1) & _MASK


def murmur2(data: bytes, seed: int = MURMUR_SEED) -> int:
    """Murmur2-64A of `data`. Source: libstdc++'s ``hash_bytes.cc``."""
    length = len(data)
    whole = length & ~7
    value = seed ^ ((length * _MURMUR) & _MASK)
    for at in range(0, whole, 8):
        value = ((value ^ _mixed(int.from_bytes(data[at : at + 8], "little"))) * _MURMUR) & _MASK
    if whole < length:
        value = ((value ^ int.from_bytes(data[whole:], "little")) * _MURMUR) & _MASK
    value = ((value ^ (value >> 47)) * _MURMUR) & _MASK
    return value ^ (value >> 47)


def _mixed(word: int) -> int:
    word = (word * _MURMUR) & _MASK
    return ((word ^ (word >> 47)) * _MURMUR) & _MASK


def hash_of(name: HashName) -> Callable[[bytes], int]:
    """The hash of this name, with Envoy's seed for it."""
    return murmur2 if name == "murmur2" else xxh64
