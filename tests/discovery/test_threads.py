"""A thread of the control plane has nothing of the request that was first to need it."""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

import pytest

from meshlib.context import current, timeout
from meshlib.discovery.threads import start_thread


class Inheriting(threading.Thread):
    """On every Python what 3.14 makes where it has no GIL: it begins in a copy of its starter's context."""

    def __init__(self, *, target: Callable[..., object], args: tuple[Any, ...] = (), **options: Any) -> None:
        super().__init__(target=contextvars.copy_context().run, args=(target, *args), **options)


def test_a_thread_has_no_deadline_of_who_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", Inheriting)
    seen: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    with timeout("2s"):
        start_thread(lambda: seen.put(current().remaining), "a thread")
        assert seen.get(timeout=5) is None
