"""What a forked child does with the connections that it inherited: lets go of them, before anything else runs in it."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["after_fork"]


class _Forkable(Protocol):
    def after_fork_in_child(self) -> None: ...


_engines: weakref.WeakSet[_Forkable] = weakref.WeakSet()


def after_fork(engine: _Forkable) -> None:
    """Have ``engine.after_fork_in_child()`` called in each forked child, for as long as the engine lives."""
    _engines.add(engine)


def _in_child() -> None:
    for engine in list(_engines):
        engine.after_fork_in_child()


os.register_at_fork(after_in_child=_in_child)
