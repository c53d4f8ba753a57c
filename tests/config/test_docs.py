"""docs/configuration.md says what the model does: its example loads, its tables have every field and default."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from meshlib.config import model
from meshlib.config.compile import compile_config
from meshlib.config.fields import Part
from meshlib.config.load import load_file
from meshlib.durations import format_duration

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def _tables() -> dict[str, dict[str, str]]:
    """For each model the page has a table of, the default of each field as it is written there."""
    found = {}
    for name, table in re.findall(r"<!-- fields: (\w+) -->\n\n((?:\|.*\n)+)", PAGE.read_text()):
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[2:]]
        found[name] = {row[0].strip("`|").strip(): row[2] for row in rows}
    return found


def _models() -> list[type[Part]]:
    every = [getattr(model, name) for name in model.__all__]
    return [each for each in every if each is not model.Policy]


def _own_fields(cls: type[Part]) -> Mapping[str, FieldInfo]:
    inherited = model.Policy.model_fields if cls is model.Service else {}
    return {field.alias or name: field for name, field in cls.model_fields.items() if name not in inherited}


def test_the_complete_example_loads_and_compiles(tmp_path: Path) -> None:
    example = re.search(r"## A complete example\n\n```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    file = tmp_path / "mesh.yaml"
    file.write_text(example[1])
    settings = compile_config(load_file(file, environ={}))
    assert settings.mode == "on"
    assert list(settings.services) == ["orders", "catalogue"]
    assert [route.name for route in settings.services["orders"].routes] == ["beta", "export", "default"]


@pytest.mark.parametrize("cls", _models(), ids=lambda cls: cls.__name__)
def test_every_field_of_every_part_is_in_its_table(cls: type[Part]) -> None:
    assert list(_tables()[cls.__name__]) == list(_own_fields(cls)) or set(_tables()[cls.__name__]) == set(
        _own_fields(cls)
    )


def _plain(default: Any, written: str) -> bool:
    if default is None or default is PydanticUndefined or isinstance(default, (Part, tuple, frozenset)):
        return True
    if isinstance(default, bool):
        return written == f"`{str(default).lower()}`"
    if isinstance(default, (int, float)):
        return written.strip("`") in (f"{default:g}", str(default), format_duration(default))
    return written in (f"`{default}`", f'`"{default}"`')


@pytest.mark.parametrize("cls", _models(), ids=lambda cls: cls.__name__)
def test_every_default_in_the_tables_is_the_real_one(cls: type[Part]) -> None:
    table = _tables()[cls.__name__]
    wrong = {name: table[name] for name, field in _own_fields(cls).items() if not _plain(field.default, table[name])}
    assert wrong == {}
