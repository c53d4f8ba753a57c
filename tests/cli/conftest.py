"""Running the command."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from meshlib.cli.commands import meshlib


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command in an empty directory, with a registry of its own and no configuration."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("MESHLIB_", "CONSUL_", "KUBERNETES_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MESHLIB_LOCAL_DIR", str(tmp_path / "registry"))
    return lambda *arguments: CliRunner().invoke(meshlib, [str(each) for each in arguments])
