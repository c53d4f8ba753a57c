"""What Consul's entries mean: routes, splits, subsets, redirects, failover and defaults, in each spelling."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from meshlib.config.dialects.consul.schema import duration
from meshlib.config.load import load_file
from meshlib.config.settings import FailoverTarget
from meshlib.errors import ConfigError
from meshlib.routing.actions import Rewrite
from tests.config.dialects.support import draft_of, notes, route_of, services_of, settings_of

JSON = {
    "Kind": "service-router",
    "Name": "web",
    "Routes": [
        {
            "Match": {"HTTP": {"PathPrefix": "/admin", "QueryParam": [{"Name": "q", "Present": True}]}},
            "Destination": {"Service": "admin", "PrefixRewrite": "/", "NumRetries": 2, "RetryOn": ["5xx"]},
        }
    ],
}
SNAKE = {
    "kind": "service-router",
    "name": "web",
    "routes": [
        {
            "match": {"http": {"path_prefix": "/admin", "query_param": [{"name": "q", "present": True}]}},
            "destination": {"service": "admin", "prefix_rewrite": "/", "num_retries": 2, "retry_on": ["5xx"]},
        }
    ],
}
CUSTOM = {
    "apiVersion": "consul.hashicorp.com/v1alpha1",
    "kind": "ServiceRouter",
    "metadata": {"name": "web"},
    "spec": {
        "routes": [
            {
                "match": {"http": {"pathPrefix": "/admin", "queryParam": [{"name": "q", "present": True}]}},
                "destination": {"service": "admin", "prefixRewrite": "/", "numRetries": 2, "retryOn": ["5xx"]},
            }
        ]
    },
}


def router(*routes: dict[str, Any], name: str = "web") -> dict[str, Any]:
    return {"Kind": "service-router", "Name": name, "Routes": list(routes)}


def splitter(*splits: dict[str, Any], name: str = "web") -> dict[str, Any]:
    return {"Kind": "service-splitter", "Name": name, "Splits": list(splits)}


def resolver(name: str = "web", **fields: Any) -> dict[str, Any]:
    return {"Kind": "service-resolver", "Name": name, **fields}


def to(service: str, http: dict[str, Any] | None = None, **destination: Any) -> dict[str, Any]:
    match = {} if http is None else {"Match": {"HTTP": http}}
    return {**match, "Destination": {"Service": service, **destination}}


def test_each_spelling_says_the_same() -> None:
    # Kind in small letters is HCL's; in a file it has to be as in JSON, as other documents have a `kind`, too.
    snake = {"Kind": SNAKE["kind"], "Name": SNAKE["name"], "routes": SNAKE["routes"]}
    assert services_of(JSON) == services_of(snake) == services_of(CUSTOM)
    (route, _) = settings_of(JSON).services["web"].routes
    assert route.backends[0].cluster == "admin"
    assert route.rewrite == Rewrite(prefix="/")
    assert (route.policy.retry.max_retries, route.policy.retry.on) == (2, frozenset({"5xx"}))


def test_the_first_route_that_matches_is_taken_and_the_rest_goes_to_the_service() -> None:
    web = settings_of(
        router(
            to("a", {"PathExact": "/x", "Methods": ["get"]}),
            to("b", {"PathPrefix": "/x", "CaseInsensitive": True}),
            to("c", {"PathRegex": "/y[0-9]+"}),
            to("d", {"Header": [{"Name": "X-User", "Prefix": "a"}, {"Name": "x-user", "Suffix": "z"}]}),
            to(
                "e", {"Header": [{"Name": "x-not", "Present": True, "Invert": True}, {"Name": "x-e", "Regex": "[0-9]"}]}
            ),
            to("f", {"QueryParam": [{"Name": "Q", "Exact": "1"}, {"Name": "p", "Regex": "a+"}]}),
        )
    ).services["web"]

    def taken(method: str, url: str, **headers: str) -> str:
        return route_of(web, method, url, **headers).backends[0].service

    assert taken("GET", "/x") == "a"
    assert taken("POST", "/x") == "b"
    assert taken("POST", "/X/y") == "b"
    assert taken("GET", "/y12") == "c"
    assert taken("GET", "/y12/") == "web"
    assert taken("GET", "/", x_user="a-z") == "d"
    assert taken("GET", "/", x_user="a-y") == "web"
    assert taken("GET", "/", x_e="7") == "e"
    assert taken("GET", "/", x_e="7", x_not="") == "web"
    assert taken("GET", "/?Q=1&p=aa") == "f"
    assert taken("GET", "/?q=1&p=aa") == "web"


def test_a_route_without_conditions_takes_all_and_what_comes_after_is_never_reached() -> None:
    web = settings_of(router(to("a"), to("b", {"PathPrefix": "/"}))).services["web"]
    assert [route.backends[0].service for route in web.routes] == ["a", "web"]


def test_what_a_destination_says_is_done() -> None:
    destination = {
        "RequestTimeout": "1m30s",
        "IdleTimeout": "-1s",
        "NumRetries": 3,
        "RetryOnConnectFailure": True,
        "RetryOnStatusCodes": [401, 503],
        "RequestHeaders": {"Add": {"X-A": "1", "x-b": "100%%"}, "Set": {"x-c": "2"}, "Remove": ["x-b", "x-d"]},
        "ResponseHeaders": {"Remove": ["server"]},
    }
    (route, _) = (
        settings_of(router(to("a", {"PathExact": "/x"}, PrefixRewrite="/y", **destination))).services["web"].routes
    )
    policy = route.policy
    assert (policy.timeout_s, policy.body_idle_s, policy.retry.max_retries) == (90.0, None, 3)
    assert policy.retry.on == frozenset({"connect-failure", "retriable-status-codes"})
    assert policy.retry.retriable_status_codes == frozenset({401, 503})
    assert route.rewrite == Rewrite(path="/y")
    edits = route.request_edits
    assert (edits.set, edits.add) == (((b"x-b", b"100%"), (b"x-c", b"2")), ((b"x-a", b"1"),))
    assert edits.remove == frozenset({b"x-d"})
    assert route.response_edits.remove == frozenset({b"server"})


def test_splits_of_splits_are_multiplied_out_and_their_headers_put_together() -> None:
    web = services_of(
        splitter(
            {"Weight": 90, "ServiceSubset": "v1"},
            {"Weight": 10, "Service": "other", "RequestHeaders": {"Set": {"a": "outer", "b": "outer"}}},
        ),
        splitter(
            {"Weight": 33.33, "RequestHeaders": {"Set": {"a": "inner"}}},
            {"Weight": 66.67, "Service": "x"},
            name="other",
        ),
        resolver(Subsets={"v1": {"Filter": "Service.Meta.version == v1"}}),
    )["web"]
    assert web["routes"] == [
        {
            "name": "consul-default",
            "backends": [
                {"service": "web", "subset": "v1", "weight": 90},
                {"service": "other", "weight": 3.33, "headers": {"request": {"set": {"a": "inner", "b": "outer"}}}},
                {"service": "x", "weight": 6.67, "headers": {"request": {"set": {"a": "outer", "b": "outer"}}}},
            ],
        }
    ]


def test_subsets_by_metadata_are_plain_and_others_are_filters() -> None:
    subsets = {
        "a": {"Filter": 'Service.Meta.version == v1 and "blue" in Service.Tags'},
        "b": {"Filter": "Service.Meta.version != v1"},
        "c": {"OnlyPassing": True},
        "d": {},
    }
    web = services_of(resolver(Subsets=subsets))["web"]
    assert web["subsets"] == {"a": {"version": "v1", "tag.blue": "true"}}
    passing = 'Service.Meta["consul.check"] != warning'
    assert web["subset_filters"] == {"b": "Service.Meta.version != v1", "c": passing, "d": ""}


def test_redirects_default_subsets_and_failover_are_resolved_in_consuls_order() -> None:
    settings = settings_of(
        resolver("old", Redirect={"Service": "web", "Datacenter": "dc2"}),
        resolver(
            Subsets={"v1": {"Filter": "v1 in Service.Tags"}, "v2": {"Filter": "v2 in Service.Tags"}},
            DefaultSubset="v1",
            Failover={"v2": {"ServiceSubset": "v1"}, "*": {"Targets": [{"Service": "spare"}, {"Datacenter": "dc3"}]}},
            ConnectTimeout="3s",
        ),
    ).services
    route = settings["old"].routes[0]
    assert [backend.cluster for backend in route.backends] == ["web.service.dc2.consul/v1"]
    web = settings["web"]
    assert [backend.cluster for backend in web.routes[0].backends] == ["web/v1"]
    assert web.clusters["v2"].failover_to == (FailoverTarget("web", "v1"),)
    assert web.clusters["v1"].failover_to == (FailoverTarget("spare"), FailoverTarget("web.service.dc3.consul", "v1"))
    assert web.clusters["v1"].load_balancing.overprovisioning_percent == 100_000
    assert web.clusters[None].pool.connect_timeout_s == 3.0
    assert settings["web.service.dc2.consul"].clusters["v1"].selector == (("tag.v1", "true"),)


def test_hash_policies_hold_for_the_routes_that_lead_there() -> None:
    policies = [
        {"Field": "header", "FieldValue": "x-user", "Terminal": True},
        {"Field": "cookie", "FieldValue": "id", "CookieConfig": {"TTL": "5m", "Path": "/p"}},
        {"Field": "query_parameter", "FieldValue": "q"},
        {"SourceIP": True},
    ]
    balancer = {"Policy": "ring_hash", "RingHashConfig": {"MinimumRingSize": 64}, "HashPolicies": policies}
    settings = settings_of(
        resolver("cart", LoadBalancer=balancer),
        router(to("cart", {"PathPrefix": "/cart"}), to("a", {"PathPrefix": "/a"})),
    ).services
    cart, other = settings["web"].routes[:2]
    kinds = [(each.header, each.cookie and each.cookie.name, each.query, each.source) for each in cart.policy.hash_on]
    assert kinds == [
        ("x-user", None, None, False),
        (None, "id", None, False),
        (None, None, "q", False),
        (None,) * 3 + (True,),
    ]
    assert other.policy.hash_on == ()
    assert settings["cart"].clusters[None].load_balancing.policy == "ring_hash"
    assert settings["cart"].routes[0].policy.hash_on == cart.policy.hash_on


def test_the_request_timeout_of_a_resolver_holds_without_routes_and_splits_alone() -> None:
    assert settings_of(resolver(RequestTimeout="4s")).services["web"].routes[0].policy.timeout_s == 4.0
    routed = settings_of(resolver(RequestTimeout="4s"), router(to("web", {"PathPrefix": "/x"})))
    assert {route.policy.timeout_s for route in routed.services["web"].routes} == {15.0}


def test_what_is_unsaid_is_as_envoy_has_it_unless_defaults_say_so() -> None:
    web = settings_of(router(to("a", {"PathPrefix": "/a"}))).services["web"]
    policy, cluster = web.routes[-1].policy, web.clusters[None]
    assert (policy.timeout_s, policy.per_try_timeout_s, policy.retry.max_retries) == (15.0, None, 0)
    assert (cluster.load_balancing.policy, cluster.load_balancing.panic_percent) == ("round_robin", 0.0)
    assert cluster.outlier is not None
    assert (cluster.outlier.consecutive_5xx, cluster.outlier.max_ejection_percent, cluster.breaker) == (5, 10.0, None)
    mine = settings_of(router(to("a", {"PathPrefix": "/a"})), defaults={"timeout": "3s"}).services["web"]
    assert mine.routes[-1].policy.timeout_s == 3.0
    ours = settings_of(router(to("a", {"PathPrefix": "/a"})), documents={"defaults": "ours"}).services["web"]
    assert ours.routes[-1].policy.timeout_s == 30.0


def test_service_defaults_of_this_workload_say_how_it_calls_others() -> None:
    upstream = {
        "Defaults": {"ConnectTimeoutMs": 250, "Limits": {"MaxConnections": 50, "MaxConcurrentRequests": 20}},
        "Overrides": [{"Name": "db", "PassiveHealthCheck": {"MaxFailures": 3, "Interval": "2s"}, "Protocol": "grpc"}],
    }
    entry = {"Kind": "service-defaults", "Name": "shop", "UpstreamConfig": upstream}
    settings = settings_of(entry, resolver(), service="shop").services
    web, db = settings["web"].clusters[None], settings["db"].clusters[None]
    assert (web.pool.connect_timeout_s, web.limits.max_in_flight, web.http2) == (0.25, 20, False)
    assert db.outlier is not None
    assert (db.outlier.consecutive_5xx, db.outlier.interval_s, db.limits.max_in_flight, db.http2) == (3, 2.0, 20, True)
    assert "db" not in settings_of(entry, resolver(), service="other").services


def test_a_destination_outside_is_called_straight() -> None:
    given = {"Addresses": ["api.example.com", "10.0.0.1"], "Port": 8443}
    draft = draft_of({"Kind": "service-defaults", "Name": "api", "Protocol": "http2", "Destination": given})
    api = draft.services["api"].data
    assert api["endpoints"] == ["api.example.com:8443", "10.0.0.1:8443"]
    assert api["http2"] is True
    assert "api.example.com" in api["hosts"]
    assert notes(draft, "different") == [
        "service-defaults api: Destination: is called straight, through no terminating gateway"
    ]


@pytest.mark.parametrize(
    ("documents", "text"),
    [
        ([splitter({"Weight": 90})], "Splits: the weights add up to 90, not to 100"),
        ([splitter({"Weight": 100, "ServiceSubset": "v9"})], "Splits[0]: the service 'web' has no subset 'v9'"),
        ([resolver("a", Redirect={"Service": "b"}), resolver("b", Redirect={"Service": "a"})], "redirects in a circle"),
        (
            [splitter({"Weight": 100, "Service": "b"}), splitter({"Weight": 100, "Service": "web"}, name="b")],
            "splits in a circle: web -> b -> web",
        ),
        (
            [resolver(Subsets={"a": {"Filter": "Node.Meta.x == 1"}})],
            "the filter of the subset 'a' looks at 'Node.Meta.x'",
        ),
        ([resolver(Failover={"v9": {"Service": "b"}})], "is for 'v9', which is no subset"),
        ([resolver(Redirect={"Service": "b"}, Failover={"*": {"Service": "b"}})], "cannot stand beside a Redirect"),
        ([router(to("a", {"PathExact": "/a", "PathRegex": "/b"}))], "PathRegex: stands beside PathExact"),
        ([router(to("a", {"Header": [{"Name": "x"}]}))], "Header[0]: has to have exactly one of"),
        ([router(to("a", {"PathRegex": "/a"}, PrefixRewrite="/"))], "PrefixRewrite: needs a PathExact or a PathPrefix"),
        ([router(to("a", {"PathExact": "/a"}, RetryOn=["5xy"]))], "'5xy' is no condition that Consul knows"),
        ([router(to("a", {"PathExact": "/a"}, RequestTimeout="soon"))], "RequestTimeout: a duration such as"),
        ([router(), router()], "is there twice"),
        ([{"Kind": "service-router"}], "has no name"),
        ([resolver(LoadBalancer={"Policy": "best"})], "'best', is none of Consul's"),
        ([{**router(), "routes": []}], "routes: is the same field as 'Routes'"),
    ],
)
def test_what_consul_would_refuse_is_an_error_at_its_place(documents: list[Any], text: str) -> None:
    assert any(text in note for note in notes(draft_of(*documents), "wrong")), notes(draft_of(*documents), "wrong")


def test_nothing_is_dropped_in_silence() -> None:
    draft = draft_of(
        router({**to("a", {"PathExact": "/a", "PathSuffix": "b"}), "Extra": 1}),
        resolver(Redirect={"Service": "b", "Peer": "p"}, Namespace="team"),
        {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http", "envoy_tracing_json": "{}"}},
        {"Kind": "service-intentions", "Name": "web", "Sources": []},
        {"Kind": "ingress-gateway", "Name": "in"},
    )
    told = "\n".join(notes(draft, "ignored"))
    assert "PathSuffix: unknown field here" in "".join(notes(draft, "wrong"))
    for field in ("Routes[0].Extra: is not honoured: unknown field", "Redirect.Peer", "Namespace"):
        assert field in told
    assert "Config.envoy_tracing_json: is not honoured" in told
    assert "service-intentions web: is not honoured: who may call whom" in told
    assert notes(draft, "passed") == ["ingress-gateway in: is not honoured: it describes a gateway"]
    assert [resource.name for resource in draft.security] == ["web"]


def test_durations_are_gos() -> None:
    assert duration("1m30s") == 90.0
    assert duration("-1s") == -1.0
    assert duration(1_500_000_000) == pytest.approx(1.5)
    assert duration("1 s") is None
    assert duration(True) is None


def test_a_file_in_hcl_is_refused_with_the_way_to_json(tmp_path: Path) -> None:
    (tmp_path / "web.hcl").write_text('Kind = "service-router"')
    with pytest.raises(ConfigError, match=r"web\.hcl: its name does not say .*`consul config read"):
        load_file(tmp_path / "web.hcl")


def test_files_in_hcl_are_never_left_out_of_a_directory_in_silence(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "web.hcl").write_text('Kind = "service-router"')
    (tmp_path / "mesh.yaml").write_text("service: checkout")
    (note,) = load_file(tmp_path).notes
    assert re.search(r"below/web\.hcl: HCL: is not honoured: .*`consul config read", str(note))
    (tmp_path / "mesh.yaml").write_text("documents: {strict: true}")
    with pytest.raises(ConfigError, match=r"below/web\.hcl: HCL: is not honoured"):
        load_file(tmp_path)
