from collections.abc import Iterator

import pytest

from meshlib.testing import MeshFixture


@pytest.fixture
def mesh() -> Iterator[MeshFixture]:
    with MeshFixture() as mesh:
        yield mesh
