"""The tables of fields in the documentation, the fields that the API has, and what is reported when they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshlib.config.load import load_mapping
from tests.config.dialects.gateway_api.documents import GROUP, drafted, route, routes_of
from tests.config.dialects.gateway_api.suite import DATA, SUITE

PAGE = (Path(__file__).parents[4] / "docs" / "dialects" / "gateway-api.md").read_text()
FIELDS: dict[str, list[str]] = json.loads((DATA / "fields.json").read_text())["fields"]

HEADERS = {"set": [{"name": "a", "value": "1"}], "add": [{"name": "b", "value": "2"}], "remove": ["c"]}
REFERENCE = {"group": "", "kind": "Service", "name": "v1", "namespace": "shop", "port": 80}
SWAP = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}
WHOLE = {"type": "ReplaceFullPath", "replaceFullPath": "/b"}
CORS = {
    "allowOrigins": ["https://a.example"],
    "allowCredentials": True,
    "allowMethods": ["GET"],
    "allowHeaders": ["a"],
    "exposeHeaders": ["b"],
    "maxAge": 5,
}
AUTH = {
    "protocol": "HTTP",
    "backendRef": REFERENCE,
    "grpc": {"allowedHeaders": ["a"]},
    "http": {"path": "/", "allowedHeaders": ["a"], "allowedResponseHeaders": ["b"]},
    "forwardBody": {"maxSize": 1},
}
VALUE = [{"name": "a", "value": "1", "type": "Exact"}]
PATH = {"type": "PathPrefix", "value": "/a"}
REDIRECT = {"scheme": "https", "hostname": "h.example", "port": 443, "statusCode": 301}
RULES: list[dict[str, Any]] = [
    {
        "name": "all",
        "matches": [{"path": PATH, "method": "GET", "headers": VALUE, "queryParams": VALUE}],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": HEADERS},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": HEADERS},
            {"type": "RequestMirror", "requestMirror": {"backendRef": REFERENCE, "percent": 1}},
            {
                "type": "RequestMirror",
                "requestMirror": {"backendRef": REFERENCE, "fraction": {"numerator": 1, "denominator": 2}},
            },
            {"type": "URLRewrite", "urlRewrite": {"hostname": "h.example", "path": SWAP}},
            {"type": "CORS", "cors": CORS},
        ],
        "backendRefs": [{**REFERENCE, "weight": 1, "filters": [{"type": "URLRewrite", "urlRewrite": {"path": WHOLE}}]}],
        "timeouts": {"request": "10s", "backendRequest": "1s"},
        "retry": {"codes": [500], "attempts": 2, "backoff": "100ms"},
        "sessionPersistence": {
            "type": "Cookie",
            "cookie": {"name": "at", "path": "/", "lifetimeType": "Permanent"},
            "absoluteTimeout": "1h",
        },
    },
    {"filters": [{"type": "RequestRedirect", "requestRedirect": {**REDIRECT, "path": SWAP}}]},
    {"filters": [{"type": "RequestRedirect", "requestRedirect": {**REDIRECT, "path": WHOLE}}]},
    {"filters": [{"type": "ExtensionRef", "extensionRef": {"group": "a.example", "kind": "B", "name": "c"}}]},
    {"filters": [{"type": "ExternalAuth", "externalAuth": AUTH}]},
    {"backendRefs": [REFERENCE], "sessionPersistence": {"type": "Header", "header": {"name": "x"}}},
]
TARGET = {"group": "", "kind": "Service", "name": "v1", "sectionName": "http"}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "HTTPRoute": route(
        *(
            {"matches": [{"path": {"type": "PathPrefix", "value": f"/{index}"}}], **rule}
            for index, rule in enumerate(RULES)
        ),
        parent={"port": 80, "sectionName": "http"},
        hostnames=["a.example"],
        useDefaultGateways="None",
    ),
    "BackendTLSPolicy": {
        "apiVersion": f"{GROUP}/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "t", "namespace": "shop"},
        "spec": {
            "targetRefs": [TARGET],
            "options": {"a": "b"},
            "validation": {
                "hostname": "h.example",
                "wellKnownCACertificates": "System",
                "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}],
                "subjectAltNames": [
                    {"type": "Hostname", "hostname": "o.example"},
                    {"type": "URI", "uri": "spiffe://a/b"},
                ],
            },
        },
    },
    "ReferenceGrant": {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "g", "namespace": "shop"},
        "spec": {
            "from": [{"group": GROUP, "kind": "HTTPRoute", "namespace": "web"}],
            "to": [{"group": "", "kind": "Service", "name": "v1"}],
        },
    },
}
OTHERS: list[dict[str, Any]] = [
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ports": [{"name": "http", "port": 80}]},
    }
    for name in ("orders", "v1")
]
OTHERS.append(
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ca", "namespace": "shop"},
        "data": {"ca.crt": "-----BEGIN CERTIFICATE-----"},
    }
)


def _rows(kind: str) -> dict[str, str]:
    """The fields in the table of one kind, and how each is honoured."""
    section = re.search(rf"^### `{kind}`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None
    rows = {}
    for line in section[1].splitlines():
        if line.startswith("| `"):
            _, fields, honoured, *_ = line.split("|")
            rows.update(dict.fromkeys(re.findall(r"`([^`]+)`", fields), honoured.strip()))
    return rows


def _paths(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, Mapping) and path != "options":
        for name, inner in value.items():
            yield from _paths(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for inner in value:
            yield from _paths(inner, f"{path}[]")
    else:
        yield path.replace("rules[].backendRefs[].filters[]", "rules[].filters[]")


def _covers(row: str, field: str) -> bool:
    return field == row or field.startswith((f"{row}.", f"{row}["))


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_the_document_that_is_read_here_has_every_field_of_the_api(kind: str) -> None:
    assert sorted(set(_paths(DOCUMENTS[kind]["spec"]))) == FIELDS[kind]


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_every_field_of_the_api_is_in_the_table_and_no_other(kind: str) -> None:
    rows = _rows(kind)
    assert [field for field in FIELDS[kind] if not any(_covers(row, field) for row in rows)] == []
    assert [row for row in rows if not any(_covers(row, field) for field in FIELDS[kind])] == []


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_what_is_reported_is_what_the_table_says(kind: str) -> None:
    draft = drafted(*OTHERS, DOCUMENTS[kind])
    told: dict[str, set[str]] = {"ignored": set(), "different": set(), "wrong": set()}
    for note in draft.notes:
        steps = ["[]" if isinstance(step, int) else str(step) for step in note.place.path[1:]]
        told[note.effect].add(".".join(steps).replace(".[]", "[]"))
    rows = _rows(kind)
    assert not told["wrong"]
    no = {row for row, honoured in rows.items() if honoured == "no"}
    differently = {row for row, honoured in rows.items() if honoured == "differently"}
    # A session by a header is told of at the type that asks for it.
    said = {"rules[].sessionPersistence.header": "rules[].sessionPersistence.type"}
    for row in no:
        assert any(_covers(said.get(row, row).removesuffix("[]"), path) for path in told["ignored"]), row
    for path in told["ignored"]:
        assert any(_covers(said.get(row, row).removesuffix("[]"), path) for row in no), path
    for path in told["different"]:
        assert any(_covers(path, row) for row in differently), path


def test_the_tests_of_the_suite_that_are_not_here_are_in_the_documentation_each_with_its_reason() -> None:
    for name, why in SUITE["not_here"].items():
        assert f"| `{name}` | {why} |" in PAGE


def test_the_blocks_of_the_page_can_be_read() -> None:
    native, foreign = (
        yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    )
    del native["include"]
    load_mapping(native)
    draft = drafted(foreign)
    assert not draft.notes
    names = [each["name"] for each in routes_of(draft)]
    assert names == ["orders.1", "orders.2"]
