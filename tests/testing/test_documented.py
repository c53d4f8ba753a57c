"""The page on testing and the example do what they say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import meshlib.config.compile
import meshlib.config.load
import meshlib.testing.fixture
from tests.testing.test_plugin import OPTIONS

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text()


def test_the_code_of_the_page_passes(pytester: pytest.Pytester) -> None:
    tests = []
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        name = re.match(r"# (\w+)\.py\n", block)
        if name is None:
            tests.append(block)
        else:
            pytester.makepyfile(**{name[1]: block})
    pytester.makefile(".yaml", mesh="services: {users: {}}")
    pytester.makepyfile(test_page="\n\n".join(tests))
    count = "".join(tests).count("def test_")
    assert count >= 8
    pytester.syspathinsert()
    pytester.runpytest_inprocess(*OPTIONS, "test_page.py").assert_outcomes(passed=count)


def test_the_example_passes(pytester: pytest.Pytester) -> None:
    example = pytester.path / "example"
    shutil.copytree(ROOT / "examples" / "unit_test_a_service", example)
    result = pytester.runpytest_inprocess(*OPTIONS, "example")
    result.assert_outcomes(passed=8)


def test_every_way_to_make_a_fault_is_on_the_page() -> None:
    for name in ("fail_next", "slow", "hang", "kill", "revive", "reset", "serve", "calls", "registrations"):
        assert f"mesh.{name}" in PAGE
        assert hasattr(meshlib.testing.MeshFixture, name)
