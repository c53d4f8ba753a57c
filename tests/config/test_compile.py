"""What a configuration compiles to: levels merged field by field, the same from every format."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import tenacity

from meshlib import Mesh
from meshlib.balance.endpoint import Endpoint as CompiledEndpoint
from meshlib.balance.endpoint import Locality as CompiledLocality
from meshlib.config.compile import compile_config
from meshlib.config.load import load_file, load_mapping
from meshlib.config.model import (
    Backend,
    Backoff,
    CircuitBreaker,
    Consul,
    Defaults,
    Endpoint,
    HeaderEdit,
    HeaderEdits,
    Limits,
    Local,
    Locality,
    Match,
    OutlierDetection,
    PathMatch,
    Register,
    Retry,
    Route,
    Service,
    Tls,
    ValueMatch,
)
from meshlib.config.override import override_policy
from meshlib.config.settings import (
    ClusterSettings,
    ConsulSettings,
    KeepaliveSettings,
    LocalSettings,
    MeshSettings,
    RegisterSettings,
    ServiceSettings,
    StaticSettings,
    TlsSettings,
    default_service,
)
from meshlib.config.yaml12 import read_yaml
from meshlib.errors import ConfigError
from meshlib.policy.settings import BreakerSettings, CallPolicy, LimitSettings, RetryPolicy
from meshlib.routing.match import RequestView


def compiled(**fields: Any) -> MeshSettings:
    return compile_config(load_mapping(fields))


def service(value: Any = None, **fields: Any) -> ServiceSettings:
    return compiled(services={"orders": value or {}}, **fields).services["orders"]


def cluster(value: Any = None, **fields: Any) -> ClusterSettings:
    return service(value, **fields).clusters[None]


YAML = """
service: checkout
mode: observe
egress: refuse
locality: {region: eu-west, zone: a}
discovery:
  - consul: {address: "http://127.0.0.1:8500", token: t0ken}
  - local: {}
defaults: {timeout: 20s, retry: {max_retries: 3}}
services:
  orders:
    hosts: ["orders.internal:8080"]
    endpoints: ["10.0.0.1:8080", {address: "[::1]:80", weight: 2, metadata: {version: v2}, locality: {zone: b}}]
    subsets: {v1: {version: v1}, v2: {version: v2}}
    timeout: 2s
    per_try_timeout: 500ms
    retry: {on: [connect-failure, 503], backoff: {base: 10ms}}
    circuit_breaker: false
    outlier_detection: {consecutive_errors: 3}
    limits: {max_in_flight: 1000}
    tls: {ca_file: ca.pem}
    routes:
      - name: beta
        match: [{path: {path_prefix: /v2}, method: get, headers: {End-User: {exact: jason}}}]
        backends: [{subset: v2, weight: 90}, {service: orders-next, weight: 10}]
        headers: {request: {set: {X-Canary: "1"}, remove: [X-Debug]}}
        retry: {max_retries: 0}
  idle:
register: {port: 8000, metadata: {version: v1}}
"""

TOML = """
service = "checkout"
mode = "observe"
egress = "refuse"
locality = {region = "eu-west", zone = "a"}
discovery = [{consul = {address = "http://127.0.0.1:8500", token = "t0ken"}}, {local = {}}]
[defaults]
timeout = 20
retry.max_retries = 3
[services.idle]
[services.orders]
hosts = ["orders.internal:8080"]
endpoints = ["10.0.0.1:8080", {address = "[::1]:80", weight = 2, metadata = {version = "v2"}, locality = {zone = "b"}}]
timeout = "2s"
per_try_timeout = 0.5
circuit_breaker = false
[services.orders.subsets]
v1.version = "v1"
v2.version = "v2"
[services.orders.retry]
on = ["connect-failure", 503]
backoff.base = "10ms"
[services.orders.outlier_detection]
consecutive_errors = 3
[services.orders.limits]
max_in_flight = 1000
[services.orders.tls]
ca_file = "ca.pem"
[[services.orders.routes]]
name = "beta"
match = [{path = {path_prefix = "/v2"}, method = "GET", headers = {end-user = {exact = "jason"}}}]
backends = [{subset = "v2", weight = 90}, {service = "orders-next", weight = 10}]
retry.max_retries = 0
[services.orders.routes.headers.request]
set = {x-canary = "1"}
remove = ["x-debug"]
[register]
port = 8000
metadata = {version = "v1"}
"""

CODE: dict[str, Any] = {
    "service": "checkout",
    "mode": "observe",
    "egress": "refuse",
    "locality": Locality(region="eu-west", zone="a"),
    "discovery": [Consul(address="http://127.0.0.1:8500", token="t0ken"), Local()],
    "defaults": Defaults(timeout=20, retry=Retry(max_retries=3)),
    "services": {
        "orders": Service(
            hosts=["orders.internal:8080"],
            endpoints=[
                "10.0.0.1:8080",
                Endpoint(address="[::1]:80", weight=2, metadata={"version": "v2"}, locality=Locality(zone="b")),
            ],
            subsets={"v1": {"version": "v1"}, "v2": {"version": "v2"}},
            timeout=timedelta(seconds=2),
            per_try_timeout="500ms",
            retry=Retry(on=["connect-failure", 503], backoff=Backoff(base=0.01)),
            circuit_breaker=False,
            outlier_detection=OutlierDetection(consecutive_errors=3),
            limits=Limits(max_in_flight=1000),
            tls=Tls(ca_file="ca.pem"),
            routes=[
                Route(
                    name="beta",
                    match=[
                        Match(
                            path=PathMatch(path_prefix="/v2"),
                            method="GET",
                            headers={"end-user": ValueMatch(exact="jason")},
                        )
                    ],
                    backends=[Backend(subset="v2", weight=90), Backend(service="orders-next", weight=10)],
                    headers=HeaderEdits(request=HeaderEdit(set={"x-canary": "1"}, remove=["x-debug"])),
                    retry=Retry(max_retries=0),
                )
            ],
        ),
        "idle": Service(),
    },
    "register": Register(port=8000, metadata={"version": "v1"}),
}


def test_yaml_toml_json_maps_and_code_compile_to_the_same(tmp_path: Path) -> None:
    ((plain, _),) = read_yaml(YAML)
    texts = {"mesh.yaml": YAML, "mesh.toml": TOML, "mesh.json": json.dumps(plain)}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    results = [replace(compile_config(load_file(tmp_path / name)), sources=()) for name in texts]
    results += [compile_config(load_mapping(plain)), compile_config(load_mapping(CODE))]
    for result in results[1:]:
        assert result == results[0]


def test_the_parts_of_a_configuration_land_where_they_are_read() -> None:
    settings = compile_config(load_mapping(CODE))
    static, consul, local = settings.discovery
    assert static == StaticSettings(
        {
            "orders": (
                CompiledEndpoint("10.0.0.1", 8080),
                CompiledEndpoint("::1", 80, 2.0, locality=CompiledLocality(zone="b"), metadata={"version": "v2"}),
            )
        }
    )
    assert consul == ConsulSettings(token="t0ken")
    assert local == LocalSettings()
    assert settings.register == RegisterSettings(8000, metadata={"version": "v1"})
    orders = settings.services["orders"]
    assert orders.hosts == ("orders.internal:8080",)
    assert list(orders.clusters) == [None, "v1", "v2"]
    assert orders.clusters["v2"] == replace(orders.clusters[None], subset="v2", selector=(("version", "v2"),))
    whole = orders.clusters[None]
    assert whole.breaker is None
    assert whole.outlier is not None
    assert whole.outlier.consecutive_errors == 3
    assert whole.limits == LimitSettings(1000)
    assert whole.tls == TlsSettings(ca_file="ca.pem")
    beta, default = orders.routes
    assert (default.name, default.matches) == ("default", ())
    assert [backend.cluster for backend in default.backends] == ["orders"]
    assert default.policy == CallPolicy(
        2.0, 0.5, retry=RetryPolicy(3, frozenset({"connect-failure", 503}), backoff_base_s=0.01)
    )
    assert beta.policy == replace(default.policy, retry=replace(default.policy.retry, max_retries=0))
    assert [(backend.cluster, backend.weight) for backend in beta.backends] == [("orders/v2", 90), ("orders-next", 10)]
    assert beta.request_edits.apply([(b"x-debug", b"1"), (b"a", b"b")]) == [(b"a", b"b"), (b"x-canary", b"1")]
    assert beta.accepts(RequestView("GET", "/v2/x", "", {"end-user": "jason"}))
    assert not beta.accepts(RequestView("GET", "/v20", "", {"end-user": "jason"}))


def test_nothing_written_compiles_to_the_built_in_defaults() -> None:
    settings = compiled()
    assert replace(settings, fallback=default_service) == replace(MeshSettings(), fallback=default_service)
    assert settings.fallback("anything") == default_service("anything")


def test_a_service_that_is_only_named_has_the_defaults_and_is_declared() -> None:
    assert service() == replace(default_service("orders"), declared=True)


def test_a_service_takes_each_field_it_does_not_write_from_the_defaults() -> None:
    made = service(
        {"retry": {"backoff": {"max": "1s"}}, "limits": {"max_pending": 5}},
        defaults={
            "timeout": "9s",
            "retry": {"max_retries": 5, "backoff": {"base": "50ms"}},
            "limits": {"max_in_flight": 7},
            "mode": "observe",
        },
    )
    policy = made.routes[-1].policy
    assert policy.timeout_s == 9.0
    assert (policy.retry.max_retries, policy.retry.backoff_base_s, policy.retry.backoff_max_s) == (5, 0.05, 1.0)
    assert made.clusters[None].limits == LimitSettings(7, 5)
    assert made.mode == "observe"


def test_a_field_that_is_written_holds_also_when_it_is_the_built_in_default() -> None:
    made = service(
        Service(
            timeout=30,
            retry=Retry(max_retries=2),
            limits=Limits(max_in_flight=None),
            http2=False,
            mode=None,
            tls=None,
            host_header="service",
        ),
        defaults={
            "timeout": "9s",
            "retry": {"max_retries": 5},
            "limits": {"max_in_flight": 7},
            "http2": True,
            "mode": "off",
            "tls": {},
            "host_header": "endpoint",
        },
    )
    whole = made.clusters[None]
    assert (made.routes[-1].policy.timeout_s, made.routes[-1].policy.retry.max_retries) == (30.0, 2)
    assert (whole.limits.max_in_flight, whole.http2, whole.tls, made.mode) == (None, False, None, None)
    assert whole.host_header == "service"


def test_null_is_no_timeout() -> None:
    policy = service({"timeout": None, "per_try_timeout": None, "body_idle_timeout": None}).routes[-1].policy
    assert (policy.timeout_s, policy.per_try_timeout_s, policy.body_idle_s) == (None, None, None)


def test_a_breaker_can_be_switched_off_and_on_again() -> None:
    off = {"circuit_breaker": False, "outlier_detection": False}
    assert (cluster(off).breaker, cluster(off).outlier) == (None, None)
    assert cluster({}, defaults=off).breaker is None
    assert cluster({"circuit_breaker": {}}, defaults=off).breaker == BreakerSettings()
    assert cluster(
        {"circuit_breaker": CircuitBreaker(min_calls=5)}, defaults={"circuit_breaker": {"window": "3s"}}
    ).breaker == BreakerSettings(min_calls=5, window_s=3.0)


def test_tls_is_merged_and_can_be_switched_off() -> None:
    defaults = {"tls": {"ca_file": "ca.pem", "cert_file": "c", "key_file": "k"}}
    assert cluster({"tls": {"server_name": "x"}}, defaults=defaults).tls == TlsSettings("x", "ca.pem", "c", "k")
    assert cluster({"tls": {"mode": "off"}}, defaults=defaults).tls is None


def test_keepalive_is_merged_and_can_be_switched_off() -> None:
    defaults = {"pool": {"tcp_keepalive": {"time": "30s", "probes": 3}, "local_address": "10.0.0.5"}}
    pool = cluster({"pool": {"tcp_keepalive": {"interval": "5s"}}}, defaults=defaults).pool
    assert (pool.tcp_keepalive, pool.local_address) == (KeepaliveSettings(30.0, 5.0, 3), "10.0.0.5")
    assert cluster({"pool": {"tcp_keepalive": False}}, defaults=defaults).pool.tcp_keepalive is None
    off = {"pool": {"tcp_keepalive": False}}
    assert cluster({"pool": {"idle": "1s"}}, defaults=off).pool.tcp_keepalive is None
    assert cluster({"pool": {"tcp_keepalive": {}}}, defaults=off).pool.tcp_keepalive == KeepaliveSettings()


def test_a_unix_socket_is_an_endpoint_without_a_port() -> None:
    written = ["unix:/run/Orders.sock", "unix:///run/b.sock", Endpoint(address="unix:@orders", weight=2)]
    (static, _) = compiled(services={"orders": {"endpoints": written}}).discovery
    assert isinstance(static, StaticSettings)
    endpoints = static.services["orders"]
    assert [each.address for each in endpoints] == ["unix:/run/Orders.sock", "unix:/run/b.sock", "unix:@orders"]
    assert [each.socket_path for each in endpoints] == ["/run/Orders.sock", "/run/b.sock", "@orders"]
    assert {(each.port, each.authority) for each in endpoints} == {(0, "localhost")}


def test_a_service_that_is_not_named_gets_the_defaults() -> None:
    made = compiled(defaults={"timeout": "9s", "pool": {"idle": "3s"}, "connect_timeout": "2s"}).fallback("other")
    assert (made.name, made.declared, made.routes[0].policy.timeout_s) == ("other", False, 9.0)
    assert made.routes[0].backends[0].cluster == "other"
    whole = made.clusters[None]
    assert (whole.service, whole.pool.idle_s, whole.pool.connect_timeout_s) == ("other", 3.0, 2.0)


def test_static_endpoints_come_first_and_only_if_there_are_any() -> None:
    assert compiled(discovery=[]).discovery == ()
    assert compiled(services={"a": {"endpoints": []}}).discovery == (StaticSettings({"a": ()}), LocalSettings())


def test_an_empty_token_is_none() -> None:
    (consul,) = compiled(discovery=[{"consul": {"token": ""}}]).discovery
    assert isinstance(consul, ConsulSettings)
    assert consul.token is None


def test_routes_without_a_name_have_their_place_and_a_template_names_the_operation() -> None:
    routes = service(
        {
            "routes": [
                {"match": [{"path": {"template": "/a/{id}"}, "method": ["GET", "put"]}]},
                {"match": [{"path": {"template": "/a/{id}"}}, {"method": "PURGE"}]},
            ]
        }
    ).routes
    assert [(route.name, route.template) for route in routes] == [
        ("route-1", "/a/{id}"),
        ("route-2", None),
        ("default", None),
    ]
    assert routes[0].matches[0].methods == {"GET", "PUT"}


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ({"exact": ""}, "", True),
        ({"prefix": "a"}, "ab", True),
        ({"suffix": "b", "invert": True}, "ab", False),
        ({"regex": "a+"}, "aab", False),
        ({"present": True}, "", True),
        ({"present": False}, None, True),
        ({"present": False, "invert": True}, None, False),
        ({"present": True, "invert": True}, "x", False),
    ],
)
def test_conditions_on_values(condition: dict[str, Any], value: str | None, holds: bool) -> None:
    (route, _) = service({"routes": [{"match": [{"headers": {"X": condition}}]}]}).routes
    headers = {} if value is None else {"x": value}
    assert route.accepts(RequestView("GET", "/", "", headers)) is holds


def test_tenacity_strategies_are_taken_as_they_are() -> None:
    wait, stop = tenacity.wait_fixed(1), tenacity.stop_after_attempt(3)
    retry = tenacity.retry_if_exception_type(OSError)
    policy = service(Service(retry=Retry(wait=wait, stop=stop, retry=retry))).routes[-1].policy.retry
    assert (policy.wait, policy.stop, policy.retry) == (wait, stop, retry)


# Overrides in code


def test_an_override_replaces_only_what_is_given() -> None:
    base = CallPolicy(retry=RetryPolicy(max_retries=5, backoff_base_s=0.1))
    made = override_policy(timeout="800ms", retry=Retry(max_retries=0))(base)
    assert made == CallPolicy(0.8, retry=RetryPolicy(max_retries=0, backoff_base_s=0.1))
    assert override_policy()(base) == base
    assert override_policy(per_try_timeout=timedelta(seconds=1), retry=RetryPolicy(1))(base) == CallPolicy(
        per_try_timeout_s=1.0, retry=RetryPolicy(1)
    )


@pytest.mark.parametrize(
    ("given", "error", "what"),
    [
        ({"timeout": "soon"}, ConfigError, "timeout: 'soon' is not a duration"),
        ({"timeout": True}, ConfigError, "timeout: True is not a duration"),
        ({"timeout": 10**400}, ConfigError, "is not a duration"),
        ({"timeout": 1e300}, ConfigError, "timeout: 1e+300 is out of range"),
        ({"per_try_timeout": 5e-324}, ConfigError, "per_try_timeout: 5e-324 is out of range"),
        ({"per_try_timeout": 0}, ConfigError, "per_try_timeout: a duration above 0"),
        ({"timeout": "1s", "per_try_timeout": "2s"}, ConfigError, "is above timeout"),
        ({"retry": {"max_retries": 1}}, TypeError, "a Retry is expected"),
        ({"retry": 3}, TypeError, "a Retry is expected"),
        ({"retry": Retry(backoff=Backoff(base="2s"))}, ConfigError, "base is above max"),
    ],
)
def test_an_override_is_checked(given: dict[str, Any], error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=re.escape(what)):
        override_policy(**given)(CallPolicy())


def test_the_path_of_a_file_is_no_map() -> None:
    path: Any = "mesh.yaml"
    with pytest.raises(TypeError, match=r"a map is expected, not 'mesh.yaml'; Mesh.from_file\(\) reads a file"):
        Mesh.from_dict(path)


def test_what_is_wrong_with_a_block_is_told_where_it_is_made_and_not_at_a_call() -> None:
    with Mesh.from_dict({"discovery": []}) as mesh:
        with pytest.raises(ConfigError, match="timeout: 'soon' is not a duration"):
            mesh.policy(timeout="soon")
        with pytest.raises(ConfigError, match="is above timeout"):
            mesh.policy(timeout="1s", per_try_timeout="2s")
        wrong: Any = {"max_retries": 1}
        with pytest.raises(TypeError, match="a Retry is expected"):
            mesh.policy(retry=wrong)
        mesh.policy(retry=Retry(backoff=Backoff(base="2s")))  # which may fit the route of a call


def test_the_compiled_side_needs_neither_pydantic_nor_yaml() -> None:
    code = (
        "import sys, meshlib.config, meshlib.config.settings, meshlib.config.override\n"
        "from meshlib.config.override import override_policy\n"
        "from meshlib.policy.settings import CallPolicy\n"
        "override_policy(timeout=1)(CallPolicy())\n"
        "assert not {'pydantic', 'yaml'} & set(sys.modules)\n"
        "assert meshlib.config.Service(timeout=1).timeout == 1.0\n"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
