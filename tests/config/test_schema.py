"""The JSON Schema takes what the loader takes, and refuses what editors should mark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from meshlib.config import model
from meshlib.config.documents import read_documents
from meshlib.config.fields import Part
from meshlib.config.load import load_mapping
from meshlib.config.schema import config_schema, field_texts
from meshlib.errors import ConfigError
from tests.config.test_traffic_docs import _whole

pytestmark = pytest.mark.slow  # with its many cases

ROOT = Path(__file__).parents[2]
NATIVE = [ROOT / "docs", ROOT / "docs" / "traffic", ROOT / "docs" / "routing"]
BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}-{index}")
    for directory in NATIVE
    for path in sorted(directory.glob("*.md"))
    for index, block in enumerate(re.findall(r"```yaml\n(.*?)```", path.read_text(), re.DOTALL))
]


@cache
def _validator() -> Draft202012Validator:
    schema = config_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def _faults(config: Mapping[str, Any]) -> list[str]:
    return [f"{'.'.join(map(str, each.absolute_path))}: {each.message}" for each in _validator().iter_errors(config)]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_example_of_the_documentation_is_valid(block: str) -> None:
    assert _faults(_whole(block)) == []


def test_the_example_file_is_valid() -> None:
    assert _faults(read_documents(ROOT / "examples" / "mesh.yaml", "mesh.yaml")[0].data) == []


def _service(**fields: Any) -> dict[str, Any]:
    return {"services": {"orders": fields}}


def _route(**fields: Any) -> dict[str, Any]:
    return _service(routes=[fields])


TAKEN = {
    "nothing": {},
    "the schema of a file in JSON": {"$schema": "./mesh.schema.json", "mode": "on"},
    "services without a word": {"services": {"orders": None}, "defaults": None},
    "variables": _service(timeout="${TIMEOUT:-2s}", retry={"max_retries": "${RETRIES:-1}"}, http2="${H2:-false}"),
    "numbers": _service(timeout=2, per_try_timeout=0.5, limits={"max_in_flight": 10}),
    "numbers as text": _service(retry={"max_retries": "1"}, load_balancing={"panic_percent": "50.5"}),
    "parts switched off": _service(circuit_breaker=False, outlier_detection=False, throttle=False, fault=False),
    "a throttle of another algorithm": _service(throttle={"algorithm": "nack", "threshold_percent": 20}),
    "endpoints of both kinds": _service(endpoints=["10.0.0.1:80", {"address": "unix:/run/a.sock", "weight": 2}]),
    "sources": {"discovery": [{"consul": None}, {"local": {"poll_interval": "1s"}}]},
    "one method": _route(match=[{"method": "GET"}]),
    "methods": _route(match=[{"method": ["GET", "post"]}]),
    "one mirror": _route(mirror={"service": "shadow"}),
    "mirrors": _route(mirror=[{"service": "shadow", "percent": 5}]),
    "no timeout": _service(timeout=None),
    "a percentile": _service(hedge={"after": "p99.9"}),
    "a bucket": _service(rate_limit={"total": {"max_tokens": 10, "fill_interval": "1s"}}),
    "conditions": _service(retry={"on": [503, "502", "connect-failure"]}),
    "statuses": _service(health_check={"http": {"expected_statuses": ["200-299", 304]}}),
    "registration": {"service": "checkout", "register": {"port": 8000}},
    "regions": {"defaults": {"load_balancing": {"failover": [{"from": "eu", "to": "us"}]}}},
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_the_loader_takes_is_valid(name: str) -> None:
    load_mapping(TAKEN[name], environ={})
    assert _faults(TAKEN[name]) == []


REFUSED = {
    "a misspelt field": (_service(timout="2s"), "timout"),
    "a misspelt field at the top": ({"sevices": {}}, "sevices"),
    "a word for a duration": (_service(timeout="soon"), "soon"),
    "no time at all": (_service(timeout=0), "timeout"),
    "a choice that is none": ({"mode": "maybe"}, "maybe"),
    "too many retries": (_service(retry={"max_retries": 101}), "101"),
    "a share above all": (_service(fault={"abort": {"status": 503, "percent": 101}}), "101"),
    "a list for a map": (_service(retry=[]), "retry"),
    "two conditions on a path": (_route(match=[{"path": {"exact": "/a", "prefix": "/b"}}]), "path"),
    "no condition on a path": (_route(match=[{"path": {}}]), "path"),
    "two conditions on a header": (_route(match=[{"headers": {"x": {"exact": "a", "present": True}}}]), "headers"),
    "a redirect with backends": (_route(redirect={"path": "/"}, backends=[{"weight": 1}]), "routes"),
    "two answers": (_route(redirect={"path": "/"}, direct_response={"status": 503}), "routes"),
    "two rewrites of a path": (_route(rewrite={"path": "/", "prefix": "/"}), "rewrite"),
    "two kinds of stickiness": (_route(sticky={"header": "a", "cookie": "b"}), "sticky"),
    "a path without a slash": (_route(match=[{"path": {"exact": "a"}}]), "'a'"),
    "a field of another algorithm": (_service(throttle={"algorithm": "sre", "threshold_percent": 20}), "threshold"),
    "a field of another than the default": (_service(throttle={"threshold_percent": 20}), "threshold"),
    "a certificate without its key": (_service(tls={"cert_file": "a.pem"}), "cert_file"),
    "a rate and a bucket": (_service(rate_limit={"total": {"rate": 1, "max_tokens": 1}}), "total"),
    "a service that is no name": ({"services": {"Or ders": {}}}, "Or ders"),
    "an unknown source": ({"discovery": [{"zookeeper": {}}]}, "zookeeper"),
    "an endpoint without a port": (_service(endpoints=["10.0.0.1"]), "10.0.0.1"),
    "a header that is no token": (_route(headers={"request": {"set": {"a b": "1"}}}), "a b"),
    "a breaker in a file": (_service(circuit_breaker="breaker"), "breaker"),
    "a missing field": ({"register": {}}, "register"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_an_editor_should_mark_is_invalid_and_refused_by_the_loader_too(name: str) -> None:
    config, where = REFUSED[name]
    assert any(where in fault for fault in _faults(config)), _faults(config)
    with pytest.raises(ConfigError):
        load_mapping(config, environ={})


ACTIONS: dict[str, Any] = {
    "backends": [{"weight": 1}, {"service": "stock"}],
    "sticky": {"header": "x"},
    "headers": {"request": {"remove": ["x"]}},
    "rewrite": {"path": "/a"},
    "redirect": {"path": "/b"},
    "direct_response": {"status": 200},
    "mirror": {"service": "shadow"},
    "delegate": "others",
    "timeout": "1s",
    "retry": {"max_retries": 1},
    "fault": {"abort": {"status": 503, "percent": 1}},
    "hedge": {"after": "p95"},
}


@pytest.mark.parametrize("pair", list(combinations(ACTIONS, 2)), ids=" and ".join)
def test_what_excludes_one_another_in_a_route_does_so_for_both(pair: tuple[str, str]) -> None:
    route = {"match": [{"path": {"prefix": "/x"}}], **{name: ACTIONS[name] for name in pair}}
    if "sticky" in pair:
        route.setdefault("backends", ACTIONS["backends"])  # for want of which it would do nothing
    config = {**_service(routes=[route]), "route_sets": {"others": [{"name": "all"}]}}
    try:
        load_mapping(config, environ={})
    except ConfigError:
        assert _faults(config) != []
    else:
        assert _faults(config) == []


def _properties(schema: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, part in [*schema["$defs"].items(), ("MeshConfig", schema)]:
        for field, made in part["properties"].items():
            yield name, field, made


def test_every_field_has_a_description_and_a_kind() -> None:
    schema = config_schema()
    found = list(_properties(schema))
    assert len(found) > 300
    assert [f"{part}.{field}" for part, field, made in found if not made.get("description")] == []
    kinds = {"type", "anyOf", "$ref", "const"}
    assert [f"{part}.{field}" for part, field, made in found if not made.keys() & kinds] == []


def test_descriptions_are_the_texts_of_the_docstrings() -> None:
    properties = config_schema()["$defs"]["Service"]["properties"]
    assert properties["connect_timeout"]["description"] == "for TCP and TLS together."
    assert properties["circuit_breaker"]["description"] == "When a cluster is taken to be down."
    assert "`orders.internal:8080`" in properties["hosts"]["description"]
    enforcing = field_texts(model.OutlierDetection)["enforcing_consecutive_gateway_failure_percent"]
    assert enforcing == "how many of those found are ejected; the others are only counted."


def test_defaults_are_as_they_are_written() -> None:
    properties = config_schema()["$defs"]["Service"]["properties"]
    assert properties["timeout"]["default"] == "30s"
    assert properties["http2"]["default"] is False
    assert config_schema()["properties"]["domains"]["default"] == ["*.mesh", "*.svc.cluster.local"]
    for part, field, made in _properties(config_schema()):
        if "default" in made:
            own = {**made, "$defs": config_schema()["$defs"]} if "$ref" in str(made) else made
            assert Draft202012Validator(own).is_valid(made["default"]), f"{part}.{field}"


def test_every_part_is_in_it() -> None:
    parts = {getattr(model, name) for name in model.__all__}
    names = {each.__name__ for each in parts if issubclass(each, Part)} - {"MeshConfig"}
    assert names - config_schema()["$defs"].keys() == set()
