"""Mirrors: which calls are copied to another cluster, what of the request the copy has, and how many there may be.

As Envoy's ``request_mirror_policies``: the copy is made of the request as it goes out, once per call and not once per
attempt, by one random number for all mirrors of the route (``stable_random`` in Envoy's router: of two mirrors with 5
and 10 percent the first gets calls that the second gets, too). What becomes of it is nobody's business but the
counters'. Its trace is marked as not sampled, as Istio has it; the host is left as it is, without ``-shadow``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, TypeAlias

from meshlib.routing.actions import Mirror

__all__ = ["MAX_AT_ONCE", "MAX_BYTES", "MirrorCounts", "MirrorOutcome", "MirrorRoom", "drawn", "unsampled"]

MAX_AT_ONCE: Final = 1024
"""How many copies may be under way or in line in one process."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""How many bytes of bodies they may hold together."""

HeaderList: TypeAlias = list[tuple[bytes, bytes]]

MirrorOutcome: TypeAlias = Literal["answered", "failed", "cancelled", "too_many", "body", "off"]
"""``answered``, with whatever status; ``failed`` on the way; ``cancelled`` by the end of the mesh; and of those that
were not sent: ``too_many`` at once, a ``body`` that is not in memory, a target whose service is ``off`` or observed."""


def drawn(mirrors: Sequence[Mirror], chance: float) -> tuple[Mirror, ...]:
    """Those that get a copy of a call.

    Args:
        mirrors: of its route.
        chance: a random number in [0, 1).
    """
    return tuple(mirror for mirror in mirrors if chance * 100.0 < mirror.percent)


def unsampled(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """Headers whose trace, if they have one, is marked as not sampled: W3C, B3 in both forms, or Jaeger's."""
    edited: HeaderList = []
    for name, value in headers:
        key = name.lower()
        edit = _UNSAMPLED.get(key)
        if edit is not None:
            value = edit(value)
        elif key == b"x-b3-flags":
            continue  # 1 is "debug", which is sampled whatever else is said
        edited.append((name, value))
    return edited


def _w3c(value: bytes) -> bytes:
    version, *fields = value.split(b"-")
    if len(fields) < 3 or len(fields[2]) != 2:
        return value
    try:
        flags = int(fields[2], 16) & ~1
    except ValueError:
        return value
    return b"-".join([version, *fields[:2], b"%02x" % flags, *fields[3:]])


def _b3(value: bytes) -> bytes:
    fields = value.split(b"-")
    if len(fields) < 2:
        return b"0"
    return b"-".join([*fields[:2], b"0", *fields[3:]])


def _jaeger(value: bytes) -> bytes:
    fields = value.split(b":")
    return value if len(fields) != 4 else b":".join([*fields[:3], b"0"])


_UNSAMPLED: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"traceparent": _w3c,
    b"b3": _b3,
    b"x-b3-sampled": lambda value: b"0",
    b"uber-trace-id": _jaeger,
}


class MirrorRoom:
    """How many copies there are, and how much they hold; exact, from any thread.

    Attributes:
        at_once, held: copies, and bytes of their bodies.
    """

    __slots__ = ("_lock", "_max_at_once", "_max_bytes", "at_once", "held")

    def __init__(self, max_at_once: int = MAX_AT_ONCE, max_bytes: int = MAX_BYTES) -> None:
        self._max_at_once = max_at_once
        self._max_bytes = max_bytes
        self.at_once = self.held = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Take room for one more copy, with a body of `size` bytes; False if there is none."""
        with self._lock:
            if self.at_once >= self._max_at_once or self.held + size > self._max_bytes:
                return False
            self.at_once += 1
            self.held += size
            return True

    def give(self, size: int) -> None:
        """Give it back."""
        with self._lock:
            self.at_once -= 1
            self.held -= size

    def after_fork(self) -> None:
        """In the child: the copies are the parent's."""
        self._lock = threading.Lock()
        self.at_once = self.held = 0


class MirrorCounts:
    """What became of copies, by cluster. The numbers only grow."""

    __slots__ = ("_counts", "_lock")

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()

    def add(self, cluster: str, outcome: MirrorOutcome) -> None:
        """Count one more, from any thread."""
        key: tuple[str, str] = (cluster, outcome)
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + 1

    def read(self) -> dict[tuple[str, str], int]:
        """All of them."""
        with self._lock:
            return dict(self._counts)

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()
