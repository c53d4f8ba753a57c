from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.net.wire_servers import AsyncDriver, SyncDriver, Wire


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
