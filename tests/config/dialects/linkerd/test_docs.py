"""The tables of the docs have all that is read of Linkerd's documents, as it is honoured, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from meshlib.config.dialects.linkerd.annotations import ACCRUAL, ROUTE
from meshlib.config.dialects.linkerd.read import SECURITY
from tests.config.dialects.support import draft_of, notes

PAGE = (Path(__file__).parents[4] / "docs" / "dialects" / "linkerd.md").read_text()
WORDS = {"yes": "honoured", "differently": "different", "no": "ignored"}

STATUS = {"status": {"min": 500, "max": 599}}
EDITS = {"set": [{"name": "a", "value": "1"}], "add": [{"name": "b", "value": "2"}], "remove": ["c"]}
PATH = {"type": "ReplaceFullPath", "replaceFullPath": "/x"}
REDIRECT = {"scheme": "https", "hostname": "h", "port": 1, "statusCode": 302, "path": PATH}
PREFIX = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/x"}
FILTERS = [
    {"type": "RequestHeaderModifier", "requestHeaderModifier": EDITS},
    {"type": "ResponseHeaderModifier", "responseHeaderModifier": EDITS},
]
MATCH = {"type": "Exact", "name": "a", "value": "b"}
BACKEND = {
    "group": "",
    "kind": "Service",
    "name": "web",
    "namespace": "shop",
    "port": 80,
    "weight": 1,
    "filters": FILTERS,
}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "ServiceProfile": {
        "apiVersion": "linkerd.io/v1alpha2",
        "kind": "ServiceProfile",
        "metadata": {"name": "web.shop.svc.cluster.local", "namespace": "shop"},
        "spec": {
            "routes": [
                {
                    "name": "a",
                    "condition": {
                        "all": [{"method": "GET"}],
                        "any": [{"method": "GET"}],
                        "not": {"method": "POST"},
                        "pathRegex": "/a",
                        "method": "GET",
                    },
                    "responseClasses": [
                        {"condition": {"all": [STATUS], "any": [STATUS], "not": STATUS, **STATUS}, "isFailure": True}
                    ],
                    "isRetryable": True,
                    "timeout": "1s",
                }
            ],
            "retryBudget": {"retryRatio": 0.2, "minRetriesPerSecond": 10, "ttl": "10s"},
            "dstOverrides": [{"authority": "web.shop.svc.cluster.local:80", "weight": "1"}],
            "opaquePorts": {"25": {}},
        },
    },
    "HTTPRoute": {
        "apiVersion": "policy.linkerd.io/v1beta3",
        "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "parentRefs": [
                {"group": "core", "kind": "Service", "name": "web", "namespace": "shop", "port": 80, "sectionName": "x"}
            ],
            "hostnames": ["web"],
            "rules": [
                {
                    "matches": [
                        {
                            "path": {"type": "Exact", "value": "/"},
                            "headers": [MATCH],
                            "queryParams": [MATCH],
                            "method": "GET",
                        }
                    ],
                    "filters": FILTERS,
                    "backendRefs": [BACKEND],
                    "timeouts": {"request": "1s", "backendRequest": "1s"},
                },
                {"filters": [{"type": "RequestRedirect", "requestRedirect": REDIRECT}]},
                {"filters": [{"type": "RequestRedirect", "requestRedirect": {"path": PREFIX}}]},
            ],
        },
    },
}


def table(title: str) -> dict[str, tuple[str, str]]:
    found = re.search(rf"^### `?{title}`?\n(.*?)(?=^### |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \| ?(.*?) ?\|$", found[1], re.MULTILINE)
    return {field: (WORDS[word], why) for field, word, why in rows}


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_field_of_a_document_is_in_its_table_and_told_of_as_it_says(kind: str) -> None:
    draft = draft_of(DOCUMENTS[kind], namespace="shop")
    assert notes(draft, "wrong") == []
    taken = {path for taken_kind, path in draft.taken if taken_kind == kind and path.startswith("spec.")}
    # Conditions hold conditions, and backends have the filters of rules.
    nested = re.compile(r"condition\.(?:all|any|not)\b.|backendRefs\[\]\.filters\[\]")
    rows = table(kind)
    assert sorted(path for path in taken if not nested.search(path)) == sorted(rows)
    told = {note.place.what.split(": ")[1]: (note.effect, note.text) for note in draft.notes}
    said = {re.sub(r"\[\d+\]", "[]", path): each for path, each in told.items()}
    for field, (how, why) in rows.items():
        if how == "honoured":
            assert field not in said, field
        else:
            assert said[field] == (how, f"is not honoured: {why}" if how == "ignored" else why), field


def test_every_annotation_is_in_its_table_as_it_is_honoured() -> None:
    for title, known in (("Annotations of Services and routes", ROUTE), ("Annotations of Services", ACCRUAL)):
        assert {name: how for name, (how, _) in table(title).items()} == known


def test_every_document_that_is_kept_is_named() -> None:
    for kind in SECURITY:
        assert kind in PAGE
