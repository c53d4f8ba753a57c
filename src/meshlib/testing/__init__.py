"""For users' own test suites: a mesh without a network, faults on demand, and time that is set by hand.

The names are imported when they are first used: the pytest plugin lives in this package, and must cost nothing in
suites that do not use it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.testing.clock import SettableClock
    from meshlib.testing.fixture import MeshFixture
    from meshlib.testing.received import ReceivedRequest
    from meshlib.testing.services import Instance, Served

__all__ = ["Instance", "MeshFixture", "ReceivedRequest", "Served", "SettableClock"]

_MODULE_OF = {
    "Instance": "meshlib.testing.services",
    "MeshFixture": "meshlib.testing.fixture",
    "ReceivedRequest": "meshlib.testing.received",
    "Served": "meshlib.testing.services",
    "SettableClock": "meshlib.testing.clock",
}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'meshlib.testing' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(module), name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
