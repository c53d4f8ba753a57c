"""Which file is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib.config.find import find_file
from meshlib.errors import ConfigError


def test_the_file_of_the_variable_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "named.yaml"
    for each in (path, tmp_path / "mesh.yaml"):
        each.write_text("")

    assert find_file({"MESHLIB_CONFIG": str(path)}, tmp_path) == str(path)


def test_a_missing_file_in_the_variable_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("")

    with pytest.raises(ConfigError, match=r"\$MESHLIB_CONFIG names .*mesh.yml, and there is no such file; did"):
        find_file({"MESHLIB_CONFIG": str(tmp_path / "mesh.yml")}, tmp_path)


def test_files_in_the_directory_are_looked_for_in_order(tmp_path: Path) -> None:
    assert find_file({}, tmp_path) is None
    assert find_file({"MESHLIB_CONFIG": ""}, tmp_path) is None
    for name in ["mesh.json", "mesh.toml", "mesh.yml", "mesh.yaml"]:
        (tmp_path / name).write_text("")
        assert find_file({}, tmp_path) == str(tmp_path / name)
