"""Where balancers leave word of whom they want probed: a pick does not wait for that, and does none of it itself.

Whoever does (`meshlib.discovery.load_probes`) is woken once, takes what there is, and goes on looking for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.balance.balancer import Member
    from meshlib.balance.probe_pool import ProbePool

__all__ = ["Probing"]

_MOST = 64
"""Of more than so many that nobody came for, the oldest are forgotten."""


class Probing:
    """The wishes of the balancers of one cluster.

    There is no lock: each step is atomic, and where two threads meet, somebody is woken once too often.

    Attributes:
        wake: called when there is a wish again; None while nobody probes.
    """

    __slots__ = ("_awake", "_wanted", "wake")

    def __init__(self) -> None:
        self.wake: Callable[[], object] | None = None
        self._awake = False
        self._wanted: deque[tuple[ProbePool, Member]] = deque(maxlen=_MOST)

    def want(self, pool: ProbePool, member: Member) -> None:
        """`member` is to be probed, for this pool."""
        self._wanted.append((pool, member))

    def tell(self) -> None:
        """Wake whoever probes, unless that is so already. Never raises."""
        wake = self.wake
        if wake is not None and not self._awake and self._wanted:
            self._awake = True
            try:
                wake()
            except Exception:  # it has ended, or has not begun: there are no probes, and no call fails for that
                self._awake = False

    def take(self) -> Iterator[tuple[ProbePool, Member]]:
        """What is wanted, the newest first, which then is wanted no more."""
        with suppress(IndexError):
            while True:
                yield self._wanted.pop()

    def rest(self) -> bool:
        """Whoever probes looks no more until woken; False if there is something to do after all."""
        self._awake = False
        if self._wanted:
            self._awake = True
        return not self._awake

    def renew(self) -> None:
        """Forget all: in a forked child, what is wanted is wanted by the parent."""
        self._awake = False
        self._wanted.clear()
