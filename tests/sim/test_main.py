"""The command that runs scenarios, and the pages that its tables are in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from meshlib.sim.__main__ import main, names_in
from meshlib.sim.scenarios import SCENARIOS, table_of
from meshlib.sim.table import Table, milliseconds, percent

TRAFFIC = Path(__file__).parents[2] / "docs" / "traffic"
PAGES = {name: (TRAFFIC / f"{name}.md").read_text() for name in ("published-results", "composition")}


def test_without_a_name_it_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SCENARIOS)


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subsets", "supersets"]) == 2
    assert "there is no scenario supersets; there are slow-backend, " in capsys.readouterr().err
    with pytest.raises(KeyError):
        table_of("supersets")


def test_it_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["subsets"]) == 0
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("| subsets | ")
    assert rule == "| --- | ---: | ---: |"
    assert "| in rounds, 30 of 300 | 30 to 30 | 100.0 to 100.0 % |" in rows


def test_tables_go_to_their_places_in_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table: subsets -->\n| old |\n<!-- end -->\nb\n<!-- table: jitter -->\n<!-- end -->\n")
    assert main(["subsets", "--into", str(page)]) == 0
    text = page.read_text()
    assert "| old |" not in text
    assert "| in rounds, 30 of 300 | 30 to 30 |" in text
    assert text.endswith("<!-- end -->\nb\n<!-- table: jitter -->\n<!-- end -->\n")


def test_each_scenario_has_its_place_in_one_page_and_is_filled_in() -> None:
    assert sorted(name for page in PAGES.values() for name in names_in(page)) == sorted(SCENARIOS)
    for page in PAGES.values():
        for table in re.findall(r"<!-- table: [a-z-]+ -->\n(.*?)<!-- end -->", page, re.DOTALL):
            head, _, *rows = table.splitlines()
            assert len(rows) >= 3
            assert {row.count(" | ") for row in rows} == {head.count(" | ")}


def test_cells() -> None:
    assert [percent(99.954), percent(99.954, 2)] == ["100.0 %", "99.95 %"]
    assert [milliseconds(0.0234), milliseconds(2.0), milliseconds(59.4)] == ["23 ms", "2,000 ms", "59 s"]
    assert str(Table(["a", "b"], [["1", "2"]])) == "| a | b |\n| --- | ---: |\n| 1 | 2 |"
