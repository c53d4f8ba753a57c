"""Linkerd's HTTPRoutes and annotations: precedence, actions, retries, timeouts, failure accrual."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.dialects.linkerd.annotations import duration
from meshlib.routing.actions import DirectResponse, Redirect
from tests.config.dialects.linkerd.test_profile import profile
from tests.config.dialects.linkerd.test_profile import route as profile_route
from tests.config.dialects.support import draft_of, notes, route_of, settings_of

OWN = {"namespace": "shop"}
WEB = [{"kind": "Service", "group": "core", "name": "web"}]


def service(annotations: dict[str, str], name: str = "web", ports: tuple[int, ...] = (80,)) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop", "annotations": annotations},
        "spec": {"ports": [{"port": port, "name": f"p{port}"} for port in ports]},
    }


def http_route(*rules: dict[str, Any], annotations: dict[str, str] | None = None, **rest: Any) -> dict[str, Any]:
    metadata = {"name": rest.pop("name", "it"), "namespace": rest.pop("namespace", "shop")}
    group = rest.pop("group", "policy.linkerd.io/v1beta3")
    if annotations:
        metadata["annotations"] = annotations
    spec = {"parentRefs": rest.pop("parents", WEB), "rules": list(rules), **rest}
    return {"apiVersion": group, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}


def to(name: str, *matches: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"matches": list(matches), "backendRefs": [{"name": name, "port": 80}], **fields}


def path(value: str, kind: str = "PathPrefix", **more: Any) -> dict[str, Any]:
    return {"path": {"type": kind, "value": value}, **more}


def test_the_best_match_is_taken_as_linkerd_ranks_them() -> None:
    web = settings_of(
        http_route(
            to("root", path("/")),
            to("method", path("/a", method="POST")),
            to("header", path("/a", headers=[{"name": "X-A", "value": "1"}])),
            to("query", path("/a", queryParams=[{"name": "q", "value": "1"}])),
            to("long", path("/a/b/")),
            to("exact", path("/a/b", "Exact")),
            to("regex", path("/r[0-9]+", "RegularExpression")),
        ),
        **OWN,
    ).services["web"]

    def taken(method: str, url: str, **headers: str) -> str:
        return route_of(web, method, url, **headers).backends[0].service

    assert taken("GET", "/x") == "root"
    assert taken("POST", "/a") == "method"
    assert taken("GET", "/a") == "root"
    assert taken("POST", "/a?q=1") == "query"
    assert taken("POST", "/a?q=1", x_a="1") == "header", "headers come before all but the path, and not after a method"
    assert taken("POST", "/a/b/c", x_a="1") == "long"
    assert taken("GET", "/a/b") == "exact"
    assert taken("GET", "/r7") == "regex"
    assert taken("GET", "/ab") == "root"


def test_what_no_route_takes_is_not_found_and_without_routes_all_goes_to_the_service() -> None:
    web = settings_of(http_route(to("a", path("/a"))), **OWN).services["web"]
    assert route_of(web, "GET", "/b").reply == DirectResponse(404)
    assert route_of(web, "GET", "/b").name == "no-route"


def test_hosts_come_before_paths() -> None:
    web = settings_of(
        http_route(to("plain", path("/long/path"))),
        http_route(to("named", path("/")), name="named", hostnames=["*.example.com"]),
        **OWN,
    ).services["web"]
    names = [route.name for route in web.routes]
    assert names[:2] == ["named", "it"]


def test_actions_of_a_rule() -> None:
    filters = [
        {
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": "A", "value": "1"}], "remove": ["B"]},
        },
        {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "C", "value": "2"}]}},
    ]
    redirect = {
        "hostname": "example.com",
        "statusCode": 302,
        "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/z"},
    }
    web = settings_of(
        http_route(
            {
                "matches": [path("/a")],
                "filters": filters,
                "backendRefs": [{"name": "x", "port": 80, "weight": 9}, {"name": "y", "port": 80, "weight": 1}],
                "timeouts": {"request": "3s"},
            },
            {"matches": [path("/r")], "filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]},
            {"matches": [path("/s")]},
            {"matches": [path("/t")], "backendRefs": [{"name": "x", "kind": "Bucket", "group": "s3"}]},
        ),
        **OWN,
    ).services["web"]
    a = route_of(web, "GET", "/a")
    assert [(backend.service, backend.weight) for backend in a.backends] == [("x", 9.0), ("y", 1.0)]
    assert (a.request_edits.set, a.request_edits.remove) == (((b"a", b"1"),), frozenset({b"b"}))
    assert a.response_edits.add == ((b"c", b"2"),)
    assert a.policy.timeout_s == 3.0
    assert route_of(web, "GET", "/r/1").reply == Redirect(prefix="/z", host="example.com", status=302)
    assert route_of(web, "GET", "/s").backends[0].service == "web"
    assert route_of(web, "GET", "/t").reply == DirectResponse(500)


def test_headers_that_cannot_be_edited_are_told_of_and_the_rest_is_edited() -> None:
    def edits(kind: str, **edit: Any) -> dict[str, Any]:
        field = f"{kind[0].lower()}{kind[1:]}"
        return {"type": kind, field: edit}

    filters = [
        edits(
            "RequestHeaderModifier", set=[{"name": "TE", "value": "x"}, {"name": "A", "value": "1"}], remove=["Host"]
        ),
        edits("ResponseHeaderModifier", add=[{"name": "host", "value": "x"}, {"name": "B", "value": "2"}]),
    ]
    draft = draft_of(http_route(to("web", filters=filters)), **OWN)
    headers = draft.services["web"].data["routes"][0]["headers"]
    assert headers == {"request": {"set": {"a": "1"}}, "response": {"add": {"b": "2"}}}
    found = notes(draft, "ignored")
    assert len(found) == 3
    assert sum("for Host" in note for note in found) == 2


def test_annotations_of_a_route_hold_over_those_of_its_service() -> None:
    own = {
        "retry.linkerd.io/http": "502-504,429",
        "retry.linkerd.io/limit": "3",
        "retry.linkerd.io/timeout": "100ms",
        "timeout.linkerd.io/request": "1s",
    }
    general = {"retry.linkerd.io/http": "5xx", "timeout.linkerd.io/request": "9s", "timeout.linkerd.io/idle": "2s"}
    documents = [
        service(general),
        http_route(to("web", path("/a")), annotations=own),
        http_route(to("web", path("/b")), name="other"),
    ]
    web = settings_of(*documents, **OWN).services["web"]
    a, b = route_of(web, "GET", "/a").policy, route_of(web, "GET", "/b").policy
    assert (a.timeout_s, a.per_try_timeout_s, a.retry.max_retries) == (1.0, 0.1, 3)
    assert a.retry.on == {"gateway-error", "retriable-status-codes", "refused-stream"}
    assert a.retry.retriable_status_codes == {429}
    assert (a.retry.backoff_base_s, a.retry.backoff_max_s, a.retry.backoff_jitter) == (0.025, 0.25, "additive")
    assert (b.timeout_s, b.per_try_timeout_s, b.body_idle_s) == (9.0, None, 2.0)
    assert (b.retry.max_retries, b.retry.on) == (1, {"5xx"})


def test_annotations_hold_for_every_port_of_a_service() -> None:
    settings = settings_of(service({"timeout.linkerd.io/request": "4s"}, ports=(80, 81)), **OWN)
    assert {name: each.routes[0].policy.timeout_s for name, each in settings.services.items()} == {
        "web": 4.0,
        "web-p81": 4.0,
    }


def test_a_limit_of_attempts_above_that_of_the_call_is_left_out() -> None:
    said = {"timeout.linkerd.io/request": "1s", "timeout.linkerd.io/response": "5s"}
    assert settings_of(service(said), **OWN).services["web"].routes[0].policy.per_try_timeout_s is None


def test_failure_accrual_is_outlier_detection() -> None:
    key, rate = "balancer.linkerd.io/failure-accrual", "balancer.alpha.linkerd.io/failure-accrual-success-rate"
    plain = settings_of(service({key: "consecutive"}), **OWN).services["web"].clusters[None]
    assert plain.outlier is not None
    assert (plain.outlier.consecutive_errors, plain.outlier.base_ejection_s, plain.outlier.max_ejection_s) == (
        7,
        1.0,
        60.0,
    )
    assert (plain.outlier.max_ejection_percent, plain.outlier.return_by, plain.outlier.accrual) == (
        100.0,
        "probe",
        None,
    )
    assert plain.load_balancing.panic_percent == 0.0
    said = {key: "unified", f"{key}-consecutive-max-failures": "0", f"{rate}-threshold": "0.9", f"{rate}-window": "5s"}
    unified = settings_of(service(said), **OWN).services["web"].clusters[None].outlier
    assert unified is not None
    assert unified.accrual is not None
    assert (unified.consecutive_errors, unified.accrual.success_rate_percent, unified.accrual.window_s) == (
        0,
        90.0,
        5.0,
    )
    assert unified.accrual.kind == "window"
    none = {key: "unified", f"{key}-consecutive-max-failures": "0", f"{rate}-threshold": "0"}
    assert settings_of(service(none), **OWN).services["web"].clusters[None].outlier is None
    assert (
        settings_of(service({"timeout.linkerd.io/request": "1s"}), **OWN).services["web"].clusters[None].outlier is None
    )


def test_routes_of_the_gateway_api_take_annotations_as_well() -> None:
    group = "gateway.networking.k8s.io/v1"
    rule = {**to("web", path("/a")), "timeouts": {"request": "8s"}}
    documents = [
        http_route(rule, annotations={"timeout.linkerd.io/request": "2s", "retry.linkerd.io/limit": "4"}, group=group)
    ]
    web = settings_of(*documents, **OWN).services["web"]
    policy = route_of(web, "GET", "/a").policy
    assert (policy.timeout_s, policy.retry.max_retries) == (2.0, 4)


def test_a_profile_takes_the_place_of_routes_and_annotations() -> None:
    said = profile(profile_route("p", {"pathRegex": "/p"}), name="web")
    documents = [service({"timeout.linkerd.io/request": "4s"}), http_route(to("x", path("/"))), said]
    draft = draft_of(*documents, **OWN)
    assert [each["name"] for each in draft.services["web"].data["routes"]] == ["p"]
    assert draft.services["web"].data["timeout"] is None
    assert sum("has a ServiceProfile" in each for each in notes(draft, "different")) == 2
    empty = profile(name="web")
    assert settings_of(*documents[:2], empty, **OWN).services["web"].routes[0].backends[0].service == "x"


def test_routes_of_callers_take_the_place_of_the_services_own() -> None:
    parents = [{"kind": "Service", "name": "web", "namespace": "shop"}]
    documents = [
        http_route(to("theirs", path("/"))),
        http_route(to("mine", path("/")), namespace="app", parents=parents, name="mine"),
    ]
    assert settings_of(*documents, namespace="app").services["web.shop"].routes[0].backends[0].service == "mine"
    assert settings_of(*documents, namespace="shop").services["web"].routes[0].backends[0].service == "theirs"


def test_what_is_for_servers_says_nothing_of_calls() -> None:
    parents = [{"kind": "Server", "group": "policy.linkerd.io", "name": "s"}]
    draft = draft_of(http_route(to("x", path("/")), parents=parents), **OWN)
    assert draft.services == {}
    assert "its parent is a Server" in notes(draft, "passed")[0]
    server = {"apiVersion": "policy.linkerd.io/v1beta3", "kind": "Server", "metadata": {"name": "s"}, "spec": {}}
    assert [each.name for each in draft_of(server).security] == ["s"]


@pytest.mark.parametrize(
    ("annotations", "text"),
    [
        ({"retry.linkerd.io/http": "5xy"}, "'5xy' is none of 5xx, gateway-error, a status"),
        ({"retry.linkerd.io/http": "504-500"}, "'504-500' is none of"),
        ({"retry.linkerd.io/grpc": "ok"}, "'ok' is none of cancelled"),
        ({"retry.linkerd.io/limit": "-1"}, "'-1' is no whole number"),
        ({"timeout.linkerd.io/request": "1.5s"}, "'1.5s' is no duration of Linkerd's"),
        ({"timeout.linkerd.io/request": "5"}, "'5' is no duration of Linkerd's"),
        ({"balancer.linkerd.io/failure-accrual": "maybe"}, "'maybe' is neither 'consecutive' nor 'unified'"),
    ],
)
def test_what_linkerd_would_refuse_is_an_error(annotations: dict[str, str], text: str) -> None:
    (note,) = notes(draft_of(service(annotations), **OWN), "wrong")
    assert text in note
    assert f"metadata.annotations.{next(iter(annotations))!r}" in note


def test_annotations_that_nobody_knows_are_told_of() -> None:
    draft = draft_of(
        service({"retry.linkerd.io/htp": "5xx"}),
        http_route(to("x", path("/")), annotations={"balancer.linkerd.io/failure-accrual": "consecutive"}),
        **OWN,
    )
    (route, of_service) = notes(draft, "ignored")
    assert "did you mean 'retry.linkerd.io/http'?" in of_service
    assert "belongs on a Service" in route


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10.0), ("500ms", 0.5), ("5m", 300.0), ("2h", 7200.0), ("1d", 86400.0), ("0", 0.0), ("0s", 0.0)],
)
def test_durations_are_those_of_linkerds_controller(text: str, seconds: float) -> None:
    """The values of its own tests of ``parse_duration``."""
    assert duration(text) == seconds
