"""What rules of an HTTPRoute become: filters, backends, timeouts, retries, sessions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshlib.routing.actions import Rewrite
from meshlib.routing.match import PathMatch
from meshlib.routing.rewrite import rewrite_path
from meshlib.testing import MeshFixture
from tests.config.dialects.gateway_api.documents import GROUP, drafted, notes_of, path, route, routes_of, service, to


def _rule(rule: dict[str, Any], **context: Any) -> dict[str, Any]:
    """What one rule with a backend becomes, without its name."""
    (native, _) = routes_of(drafted(route({"matches": [path("/a")], "backendRefs": to("v1"), **rule}), **context))
    del native["name"], native["match"]
    return native


def _filter(kind: str, /, **body: Any) -> dict[str, Any]:
    field = "urlRewrite" if kind == "URLRewrite" else kind[0].lower() + kind[1:]
    return {"type": kind, field: body}


V1 = {"backends": [{"service": "v1"}]}


def test_header_edits_of_a_rule_and_of_a_backend() -> None:
    edit = _filter(
        "RequestHeaderModifier", set=[{"name": "A", "value": "1"}], add=[{"name": "B", "value": "2"}], remove=["C"]
    )
    native = {"set": {"a": "1"}, "add": {"b": "2"}, "remove": ["c"]}
    assert _rule({"filters": [edit]}) == {**V1, "headers": {"request": native}}
    backend = {"name": "v1", "port": 80, "filters": [edit, _filter("ResponseHeaderModifier", remove=["X"])]}
    headers = {"request": native, "response": {"remove": ["x"]}}
    assert _rule({"backendRefs": [backend]}) == {"backends": [{"service": "v1", "headers": headers}]}


def test_the_header_host_is_rewritten_and_those_of_the_connection_stay() -> None:
    edit = _filter(
        "RequestHeaderModifier",
        set=[{"name": "Host", "value": "other.example"}, {"name": "TE", "value": "trailers"}],
        remove=["Host", "x-a", "X-A"],
    )
    draft = drafted(route({"filters": [edit], "backendRefs": to("v1")}))
    native = routes_of(draft)[0]
    assert native["rewrite"] == {"host": "other.example"}
    assert native["headers"] == {"request": {"remove": ["x-a"]}}
    assert ["te belongs to the connection" in note for note in notes_of(draft, "ignored")] == [True]
    assert [note.rsplit(": ", 1)[1] for note in notes_of(draft, "different")] == [
        "host is edited twice, and the first edit holds",
        "x-a is edited twice, and the first edit holds",
    ]


@pytest.mark.parametrize(
    ("given", "native"),
    [
        ({}, {"status": 302}),
        ({"hostname": "h.example", "statusCode": 308}, {"status": 308, "host": "h.example"}),
        ({"scheme": "https"}, {"status": 302, "scheme": "https", "port": 443}),
        ({"scheme": "http", "port": 8080}, {"status": 302, "scheme": "http", "port": 8080}),
        ({"path": {"type": "ReplaceFullPath", "replaceFullPath": "/x"}}, {"path": "/x", "status": 302}),
        ({"path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": ""}}, {"prefix": "/", "status": 302}),
    ],
)
def test_redirects(given: dict[str, Any], native: dict[str, Any]) -> None:
    assert _rule({"filters": [_filter("RequestRedirect", **given)], "backendRefs": []}) == {"redirect": native}


def test_a_redirect_to_another_host_keeps_the_port_of_the_service() -> None:
    redirect = {"filters": [_filter("RequestRedirect", hostname="h.example")]}
    draft = drafted(service("orders", 80, 8080), route(redirect))
    assert routes_of(draft)[0]["redirect"] == {"status": 302, "host": "h.example", "port": 80}
    assert routes_of(draft, "orders-p8080")[0]["redirect"]["port"] == 8080


def test_rewrites_and_mirrors() -> None:
    rewrite = _filter(
        "URLRewrite", hostname="h.example", path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"}
    )
    mirrors = [
        _filter("RequestMirror", backendRef={"name": "v2", "port": 80}),
        _filter("RequestMirror", backendRef={"name": "v3", "port": 80}, percent=5),
        _filter("RequestMirror", backendRef={"name": "v4", "port": 80}, fraction={"numerator": 1, "denominator": 8}),
    ]
    assert _rule({"filters": [rewrite, *mirrors]}) == {
        **V1,
        "rewrite": {"prefix": "/b", "host": "h.example"},
        "mirror": [{"service": "v2"}, {"service": "v3", "percent": 5}, {"service": "v4", "percent": 12.5}],
    }


def test_a_swap_of_the_prefix_names_the_prefix_even_where_that_is_everything() -> None:
    rewrite = _filter("URLRewrite", path={"type": "ReplacePrefixMatch", "replacePrefixMatch": "/b"})
    (native,) = routes_of(drafted(route({"filters": [rewrite], "backendRefs": to("v1")})))
    assert native["match"] == [{"path": {"path_prefix": "/"}}]
    exact = route({"matches": [path("/a", "Exact")], "filters": [rewrite], "backendRefs": to("v1")})
    assert "for matches of the type PathPrefix alone" in notes_of(drafted(exact), "wrong")[0]


def test_what_is_not_there_gets_500_for_its_share_and_the_rest_is_drawn_from() -> None:
    refs = [
        {"name": "v1", "port": 80, "weight": 3},
        {"name": "gone", "port": 80, "weight": 1},
        {"name": "v2", "port": 80, "weight": 4},
        {"name": "v1", "port": 81, "weight": 0},
        {"group": "example.com", "kind": "Bucket", "name": "b", "weight": 2},
    ]
    draft = drafted(
        service("v1"), service("v2"), service("orders"), route({"matches": [path("/a")], "backendRefs": refs})
    )
    gone, bucket, rest, _ = routes_of(draft)
    at = {"path": {"path_prefix": "/a"}}
    assert gone == {
        "name": "orders.1.1",
        "match": [{**at, "percent": 10.0}],
        "direct_response": {"status": 500},
    }
    assert (bucket["match"], bucket["direct_response"]) == ([{**at, "percent": 30.0}], {"status": 500})
    assert rest["match"] == [at]
    assert rest["backends"] == [{"service": "v1", "weight": 3}, {"service": "v2", "weight": 4}]
    why = [note.rsplit("since ", 1)[1] for note in notes_of(draft, "ignored")]
    assert why == [
        "there is no Service shop/gone among the documents (BackendNotFound)",
        "the Service shop/v1 has no port 81 (BackendNotFound)",
        "example.com/Bucket is no kind of backend that is known (InvalidKind)",
    ]


def test_a_backend_with_filters_of_its_own_gets_its_share_by_chance() -> None:
    redirect = {"name": "v1", "weight": 1, "filters": [_filter("RequestRedirect", hostname="h.example")]}
    rewrite = {
        "name": "v2",
        "weight": 1,
        "filters": [_filter("URLRewrite", path={"type": "ReplaceFullPath", "replaceFullPath": "/x"})],
    }
    first, second, third = routes_of(drafted(route({"backendRefs": [redirect, rewrite, {"name": "v3", "weight": 2}]})))
    assert first == {
        "name": "orders.1.1",
        "match": [{"percent": 25.0}],
        "redirect": {"status": 302, "host": "h.example"},
    }
    assert (second["match"], second["rewrite"]) == ([{"percent": 50.0}], {"path": "/x"})
    assert (third["backends"], "match" in third) == ([{"service": "v3", "weight": 2}], False)


@pytest.mark.parametrize("weights", [[], [0], [0, 0]])
def test_without_a_backend_that_gets_anything_all_is_500(weights: list[int]) -> None:
    assert _rule({"backendRefs": [{"name": "v1", "weight": weight} for weight in weights]}) == {
        "direct_response": {"status": 500}
    }


@pytest.mark.parametrize("given", [{"group": "a", "kind": "B", "name": "c"}])
@pytest.mark.parametrize("kind", ["ExtensionRef", "ExternalAuth"])
def test_a_filter_that_cannot_be_resolved_fails_its_requests(kind: str, given: dict[str, str]) -> None:
    draft = drafted(route({"filters": [_filter(kind, **given)], "backendRefs": to("v1")}))
    assert routes_of(draft) == [{"name": "orders.1", "direct_response": {"status": 500}}]
    assert "answered with 500" in notes_of(draft, "ignored")[0]


def test_cors_is_left_to_those_who_answer() -> None:
    body = {"type": "CORS", "cors": {"allowOrigins": ["https://a.example"]}}
    draft = drafted(route({"filters": [body], "backendRefs": to("v1")}))
    assert routes_of(draft) == [{"name": "orders.1", **V1}]
    assert len(notes_of(draft, "ignored")) == 1


@pytest.mark.parametrize(
    ("given", "native"),
    [
        ({"request": "10s", "backendRequest": "2s500ms"}, {"timeout": "10s", "per_try_timeout": "2.5s"}),
        ({"request": "0s"}, {"timeout": None}),
        ({"backendRequest": "0s"}, {"per_try_timeout": None}),
        ({"backendRequest": "500ms"}, {"per_try_timeout": "500ms"}),
        ({"backendRequest": "1m"}, {"per_try_timeout": "60s", "timeout": None}),
    ],
)
def test_timeouts(given: dict[str, str], native: dict[str, Any]) -> None:
    assert _rule({"timeouts": given}) == {**V1, **native}


@pytest.mark.parametrize(
    ("given", "native"),
    [
        ({"attempts": 3}, {"max_retries": 3}),
        ({"codes": [500, 503]}, {"on": ["connect-failure", "reset", 500, 503]}),
        ({"backoff": "100ms"}, {"backoff": {"base": "100ms", "max": "1s", "jitter": "additive"}}),
    ],
)
def test_retries(given: dict[str, Any], native: dict[str, Any]) -> None:
    assert _rule({"retry": given}) == {**V1, "retry": native}
    assert _rule({"retry": given}, retry_unsafe=True) == {**V1, "retry": {**native, "unsafe": True}}


def test_sessions_are_bound_at_the_backend() -> None:
    session = {"cookie": {"name": "at", "lifetimeType": "Permanent"}, "absoluteTimeout": "1h"}
    draft = drafted(route({"backendRefs": to("v1"), "sessionPersistence": session}))
    assert draft.services["v1"].data["load_balancing"] == {"session_affinity": {"cookie": "at", "ttl": "3600s"}}
    assert "holds for all calls to v1" in notes_of(draft, "different")[0]
    rules = [{"backendRefs": to("v1"), "sessionPersistence": each} for each in (session, {"cookie": {"name": "b"}})]
    draft = drafted(route(*rules))
    assert draft.services["v1"].data["load_balancing"]["session_affinity"]["cookie"] == "at"
    assert "binds its sessions otherwise" in notes_of(draft, "ignored")[0]
    header = {"type": "Header", "header": {"name": "x-session"}}
    assert len(notes_of(drafted(route({"backendRefs": to("v1"), "sessionPersistence": header})), "ignored")) == 1
    assert len(notes_of(drafted(route({"backendRefs": to("v1", "v2"), "sessionPersistence": session})), "ignored")) == 1


def test_sessions_as_they_were_written_up_to_version_1_4() -> None:
    session = {"sessionName": "at", "cookieConfig": {"lifetimeType": "Permanent"}, "absoluteTimeout": "1h"}
    draft = drafted(route({"backendRefs": to("v1"), "sessionPersistence": {**session, "idleTimeout": "10m"}}))
    assert draft.services["v1"].data["load_balancing"] == {"session_affinity": {"cookie": "at", "ttl": "3600s"}}
    assert ["idleTimeout" in note for note in notes_of(draft, "ignored")] == [True]


def test_grants_are_asked_for_where_that_is_wished() -> None:
    document = route({"backendRefs": to("v1", namespace="other")})
    grant = {
        "apiVersion": f"{GROUP}/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": {"name": "g", "namespace": "other"},
        "spec": {
            "from": [{"group": GROUP, "kind": "HTTPRoute", "namespace": "shop"}],
            "to": [{"group": "", "kind": "Service"}],
        },
    }
    called = [{"name": "orders.1", "backends": [{"service": "v1.other"}]}]
    assert routes_of(drafted(document)) == called
    assert routes_of(drafted(document, reference_grants=True))[0]["direct_response"] == {"status": 500}
    assert routes_of(drafted(document, grant, reference_grants=True)) == called


def test_shares_of_requests_are_those_of_the_weights(tmp_path: Path) -> None:
    refs = [{"name": "gone", "weight": 2}, {"name": "v1", "weight": 2}, {"name": "v2", "weight": 4}]
    rewrite = _filter("URLRewrite", path={"type": "ReplaceFullPath", "replaceFullPath": "/x"})
    refs.append({"name": "v3", "weight": 2, "filters": [rewrite]})
    given = [service(name) for name in ("orders", "v1", "v2", "v3")]
    (tmp_path / "given.yaml").write_text(yaml.safe_dump_all([*given, route({"backendRefs": refs})]))
    with MeshFixture({"namespace": "shop", "include": [str(tmp_path)]}) as mesh, mesh.client("orders") as orders:
        for name in ("v1", "v2", "v3"):
            mesh.serve(name, lambda request: f"{request.service} {request.path}")
        answers = [orders.get("/a") for _ in range(500)]
    found = Counter(each.text if each.status_code == 200 else each.status_code for each in answers)
    shares = {500: 100, "v1 /a": 100, "v2 /a": 200, "v3 /x": 100}
    assert found == {key: pytest.approx(count, abs=35) for key, count in shares.items()}


def test_services_of_the_group_core_and_hosts_of_istio_are_known() -> None:
    refs = [
        {"group": "core", "kind": "Service", "name": "v1", "port": 80},
        {"group": "networking.istio.io", "kind": "Hostname", "name": "api.example.com", "port": 443},
    ]
    (native,) = routes_of(drafted(route({"backendRefs": refs}, parent={"group": "core"})))
    assert native["backends"] == [{"service": "v1"}, {"service": "api.example.com"}]


@pytest.mark.parametrize(
    ("asked", "prefix", "swap", "wanted"),
    [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
    ],
)
def test_prefixes_are_swapped_as_the_table_of_the_api_has_it(asked: str, prefix: str, swap: str, wanted: str) -> None:
    rewrite = _filter("URLRewrite", path={"type": "ReplacePrefixMatch", "replacePrefixMatch": swap})
    rule = {"matches": [path(prefix)], "filters": [rewrite], "backendRefs": to("v1")}
    (native, _) = routes_of(drafted(route(rule)))
    matched = PathMatch("path_prefix", native["match"][0]["path"]["path_prefix"])
    assert rewrite_path(Rewrite(prefix=native["rewrite"]["prefix"]), asked, matched) == wanted


def test_a_route_that_is_there_twice_is_an_error() -> None:
    assert "is declared by" in notes_of(drafted(route({"name": "a"}), route({"name": "b"})), "wrong")[0]


def test_hostnames_say_nothing_on_a_route_of_a_service() -> None:
    draft = drafted(route({"backendRefs": to("v1")}, hostnames=["a.example"]))
    assert len(routes_of(draft)) == 1
    assert "GEP-1294" in notes_of(draft, "different")[0]


def test_the_header_host_is_matched_as_the_authority_and_of_equal_names_the_first_counts() -> None:
    headers = [{"name": "Host", "value": "a"}, {"name": "X", "value": "1"}, {"name": "x", "value": "2"}]
    query = [{"name": "q", "value": "a|b", "type": "RegularExpression"}]
    (native, _) = routes_of(
        drafted(route({"matches": [{"headers": headers, "queryParams": query}], "backendRefs": to("v1")}))
    )
    assert native["match"] == [
        {"authority": {"exact": "a"}, "headers": {"x": {"exact": "1"}}, "query": {"q": {"regex": "a|b"}}}
    ]


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ({"matches": [{"path": {"type": "Prefix", "value": "/"}}]}, "'Prefix' is none of Exact, PathPrefix"),
        ({"matches": [{"method": "get"}]}, "'get' is none of"),
        ({"matches": [{"headers": [{"name": "a"}]}]}, "value: is required"),
        ({"filters": [{"type": "Nonsense"}]}, "'Nonsense' is none of"),
        ({"filters": [{"type": "CORS"}]}, "cors: is required"),
        ({"filters": [_filter("RequestRedirect", statusCode=200)]}, "is none of 301"),
        ({"filters": [_filter("RequestRedirect")], "backendRefs": to("v1")}, "one of them is expected"),
        ({"timeouts": {"request": "1s", "backendRequest": "2s"}}, "is longer than request"),
        ({"timeouts": {"request": "soon"}}, "a duration such as"),
        ({"retry": {"codes": [200]}}, "codes[0]: 400 to 599 is expected"),
        ({"backendRefs": [{"name": "v1", "weight": -1}]}, "is below 0"),
        ({"backendRefs": [{}]}, "name: is required"),
    ],
)
def test_what_is_wrong_is_said_with_its_field(rule: dict[str, Any], says: str) -> None:
    assert any(says in note for note in notes_of(drafted(route(rule)), "wrong"))


def test_unknown_fields_are_told_wherever_they_stand() -> None:
    rule = {"matches": [{"path": {"value": "/", "kind": "Exact"}}], "backendRefs": to("v1", weigth=2)}
    draft = drafted(route(rule, parentRef=[]))
    found = [note.split(": ")[2] for note in notes_of(draft, "ignored")]
    assert sorted(found) == ["spec.parentRef", "spec.rules[0].backendRefs[0].weigth"]
    assert [note.split(": ")[2] for note in notes_of(draft, "wrong")] == ["spec.rules[0].matches[0].path.kind"]
