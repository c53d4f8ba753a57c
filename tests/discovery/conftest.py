"""What the tests of discovery are given: a control plane, and a folder for a registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from meshlib.discovery.control import ControlPlane


@pytest.fixture
def control() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    yield plane
    plane.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "registry"
