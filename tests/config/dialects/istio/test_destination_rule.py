"""Which DestinationRules hold for a host, and what they come to: cases of Istio's push_context_test.go and others."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.settings import ClusterSettings
from tests.config.dialects.istio.support import destination_rule, document, draft_of, load, notes

HOST = "reviews.default.svc.cluster.local"
V1, V2 = ({"name": name, "labels": {"version": name}} for name in ("v1", "v2"))


def simple(name: str) -> dict[str, Any]:
    return {"loadBalancer": {"simple": name}}


def cluster(text: str, subset: str | None = None, **native: Any) -> ClusterSettings:
    return load(text, **native).services["reviews"].clusters[subset]


def balancer(text: str, **native: Any) -> str:
    return cluster(text, **native).load_balancing.policy


def dated(name: str, created: str, **spec: Any) -> str:
    return destination_rule(name, metadata={"creationTimestamp": created}, **spec)


def test_subsets_of_several_rules_are_added_up_and_the_first_policy_holds() -> None:
    # TestSetDestinationRuleMerging in Istio's push_context_test.go.
    rules = [
        dated("two", "2026-01-02T00:00:00Z", subsets=[V2, V1], trafficPolicy=simple("RANDOM")),
        dated("one", "2026-01-01T00:00:00Z", subsets=[V1], trafficPolicy=simple("ROUND_ROBIN")),
    ]
    settings = load("".join(rules)).services["reviews"]
    assert set(settings.clusters) == {None, "v1", "v2"}
    assert settings.clusters[None].load_balancing.policy == "round_robin"
    said = notes(draft_of("".join(rules)), "different")
    assert len(said) == 2 and all("DestinationRule two" in note for note in said)


def test_a_policy_may_come_from_the_second_rule() -> None:
    rules = dated("one", "2026-01-01T00:00:00Z", subsets=[V1]) + dated(
        "two", "2026-01-02T00:00:00Z", trafficPolicy=simple("RANDOM")
    )
    assert balancer(rules) == "random"


def test_a_rule_that_is_exported_to_others_is_not_put_together_with_it() -> None:
    # rule3 of TestSetDestinationRuleMerging.
    rules = destination_rule("one", subsets=[V1]) + destination_rule("two", subsets=[V2], exportTo=["default", "x"])
    assert set(load(rules).services["reviews"].clusters) == {None, "v1"}
    assert any("exported to others" in note for note in notes(draft_of(rules), "different"))


def test_the_rule_for_this_workload_comes_before_that_for_all() -> None:
    # TestSetDestinationRuleWithWorkloadSelector in Istio's push_context_test.go.
    def selecting(name: str, **labels: str) -> str:
        selector = {"workloadSelector": {"matchLabels": labels}}
        return destination_rule(name, trafficPolicy=simple("RANDOM"), **selector)

    rules = selecting("app1", app="app1") + destination_rule("all", trafficPolicy=simple("ROUND_ROBIN"), subsets=[V1])
    assert balancer(rules, labels={"app": "app1"}) == "random"
    assert set(load(rules, labels={"app": "app1"}).services["reviews"].clusters) == {None, "v1"}
    assert balancer(rules, labels={"app": "app2"}) == "round_robin"
    # One with a selector is for its own namespace alone.
    root = {"metadata": {"namespace": "istio-system"}, "workloadSelector": {"matchLabels": {"app": "app2"}}}
    far = destination_rule("far", HOST, subsets=[V2], **root)
    assert load(far, labels={"app": "app2"}).services == {}


@pytest.mark.parametrize(
    ("namespaces", "chosen"),
    [
        (("default", "istio-system", "far"), "default"),
        (("istio-system", "far"), "istio-system"),
        (("far",), None),
    ],
)
def test_rules_are_looked_for_in_the_own_namespace_then_that_of_the_host_then_the_root(
    namespaces: tuple[str, ...], chosen: str | None
) -> None:
    text = "".join(
        destination_rule(
            f"in-{name}", HOST, subsets=[{"name": name, "labels": {"in": name}}], metadata={"namespace": name}
        )
        for name in namespaces
    )
    services = load(text).services
    assert [set(service.clusters) - {None} for service in services.values()] == ([{chosen}] if chosen else [])


def test_the_namespace_of_the_host_comes_before_the_root() -> None:
    host = "reviews.shop.svc.cluster.local"
    text = "".join(
        destination_rule(f"in-{name}", host, trafficPolicy=simple(policy), metadata={"namespace": name})
        for name, policy in (("istio-system", "RANDOM"), ("shop", "ROUND_ROBIN"))
    )
    assert load(text).services["reviews.shop"].clusters[None].load_balancing.policy == "round_robin"
    hidden = text.replace("host: " + host, "host: " + host + "\n  exportTo: [.]")
    assert load(hidden).services == {}


EXPORTED = [
    # The namespace, the host, who it is exported to, the first of two subsets.
    ("test1", "httpbin.org", [".", "ns1"], 1),
    ("test2", "httpbin.org", ["test2", "ns1", "test1", "newns"], 3),
    ("test3", "httpbin.org", ["test1", "test2", "*"], 5),
    ("test4", "httpbin.org", ["test4"], 15),
    ("istio-system", "httpbin.org", [], 7),
    ("istio-system", "httpbin.org", ["."], 9),
    ("istio-system", "*.org", ["."], 11),
    ("istio-system", "*.app.org", ["."], 13),
    ("test5", "api.test.com", ["istio-system"], 50),
    ("test6", "api.test.com", ["istio-system"], 60),
]


@pytest.mark.parametrize(
    ("client", "namespace", "host", "first"),
    [
        ("test1", "test1", "httpbin.org", 1),
        ("test1", "test2", "httpbin.org", 1),
        ("test2", "test1", "httpbin.org", 3),
        ("newns", "test2", "httpbin.org", 3),
        ("test3", "test1", "httpbin.org", 5),
        ("test5", "test4", "httpbin.org", 7),
        ("ns1", "test1", "httpbin.org", 1),
        ("ns1", "random", "httpbin.org", 7),
        ("random", "random", "httpbin.org", 7),
        ("test3", "random", "httpbin.org", 5),
        ("istio-system", "random", "httpbin.org", 9),
        ("istio-system", "istio-system", "httpbin.org", 9),
        ("istio-system", "istio-system", "foo.app.org", 13),
        ("istio-system", "test5", "api.test.com", 50),
        ("istio-system", "test6", "api.test.com", 60),
        ("istio-system", "test7", "api.test.com", None),
    ],
)
def test_whose_rules_hold_where_they_are_exported(client: str, namespace: str, host: str, first: int | None) -> None:
    # TestSetDestinationRuleWithExportTo in Istio's push_context_test.go.
    rules = "".join(
        destination_rule(
            f"rule{index}",
            shown,
            exportTo=to,
            subsets=[
                {"name": f"subset{number}", "labels": {"n": "1"}},
                {"name": f"subset{number + 1}", "labels": {"n": "2"}},
            ],
            metadata={"namespace": owner},
        )
        for index, (owner, shown, to, number) in enumerate(EXPORTED)
    )
    entry = {"hosts": [host], "ports": [{"number": 80, "name": "http"}], "resolution": "DNS"}
    text = rules + document("ServiceEntry", "own", entry, namespace=namespace)
    found = draft_of(text, namespace=client).services[host].data.get("subsets", {})
    assert sorted(found) == ([] if first is None else sorted([f"subset{first}", f"subset{first + 1}"]))


def test_a_wildcard_is_for_the_hosts_that_are_named() -> None:
    wide = destination_rule("wide", "*.local", trafficPolicy=simple("RANDOM"))
    assert (
        balancer(
            wide + destination_rule("far", "far.example.com") + destination_rule("x", "reviews", exportTo=["~"]),
            services={"reviews": {}},
        )
        == "random"
    )


BASE = {
    "connectionPool": {"tcp": {"maxConnections": 7, "connectTimeout": "1s"}},
    "outlierDetection": {"consecutiveGatewayErrors": 3},
    **simple("ROUND_ROBIN"),
}


def test_a_subsets_blocks_replace_those_of_the_host_each_as_a_whole() -> None:
    own = {"connectionPool": {"http": {"http2MaxRequests": 9}}, "outlierDetection": {"interval": "3s"}}
    text = destination_rule(trafficPolicy=BASE, subsets=[V1, {**V2, "trafficPolicy": own}])
    plain, v1, v2 = (cluster(text, subset) for subset in (None, "v1", "v2"))
    assert (v1.limits, v1.outlier, v1.load_balancing) == (plain.limits, plain.outlier, plain.load_balancing)
    assert v2.load_balancing.policy == "round_robin"
    assert (v2.limits.max_connections, v2.limits.max_in_flight, v2.pool.connect_timeout_s) == (None, 9, 10.0)
    assert plain.outlier is not None and v2.outlier is not None
    assert (plain.outlier.consecutive_gateway_failure, plain.outlier.interval_s) == (3, 10.0)
    assert (v2.outlier.consecutive_gateway_failure, v2.outlier.interval_s) == (0, 3.0)


def test_the_settings_of_a_port_in_a_subset_replace_all_of_the_host() -> None:
    own = {"portLevelSettings": [{"port": {"number": 80}, **simple("RANDOM")}]}
    entry = "---\n" + (
        "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: r}, "
        "spec: {hosts: [reviews], ports: [{number: 80, name: http}], resolution: STATIC}}\n"
    )
    text = destination_rule(trafficPolicy=BASE, subsets=[{**V1, "trafficPolicy": own}]) + entry
    v1 = cluster(text, "v1")
    assert (v1.load_balancing.policy, v1.limits.max_connections, v1.outlier) == ("random", None, None)


def test_outlier_detection_without_a_word_is_istios() -> None:
    found = cluster(destination_rule(trafficPolicy={"outlierDetection": {}}))
    outlier = found.outlier
    assert outlier is not None
    assert (outlier.consecutive_5xx, outlier.consecutive_gateway_failure, outlier.consecutive_errors) == (5, 0, 0)
    assert (outlier.interval_s, outlier.base_ejection_s, outlier.max_ejection_s) == (10.0, 30.0, 300.0)
    assert (outlier.max_ejection_percent, outlier.always_eject_one_of, outlier.return_by) == (10.0, 0, "sweep")
    assert outlier.success_rate is None
    assert (found.load_balancing.panic_percent, found.load_balancing.failover) == (0.0, True)


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ({"consecutive5xxErrors": 0, "consecutiveGatewayErrors": 1}, "consecutive_5xx", 0),
        ({"maxEjectionPercent": 0}, "max_ejection_percent", 10.0),
        ({"maxEjectionPercent": 100}, "max_ejection_percent", 100.0),
        ({"baseEjectionTime": "10m"}, "max_ejection_s", 600.0),
        ({"splitExternalLocalOriginErrors": True}, "consecutive_local_origin_failure", 5),
    ],
)
def test_outlier_detection(written: dict[str, Any], field: str, value: Any) -> None:
    outlier = cluster(destination_rule(trafficPolicy={"outlierDetection": written})).outlier
    assert getattr(outlier, field) == value


def test_a_health_percentage_is_that_of_panic() -> None:
    found = cluster(destination_rule(trafficPolicy={"outlierDetection": {"minHealthPercent": 30}}))
    assert found.load_balancing.panic_percent == 30.0


@pytest.mark.parametrize(
    ("tcp", "http", "limits"),
    [
        ({"maxConnections": 1}, {"http1MaxPendingRequests": 1}, (1, 1, 1)),
        ({"maxConnections": 5}, {}, (5, 2**32 - 1, 5)),
        ({}, {"http2MaxRequests": 5}, (5, 0, None)),
        ({"maxConnections": 9}, {"http2MaxRequests": 5, "http1MaxPendingRequests": 3}, (5, 0, 9)),
        ({"maxConnections": 2}, {"http2MaxRequests": 5, "http1MaxPendingRequests": 3}, (2, 3, 2)),
        ({"maxConnections": 2}, {"http2MaxRequests": 5, "h2UpgradePolicy": "UPGRADE"}, (5, 0, 2)),
        ({}, {"http1MaxPendingRequests": 3}, (None, None, None)),
        ({"maxConnections": 0}, {"http2MaxRequests": 0}, (None, None, None)),
    ],
)
def test_limits(tcp: dict[str, Any], http: dict[str, Any], limits: tuple[int | None, ...]) -> None:
    found = cluster(destination_rule(trafficPolicy={"connectionPool": {"tcp": tcp, "http": http}})).limits
    assert (found.max_in_flight, found.max_pending, found.max_connections) == limits


def test_connections() -> None:
    tcp = {"tcpKeepalive": {"probes": 3, "time": "60s", "interval": "5s"}, "idleTimeout": "1h"}
    found = cluster(
        destination_rule(trafficPolicy={"connectionPool": {"tcp": tcp, "http": {"idleTimeout": "20s"}}})
    ).pool
    assert (found.idle_s, found.connect_timeout_s) == (20.0, 10.0)
    keepalive = found.tcp_keepalive
    assert keepalive is not None and (keepalive.probes, keepalive.time_s, keepalive.interval_s) == (3, 60.0, 5.0)
    once = cluster(destination_rule(trafficPolicy={"connectionPool": {"http": {"maxRequestsPerConnection": 1}}}))
    assert once.pool.idle_s == 0.0
    never = cluster(destination_rule(trafficPolicy={"connectionPool": {"tcp": {"idleTimeout": "0s"}}}))
    assert never.pool.idle_s == 365 * 86400.0


@pytest.mark.parametrize(
    ("policy", "budget"),
    [
        ({"retryBudget": {}}, ("concurrency", 20.0, 3, None)),
        ({"retryBudget": {"percent": 50, "minRetryConcurrency": 10}}, ("concurrency", 50.0, 10, None)),
        ({"connectionPool": {"http": {"maxRetries": 33}}}, ("concurrency", 20.0, 3, 33)),
    ],
)
def test_retry_budgets(policy: dict[str, Any], budget: tuple[Any, ...]) -> None:
    found = load(destination_rule(trafficPolicy=policy)).services["reviews"].budget
    assert (found.kind, found.percent, found.min_concurrency, found.max_retries) == budget


@pytest.mark.parametrize(
    ("setting", "with_outliers", "expected"),
    [
        ({}, True, (True, (), ())),
        ({}, False, (False, (), ())),
        ({"enabled": False}, True, (False, (), ())),
        ({"failover": [{"from": "eu", "to": "us"}]}, True, ("eu", (), ())),
        ({"failoverPriority": ["version"]}, True, (False, ("version",), ())),
        ({"failoverPriority": ["version"], "failover": [{"from": "eu", "to": "us"}]}, True, ("eu", ("version",), ())),
        ({"distribute": [{"from": "eu/*", "to": {"eu/a/*": 80, "us/*": 20}}]}, True, (False, (), ("eu/*",))),
        ({"distribute": [{"from": "eu/*", "to": {"eu/a/*": 80, "us/*": 20}}]}, False, (False, (), ("eu/*",))),
    ],
)
def test_localities(setting: dict[str, Any], with_outliers: bool, expected: tuple[Any, ...]) -> None:
    # Failover needs outlier detection: ApplyToCluster in Istio's loadbalancer.go.
    policy: dict[str, Any] = {"loadBalancer": {"simple": "ROUND_ROBIN", "localityLbSetting": setting}}
    if with_outliers:
        policy["outlierDetection"] = {}
    found = cluster(destination_rule(trafficPolicy=policy)).load_balancing
    failover: Any = found.failover
    regions = failover if isinstance(failover, bool) else failover[0].from_ if failover else False
    assert (regions, found.failover_priority, tuple(rule.from_ for rule in found.distribute)) == expected


def test_newcomers() -> None:
    warmup = {"duration": "60s", "minimumPercent": 20, "aggression": 2.0}
    found = cluster(destination_rule(trafficPolicy={"loadBalancer": {"warmup": warmup}})).load_balancing
    assert found.policy == "least_request" and found.slow_start is not None
    slow = found.slow_start
    assert (slow.window_s, slow.min_weight_percent, slow.aggression) == (60.0, 20.0, 2.0)
    useless = destination_rule(trafficPolicy={"loadBalancer": {"simple": "RANDOM", "warmup": warmup}})
    assert cluster(useless).load_balancing.slow_start is None
    assert any("does nothing" in note for note in notes(draft_of(useless), "different"))


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ({"mode": "SIMPLE"}, (None, None, None, True)),
        ({"mode": "SIMPLE", "sni": "a", "caCertificates": "ca.pem"}, ("a", "ca.pem", None, True)),
        ({"mode": "SIMPLE", "insecureSkipVerify": True, "caCertificates": "ca.pem"}, (None, None, None, False)),
        ({"mode": "MUTUAL", "clientCertificate": "c.pem", "privateKey": "k.pem"}, (None, None, "c.pem", True)),
        ({"mode": "SIMPLE", "subjectAltNames": ["b"]}, ("b", None, None, True)),
        ({"mode": "DISABLE"}, None),
        ({"mode": "ISTIO_MUTUAL"}, None),
    ],
)
def test_tls(tls: dict[str, Any], expected: tuple[Any, ...] | None) -> None:
    found = cluster(destination_rule(trafficPolicy={"tls": tls})).tls
    assert (None if found is None else (found.server_name, found.ca_file, found.cert_file, found.verify)) == expected


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"tls": {"mode": "ISTIO_MUTUAL"}}, "no certificate of the mesh"),
        ({"tls": {"mode": "MUTUAL", "credentialName": "x"}}, "secrets of Kubernetes"),
        ({"tls": {"mode": "SIMPLE", "sni": "a", "subjectAltNames": ["b"]}}, "one name is verified"),
        ({"loadBalancer": {"simple": "PASSTHROUGH"}}, "balanced over the endpoints"),
        ({"connectionPool": {"http": {"maxRequestsPerConnection": 10}}}, "only 1 is heeded"),
    ],
)
def test_what_is_not_honoured_is_told_of(policy: dict[str, Any], said: str) -> None:
    found = notes(draft_of(destination_rule(trafficPolicy=policy)), "ignored")
    assert len(found) == 1 and said in found[0]


def test_a_subset_without_labels_is_the_host_itself() -> None:
    from tests.config.dialects.istio.support import http, to, virtual_service

    text = destination_rule(subsets=[{"name": "all"}]) + virtual_service(http(to(subset="all")))
    assert load(text).services["reviews"].routes[0].backends[0].cluster == "reviews"


def test_a_budget_of_a_subset_is_not_honoured() -> None:
    subset = {**V1, "trafficPolicy": {"retryBudget": {"percent": 50}}}
    assert "budget is that of the whole host" in notes(draft_of(destination_rule(subsets=[subset])), "ignored")[0]


@pytest.mark.parametrize(("subsets", "said"), [([], 0), ([{"name": "v1", "labels": {"version": "v1"}}], 1)])
def test_connections_that_subsets_share_are_reported(subsets: list[dict[str, Any]], said: int) -> None:
    policy = {"connectionPool": {"tcp": {"maxConnections": 10}}}
    found = notes(draft_of(destination_rule(trafficPolicy=policy, subsets=subsets)), "different")
    assert sum("tcp.maxConnections: the host and its subsets share" in note for note in found) == said


def test_an_interval_below_the_least_is_the_least() -> None:
    text = destination_rule(trafficPolicy={"outlierDetection": {"interval": "8ms"}})
    assert "is taken for 100ms" in notes(draft_of(text), "different")[0]
    outlier = load(text).services["reviews"].clusters[None].outlier
    assert outlier is not None and outlier.interval_s == 0.1
