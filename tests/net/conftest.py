from __future__ import annotations

import functools
import gc
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from meshlib.net.connect import connect_async, connect_sync
from meshlib.net.http1_h11 import H11Framing
from tests.net.wire_servers import AsyncDriver, Resolver, SyncDriver, SyncStepsDriver, Wire, soon


def _new_uvloop() -> Wire:
    uvloop = pytest.importorskip("uvloop")
    return AsyncDriver(uvloop.new_event_loop)


_DRIVERS: dict[str, Callable[[], Wire]] = {
    "sync": SyncDriver,
    "steps": SyncStepsDriver,
    "async": AsyncDriver,
    "uvloop": _new_uvloop,
    "sync-h11": lambda: SyncDriver(connect=functools.partial(connect_sync, framing=H11Framing)),
    "async-h11": lambda: AsyncDriver(connect=functools.partial(connect_async, framing=H11Framing)),
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each engine in turn; where HTTP/1.1 itself is tested, with each framing.

    The primary Python alone has uvloop and h11, which are the same on each.
    """
    if "wire" in metafunc.fixturenames:
        tested = metafunc.module.__name__.rpartition(".test_")[2]
        names = list(_DRIVERS)
        if not tested.endswith("http1"):
            names = [name for name in names if not name.endswith("h11")]
        if tested.startswith("async_"):
            names = [name for name in names if not name.startswith("s")]
        usual = ("sync", "async")
        marks = {name: [] if name in usual else [pytest.mark.slow] for name in names}
        metafunc.parametrize("wire", [pytest.param(name, marks=marks[name]) for name in names], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def _collector_sees_what_is_new() -> None:
    """Most tests here have it look for leaks; what those before them left would cost each more than all the rest."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def wire(request: pytest.FixtureRequest) -> Iterator[Wire]:
    """An engine; what it left open or busy fails the test."""
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
