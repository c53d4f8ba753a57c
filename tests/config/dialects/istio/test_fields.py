"""Every field that Istio's documents have is in the table of the docs, and is treated as the table says."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from meshlib.config.dialects.draft import Draft
from tests.config.dialects.istio.support import document, draft_of, load, notes

ROOT = Path(__file__).parents[4]
MESSAGES: Final = json.loads((ROOT / "tests" / "data" / "istio_fields.json").read_text())["messages"]
PAGE = (ROOT / "docs" / "dialects" / "istio.md").read_text()

KINDS: Final = ("VirtualService", "DestinationRule", "ServiceEntry", "WorkloadEntry", "Sidecar")
HOST: Final = {"destination": {"host": "reviews"}}
OTHERS: Final = document("WorkloadEntry", "vm", {"address": "10.0.0.9", "labels": {"app": "vm"}})
BASES: Final[dict[str, dict[str, Any]]] = {
    "VirtualService": {"hosts": ["reviews"], "http": [{"route": [HOST]}]},
    "DestinationRule": {"host": "reviews", "subsets": [{"name": "v9", "labels": {"version": "v9"}}]},
    "ServiceEntry": {"hosts": ["api.example.com"], "ports": [{"number": 80, "name": "http"}], "resolution": "STATIC"},
    "WorkloadEntry": {"address": "10.0.0.1", "labels": {"app": "api"}},
    "Sidecar": {"egress": [{"hosts": ["other/*"]}]},
}
ROUTE, DELAY = ("http", 0), ("http", 0, "fault", "delay")
BALANCER = ("trafficPolicy", "loadBalancer")
HASH, LOCALITY = (*BALANCER, "consistentHash"), (*BALANCER, "localityLbSetting")
POOL = ("trafficPolicy", "connectionPool")
WHERE: Final[dict[str, tuple[str, tuple[str | int, ...]]]] = {
    **{kind: (kind, ()) for kind in KINDS},
    "HTTPRoute": ("VirtualService", ROUTE),
    "HTTPMatchRequest": ("VirtualService", (*ROUTE, "match", 0)),
    "StringMatch": ("VirtualService", (*ROUTE, "match", 0, "uri")),
    "HTTPRouteDestination": ("VirtualService", (*ROUTE, "route", 0)),
    "Destination": ("VirtualService", (*ROUTE, "route", 0, "destination")),
    "PortSelector": ("VirtualService", (*ROUTE, "route", 0, "destination", "port")),
    "Headers": ("VirtualService", (*ROUTE, "headers")),
    "HeaderOperations": ("VirtualService", (*ROUTE, "headers", "request")),
    "HTTPRedirect": ("VirtualService", (*ROUTE, "redirect")),
    "HTTPDirectResponse": ("VirtualService", (*ROUTE, "directResponse")),
    "HTTPBody": ("VirtualService", (*ROUTE, "directResponse", "body")),
    "Delegate": ("VirtualService", (*ROUTE, "delegate")),
    "HTTPRewrite": ("VirtualService", (*ROUTE, "rewrite")),
    "RegexRewrite": ("VirtualService", (*ROUTE, "rewrite", "uriRegexRewrite")),
    "HTTPRetry": ("VirtualService", (*ROUTE, "retries")),
    "HTTPFaultInjection": ("VirtualService", (*ROUTE, "fault")),
    "Delay": ("VirtualService", DELAY),
    "Percent": ("VirtualService", (*DELAY, "percentage")),
    "Abort": ("VirtualService", (*ROUTE, "fault", "abort")),
    "HTTPMirrorPolicy": ("VirtualService", (*ROUTE, "mirrors", 0)),
    "MatchLabels": ("DestinationRule", ("workloadSelector",)),
    "Subset": ("DestinationRule", ("subsets", 0)),
    "TrafficPolicy": ("DestinationRule", ("trafficPolicy",)),
    "PortTrafficPolicy": ("DestinationRule", ("trafficPolicy", "portLevelSettings", 0)),
    "RetryBudget": ("DestinationRule", ("trafficPolicy", "retryBudget")),
    "LoadBalancerSettings": ("DestinationRule", BALANCER),
    "ConsistentHashLB": ("DestinationRule", HASH),
    "HTTPCookie": ("DestinationRule", (*HASH, "httpCookie")),
    "RingHash": ("DestinationRule", (*HASH, "ringHash")),
    "MagLev": ("DestinationRule", (*HASH, "maglev")),
    "LocalityLoadBalancerSetting": ("DestinationRule", LOCALITY),
    "Distribute": ("DestinationRule", (*LOCALITY, "distribute", 0)),
    "Failover": ("DestinationRule", (*LOCALITY, "failover", 0)),
    "WarmupConfiguration": ("DestinationRule", (*BALANCER, "warmup")),
    "ConnectionPoolSettings": ("DestinationRule", POOL),
    "TCPSettings": ("DestinationRule", (*POOL, "tcp")),
    "TcpKeepalive": ("DestinationRule", (*POOL, "tcp", "tcpKeepalive")),
    "HTTPSettings": ("DestinationRule", (*POOL, "http")),
    "OutlierDetection": ("DestinationRule", ("trafficPolicy", "outlierDetection")),
    "ClientTLSSettings": ("DestinationRule", ("trafficPolicy", "tls")),
    "ServicePort": ("ServiceEntry", ("ports", 0)),
    "WorkloadSelector": ("ServiceEntry", ("workloadSelector",)),
    "IstioEgressListener": ("Sidecar", ("egress", 0)),
    "SidecarPort": ("Sidecar", ("egress", 0, "port")),
    "OutboundTrafficPolicy": ("Sidecar", ("outboundTrafficPolicy",)),
}
"""Of each message a place where it stands."""

MATCH: Final = {"exact": "/x"}
WITH: Final[dict[str, dict[str, Any]]] = {
    "StringMatch": {"exact": None},
    "HTTPRedirect": {"authority": "other"},
    "HTTPDirectResponse": {"status": 200},
    "Delegate": {"name": "v2"},
    "RegexRewrite": {"match": "a", "rewrite": "b"},
    "HTTPRetry": {"attempts": 1},
    "Delay": {"fixedDelay": "1s", "percentage": {"value": 50}},
    "Abort": {"httpStatus": 503, "percentage": {"value": 50}},
    "HTTPMirrorPolicy": {"destination": {"host": "copy"}},
    "Subset": {"name": "v1", "labels": {"version": "v1"}},
    "PortTrafficPolicy": {"port": {"number": 9080}},
    "ConsistentHashLB": {"httpHeaderName": "x-user"},
    "HTTPCookie": {"name": "user"},
    "MagLev": {"tableSize": 131},
    "Distribute": {"from": "eu/*", "to": {"eu/*": 100}},
    "Failover": {"from": "eu", "to": "us"},
    "WarmupConfiguration": {"duration": "60s"},
    "ClientTLSSettings": {"mode": "SIMPLE"},
    "ServicePort": {"number": 80, "name": "http"},
    "SidecarPort": {"number": 80},
    "OutboundTrafficPolicy": {"mode": "ALLOW_ANY"},
}
"""What a message has besides the field at hand."""

AROUND: Final[dict[str, dict[str, Any]]] = {
    "HTTPBody": {"status": 503},
    "Percent": {"fixedDelay": "1s"},
    "RingHash": {"httpHeaderName": "x-user"},
    "MagLev": {"httpHeaderName": "x-user"},
}
"""What the message around it has."""

WITHOUT: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    **{("HTTPRoute", name): ("route",) for name in ("redirect", "directResponse", "delegate")},
    ("Abort", "grpcStatus"): ("httpStatus",),
    ("HTTPMatchRequest", "gateways"): (),
    **{("ConsistentHashLB", name): ("httpHeaderName",) for name in ("httpCookie", "useSourceIp")},
    ("ConsistentHashLB", "httpQueryParameterName"): ("httpHeaderName",),
    ("Delay", "percent"): ("percentage",),
    ("ServiceEntry", "workloadSelector"): ("endpoints",),
}
"""And what it has not, for the sake of a field."""

ALONGSIDE: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("OutlierDetection", "consecutiveLocalOriginFailures"): {"splitExternalLocalOriginErrors": True},
    ("HTTPSettings", "http1MaxPendingRequests"): {"http2MaxRequests": 9},
    ("ClientTLSSettings", "clientCertificate"): {"mode": "MUTUAL", "privateKey": "key.pem"},
    ("ClientTLSSettings", "privateKey"): {"mode": "MUTUAL", "clientCertificate": "cert.pem"},
    ("HTTPRoute", "mirrorPercentage"): {"mirror": {"host": "copy"}},
    ("HTTPRoute", "mirrorPercent"): {"mirror": {"host": "copy"}},
    ("HTTPMatchRequest", "ignoreUriCase"): {"uri": MATCH},
    ("HTTPMatchRequest", "name"): {"uri": MATCH},
    ("HTTPMatchRequest", "gateways"): {"uri": MATCH},
    ("HTTPMatchRequest", "statPrefix"): {"uri": MATCH},
}

COOKIE: Final = {"name": "user"}
ROUTES: Final = [{"destination": {"host": "other"}}]
VALUES: Final[dict[tuple[str, str], Any]] = {
    ("VirtualService", "hosts"): ["ratings"],
    ("VirtualService", "gateways"): ["team/front"],
    ("VirtualService", "http"): [{"route": ROUTES}],
    ("VirtualService", "exportTo"): ["~"],
    ("VirtualService", "tls"): [{"match": [{"sniHosts": ["reviews"]}], "route": [HOST]}],
    ("VirtualService", "tcp"): [{"route": [HOST]}],
    ("HTTPRoute", "corsPolicy"): {"allowOrigins": [{"exact": "https://a.example"}]},
    ("HTTPMatchRequest", "uri"): MATCH,
    ("HTTPRouteDestination", "headers"): {"response": {"remove": ["x-a"]}},
    ("Abort", "httpStatus"): 500,
    ("TrafficPolicy", "tunnel"): {"targetHost": "reviews", "targetPort": 80},
    ("TrafficPolicy", "proxyProtocol"): {"version": "V1"},
    ("TrafficPolicy", "retryBudget"): {"percent": 10},
    ("LoadBalancerSettings", "zoneAwareLbSetting"): {"enabled": True},
    ("Sidecar", "inboundConnectionPool"): {"tcp": {"maxConnections": 5}},
    ("HTTPRoute", "route"): ROUTES,
    ("HTTPRoute", "redirect"): {"uri": "/y"},
    ("HTTPRoute", "directResponse"): {"status": 503},
    ("HTTPRoute", "delegate"): {"name": "v2"},
    ("HTTPRoute", "match"): [{"uri": MATCH}],
    ("HTTPRoute", "rewrite"): {"uri": "/y"},
    ("HTTPRoute", "retries"): {"attempts": 1},
    ("HTTPRoute", "fault"): {"delay": {"fixedDelay": "1s", "percentage": {"value": 1}}},
    ("HTTPRoute", "mirror"): {"host": "copy"},
    ("HTTPRoute", "mirrors"): [{"destination": {"host": "copy"}}],
    ("HTTPRoute", "headers"): {"request": {"set": {"x-a": "b"}}},
    ("HTTPMatchRequest", "method"): {"prefix": "P"},
    ("HTTPMatchRequest", "scheme"): {"regex": "https?s"},
    ("HTTPMatchRequest", "gateways"): ["team/front"],
    ("HTTPMatchRequest", "port"): 8080,
    ("StringMatch", "exact"): "/x",
    ("StringMatch", "prefix"): "/x",
    ("StringMatch", "regex"): "/x[0-9]+",
    ("HTTPRouteDestination", "destination"): {"host": "other"},
    ("Destination", "host"): "other",
    ("Destination", "subset"): "v1",
    ("Destination", "port"): {"number": 9081},
    ("PortSelector", "number"): 9081,
    ("Headers", "request"): {"set": {"x-a": "b"}},
    ("Headers", "response"): {"set": {"x-a": "b"}},
    ("HTTPRedirect", "uri"): "/y",
    ("HTTPRedirect", "prefixRewrite"): "/y",
    ("HTTPRedirect", "scheme"): "https",
    ("HTTPRedirect", "derivePort"): "FROM_REQUEST_PORT",
    ("HTTPRedirect", "redirectCode"): 307,
    ("HTTPDirectResponse", "status"): 503,
    ("HTTPDirectResponse", "body"): {"string": "no"},
    ("HTTPBody", "bytes"): "bm8=",
    ("HTTPRewrite", "uri"): "/y",
    ("HTTPRewrite", "uriRegexRewrite"): {"match": "a", "rewrite": "b"},
    ("RegexRewrite", "match"): "(x)",
    ("RegexRewrite", "rewrite"): "y",
    ("HTTPRetry", "attempts"): 5,
    ("HTTPRetry", "retryOn"): "reset,503",
    ("HTTPRetry", "retryIgnorePreviousHosts"): False,
    ("HTTPFaultInjection", "delay"): {"fixedDelay": "1s", "percentage": {"value": 1}},
    ("HTTPFaultInjection", "abort"): {"httpStatus": 503, "percentage": {"value": 1}},
    ("Abort", "grpcStatus"): "UNAVAILABLE",
    ("HTTPMirrorPolicy", "destination"): {"host": "other"},
    ("HTTPMirrorPolicy", "percentage"): {"value": 5},
    ("DestinationRule", "host"): "ratings",
    ("DestinationRule", "trafficPolicy"): {"loadBalancer": {"simple": "RANDOM"}},
    ("DestinationRule", "subsets"): [{"name": "v1", "labels": {"version": "v1"}}],
    ("DestinationRule", "exportTo"): ["~"],
    ("DestinationRule", "workloadSelector"): {"matchLabels": {"app": "other"}},
    ("MatchLabels", "matchLabels"): {"app": "other"},
    ("Subset", "name"): "v2",
    ("Subset", "trafficPolicy"): {"loadBalancer": {"simple": "RANDOM"}},
    ("TrafficPolicy", "loadBalancer"): {"simple": "RANDOM"},
    ("TrafficPolicy", "connectionPool"): {"tcp": {"connectTimeout": "5s"}},
    ("TrafficPolicy", "outlierDetection"): {"interval": "1s"},
    ("TrafficPolicy", "tls"): {"mode": "SIMPLE"},
    ("TrafficPolicy", "portLevelSettings"): [{"port": {"number": 9080}, "loadBalancer": {"simple": "RANDOM"}}],
    ("PortTrafficPolicy", "loadBalancer"): {"simple": "RANDOM"},
    ("PortTrafficPolicy", "connectionPool"): {"tcp": {"maxConnections": 5}},
    ("PortTrafficPolicy", "outlierDetection"): {"interval": "1s"},
    ("PortTrafficPolicy", "tls"): {"mode": "SIMPLE"},
    ("LoadBalancerSettings", "simple"): "RANDOM",
    ("LoadBalancerSettings", "consistentHash"): {"httpHeaderName": "x-user"},
    ("LoadBalancerSettings", "localityLbSetting"): {"distribute": [{"from": "eu", "to": {"eu": 100}}]},
    ("LoadBalancerSettings", "warmup"): {"duration": "60s"},
    ("ConsistentHashLB", "httpCookie"): COOKIE,
    ("ConsistentHashLB", "ringHash"): {"minimumRingSize": 2048},
    ("ConsistentHashLB", "maglev"): {"tableSize": 131},
    ("ConsistentHashLB", "minimumRingSize"): 2048,
    ("RingHash", "minimumRingSize"): 2048,
    ("MagLev", "tableSize"): 251,
    ("HTTPCookie", "path"): "/x",
    ("HTTPCookie", "attributes"): [{"name": "SameSite", "value": "Lax"}],
    ("LocalityLoadBalancerSetting", "distribute"): [{"from": "eu", "to": {"eu": 100}}],
    ("LocalityLoadBalancerSetting", "failover"): [{"from": "eu", "to": "us"}],
    ("LocalityLoadBalancerSetting", "failoverPriority"): ["version"],
    ("LocalityLoadBalancerSetting", "enabled"): False,
    ("Distribute", "from"): "us/*",
    ("Distribute", "to"): {"us/*": 100},
    ("Failover", "from"): "asia",
    ("Failover", "to"): "asia",
    ("ConnectionPoolSettings", "tcp"): {"connectTimeout": "5s"},
    ("ConnectionPoolSettings", "http"): {"http2MaxRequests": 5},
    ("TCPSettings", "tcpKeepalive"): {"probes": 3},
    ("HTTPSettings", "maxRequestsPerConnection"): 1,
    ("HTTPSettings", "h2UpgradePolicy"): "UPGRADE",
    ("HTTPSettings", "http2KeepAlive"): {"interval": "5s", "timeout": "1s"},
    ("ClientTLSSettings", "mode"): "DISABLE",
    ("ClientTLSSettings", "subjectAltNames"): ["reviews.internal"],
    ("OutlierDetection", "outlierDetectionHttpErrorCodes"): [429],
    ("ServiceEntry", "hosts"): ["other.example.com"],
    ("ServiceEntry", "addresses"): ["240.0.0.1"],
    ("ServiceEntry", "ports"): [{"number": 81, "name": "http"}],
    ("ServiceEntry", "location"): "MESH_INTERNAL",
    ("ServiceEntry", "resolution"): "DNS",
    ("ServiceEntry", "endpoints"): [{"address": "10.0.0.1"}],
    ("ServiceEntry", "workloadSelector"): {"labels": {"app": "vm"}},
    ("ServiceEntry", "exportTo"): ["~"],
    ("WorkloadSelector", "labels"): {"app": "nobody"},
    ("ServicePort", "number"): 81,
    ("ServicePort", "protocol"): "GRPC",
    ("WorkloadEntry", "address"): "10.0.0.2",
    ("WorkloadEntry", "ports"): {"http": 8080},
    ("WorkloadEntry", "labels"): {"app": "api", "version": "v2"},
    ("WorkloadEntry", "locality"): "eu/eu-1/rack-1",
    ("Sidecar", "workloadSelector"): {"labels": {"app": "other"}},
    ("Sidecar", "egress"): [{"hosts": ["./*"]}],
    ("Sidecar", "outboundTrafficPolicy"): {"mode": "REGISTRY_ONLY"},
    ("Sidecar", "ingress"): [{"port": {"number": 80}}],
    ("IstioEgressListener", "hosts"): ["./*"],
    ("IstioEgressListener", "port"): {"number": 81},
    ("SidecarPort", "number"): 81,
    ("SidecarPort", "protocol"): "HTTP_PROXY",
    ("OutboundTrafficPolicy", "mode"): "REGISTRY_ONLY",
    ("OutboundTrafficPolicy", "egressProxy"): {"host": "proxy"},
}
DEFAULTS: Final[dict[str, Any]] = {
    "text": "abc",
    "list text": ["abc"],
    "map text": {"x-a": "b"},
    "integer": 7,
    "number": 7,
    "flag": True,
    "duration": "7s",
    "StringMatch": {"exact": "abc"},
    "map StringMatch": {"x-a": {"exact": "b"}},
    "map integer": {"abc": 7},
    "Percent": {"value": 5},
    "PortSelector": {"number": 9080},
}

SAYS_NOTHING: Final = {
    ("ServiceEntry", "location"),
    ("IstioEgressListener", "bind"),
    ("IstioEgressListener", "captureMode"),
    ("SidecarPort", "name"),
    ("SidecarPort", "targetPort"),
    ("SidecarPort", "protocol"),
    ("SidecarPort", "number"),
    ("IstioEgressListener", "port"),
    ("HTTPRouteDestination", "weight"),
    ("HTTPMatchRequest", "statPrefix"),
    ("OutlierDetection", "consecutiveErrors"),
    ("HTTPRedirect", "derivePort"),
    ("Destination", "port"),
    ("PortSelector", "number"),
    ("PortTrafficPolicy", "port"),
    ("ServicePort", "name"),
}
"""What changes nothing where it stands here; what it does is tested elsewhere, where it does something."""


def rows() -> Iterator[tuple[str, str, str]]:
    """The message, the field, and whether it is honoured, of each row on the page."""
    for table in re.finditer(r"^### `(\w+)`\n\n((?:\|.*\n)+)", PAGE, re.MULTILINE):
        for row in table[2].splitlines()[2:]:
            cells = row.split("|")
            for name in re.findall(r"`(\w+)`", cells[1]):
                yield table[1], name, cells[2].strip()


ROWS: Final = {(message, name): how for message, name, how in rows()}


def test_the_tables_have_every_field_of_istio_and_no_other() -> None:
    assert set(ROWS) == {(message, name) for message, fields in MESSAGES.items() for name in fields}
    assert set(ROWS.values()) == {"yes", "differently", "no"}


def placed(spec: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """`spec` with `value` at `path`, laid over what is there if both are maps."""
    if not path:
        return {**spec, **value} if isinstance(spec, Mapping) and isinstance(value, Mapping) else value
    step, *rest = path
    if isinstance(step, int):
        first = spec[0] if spec else {}
        return [placed(first, tuple(rest), value)]
    given = dict(spec) if isinstance(spec, Mapping) else {}
    given[step] = placed(given.get(step, [] if rest and isinstance(rest[0], int) else {}), tuple(rest), value)
    return given


def sample(message: str, name: str | None) -> str:
    """Documents in which a message has a field, or none besides what it needs."""
    kind, path = WHERE[message]
    own = {key: value for key, value in WITH.get(message, {}).items() if value is not None}
    if name is not None:
        own |= ALONGSIDE.get((message, name), {})
        for key in WITHOUT.get((message, name), ()):
            own.pop(key, None)
        own[name] = VALUES.get((message, name), DEFAULTS.get(MESSAGES[message][name]))
        assert own[name] is not None, (message, name)
    spec = placed(BASES[kind], path, own)
    if message in AROUND:
        spec = placed(spec, path[:-1], AROUND[message])
    for action in ("redirect", "directResponse", "delegate"):
        if kind == "VirtualService" and action in spec["http"][0]:
            del spec["http"][0]["route"]
    if kind == "DestinationRule" and LOCALITY[:2] == path[:2]:
        spec = placed(spec, ("trafficPolicy", "outlierDetection"), {"interval": "10s"})
    if kind == "ServiceEntry" and "workloadSelector" not in spec and "endpoints" not in spec:
        spec["endpoints"] = [{"address": "10.0.0.3"}]
    if kind == "ServiceEntry" and spec.get("resolution") == "DNS":
        spec.pop("endpoints", None)
    rest = {
        "VirtualService": document("VirtualService", "v2", {"http": [{"route": ROUTES}]})
        + document("DestinationRule", "other", {"host": "reviews", "subsets": [dict(WITH["Subset"])]}),
        "DestinationRule": document(
            "ServiceEntry",
            "reviews",
            {**BASES["ServiceEntry"], "hosts": ["reviews"], "ports": [{"number": 9080, "name": "http"}]},
        ),
        "ServiceEntry": OTHERS,
        "WorkloadEntry": document(
            "ServiceEntry", "api", {**BASES["ServiceEntry"], "workloadSelector": {"labels": {"app": "api"}}}
        ),
        "Sidecar": document("ServiceEntry", "api", {**BASES["ServiceEntry"], "hosts": ["api"]}),
    }
    return document(kind, "own", spec) + rest[kind]


@functools.cache
def bare(message: str) -> dict[str, Any]:
    """What a message comes to without more than it needs."""
    return draft_of(sample(message, None), labels={"app": "checkout"}).data()[0]


def said_of(draft: Draft, message: str, name: str) -> set[str]:
    """What becomes of the field, as far as it is told of."""
    kind, path = WHERE[message]
    here = ("spec", *path, name)
    own = [note for note in draft.notes if note.place.subject == f"{kind} own"]
    return {note.effect for note in own if note.place.path[: len(here)] == here} - {"passed"}


FIELDS: Final = [pytest.param(*key, how, id=".".join(key)) for key, how in ROWS.items()]


@pytest.mark.parametrize(("message", "name", "how"), FIELDS)
def test_a_field_is_treated_as_its_table_says(message: str, name: str, how: str) -> None:
    text = sample(message, name)
    draft = draft_of(text, labels={"app": "checkout"})
    assert notes(draft, "wrong") == []
    assert said_of(draft, message, name) == {"yes": set(), "differently": {"different"}, "no": {"ignored"}}[how]
    if how == "no":
        return
    load(text, labels={"app": "checkout"})
    if (message, name) not in SAYS_NOTHING:
        assert draft.data()[0] != bare(message)


NARROWING = {"HTTPMatchRequest", "StringMatch", "MatchLabels", "WorkloadSelector"}


@pytest.mark.parametrize("message", WHERE)
def test_a_field_that_istio_does_not_have_is_told_of(message: str) -> None:
    documents = list(yaml.safe_load_all(sample(message, None)))
    documents[0]["spec"] = placed(documents[0]["spec"], WHERE[message][1], {"spelt": 1})
    draft = draft_of(yaml.safe_dump_all(documents, sort_keys=False))
    # In what says which calls are meant it is an error: without it more of them would be.
    told = "wrong" if message in NARROWING else "ignored"
    assert [note.effect for note in draft.notes if note.place.path[-1] == "spelt"] == [told]
