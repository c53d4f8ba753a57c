"""The Gateway API's conformance tests, run against this mesh: the documents as published, their requests and answers.

Where a test has a Gateway, a Service takes its place: one port for each of its listeners, and the routes' parents refer
to that. What is not in the documents themselves, the applications behind Services, is served by functions that tell
what they got.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import yaml

import meshlib
from meshlib.testing import MeshFixture

DATA = Path(__file__).parents[3] / "data" / "gateway_api"
SUITE = json.loads((DATA / "conformance.json").read_text())
_FULL = re.compile(r"(?P<name>[^.]+)\.(?P<namespace>[^.]+)\.svc\.cluster\.local(?::\d+)?")
_GATEWAY = {"group": "gateway.networking.k8s.io", "kind": "Gateway"}

_PODS = dict.fromkeys(("manual-endpointslices", "headless-manual-endpointslices", "headless"), "infra-backend-v1")
"""Services behind which the suite puts the pods of another."""


def cases() -> Iterator[tuple[str, int]]:
    """All that can be run: the name of a test, and the number of a case in it."""
    for name, test in SUITE["tests"].items():
        for index, case in enumerate(test["cases"]):
            if "not_here" not in case:
                yield name, index


@cache
def _read(file: str) -> list[Any]:
    return [each for each in yaml.load_all((DATA / "manifests" / file).read_text(), yaml.CSafeLoader) if each]


@cache
def documents(name: str, without: str | None = None) -> list[Any]:
    """The documents of a test and those that all tests share, with Services for Gateways."""
    test = SUITE["tests"][name]
    base = "mesh.yaml" if name.startswith("Mesh") else "base.yaml"
    given = []
    for file in (base, *test["manifests"]):
        given += deepcopy(_read(file))
    return [_meshed(each) for each in given if each["kind"] != without]


def _meshed(document: Any) -> Any:
    if document["kind"] == "Gateway":
        ports = {each["port"]: each["name"] for each in reversed(document["spec"]["listeners"])}
        spec = {"ports": [{"name": port_name, "port": number} for number, port_name in ports.items()]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": document["metadata"], "spec": spec}
    if document["kind"] == "HTTPRoute":
        for parent in document["spec"]["parentRefs"]:
            if (parent.get("group", _GATEWAY["group"]), parent.get("kind", "Gateway")) == tuple(_GATEWAY.values()):
                parent.update(group="", kind="Service")
    return document


class Setup:
    """A mesh for one test, with all of its Services served."""

    def __init__(self, given: Sequence[Any], directory: Path, namespace: str, **documents: bool) -> None:
        (directory / "documents.yaml").write_text(yaml.dump_all(given, Dumper=yaml.CSafeDumper))
        config = {
            "namespace": namespace,
            "include": [str(directory / "documents.yaml")],
            "documents": {"reference_grants": True, **documents},
        }
        self.mesh = MeshFixture(config)
        self.client = httpx.Client(transport=self.mesh.transport(), timeout=None)
        self.known: dict[str, tuple[str, str]] = {}
        for name, service in self.mesh._wiring.settings.services.items():
            found = next(filter(None, map(_FULL.fullmatch, service.hosts)))
            self.known[name] = found["name"], found["namespace"]
            self.mesh.serve(name, self._echo)

    def _echo(self, request: Any) -> httpx.Response:
        """What the suite's applications do: tell what they got, with the headers in the answer that were asked for."""
        name, namespace = self.known[request.service]
        got = {
            "backend": _PODS.get(name, name),
            "namespace": namespace,
            "method": request.method,
            "host": request.headers["host"],
            "path": request.url.raw_path.decode(),
            "headers": _joined(request.headers.multi_items()),
        }
        asked = request.headers.get("x-echo-set-header", "")
        headers = [tuple(pair.split(":", 1)) for pair in asked.split(",") if pair]
        return httpx.Response(200, json=got, headers=headers)

    def of(self, name: str, namespace: str) -> list[str]:
        """The native services of a Service."""
        return [native for native, known in self.known.items() if known == (name, namespace)]

    def ask(self, case: Mapping[str, Any], to: str, scheme: str = "http") -> httpx.Response:
        """Make the request of a case to a Service and, after a colon, its port."""
        request = case["request"]
        headers = {**request.get("headers", {})}
        if "backend_sets" in case:
            headers["X-Echo-Set-Header"] = ",".join(f"{name}:{value}" for name, value in case["backend_sets"].items())
        host, _, port = to.partition(":")
        url = f"{scheme}://{host}{f':{port}' if port else ''}{request['path']}"
        if request.get("host", to) != to:
            headers.setdefault("Host", request["host"])
        return self.client.request(request.get("method", "GET"), url, headers=headers)


def _joined(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name.lower()] = f"{joined[name.lower()]},{value}" if name.lower() in joined else value
    return joined


def target_of(name: str, case: Mapping[str, Any]) -> str:
    """Whom the request of a case is sent to: in the suite the address of a Gateway, or the Host."""
    if "to" in case:
        return str(case["to"])
    if name.startswith("Mesh"):
        return str(case["request"].get("host", "echo"))
    parents = [each["spec"]["parentRefs"][0] for each in documents(name) if each["kind"] == "HTTPRoute"]
    parent = parents[0]
    return f"{parent['name']}.{parent['namespace']}" if "namespace" in parent else str(parent["name"])


def namespace_of(name: str, case: Mapping[str, Any]) -> str:
    """The namespace of the caller: that of the routes."""
    if "from" in case:
        return str(case["from"])
    routes = [each for each in documents(name) if each["kind"] == "HTTPRoute"]
    return str(routes[0]["metadata"]["namespace"]) if routes else "gateway-conformance-mesh"


def compare(case: Mapping[str, Any], response: httpx.Response, url: str) -> None:
    """What the suite's ``CompareRoundTrip`` compares."""
    assert response.status_code in case["status"], response.text
    if response.status_code == 200:
        _compare_forwarded(case, response, url)
    elif "redirect" in case:
        _compare_redirect(case["redirect"], response, url)


def _compare_forwarded(case: Mapping[str, Any], response: httpx.Response, url: str) -> None:
    got = response.json()
    wanted = case.get("expected_request", case["request"])
    if "backend" in case:
        assert got["backend"] == case["backend"]
    if "namespace" in case:
        assert got["namespace"] == case["namespace"]
    assert got["method"] == wanted.get("method", case["request"].get("method", "GET"))
    if "path" in wanted:
        assert got["path"] == wanted["path"]
    if "host" in wanted and "expected_request" in case:
        assert got["host"] == wanted["host"]
    for name, value in wanted.get("headers", {}).items():
        assert got["headers"].get(name.lower()) == value, name
    for name in wanted.get("absent", ()):
        assert name.lower() not in got["headers"]
    headers = _joined(response.headers.multi_items())
    for name, value in case.get("response_headers", {}).items():
        assert headers.get(name.lower()) == value, name
    for name in case.get("response_absent", ()):
        assert name.lower() not in headers


def _compare_redirect(wanted: Mapping[str, str], response: httpx.Response, url: str) -> None:
    asked, got = urlsplit(url), urlsplit(response.headers["location"])
    assert got.scheme == wanted.get("scheme", asked.scheme)
    assert got.path == wanted.get("path", asked.path)
    if "host" in wanted:
        assert got.hostname == wanted["host"]
    if "port" in wanted:
        assert str(got.port) == wanted["port"]
    else:
        assert got.port in (None, {"http": 80, "https": 443}[got.scheme])


def simulate(setup: Setup, services: Sequence[str], how: Mapping[str, Any]) -> None:
    """What the suite's application does for tests of retries: it fails so often, after so long."""
    times = how["succeedAfter"]
    for service in services:
        if "responseCode" in how:
            setup.mesh.fail_next(service, times=times, status=how["responseCode"])
        else:
            setup.mesh.fail_next(service, times=times, error=meshlib.Reset)
        if "delayRetry" in how:
            setup.mesh.slow(service, how["delayRetry"], times=times)


def delay_in(path: str) -> str | None:
    """The delay that a request asks the suite's application for."""
    return parse_qs(urlsplit(path).query).get("delay", [None])[0]


def error_of(case: Mapping[str, Any]) -> type[Exception] | None:
    """What the caller of a library gets as an error where a gateway answers its clients with a status."""
    how = case.get("simulate", {"responseCode": 200})
    if case["status"] == [504] and ("delayRetry" in how or how.get("responseCode") == 200):
        return TimeoutError
    return None if 200 in case["status"] or "responseCode" in how else meshlib.Reset
