"""The pages of docs/dialects and docs/routing: what they show loads, and every dialect has one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meshlib.config.dialects.table import DIALECTS
from meshlib.config.gather import gather
from meshlib.config.parts import Documents

pytestmark = pytest.mark.slow  # the same on every Python

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs" / "dialects").glob("*.md")), *sorted((ROOT / "docs" / "routing").glob("*.md"))]
FOREIGN = [
    pytest.param(block, id=f"{path.parent.name}-{path.stem}-{index}")
    for path in PAGES
    for index, block in enumerate(re.findall(r"```(?:yaml|json)\n(.*?)```", path.read_text(), re.DOTALL))
    if re.search(r'^\W*(?:apiVersion|[Kk]ind)"?:', block, re.MULTILINE)
]


@pytest.mark.parametrize("block", FOREIGN)
def test_documents_on_the_pages_are_right(block: str, tmp_path: Path) -> None:
    file = tmp_path / ("shown.json" if block.lstrip().startswith("{") else "shown.yaml")
    file.write_text(block)
    gathered = gather([file], environ={})
    assert gathered.problems == ()


def test_every_dialect_has_a_page_that_the_index_names() -> None:
    index = (ROOT / "docs" / "dialects" / "index.md").read_text()
    for dialect in DIALECTS:
        name = f"{dialect.name.replace('_', '-')}.md"
        assert f"]({name})" in index, name
        assert (ROOT / "docs" / "dialects" / name).exists(), name


def test_the_index_says_how_documents_are_read() -> None:
    index = (ROOT / "docs" / "dialects" / "index.md").read_text()
    fields = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", index, re.MULTILINE)
    expected = {name: field.default for name, field in Documents.model_fields.items()}
    assert dict(fields) == {name: str(value).lower() for name, value in expected.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_every_example_and_test_that_a_page_names_is_there(page: Path) -> None:
    named = re.findall(r"`((?:examples|tests)/[\w/]+\.(?:py|json|yaml))`", page.read_text())
    assert [each for each in named if not (ROOT / each).exists()] == []


def test_every_example_of_routing_is_in_the_index_of_examples() -> None:
    index = (ROOT / "examples" / "README.md").read_text()
    for path in (ROOT / "examples" / "routing").glob("*.py"):
        assert f"](routing/{path.name})" in index, path.name
