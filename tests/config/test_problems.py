"""Each kind of fault is reported with its file, its line, its path, and the nearest valid thing."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from meshlib.config.load import load_file, load_mapping
from meshlib.config.model import Consul, HeaderEdit, Pool, Register, Retry, Service, Tls
from meshlib.errors import ConfigError

ORDERS = "services:\n  orders:\n"


def problems(tmp_path: Path, text: str, name: str = "mesh.yaml", **environ: str) -> list[str]:
    """What is wrong with a file of this text; each without the directory."""
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_file(file, environ=environ)
    assert caught.value.retryable is False
    return [problem.removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


SINGLE = {
    "an unknown field": (
        ORDERS + "    retry: {max_retriez: 3}",
        3,
        "services.orders.retry.max_retriez",
        "'max_retries'",
    ),
    "an unknown field at the top": ("egres: pass", 1, "egres", "'egress'"),
    "camel case": (ORDERS + "    perTryTimeout: 1s", 3, "services.orders.perTryTimeout", "'per_try_timeout'"),
    "a field one level too high": (ORDERS + "    max_retries: 3", 3, "services.orders.max_retries", "under 'retry'"),
    "a field one level too low": (ORDERS + "    egress: pass", 3, "services.orders.egress", "at the top"),
    "a source that is not built yet": (
        "discovery: [{dns: {}}]",
        1,
        "discovery[0]",
        "dns is not a discovery source yet",
    ),
    "tls of the mesh": (ORDERS + "    tls: {mode: mesh}", 3, "services.orders.tls.mode", "'mesh' is not built yet"),
    "a wrong choice": ("mode: observ", 1, "mode", "'observ' is not one of off, observe, on; did you mean 'observe'?"),
    "a boolean for a choice": ("mode: true", 1, "mode", "did you mean 'on'?"),
    "an unknown balancer": (
        ORDERS + "    load_balancing: {policy: peak-ewma}",
        3,
        "services.orders.load_balancing.policy",
        "did you mean 'peak_ewma'?",
    ),
    "an unknown discovery source": ("discovery:\n  - konsul: {}", 2, "discovery[0]", "did you mean 'consul'?"),
    "a discovery source to come": ("discovery: [kubernetes: {}]", 1, "discovery[0]", "consul and local"),
    "a discovery source that is no map": ("discovery: [local]", 1, "discovery[0]", "a map with one key"),
    "two sources in one entry": ("discovery: [{consul: {}, local: {}}]", 1, "discovery[0]", "a map with one key"),
    "a fault inside a source": ("discovery: [consul: {adress: x}]", 1, "discovery[0].consul.adress", "'address'"),
    "consul without a scheme": (
        "discovery: [consul: {address: 'localhost:8500'}]",
        1,
        "discovery[0].consul.address",
        "'http://localhost:8500'",
    ),
    "a bad duration": (ORDERS + "    timeout: 2 sec", 3, "services.orders.timeout", "'2 sec' is not a duration"),
    "no time at all": (ORDERS + "    timeout: 0s", 3, "services.orders.timeout", "null for no limit"),
    "a huge duration": (ORDERS + "    timeout: 1" + "0" * 400, 3, "services.orders.timeout", "is not a duration"),
    "a map that is text": (ORDERS + "    retry: twice", 3, "services.orders.retry", "a map is expected, not text"),
    "a breaker that is true": (
        ORDERS + "    circuit_breaker: true",
        3,
        "services.orders.circuit_breaker",
        "a map, or false, is expected, not true",
    ),
    "a hedge that is a number": (ORDERS + "    hedge: 5", 3, "services.orders.hedge", "a map, or false, is expected"),
    "a session that is text": (
        ORDERS + "    load_balancing: {session_affinity: cookie}",
        3,
        "services.orders.load_balancing.session_affinity",
        "a map, or false, is expected, not text",
    ),
    "a list that is text": (ORDERS + "    hosts: a.b", 3, "services.orders.hosts", "a list is expected"),
    "a boolean in words": (ORDERS + "    http2: yes", 3, "services.orders.http2", "did you mean 'true'?"),
    "a number that is a boolean": (
        ORDERS + "    limits: {max_in_flight: true}",
        3,
        "services.orders.limits.max_in_flight",
        "true is not a number",
    ),
    "a number out of its range": (
        ORDERS + "    retry: {max_retries: -1}",
        3,
        "services.orders.retry.max_retries",
        "greater than or equal to 0",
    ),
    "a number where text is expected": (
        ORDERS + "    subsets: {v2: {version: 2}}",
        3,
        "services.orders.subsets.v2.version",
        'write "2"',
    ),
    "an unknown retry condition": (
        ORDERS + "    retry: {on: [conect-failure]}",
        3,
        "services.orders.retry.on[0]",
        "did you mean 'connect-failure'?",
    ),
    "a status that is a success": (ORDERS + "    retry: {on: [200]}", 3, "services.orders.retry.on[0]", "400 to 599"),
    "a strategy in a file": (ORDERS + "    retry: {wait: 3}", 3, "services.orders.retry.wait", "in code only"),
    "a percentage above 100": (
        ORDERS + "    circuit_breaker: {failure_percent: 120}",
        3,
        "services.orders.circuit_breaker.failure_percent",
        "less than or equal to 100",
    ),
    "a percentage below 0": (
        ORDERS + "    load_balancing: {panic_percent: -1}",
        3,
        "services.orders.load_balancing.panic_percent",
        "greater than or equal to 0",
    ),
    "a port out of range": ("service: a\nregister: {port: 70000}", 2, "register.port", "less than or equal to 65535"),
    "no port": ("service: a\nregister: {}", 2, "register.port", "is required"),
    "no name to register": ("register: {port: 80}", 1, "register", "no name to register under"),
    "an address without a port": (
        ORDERS + "    endpoints: [10.0.0.1]",
        3,
        "services.orders.endpoints[0]",
        "'10.0.0.1' has no port",
    ),
    "an address with a bad port": (
        ORDERS + "    endpoints: [{address: '10.0.0.1:99999'}]",
        3,
        "services.orders.endpoints[0].address",
        "outside 1 to 65535",
    ),
    "an IPv6 address without brackets": (
        ORDERS + "    endpoints: ['::1:80']",
        3,
        "services.orders.endpoints[0]",
        "in brackets",
    ),
    "an address with a scheme": (
        ORDERS + "    endpoints: ['http://a:80']",
        3,
        "services.orders.endpoints[0]",
        "did you mean 'a:80'?",
    ),
    "a socket without a path": (ORDERS + "    endpoints: ['unix:']", 3, "services.orders.endpoints[0]", "unix:/run/"),
    "a socket's path from nowhere": (
        ORDERS + "    endpoints: [{address: 'unix:run/orders.sock'}]",
        3,
        "services.orders.endpoints[0].address",
        "write it from the root",
    ),
    "a socket's path that is too long": (
        ORDERS + f"    endpoints: ['unix:/{'x' * 107}']",
        3,
        "services.orders.endpoints[0]",
        "107 bytes",
    ),
    "a socket where a host is named": (ORDERS + "    hosts: ['unix:/run/a']", 3, "services.orders.hosts[0]", "address"),
    "a socket twice": (
        ORDERS + "    endpoints: ['unix:/run/a', 'unix:/run/A', 'unix:///run/a']",
        3,
        "services.orders.endpoints[2]",
        "endpoints[0]",
    ),
    "a local address that is a name": (
        ORDERS + "    pool: {local_address: eth0}",
        3,
        "services.orders.pool.local_address",
        "'eth0' is not an IP address",
    ),
    "probes without pause": (
        ORDERS + "    pool: {tcp_keepalive: {time: 500ms}}",
        3,
        "services.orders.pool.tcp_keepalive.time",
        "1s to 32767s",
    ),
    "too many probes": (
        ORDERS + "    pool: {tcp_keepalive: {probes: 128}}",
        3,
        "services.orders.pool.tcp_keepalive.probes",
        "less than or equal to 127",
    ),
    "an endpoint without weight": (
        ORDERS + "    endpoints: [{address: 'a:80', weight: 0}]",
        3,
        "services.orders.endpoints[0].weight",
        "greater than 0",
    ),
    "an endpoint twice": (
        ORDERS + "    endpoints:\n    - a:80\n    - {address: A:80}",
        5,
        "services.orders.endpoints[1]",
        "endpoints[0]",
    ),
    "an empty name": ("services:\n  '': {}", 2, "services.''", "is empty"),
    "an upper-case name": ("services:\n  Orders: {}", 2, "services.Orders", "did you mean 'orders'?"),
    "a per-try timeout above the timeout": (
        ORDERS + "    timeout: 1s\n    per_try_timeout: 2s",
        4,
        "services.orders.per_try_timeout",
        "2s is above timeout (1s)",
    ),
    "a per-try timeout above the default": (
        ORDERS + "    per_try_timeout: 40s",
        3,
        "services.orders.per_try_timeout",
        "inherited or the default",
    ),
    "a connect timeout above the timeout": (
        ORDERS + "    timeout: 500ms\n    connect_timeout: 1s",
        4,
        "services.orders.connect_timeout",
        "1s is above timeout (500ms)",
    ),
    "a route's per-try timeout": (
        ORDERS + "    timeout: 2s\n    routes:\n    - per_try_timeout: 3s",
        5,
        "services.orders.routes[0].per_try_timeout",
        "3s is above timeout (2s",
    ),
    "a base above the max": (
        ORDERS + "    retry: {backoff: {base: 2s, max: 1s}}",
        3,
        "services.orders.retry.backoff.base",
        "2s is above max (1s)",
    ),
    "an ejection above its max": (
        ORDERS + "    outlier_detection: {max_ejection: 1s}",
        3,
        "services.orders.outlier_detection.max_ejection",
        "1s is below base_ejection (30s",
    ),
    "an open time above its max": (
        "defaults:\n  circuit_breaker: {open_for: 2m}",
        2,
        "defaults.circuit_breaker.open_for",
        "2m is above max_open_for (1m",
    ),
    "consul's back-off": (
        "discovery: [consul: {retry_base: 2s}]",
        1,
        "discovery[0].consul.retry_base",
        "2s is above retry_max",
    ),
    "weights that sum to zero": (
        ORDERS + "    routes:\n    - backends: [{weight: 0}, {service: b, weight: 0}]",
        4,
        "services.orders.routes[0].backends",
        "sum to zero",
    ),
    "a negative weight": (
        ORDERS + "    routes:\n    - backends: [{weight: -1}]",
        4,
        "services.orders.routes[0].backends[0].weight",
        "greater than or equal to 0",
    ),
    "no backends": (ORDERS + "    routes: [{backends: []}]", 3, "services.orders.routes[0].backends", "is empty"),
    "a subset nobody defines": (
        ORDERS + "    subsets: {canary: {v: '2'}}\n    routes: [{backends: [{subset: canari}]}]",
        4,
        "services.orders.routes[0].backends[0].subset",
        "did you mean 'canary'?",
    ),
    "a subset of a service that is not there": (
        ORDERS + "    routes: [{backends: [{service: other, subset: v1}]}]",
        3,
        "services.orders.routes[0].backends[0].subset",
        "'other' is not declared",
    ),
    "a subset that selects everything": (ORDERS + "    subsets: {v1: {}}", 3, "services.orders.subsets.v1", "is empty"),
    "a route's name twice": (
        ORDERS + "    routes:\n    - {name: a, match: [{method: GET}]}\n    - {name: a}",
        5,
        "services.orders.routes[1].name",
        "routes[0]",
    ),
    "a route named default": (ORDERS + "    routes: [name: default]", 3, "services.orders.routes[0].name", "another"),
    "a route behind one that takes all": (
        ORDERS + "    routes:\n    - name: a\n    - name: b",
        5,
        "services.orders.routes[1]",
        "never reached",
    ),
    "a host of two services": (
        "services:\n  a: {hosts: ['x.y:80']}\n  b: {hosts: ['X.y:80']}",
        3,
        "services.b.hosts[0]",
        "claimed by the service 'a' as well (services.a.hosts[0])",
    ),
    "a host that is another service": (
        "services:\n  a: {}\n  b: {hosts: [a]}",
        3,
        "services.b.hosts[0]",
        "the name of another service (services.a)",
    ),
    "each host by itself, and others": (
        "services:\n  a: {hosts: ['*.a'], endpoints: ['1.1.1.1:80', '*:80']}",
        2,
        "services.a.endpoints[1]",
        "*:80 is each host by itself, and the other endpoints are of all hosts together",
    ),
    "a bad regex": (
        ORDERS + "    routes: [{match: [{path: {regex: '/(a'}}]}]",
        3,
        "services.orders.routes[0].match[0].path.regex",
        "is not a regular expression of RE2: missing ): '/(a'",
    ),
    "a regex that looks ahead": (
        ORDERS + "    routes: [{match: [{path: {regex: '/a(?!b)'}}]}]",
        3,
        "services.orders.routes[0].match[0].path.regex",
        "is not a regular expression of RE2: invalid perl operator: '(?!'",
    ),
    "a regex that is nobody's business": (
        ORDERS + "    routes: [{match: [{headers: {authorization: {regex: '(a'}}}]}]",
        3,
        "services.orders.routes[0].match[0].headers.authorization.regex",
        "the value (not shown) is not a regular expression of RE2: missing )",
    ),
    "two conditions on the path": (
        ORDERS + "    routes: [{match: [{path: {exact: /a, prefix: /b}}]}]",
        3,
        "services.orders.routes[0].match[0].path",
        "has exact and prefix: exactly one",
    ),
    "a path without a slash": (
        ORDERS + "    routes: [{match: [{path: {exact: a}}]}]",
        3,
        "services.orders.routes[0].match[0].path.exact",
        "did you mean '/a'?",
    ),
    "a bad template": (
        ORDERS + "    routes: [{match: [{path: {template: '/a/{'}}]}]",
        3,
        "services.orders.routes[0].match[0].path.template",
        "/orders/{order_id}",
    ),
    "an empty match": (
        ORDERS + "    routes: [{match: [{}]}]",
        3,
        "services.orders.routes[0].match[0]",
        "no 'match' at all",
    ),
    "a header of the connection": (
        ORDERS + "    routes: [{headers: {request: {set: {Content-Length: '1'}}}}]",
        3,
        "services.orders.routes[0].headers.request.set.Content-Length",
        "cannot be edited",
    ),
    "the host header": (
        ORDERS + "    routes: [{headers: {request: {remove: [host]}}}]",
        3,
        "services.orders.routes[0].headers",
        "'host_header'",
    ),
    "a header value with a line break": (
        ORDERS + '    routes: [{headers: {request: {set: {x: "a\\r\\nb: c"}}}}]',
        3,
        "services.orders.routes[0].headers.request.set.x",
        "control character",
    ),
    "a certificate without a key": (
        ORDERS + "    tls: {cert_file: a.pem}",
        3,
        "services.orders.tls",
        "a cert_file without a key_file",
    ),
    "a bad network": ("server: {trusted_peers: [10.0.0.0/99]}", 1, "server.trusted_peers[0]", "is not a network"),
    "a network with bits too many": (
        "server: {trusted_peers: [10.0.0.1/8]}",
        1,
        "server.trusted_peers[0]",
        "did you mean '10.0.0.0/8'?",
    ),
    "a bad domain": ("domains: ['a.*.b']", 1, "domains[0]", "as in *.mesh"),
    "an infinite number": (
        ORDERS + "    retry_budget: {tokens: .inf}",
        3,
        "services.orders.retry_budget.tokens",
        "finite",
    ),
}


@pytest.mark.parametrize(("text", "line", "path", "hint"), SINGLE.values(), ids=list(SINGLE))
def test_a_fault_is_reported_with_file_line_path_and_hint(
    tmp_path: Path, text: str, line: int, path: str, hint: str
) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith(f"mesh.yaml:{line}: {path}: "), problem
    assert hint in problem


def test_all_faults_are_reported_at_once_contradictions_included(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
mod: on
services:
  a: {timeout: 1s, per_try_timeout: 2s, retry: {max_retriez: 1}}
  b: {timeout: fast, routes: [{backends: [{subset: v1}]}]}
  c: {hosts: [a]}
""",
    )
    assert [problem.split(": ")[1] for problem in found] == [
        "mod",
        "services.a.retry.max_retriez",
        "services.a.per_try_timeout",
        "services.b.timeout",
        "services.b.routes[0].backends[0].subset",
        "services.c.hosts[0]",
    ]


def test_a_required_field_with_a_fault_hides_no_other_fault(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        """
services:
  a: {routes: [{match: [{method: GET}], direct_response: {status: 10}}, {backends: [{subset: v1}]}]}
  b: {endpoints: [{adress: "10.0.0.1:80"}], timeout: 1s, per_try_timeout: 2s}
""",
    )
    assert [problem.split(": ")[1] for problem in found] == [
        "services.a.routes[0].direct_response.status",
        "services.a.routes[1].backends[0].subset",
        "services.b.endpoints[0].address",
        "services.b.endpoints[0].adress",
        "services.b.per_try_timeout",
    ]


def test_a_fault_brings_no_faults_that_follow_from_it(tmp_path: Path) -> None:
    text = """
services:
  a:
    subsets: {v1: {version: 1}}
    timeout: fast
    per_try_timeout: 40s
    routes: [{backends: [{subset: v1}]}]
"""
    assert [problem.split(": ")[1] for problem in problems(tmp_path, text)] == [
        "services.a.subsets.v1.version",
        "services.a.timeout",
    ]


def test_a_narrower_timeout_under_an_inherited_per_try_timeout_is_no_fault() -> None:
    load_mapping({"defaults": {"per_try_timeout": "5s"}, "services": {"orders": {"timeout": "2s"}}})


def test_json_faults_have_lines(tmp_path: Path) -> None:
    text = '{\n "services": {\n  "orders": {\n   "hosts": [\n    "a",\n    "b:x"\n]}}}'
    (problem,) = problems(tmp_path, text, "mesh.json")
    assert problem.startswith("mesh.json:6: services.orders.hosts[1]: 'b:x' has a port")


def test_toml_faults_have_the_file_and_the_path(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, '[services.orders]\ntimeout = "x"', "mesh.toml")
    assert problem == "mesh.toml: services.orders.timeout: " + problem.split(": ", 2)[2]


def test_a_fault_in_typed_code_is_a_config_error_with_its_path() -> None:
    with pytest.raises(ConfigError, match=r"Service: retry.max_retriez: unknown field; did you mean 'max_retries'\?"):
        Service(retry={"max_retriez": 1})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Pool: idle: -1 is not a duration"):
        Pool(idle=-1)


def test_errors_are_picklable() -> None:
    with pytest.raises(ConfigError) as caught:
        load_mapping({"mod": "on"})
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


SECRET = "s3cr3t-hunter2"


@pytest.mark.parametrize(
    "data",
    [
        {"discovery": [{"consul": {"token": [SECRET]}}]},
        {"discovery": [{"consul": {"token": SECRET, "wait": 0}}]},
        {"discovery": [{"consul": {"tokn": SECRET}}]},
        {"discovery": [{"consul": SECRET}]},
        {"discovery": [SECRET]},
        {"discovery": {"consul": {"token": SECRET}}},
        {"discovery": [{"consul": {"address": f"http://user:{SECRET}@consul:8500"}}]},
        {"discovery": [{"consul": {"address": "${ADDRESS}"}}]},
        {"services": {"a": {"tls": {"key_file": SECRET}}}},
        {"services": {"a": {"tls": {"key_file": f"\0{SECRET}"}}}},
        {"services": {"a": {"timeout": "${ADDRESS}"}}},
        {"services": {"a": {"routes": [{"headers": {"request": {"set": {"authorization": f"{SECRET}\n"}}}}]}}},
        {"services": {"a": {"routes": [{"headers": {"request": {"set": {"x-api-key": f"{SECRET}\n"}}}}]}}},
        {"services": {"a": {"routes": [{"headers": {"request": {"sett": {"authorization": SECRET}}}}]}}},
    ],
)
def test_a_secret_is_in_no_error(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_mapping(data, environ={"ADDRESS": f"x {SECRET}"})
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        assert SECRET not in repr(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_a_secret_is_in_no_repr() -> None:
    from meshlib.config.compile import compile_config

    config = load_mapping(
        {
            "service": "me",
            "discovery": [Consul(token=SECRET)],
            "register": Register(port=80),
            "services": {
                "a": Service(
                    tls=Tls(cert_file="a.pem", key_file=SECRET),
                    retry=Retry(),
                    routes=[{"headers": {"request": HeaderEdit(set={"authorization": SECRET})}}],  # type: ignore[list-item]
                )
            },
        }
    )
    settings = compile_config(config)
    assert SECRET not in repr(config)
    assert SECRET not in str(config)
    assert SECRET not in repr(settings)
    assert settings.discovery[0].token == SECRET  # type: ignore[union-attr]
    with pytest.raises(ConfigError) as caught:
        Consul(token=SECRET, wait="soon")
    assert SECRET not in str(caught.value)
