"""The tables of the docs and the tables that Consul's entries are read by are the same."""

from __future__ import annotations

import re
from pathlib import Path

from meshlib.config.dialects.consul.entries import ENTRIES, KINDS, OTHER_KINDS
from meshlib.config.dialects.consul.schema import rows_of

PAGE = (Path(__file__).parents[4] / "docs" / "dialects" / "consul.md").read_text()
WORDS = {"yes": "honoured", "differently": "different", "no": "ignored"}
EVERY = "Every entry"


def tables() -> dict[str, dict[str, tuple[str, str]]]:
    """By heading: of each field how it is honoured, and why not."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for title, text in re.findall(r"^### `?([\w -]+)`?\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL):
        rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| (.*?) \|$", text, re.MULTILINE)
        found[title] = {field: (WORDS[word], why) for field, word, why in rows}
    return found


def test_every_field_that_is_read_is_in_its_table_as_it_is_honoured_and_no_other() -> None:
    written = tables()
    for kind, table in ENTRIES.items():
        rows = {name: spec for name, spec in rows_of(table) if not name.startswith("UpstreamConfig.Defaults.")}
        said = {**written[EVERY], **written[kind]}
        assert sorted(said) == sorted(rows), kind
        assert {name: how for name, (how, _) in said.items()} == {name: spec.how for name, spec in rows.items()}, kind
        for name, spec in rows.items():
            if spec.how != "honoured":
                assert said[name][1] == spec.why, name


def test_defaults_of_upstreams_have_the_fields_of_overrides() -> None:
    upstream = ENTRIES["service-defaults"]["UpstreamConfig"].kind
    assert not isinstance(upstream, str)
    assert upstream["Defaults"].kind == upstream["Overrides"].kind


def test_every_kind_that_is_known_is_named() -> None:
    for kind in (*KINDS.values(), *OTHER_KINDS):
        assert f"`{kind}`" in PAGE or "certificate" in kind, kind
