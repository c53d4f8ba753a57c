"""What VirtualServices come to: routes in order, by the cases of Istio's route_test.go that can be told in requests."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.routing.actions import DirectResponse, Redirect
from meshlib.routing.route import Route
from tests.config.dialects.istio.support import (
    destination_rule,
    document,
    draft_of,
    effects,
    http,
    load,
    notes,
    route_of,
    to,
    virtual_service,
)

V1_V2 = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")]
SUBSETS = destination_rule(subsets=V1_V2)


def only(*routes: Any, text: str = "", **native: Any) -> Route:
    return load(virtual_service(*routes) + text, **native).services["reviews"].routes[0]


def test_the_first_match_wins_and_a_rule_without_match_takes_the_rest() -> None:
    jason = http(to(subset="v2"), match=[{"headers": {"end-user": {"exact": "jason"}}}])
    settings = load(virtual_service(jason, http(to(subset="v1")), http(to("never"))) + SUBSETS)
    found = [route_of(settings, "http://reviews/x", end_user=user) for user in ("jason", "anna")]
    assert [route.backends[0].cluster for route in found if route] == ["reviews/v2", "reviews/v1"]
    # Nothing after the catch-all is ever reached, so Istio drops it, and so does this.
    assert [route.name for route in settings.services["reviews"].routes] == ["reviews-1", "reviews-2", "default"]


def test_what_no_rule_takes_is_not_found() -> None:
    settings = load(virtual_service(http(match=[{"uri": {"prefix": "/v1"}}])))
    found = route_of(settings, "http://reviews/other")
    assert found is not None and found.name == "no-route"
    assert found.reply == DirectResponse(404)


@pytest.mark.parametrize(
    "match",
    [
        {},
        {"uri": {"prefix": "/"}},
        {"uri": {"regex": ".*"}},
        {"uri": {"prefix": ""}},
    ],
)
def test_a_match_of_everything_is_a_catch_all(match: dict[str, Any]) -> None:
    # "catch all route", "multi prefix catch all route" in route_test.go.
    routes = load(virtual_service(http(match=[{"uri": {"exact": "/x"}}, match]), http(to("never")))).services
    assert [route.name for route in routes["reviews"].routes] == ["reviews-1", "default"]


@pytest.mark.parametrize(
    ("match", "url", "headers", "taken"),
    [
        ({"uri": {"prefix": "/foo"}}, "/foobar", {}, True),
        ({"uri": {"exact": "/foo"}}, "/foo?x=1", {}, True),
        ({"uri": {"exact": "/FOO"}, "ignoreUriCase": True}, "/foo", {}, True),
        ({"uri": {"exact": "/FOO"}}, "/foo", {}, False),
        ({"uri": {"regex": "/status/.*"}}, "/status/200?x", {}, True),
        ({"uri": {"regex": "/status"}}, "/status/200", {}, False),
        ({"headers": {"auth": {"regex": "Bearer .+\\..+\\..+"}}}, "/", {"auth": "Bearer a.b.c"}, True),
        ({"headers": {"auth": {}}}, "/", {"auth": "x"}, True),
        ({"headers": {"auth": {"regex": "*"}}}, "/", {}, False),
        ({"headers": {"auth": {"regex": "*"}}}, "/", {"auth": ""}, True),
        ({"withoutHeaders": {"auth": {"regex": "Bearer .+"}}}, "/", {"auth": "Bearer x"}, False),
        ({"withoutHeaders": {"auth": {"regex": "Bearer .+"}}}, "/", {"auth": "Basic x"}, True),
        ({"withoutHeaders": {"auth": {"exact": "x"}}}, "/", {}, True),
        ({"withoutHeaders": {"auth": {}}}, "/", {}, True),
        ({"withoutHeaders": {"auth": {}}}, "/", {"auth": "x"}, False),
        ({"queryParams": {"token": {"exact": "foo"}}}, "/?token=foo", {}, True),
        ({"queryParams": {"token": {"prefix": "foo"}}}, "/?token=foobar", {}, True),
        ({"queryParams": {"token": {"regex": "BAR.*"}}}, "/?token=BARny", {}, True),
        ({"queryParams": {"token": {"regex": "*"}}}, "/?token=", {}, True),
        ({"queryParams": {"token": {"regex": "*"}}}, "/", {}, False),
        ({"authority": {"exact": "reviews:8080"}}, ":8080/", {}, True),
        ({"authority": {"prefix": "other"}}, "/", {}, False),
        ({"port": 8080}, ":8080/", {}, True),
        ({"port": 8080}, "/", {}, False),
        ({"method": {"exact": "GET"}}, "/", {}, True),
        ({"method": {"exact": "get"}}, "/", {}, False),
        ({"method": {"prefix": "P"}}, "/", {}, False),
        ({"method": {"regex": "GET|POST"}}, "/", {}, True),
        ({"scheme": {"exact": "https"}}, "/", {}, False),
        ({"scheme": {"prefix": "http"}}, "/", {}, True),
        ({"sourceLabels": {"app": "checkout"}}, "/", {}, True),
        ({"sourceLabels": {"app": "other"}}, "/", {}, False),
        ({"sourceNamespace": "default"}, "/", {}, True),
        ({"sourceNamespace": "other"}, "/", {}, False),
        ({"gateways": ["mesh"]}, "/", {}, True),
        ({"gateways": ["front"]}, "/", {}, False),
        ({"gateways": ["mesh"], "sourceLabels": {"app": "other"}}, "/", {}, True),
        ({"headers": {":method": {"exact": "GET"}, ":authority": {"prefix": "rev"}}}, "/", {}, True),
        ({"headers": {":method": {"exact": "POST"}}}, "/", {}, False),
        ({"headers": {":path": {"prefix": "/"}}}, "/", {}, False),
        ({"headers": {"@request.auth.claims.admin": {"exact": "1"}}}, "/", {}, False),
        ({"withoutHeaders": {"@request.auth.claims.admin": {"exact": "1"}}}, "/", {}, False),
        ({"withoutHeaders": {":path": {"prefix": "/x"}}}, "/", {}, False),
        ({"headers": {"a": {"prefix": "x"}}, "withoutHeaders": {"a": {"exact": "xy"}}}, "/", {"a": "xz"}, True),
        ({"headers": {"a": {"prefix": "x"}}, "withoutHeaders": {"a": {"exact": "xy"}}}, "/", {"a": "xy"}, False),
        ({"headers": {"a": {"prefix": "x"}}, "withoutHeaders": {"a": {"exact": "xy"}}}, "/", {"a": "z"}, False),
        ({"headers": {"a": {}}, "withoutHeaders": {"a": {}}}, "/", {"a": "x"}, False),
        ({"queryParams": {":x": {"exact": "1"}}}, "/?:x=1", {}, True),
        ({"queryParams": {":x": {"exact": "1"}}}, "/?:x=2", {}, False),
    ],
)
def test_what_a_match_takes(match: dict[str, Any], url: str, headers: dict[str, str], taken: bool) -> None:
    always = http(to("other"), match=[{"uri": {"prefix": "/"}}])
    settings = load(virtual_service(http(to("hit"), match=[match]), always), labels={"app": "checkout"})
    found = route_of(settings, f"http://reviews{url}", **headers)
    assert found is not None
    assert found.backends[0].service == ("hit" if taken else "other")


def test_a_rule_that_is_for_nobody_here_leaves_the_host_as_it_is() -> None:
    # "no routes matched": Istio then treats the host as if there were no VirtualService.
    draft = draft_of(virtual_service(http(match=[{"sourceLabels": {"app": "other"}}])))
    assert "routes" not in draft.services["reviews"].data


def test_weights_are_shares_and_zero_is_none() -> None:
    route = only(http(to(subset="v1", weight=75), to(subset="v2", weight=25), to("gone", weight=0)), text=SUBSETS)
    assert [(each.cluster, each.weight) for each in route.backends] == [("reviews/v1", 75), ("reviews/v2", 25)]
    assert only(http(to("other", weight=0))).backends[0].service == "other"
    assert "sum to zero" in notes(draft_of(virtual_service(http(to("a"), to("b")))), "wrong")[0]


def test_names_are_those_of_rules_and_matches() -> None:
    matches = [{"uri": {"prefix": "/a"}, "name": "a"}, {"uri": {"prefix": "/b"}}]
    routes = [http(match=matches, name="Main_Route"), http(name="main_route"), http()]
    found = [route["name"] for route in draft_of(virtual_service(*routes)).services["reviews"].data["routes"]]
    assert found == ["main_route.a", "main_route", "main_route-2"]


@pytest.mark.parametrize(("timeout", "seconds"), [({}, None), ({"timeout": "0s"}, None), ({"timeout": "1m30s"}, 90.0)])
def test_timeouts(timeout: dict[str, str], seconds: float | None) -> None:
    # "virtual service with timeout", "with disabled timeout" in route_test.go.
    assert only(http(**timeout)).policy.timeout_s == seconds


@pytest.mark.parametrize(
    ("uri", "native"),
    [
        ({"prefix": "/old"}, {"prefix": "/new"}),
        ({"exact": "/old"}, {"path": "/new"}),
        ({"regex": "/o.*"}, {"path": "/new"}),
    ],
)
def test_a_rewrite_is_of_what_matched(uri: dict[str, str], native: dict[str, str]) -> None:
    # "full path rewrite", "prefix path rewrite" in route_test.go; Envoy's rewritePathHeader.
    draft = draft_of(virtual_service(http(match=[{"uri": uri}], rewrite={"uri": "/new", "authority": "other"})))
    route = draft.services["reviews"].data["routes"][0]
    assert route["rewrite"] == {**native, "host": "other"}
    load(virtual_service(http(match=[{"uri": uri}], rewrite={"uri": "/new", "authority": "other"})))


def test_matches_that_are_rewritten_in_different_ways_are_routes_of_their_own() -> None:
    matches = [{"uri": {"exact": "/a"}}, {"uri": {"prefix": "/b"}}, {"uri": {"prefix": "/c"}}]
    text = virtual_service(http(match=matches, rewrite={"uri": "/"}))
    routes = draft_of(text).services["reviews"].data["routes"]
    assert [(len(route["match"]), route["rewrite"]) for route in routes[:2]] == [
        (1, {"path": "/"}),
        (2, {"prefix": "/"}),
    ]
    load(text)


def test_a_rewrite_without_a_match_replaces_the_slash_that_all_paths_begin_with() -> None:
    text = virtual_service(http(rewrite={"uri": "/v1/"}))
    route = draft_of(text).services["reviews"].data["routes"][0]
    assert (route["match"], route["rewrite"]) == ([{"path": {"prefix": "/"}}], {"prefix": "/v1/"})
    load(text)


@pytest.mark.parametrize(
    ("redirect", "expected"),
    [
        ({"uri": "/new", "authority": "other"}, Redirect(path="/new", host="other")),
        ({"uri": "/new", "redirectCode": 308}, Redirect(path="/new", status=308)),
        ({"prefixRewrite": "/new"}, Redirect(prefix="/new")),
        ({"scheme": "https", "port": 443}, Redirect(scheme="https")),
        ({"scheme": "https", "port": 80}, Redirect(scheme="https", port=80)),
        ({"port": 80}, Redirect()),
        ({"authority": "other", "derivePort": "FROM_REQUEST_PORT"}, Redirect(host="other", port=9080)),
        ({"authority": "other", "derivePort": "FROM_PROTOCOL_DEFAULT"}, Redirect(host="other")),
    ],
)
def test_redirects(redirect: dict[str, Any], expected: Redirect) -> None:
    rule = {"match": [{"uri": {"prefix": "/old"}}], "redirect": redirect}
    assert only(rule, text=entry("reviews", 9080)).reply == expected


def entry(host: str, *ports: int, **spec: Any) -> str:
    named = [{"number": port, "name": f"p{port}"} for port in ports]
    return document("ServiceEntry", host, {"hosts": [host], "ports": named, "resolution": "STATIC", **spec})


def test_edits_of_one_destination_come_after_those_of_its_route() -> None:
    # "header operations for single cluster" in route_test.go.
    route = http(
        to(headers={"request": {"set": {"x-a": "2"}, "add": {"x-c": "3"}, "remove": ["x-d"]}}),
        headers={"request": {"set": {"x-b": "1"}, "add": {"x-a": "1"}, "remove": ["x-e"]}},
    )
    edits = draft_of(virtual_service(route)).services["reviews"].data["routes"][0]["headers"]["request"]
    assert edits == {"set": {"x-b": "1", "x-a": "2"}, "add": {"x-c": "3"}, "remove": ["x-e", "x-d"]}
    load(virtual_service(route))


def test_edits_of_one_destination_have_the_last_word_where_one_map_cannot_hold_both() -> None:
    route = http(
        to(headers={"request": {"set": {"x-a": "2"}, "add": {"x-c": "2"}}, "response": {"remove": ["x-d"]}}),
        headers={"request": {"set": {"x-a": "1"}, "add": {"x-c": "1"}}, "response": {"add": {"x-d": "1"}}},
    )
    compiled = only(route)
    headers: list[tuple[bytes, bytes]] = [(b"x-a", b"0"), (b"x-c", b"0")]
    for edits in (compiled.backends[0].request_edits, compiled.request_edits):  # the order in which they are laid on
        headers = edits.apply(headers)
    assert headers == [(b"x-c", b"0"), (b"x-c", b"1"), (b"x-a", b"2"), (b"x-c", b"2")]
    # What is removed is removed first of all, so what the route adds stays.
    answer: list[tuple[bytes, bytes]] = [(b"x-d", b"0")]
    for edits in (compiled.backends[0].response_edits, compiled.response_edits):
        answer = edits.apply(answer)
    assert answer == [(b"x-d", b"1")]


def test_values_of_headers_are_those_that_envoy_sends() -> None:
    edits = {"request": {"set": {"x-a": "", "x-b": "100%%", "x-c": "%REQ(x-d):8%"}, "remove": ["x-a"]}}
    draft = draft_of(virtual_service(http(headers=edits)))
    request = draft.services["reviews"].data["routes"][0]["headers"]["request"]
    assert request == {"set": {"x-b": "100%", "x-c": "%REQ(x-d):8%"}, "remove": ["x-a"]}
    found = notes(draft)
    assert any("'x-a' has an empty value" in note for note in found)
    assert any("'x-c' is sent as it is written" in note for note in found)


def test_edits_of_several_destinations_are_their_own() -> None:
    shares = [
        to(subset="v1", weight=1, headers={"request": {"set": {"Host": "one"}, "add": {"x-a": "1"}}}),
        to(subset="v2", weight=1, headers={"response": {"remove": ["x-b"]}}),
    ]
    route = draft_of(virtual_service(http(*shares)) + SUBSETS).services["reviews"].data["routes"][0]
    assert [backend["headers"] for backend in route["backends"]] == [
        {"request": {"add": {"x-a": "1"}, "set": {"host": "one"}}},
        {"response": {"remove": ["x-b"]}},
    ]
    load(virtual_service(http(*shares)) + SUBSETS)


@pytest.mark.parametrize(
    ("route", "host"),
    [
        (http(headers={"request": {"set": {":authority": "a"}, "add": {"host": "b"}}}), "a"),
        (http(headers={"request": {"add": {"host": "b"}}}), "b"),
        (http(headers={"request": {"set": {"host": "a"}}}, rewrite={"authority": "c"}), "c"),
        (http(to(headers={"request": {"set": {"host": "d"}}})), "d"),
        (http(to(headers={"request": {"set": {"host": "d"}}}), rewrite={"authority": "c"}), "c"),
    ],
)
def test_the_host_is_rewritten_once(route: dict[str, Any], host: str) -> None:
    # "host rewrite" in route_test.go, and processDestination in route.go.
    assert draft_of(virtual_service(route)).services["reviews"].data["routes"][0]["rewrite"] == {"host": host}


def test_what_headers_cannot_be_edited_is_told_of() -> None:
    request = {"set": {"connection": "close", ":path": "/", "x-ip": "%DOWNSTREAM_REMOTE_ADDRESS%"}}
    edits = {"request": request, "response": {"set": {"Host": "one"}}}
    found = notes(draft_of(virtual_service(http(headers=edits))))
    assert len(found) == 4
    assert all(
        any(word in note for note in found)
        for word in ("connection", "':path' is passed over", "'Host' is passed over", "'x-ip' is sent")
    )


def test_what_is_removed_and_added_is_set() -> None:
    edits = {"request": {"remove": ["x-a", "x-b"], "add": {"X-A": "1"}}}
    route = draft_of(virtual_service(http(headers=edits))).services["reviews"].data["routes"][0]
    assert route["headers"]["request"] == {"set": {"x-a": "1"}, "remove": ["x-b"]}


@pytest.mark.parametrize(
    ("mirror", "expected"),
    [
        ({"mirror": {"host": "copy"}}, [("copy", 100.0)]),
        ({"mirror": {"host": "copy"}, "mirrorPercentage": {"value": 12.5}}, [("copy", 12.5)]),
        ({"mirror": {"host": "copy"}, "mirrorPercent": 5}, [("copy", 5.0)]),
        ({"mirror": {"host": "copy"}, "mirrorPercentage": {}}, []),
        ({"mirror": {"host": "reviews", "subset": "v2"}}, [("reviews/v2", 100.0)]),
        (
            {"mirrors": [{"destination": {"host": "a"}}, {"destination": {"host": "b"}, "percentage": {"value": 1}}]},
            [("a", 100.0), ("b", 1.0)],
        ),
    ],
)
def test_mirrors(mirror: dict[str, Any], expected: list[tuple[str, float]]) -> None:
    route = only(http(**mirror), text=SUBSETS)
    assert [(each.cluster, each.percent) for each in route.mirrors] == expected


@pytest.mark.parametrize(("percent", "timeout", "said"), [(100, "1s", 1), (0, "1s", 0), (100, "0s", 0)])
def test_a_delay_inside_a_timeout_is_reported(percent: int, timeout: str, said: int) -> None:
    fault = {"delay": {"fixedDelay": "7s", "percentage": {"value": percent}}}
    found = notes(draft_of(virtual_service(http(fault=fault, timeout=timeout))), "different")
    assert sum("http[0].fault: the delay counts against the timeout" in note for note in found) == said


def test_faults_without_a_percentage_are_none() -> None:
    fault = {"delay": {"fixedDelay": "7s"}, "abort": {"httpStatus": 500}}
    policy = only(http(fault=fault)).policy.fault
    assert policy is not None and policy.delay is not None and policy.abort is not None
    assert (policy.delay.percent, policy.abort.percent) == (0.0, 0.0)
    fault = {"delay": {"fixedDelay": "7s", "percentage": {"value": 100}}, "abort": {"grpcStatus": "NOT_FOUND"}}
    policy = only(http(fault=fault)).policy.fault
    assert policy is not None and policy.delay is not None and policy.abort is not None
    assert (policy.delay.fixed_s, policy.delay.percent, policy.abort.grpc_status) == (7.0, 100.0, 5)


RING = {"loadBalancer": {"consistentHash": {"httpCookie": {"name": "hash-cookie", "ttl": "0s"}}}}


@pytest.mark.parametrize(
    "rule",
    [
        {"trafficPolicy": RING, "subsets": V1_V2},
        {"subsets": [{**V1_V2[0], "trafficPolicy": RING}]},
        {
            "trafficPolicy": {"loadBalancer": {"consistentHash": {"useSourceIp": True}}},
            "subsets": [{**V1_V2[0], "trafficPolicy": RING}],
        },
    ],
    ids=["host", "subset", "both"],
)
def test_calls_are_hashed_as_the_destination_says(rule: dict[str, Any]) -> None:
    # "ring hash", "subsets with ring hash", "subsets and top level traffic policy with ring hash" in route_test.go.
    settings = load(virtual_service(http(to(subset="v1"))) + destination_rule(**rule))
    service = settings.services["reviews"]
    assert service.clusters["v1"].load_balancing.policy == "ring_hash"
    (key,) = service.routes[0].policy.hash_on
    assert key.cookie is not None and (key.cookie.name, key.cookie.ttl_s) == ("hash-cookie", 0.0)


def test_calls_to_another_host_are_hashed_as_that_host_says() -> None:
    other = destination_rule(
        "other", "other", trafficPolicy={"loadBalancer": {"consistentHash": {"httpHeaderName": "u"}}}
    )
    settings = load(virtual_service(http(to("other"))) + other)
    assert [key.header for key in settings.services["reviews"].routes[0].policy.hash_on] == ["u"]
    assert settings.services["other"].clusters[None].load_balancing.policy == "ring_hash"


def test_a_host_without_rules_is_hashed_by_its_own_policy() -> None:
    # "no virtualservice but has destinationrule with consistentHash loadbalancer" in route_test.go.
    settings = load(destination_rule(trafficPolicy=RING))
    assert [key.cookie.name for key in settings.services["reviews"].routes[0].policy.hash_on if key.cookie] == [
        "hash-cookie"
    ]


PORTED = destination_rule(
    trafficPolicy={
        "loadBalancer": {"simple": "RANDOM"},
        "portLevelSettings": [{"port": {"number": 81}, "connectionPool": {"tcp": {"maxConnections": 3}}}],
    }
)


def test_each_port_is_a_service_with_a_policy_and_routes_of_its_own() -> None:
    # "port selector based traffic policy" in route_test.go.
    rules = virtual_service(
        http(to("other"), match=[{"port": 81}]), http(to("ratings", **{}), match=[{"uri": {"exact": "/r"}}]), http()
    )
    text = rules + PORTED + entry("reviews", 80, 81) + entry("ratings", 80, 81)
    settings = load(text)
    first, second = settings.services["reviews"], settings.services["reviews-p81"]
    assert "reviews:81" in second.hosts and "reviews.default.svc.cluster.local:81" in second.hosts
    # A port's own settings replace those of the host: its balancer is Istio's again.
    assert [each.clusters[None].load_balancing.policy for each in (first, second)] == ["random", "least_request"]
    assert [each.clusters[None].limits.max_connections for each in (first, second)] == [None, 3]
    # Without a port a destination is called by the one that the caller named.
    named = [[backend.service for route in each.routes for backend in route.backends] for each in (first, second)]
    assert named == [
        ["other", "ratings", "reviews", "reviews"],
        ["other", "ratings-p81", "reviews-p81", "reviews-p81"],
    ]


def test_a_port_of_a_destination_is_the_service_of_that_port() -> None:
    text = virtual_service(http({"destination": {"host": "ratings", "port": {"number": 81}}})) + entry(
        "ratings", 80, 81
    )
    assert [backend.service for backend in load(text).services["reviews"].routes[0].backends] == ["ratings-p81"]


def test_the_oldest_rules_of_a_host_hold() -> None:
    def dated(name: str, created: str = "", **spec: Any) -> str:
        metadata = {"creationTimestamp": created} if created else {}
        return virtual_service(http(to(name)), name=name, metadata=metadata, **spec)

    text = dated("late", "2026-02-01T00:00:00Z") + dated("undated") + dated("early", "2026-01-01T00:00:00Z")
    assert load(text).services["reviews"].routes[0].backends[0].service == "early"
    assert len(notes(draft_of(text), "ignored")) == 2
    # What only this namespace may see comes first.
    private = dated("private", exportTo=["."])
    assert load(text + private).services["reviews"].routes[0].backends[0].service == "private"


def test_rules_of_other_namespaces_are_seen_if_they_are_exported() -> None:
    far = {"namespace": "far"}
    shown = virtual_service(http(to("x")), hosts=["reviews.default.svc.cluster.local"], metadata=far)
    assert load(shown).services["reviews"].routes[0].backends[0].service == "x.far"
    hidden = virtual_service(http(to("x")), hosts=["reviews.default.svc.cluster.local"], metadata=far, exportTo=["."])
    draft = draft_of(hidden)
    assert draft.services == {}
    assert "passed" in [note.effect for note in draft.notes]


EXPORTED: dict[str, tuple[str, dict[str, Any]]] = {
    "rule1.com": ("test1", {"exportTo": [".", "ns1"]}),
    "rule2.com": ("test2", {"exportTo": ["test2", "ns1", "test1"]}),
    "rule2gw.com": ("test2", {"exportTo": ["test2", "ns1", "test1"], "gateways": ["default/gateway", "mesh"]}),
    "rule3.com": ("test3", {"exportTo": ["test1", "test2", "*"], "gateways": ["mesh"]}),
    "rule3gw.com": ("test3", {"exportTo": ["test1", "test2", "*"], "gateways": ["default/gateway"]}),
    "rootns.com": ("istio-system", {}),
}


@pytest.mark.parametrize(
    ("namespace", "hosts"),
    [
        ("test1", {"rule1.com", "rule2.com", "rule2gw.com", "rule3.com", "rootns.com"}),
        ("test2", {"rule2.com", "rule2gw.com", "rule3.com", "rootns.com"}),
        ("ns1", {"rule1.com", "rule2.com", "rule2gw.com", "rule3.com", "rootns.com"}),
        ("random", {"rule3.com", "rootns.com"}),
    ],
)
def test_whose_rules_hold_where_they_are_exported(namespace: str, hosts: set[str]) -> None:
    # TestVirtualServiceWithExportTo in Istio's push_context_test.go.
    text = "".join(
        virtual_service(http(to("x.example.com")), name=host, hosts=[host], metadata={"namespace": owner}, **spec)
        for host, (owner, spec) in EXPORTED.items()
    )
    services = draft_of(text, namespace=namespace).services
    assert {name for name, service in services.items() if "routes" in service.data} == hosts


def test_a_wildcard_is_for_the_hosts_that_no_other_rule_names_more_closely() -> None:
    hosts = [entry(f"{name}.example.com", 80) for name in ("a", "b")]
    rules = [
        virtual_service(http(to("wide")), name="wide", hosts=["*.com"]),
        virtual_service(http(to("narrow")), name="narrow", hosts=["*.example.com"]),
        virtual_service(http(to("exact")), name="exact", hosts=["a.example.com"]),
    ]
    services = load("".join(hosts + rules)).services
    found = {name: services[name].routes[0].backends[0].service for name in ("a.example.com", "b.example.com")}
    assert found == {"a.example.com": "exact", "b.example.com": "narrow"}


def test_a_wildcard_for_hosts_that_nobody_declared_is_a_service_for_all_of_them() -> None:
    # "virtualservices with wildcard hosts outside of the serviceregistry" in route_test.go.
    service = load(virtual_service(http(to("front")), hosts=["*.example.com"])).services["any.example.com"]
    assert service.hosts == ("*.example.com",)
    assert service.routes[0].backends[0].service == "front"


def test_a_subset_that_nobody_defines_is_an_error() -> None:
    found = notes(draft_of(virtual_service(http(to(subset="v9"))) + SUBSETS), "wrong")
    assert len(found) == 1 and "'v9'" in found[0] and "v1, v2" in found[0]


def test_what_is_for_gateways_alone_is_passed_over() -> None:
    draft = draft_of(virtual_service(http(), gateways=["front"]) + document("Gateway", "front", {"servers": []}))
    assert draft.services == {}
    assert {effect for _, effect in effects(draft)} == {"passed"}
