"""Whatever stands in a field of Consul's or Linkerd's documents: it is read, or told of; nothing is ever raised."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.config.dialects.consul.live import LiveChains
from meshlib.config.dialects.draft import Context
from meshlib.config.dialects.merge import translated
from meshlib.config.dialects.resources import resources_in
from meshlib.config.documents import Document
from meshlib.errors import ConfigError
from tests.config.dialects.consul.test_entries import CUSTOM, JSON, resolver, router, splitter, to
from tests.config.dialects.linkerd.test_docs import DOCUMENTS

BALANCER = {"Policy": "ring_hash", "RingHashConfig": {"MinimumRingSize": 1}, "HashPolicies": [{"Field": "header"}]}
EDITS = {"Add": {"a": "b"}, "Set": {"c": "d"}, "Remove": ["e"]}
UPSTREAM = {
    "Name": "a",
    "ConnectTimeoutMs": 1,
    "Limits": {"MaxConnections": 1},
    "PassiveHealthCheck": {"MaxFailures": 1},
}
SAMPLES: list[dict[str, Any]] = [
    JSON,
    CUSTOM,
    router(
        to(
            "a",
            {"Header": [{"Name": "x", "Exact": "y"}], "Methods": ["GET"]},
            RequestTimeout="1s",
            RequestHeaders=EDITS,
        )
    ),
    splitter({"Weight": 50, "Service": "a", "RequestHeaders": EDITS}, {"Weight": 50}),
    resolver(Subsets={"v1": {"Filter": "a in Service.Tags"}}, Failover={"*": {"Targets": [{"Service": "b"}]}}),
    resolver("b", Redirect={"Service": "c"}, LoadBalancer=BALANCER, ConnectTimeout="1s"),
    {"Kind": "service-defaults", "Name": "shop", "Protocol": "http", "UpstreamConfig": {"Defaults": UPSTREAM}},
    {"Kind": "service-defaults", "Name": "api", "Destination": {"Addresses": ["a"], "Port": 1}},
    {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}},
    *DOCUMENTS.values(),
]
CHAIN = {
    "ServiceName": "web",
    "Datacenter": "dc1",
    "Protocol": "http",
    "StartNode": "router:web",
    "Nodes": {
        "router:web": {
            "Type": "router",
            "Routes": [
                {"Definition": to("a", {"PathPrefix": "/a"}), "NextNode": "splitter:a"},
                {"Definition": to("web", {"PathPrefix": "/"}), "NextNode": "resolver:web"},
            ],
        },
        "splitter:a": {"Type": "splitter", "Splits": [{"Weight": 100, "NextNode": "resolver:a", "Definition": {}}]},
        "resolver:a": {
            "Type": "resolver",
            "Resolver": {"ConnectTimeout": "5s", "Target": "a", "Failover": {"Targets": ["w"]}},
        },
        "resolver:web": {"Type": "resolver", "Resolver": {"Default": True, "Target": "w"}, "LoadBalancer": BALANCER},
    },
    "Targets": {
        "a": {"Service": "a", "ServiceSubset": "v1", "Datacenter": "dc1", "Subset": {"Filter": "a in Service.Tags"}},
        "w": {"Service": "web", "Datacenter": "dc2", "Subset": {}},
    },
}

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["1s", "/a", "web", "5xx"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(sample: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    result = copy.deepcopy(sample)
    inside: Any = result
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    return result


FIELDS = [(index, path) for index, sample in enumerate(SAMPLES) for path in places(sample)]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(FIELDS), VALUES)
def test_any_value_in_any_field_of_a_document_is_read_or_told_of(
    field: tuple[int, tuple[Any, ...]], value: Any
) -> None:
    index, path = field
    documents = [*SAMPLES[:index], changed(SAMPLES[index], path, value), *SAMPLES[index + 1 :]]
    found = [resource for each in documents for resource in resources_in(Document("some.json", each))]
    draft, problems = translated(found, {"service": "shop", "namespace": "shop"})
    draft.data()
    assert all(problem.text for problem in problems)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(places(CHAIN))), VALUES)
def test_any_value_in_a_compiled_chain_is_read_or_refused(path: tuple[Any, ...], value: Any) -> None:
    live = LiveChains()
    with contextlib.suppress(ConfigError):
        live.take("web", changed(CHAIN, path, value), Context())
    live.services(Context())


def test_the_samples_themselves_are_right() -> None:
    for sample in SAMPLES:
        found = resources_in(Document("some.json", sample))
        assert [each.text for each in translated(found, {"namespace": "shop"})[1]] == [], sample
    live = LiveChains()
    live.take("web", CHAIN, Context())
    routes = live.services(Context())["web"]["routes"]
    assert routes[0]["backends"] == [{"service": "a", "subset": "v1"}]


def test_what_cannot_be_followed_leaves_the_chain_before() -> None:
    live = LiveChains()
    live.take("web", CHAIN, Context())
    with pytest.raises(ConfigError, match=r"the discovery chain of web is not right: .*no node 'gone'"):
        live.take("web", {**CHAIN, "StartNode": "gone"}, Context())
    assert live.services(Context())["web"]["routes"]
