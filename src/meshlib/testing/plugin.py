"""The pytest plugin: fixtures `mesh` and `mesh_config`. It imports nothing of the mesh until a test asks for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from meshlib.testing.fixture import MeshFixture

__all__ = ["mesh", "mesh_config"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option."""
    parser.addini(
        "meshlib_config", "the configuration of the fixture `mesh`, relative to the root directory", default=""
    )


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line(
        "markers",
        "mesh(config=None, *, seed=0, network=False, **fields): how the fixture `mesh` of meshlib is configured for "
        "this test: by a path, a mapping, or the fields of one.",
    )


@pytest.fixture
def mesh_config(request: pytest.FixtureRequest) -> Any:
    """The configuration of the fixture `mesh`; None for the defaults.

    Override it to return a path (relative to pytest's root directory), a mapping or a `meshlib.MeshConfig`. By itself
    it is what the ini option ``meshlib_config`` says.
    """
    return request.config.getini("meshlib_config") or None


@pytest.fixture
def mesh(request: pytest.FixtureRequest, mesh_config: Any) -> Iterator[MeshFixture]:
    """A mesh without a network, for one test: `meshlib.testing.MeshFixture`."""
    from meshlib.testing.fixture import MeshFixture

    marker = request.node.get_closest_marker("mesh")
    args: tuple[Any, ...] = () if marker is None else marker.args
    options: dict[str, Any] = {} if marker is None else dict(marker.kwargs)
    fields = options.keys() - {"seed", "network", "clock"}
    config = args[0] if args else None if fields else mesh_config
    if isinstance(config, (str, os.PathLike)):
        config = request.config.rootpath / config
    with MeshFixture(config, *args[1:], **options) as fixture:
        yield fixture
