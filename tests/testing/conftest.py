from __future__ import annotations

from collections.abc import Iterator

import pytest

from meshlib.testing import MeshFixture
from tests.testing.support import Async, Sync


@pytest.fixture(params=[Sync, Async], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Sync:
    made: Sync = request.param()
    return made


@pytest.fixture
def mesh() -> Iterator[MeshFixture]:
    """As the plugin's, which is tested in `test_plugin.py`: here it need not be installed."""
    with MeshFixture() as mesh:
        yield mesh
