"""What takes long to make is made ahead of its use: in steps, and where no caller waits for it.

A balancer with a large table begins without it and says here how it is made. Who publishes a cluster collects that, and
does it before calls see the cluster. Where nobody collects, the first pick makes the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

__all__ = ["Steps", "ahead", "collected"]

Steps: TypeAlias = Callable[[], Iterator[None]]
"""Does the work, in steps of about a millisecond: between two of them others may run."""

_collecting: ContextVar[list[Steps] | None] = ContextVar("meshlib.balance.ahead", default=None)


def ahead(steps: Steps) -> None:
    """This is to be done before the first pick."""
    collecting = _collecting.get()
    if collecting is not None:
        collecting.append(steps)


@contextmanager
def collected() -> Iterator[list[Steps]]:
    """What is to be done for all balancers that are made inside."""
    steps: list[Steps] = []
    token = _collecting.set(steps)
    try:
        yield steps
    finally:
        _collecting.reset(token)
