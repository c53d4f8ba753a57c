"""`Mesh.attach`: which adapter knows a client that exists. Nothing of a library is imported that is not in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeVar

from meshlib.adapters.plane import DataPlane

__all__ = ["ATTACH", "attach", "plane_of"]

T = TypeVar("T")

ATTACH: Mapping[str, str] = MappingProxyType(
    {
        "httpx": "meshlib.adapters.httpx:attach",
        "httpx2": "meshlib.adapters.httpx2:attach",
        "requests": "meshlib.adapters.requests:attach",
        "aiohttp": "meshlib.adapters.aiohttp:attach",
    }
)
"""By the package that a client's class comes from: what attaches it, a function of the plane and the client."""


def attach(plane: DataPlane, client: T) -> T:
    """Let the calls of an existing client go through the mesh; returns it.

    Raises:
        TypeError: if it is no client of a library that has an adapter.
    """
    for cls in type(client).__mro__:
        found = ATTACH.get(cls.__module__.partition(".")[0])
        if found is not None:
            module, _, name = found.partition(":")
            attach_it: Callable[[DataPlane, T], object] = getattr(import_module(module), name)
            attach_it(plane, client)
            return client
    known = ", ".join(ATTACH)
    raise TypeError(f"a client such as an httpx.Client is expected (of {known}), not {type(client).__name__}")


def plane_of(mesh: Any) -> DataPlane:
    """The data plane of a mesh, for adapters that are given the mesh itself.

    Raises:
        TypeError: if it is none.
    """
    plane = getattr(getattr(mesh, "_wiring", None), "plane", None)
    if not isinstance(plane, DataPlane):
        raise TypeError(f"a Mesh is expected, not {type(mesh).__name__}")
    return plane
