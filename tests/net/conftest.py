from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.net.wire_servers import AsyncDriver, Resolver, SyncDriver, Wire, soon


def _new_uvloop() -> Wire:
    uvloop = pytest.importorskip("uvloop")
    return AsyncDriver(uvloop.new_event_loop)


_DRIVERS: dict[str, Callable[[], Wire]] = {"sync": SyncDriver, "async": AsyncDriver, "uvloop": _new_uvloop}


@pytest.fixture(params=list(_DRIVERS))
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """Each engine in turn; what it left open or busy fails the test."""
    driver = _DRIVERS[request.param]()
    yield driver
    assert driver.counts()[2:] == (0, 0), "something is still busy or waits"
    driver.shut()
    assert sum(s.open for s in driver.engine.stats()) == 0


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    """Stands in for the system's; a lookup that it still holds at the end is let go."""
    stand_in = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", stand_in)
    yield stand_in
    if stand_in.hold is not None:
        stand_in.hold.set()
    soon(lambda: not any(thread.name.startswith("lookup ") for thread in threading.enumerate()))
