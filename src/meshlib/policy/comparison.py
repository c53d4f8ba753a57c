"""How often a shadow (`meshlib.policy.shadow`) would have decided otherwise, counted."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.policy.journal import Journal

__all__ = ["Comparison"]


class Comparison:
    """How often a shadow would have decided as the live policy does. Exact under threads.

    Attributes:
        policy: the field of the configuration: ``throttle``.
        same, differed: decisions.
        counts: what it would have done, by a word; of a balancer picks, by address.
        last: what it would have decided otherwise at last, in words.
    """

    __slots__ = ("_lock", "counts", "differed", "last", "policy", "same")

    def __init__(self, policy: str, *words: str) -> None:
        self.policy = policy
        self.same = self.differed = 0
        self.counts = dict.fromkeys(words, 0)
        self.last = ""
        self._lock = threading.Lock()

    def decided(self, otherwise: str = "", word: str = "") -> None:
        """Count a decision: the same; or, with what it would have decided, `otherwise`."""
        with self._lock:
            if otherwise:
                self.differed += 1
                self.last = otherwise
            else:
                self.same += 1
            if word:
                self.counts[word] = self.counts.get(word, 0) + 1

    def of_call(self, journal: Journal, refused: bool, live: bool) -> None:
        """Compare whether a call would have been refused with whether it was (`live`); a difference is noted there."""
        if refused is live:
            self.decided()
        elif refused:
            self.decided("a call would have been refused", "refused")
            journal.differs(f"{self.policy} would have refused it")
        else:
            self.decided("a call would have been let in", "let_in")
            journal.differs(f"{self.policy} would have let it in")

    def count(self, word: str) -> None:
        """Count what is no decision, or not yet."""
        with self._lock:
            self.counts[word] = self.counts.get(word, 0) + 1

    def keep(self, words: Iterable[str]) -> None:
        """Forget all counts but these."""
        with self._lock:
            self.counts = {word: self.counts[word] for word in words if word in self.counts}

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Comparison {self.policy}, {self.differed} of {self.same + self.differed} differed>"
