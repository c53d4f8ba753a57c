"""What may be a secret shows nowhere: not in errors, notes and reprs, and not in what the command line prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from meshlib.cli.commands import meshlib
from meshlib.config.compile import compile_config
from meshlib.config.load import load_file
from meshlib.errors import ConfigError

SECRET = "hunter2"
ODD = [SECRET, f"{SECRET}\r\nx: y", f"{SECRET}\x00", f"{SECRET}\u2603", [SECRET], SECRET * 3000]


def service(**fields: Any) -> dict[str, Any]:
    return {"services": {"a": fields}}


def route(**fields: Any) -> dict[str, Any]:
    return service(routes=[fields])


def virtual_service(**rule: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "a"},
        "spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}], **rule}]},
    }


def http_route(**rule: Any) -> dict[str, Any]:
    parents = [{"group": "", "kind": "Service", "name": "a"}]
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "a"},
        "spec": {"parentRefs": parents, "rules": [{"backendRefs": [{"name": "a", "port": 80}], **rule}]},
    }


def native(value: Any) -> Iterator[dict[str, Any]]:
    for side in ("request", "response"):
        for change in ("set", "add"):
            yield route(headers={side: {change: {"x-plain": value}}})
            yield route(backends=[{"headers": {side: {change: {"x-plain": value}}}}])
    yield route(direct_response={"status": 200, "body": value})
    yield route(direct_response={"status": 204, "body": value})
    yield route(direct_response={"status": 200, "headers": {"x-plain": value}})
    for name in ("authorization", "x-session"):
        yield route(match=[{"headers": {name: {"exact": value}}}])
    yield route(match=[{"cookies": {"user": {"exact": value}}}])
    yield route(match=[{"query": {"access_token": {"regex": value}}}])
    yield {"overrides": {"key": value}}
    yield {"overrides": {"key": [value, value]}}
    yield {"discovery": [{"consul": {"token": value}}]}
    yield {"discovery": [{"consul": {"tokn": value}}]}
    yield service(tls={"mode": "simple", "key_file": value})
    yield service(tls={"mode": "simple", "ca": value})
    yield service(health_check={"http": {"headers": {"authorization": value}}})
    if isinstance(value, str):
        yield service(tls={"mode": "simple", "cert_file": f"-----BEGIN PRIVATE KEY-----\n{value}"})
        yield {"discovery": [{"consul": {"address": f"http://u:{value}@127.0.0.1:8500"}}]}
        yield {"discovery": [{"consul": {"address": f"htp://u:{value}@127.0.0.1:85000/a?b"}}]}
        yield {"redis": {"url": f"redis://:{value}@h:99999999/0"}}
        for field in ("endpoints", "hosts"):
            yield service(**{field: [f"http://u:{value}@h:80"]})
            yield service(**{field: [f"u:{value}@h:80"]})
        yield route(rewrite={"host": f"u:{value}@h"})
        yield route(redirect={"host": f"u:{value}@h"})


def foreign(value: Any) -> Iterator[dict[str, Any]]:
    for side in ("request", "response"):
        for change in ("set", "add"):
            yield virtual_service(headers={side: {change: {"x-plain": value}}})
    yield virtual_service(directResponse={"status": 200, "body": {"string": value}})
    yield virtual_service(directResponse={"status": 200, "body": value})
    for name in ("authorization", "cookie"):
        yield virtual_service(match=[{"headers": {name: {"exact": value}}}])
        yield virtual_service(match=[{"headers": {name: value}}])
    for kind in ("request", "response"):
        for change in ("set", "add"):
            given = {change: [{"name": "x-plain", "value": value}]}
            yield http_route(filters=[{"type": f"{kind.title()}HeaderModifier", f"{kind}HeaderModifier": given}])
    yield http_route(matches=[{"headers": [{"name": "authorization", "value": value}]}])
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"ca.crt": value}}
    yield {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "c"}, "data": {"tls.key": value}}
    edits = {"RequestHeaders": {"Set": {"x-plain": value}}, "ResponseHeaders": {"Add": value}}
    yield {"Kind": "service-router", "Name": "a", "Routes": [{"Destination": edits}]}
    match = {"Header": [{"Name": "authorization", "Exact": value}], "QueryParam": [{"Name": "token", "Regex": value}]}
    yield {"Kind": "service-router", "Name": "a", "Routes": [{"Match": {"HTTP": match}}]}
    yield {
        "Kind": "service-splitter",
        "Name": "a",
        "Splits": [{"Weight": 100, "RequestHeaders": {"Set": {"x": value}}}],
    }


def said_of(path: Path) -> str:
    try:
        config = load_file(path)
    except ConfigError as error:
        return f"{error}{error!r}{error.problems}"
    settings = compile_config(config)
    return f"{config!r}{config}{settings!r}{settings.security_documents}{[str(note) for note in config.notes]}"


@pytest.mark.parametrize("value", ODD, ids=["plain", "line", "null", "snowman", "list", "long"])
def test_no_secret_shows_in_an_error_a_note_or_a_repr(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    shown = []
    for document in (*native(value), *foreign(value)):
        path.write_text(json.dumps(document))
        said = said_of(path)
        assert said
        if SECRET in said:
            shown.append((document, said))
    assert shown == []


@pytest.mark.parametrize(
    "command",
    [
        ["check"],
        ["diff", "{empty}"],
        ["diff", "--json", "{empty}"],
        ["explain", "GET", "http://a/", "--config"],
        ["explain", "--json", "GET", "http://a/?token=x", "-H", "authorization: y", "-H", "cookie: user=z", "--config"],
    ],
    ids=" ".join,
)
def test_no_secret_shows_in_what_the_command_line_says(command: list[str], tmp_path: Path) -> None:
    empty, path = tmp_path / "empty.yaml", tmp_path / "some.json"
    empty.write_text("services: {a: {}}\n")
    for document in (*native(SECRET), *foreign(SECRET)):
        path.write_text(json.dumps(document))
        arguments = [each.format(empty=empty) for each in command]
        said = CliRunner().invoke(meshlib, [*arguments, str(path)])
        assert said.exit_code in (0, 1, 2), said.output
        assert SECRET not in said.output, document


def test_what_is_converted_has_the_values_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps(virtual_service(headers={"request": {"set": {"x-plain": SECRET}}})))
    said = CliRunner().invoke(meshlib, ["convert", str(path)])
    assert SECRET in said.output
    assert "Values stand in it as they were written, secrets too." in said.output
