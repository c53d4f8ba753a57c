"""Services that routes name and nobody declares: discovery may know them, or they are slips of the pen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from meshlib.config.model import MeshConfig, Route
from meshlib.config.problems import Path
from meshlib.config.rejection import closest

__all__ = ["meant", "undeclared"]

_VERSION = re.compile(r"[-_.]?v?[0-9]+$")


def meant(name: str, declared: Iterable[str]) -> str | None:
    """The declared service that `name` seems to be a slip for; another version of one, ``orders-v2``, is none."""
    stem = _VERSION.sub("", name)
    return closest(name, (each for each in declared if _VERSION.sub("", each) != stem), 0.8)


def undeclared(config: MeshConfig) -> Iterator[tuple[Path, str]]:
    """Each backend and mirror of an undeclared service whose name is near that of a declared one."""
    lists: list[tuple[Path, Sequence[Route]]] = [
        (("services", name, "routes"), service.routes) for name, service in config.services.items()
    ]
    lists += [(("route_sets", name), routes) for name, routes in config.route_sets.items()]
    found: dict[str, str | None] = {}
    for path, routes in lists:
        for index, route in enumerate(routes):
            for field in ("backends", "mirror"):
                for at, part in enumerate(getattr(route, field)):
                    name = part.service
                    if name is None or name in config.services:
                        continue
                    if name not in found:
                        found[name] = meant(name, config.services)
                    if found[name] is not None:
                        text = f"the service {name!r} is not declared; did you mean {found[name]!r}?"
                        yield (*path, index, field, at, "service"), text
