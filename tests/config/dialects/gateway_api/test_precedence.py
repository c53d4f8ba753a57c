"""In which order rules are tried, and for whom routes are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.config.load import load_mapping
from tests.config.dialects.gateway_api.documents import drafted, notes_of, path, route, routes_of, service, to


def _names(*documents: Any, namespace: str = "shop", of: str = "orders") -> list[str]:
    return [each["name"] for each in routes_of(drafted(*documents, namespace=namespace), of)]


def test_exact_paths_go_before_longer_prefixes_before_methods_before_headers_before_parameters() -> None:
    header, parameter = [{"name": "a", "value": "1"}], [{"name": "b", "value": "2"}]
    rules = {
        "parameter": {"queryParams": parameter},
        "header": {"headers": header},
        "method": {"method": "GET"},
        "regex": path("/v.*", "RegularExpression"),
        "short": path("/v2"),
        "long": path("/v2/more"),
        "exact": path("/v2/more", "Exact"),
        "both": {"headers": header, "queryParams": parameter},
        "all": {},
    }
    document = route(*({"name": name, "matches": [match], "backendRefs": to("v1")} for name, match in rules.items()))
    order = ["exact", "long", "short", "method", "both", "header", "parameter", "all"]
    assert _names(document) == [f"orders.{name}" for name in order]  # the expression after "all" is never reached


def test_of_equal_matches_the_older_route_goes_first_then_the_alphabet_then_the_place_in_the_route() -> None:
    rules = [{"matches": [path("/a")]}, {"matches": [path("/a")]}]
    documents = [
        route(*rules, name="d"),
        route(*rules, name="c"),
        route(*rules, name="b", created="2026-02-01T00:00:00Z"),
        route(*rules, name="a", created="2026-03-01T00:00:00Z"),
    ]
    wanted = [f"{name}.{index}" for name in "bacd" for index in (1, 2)]
    assert _names(*documents) == [*wanted, "no-rule"]


def test_matches_of_one_rule_that_follow_one_another_are_one_route() -> None:
    rule = {"matches": [path("/a"), path("/b")], "backendRefs": to("v1")}
    (first, last) = routes_of(drafted(route(rule)))
    assert first["match"] == [{"path": {"path_prefix": "/a"}}, {"path": {"path_prefix": "/b"}}]
    assert last == {"name": "no-rule", "direct_response": {"status": 404}}


def test_a_rule_that_takes_everything_ends_the_routes_and_what_comes_after_it_is_told() -> None:
    draft = drafted(
        route({"backendRefs": to("v1")}, name="a"), route({"backendRefs": to("v2")}, {"name": "x"}, name="b")
    )
    assert routes_of(draft) == [{"name": "a.1", "backends": [{"service": "v1"}]}]
    assert [note.split(": ", 2)[2] for note in notes_of(draft, "different")] == [
        "spec.rules[0]: is never reached: a rule before it takes everything",
        "spec.rules[1]: is never reached: a rule before it takes everything",
    ]


def test_a_route_without_rules_takes_everything_and_has_no_backend() -> None:
    document = route()
    del document["spec"]["rules"]
    assert routes_of(drafted(document)) == [{"name": "orders.1", "direct_response": {"status": 500}}]


def test_consumer_routes_are_for_their_own_namespace_and_stand_there_for_those_of_the_producer() -> None:
    documents = [
        route({"name": "producer"}, name="p"),
        route({"name": "consumer"}, name="c", namespace="web"),
    ]
    assert _names(*documents, namespace="shop") == ["p.producer"]
    assert _names(*documents, namespace="other", of="orders.shop") == ["p.producer"]
    assert _names(*documents, namespace="web", of="orders.shop") == ["c.consumer"]


def test_a_route_is_for_the_ports_that_its_parent_names() -> None:
    backend = {"backendRefs": to("orders")}
    draft = drafted(
        service("orders", 80, 8080),
        route({"name": "all", **backend, "matches": [path("/a")]}, name="a"),
        route({"name": "one", **backend}, name="b", parent={"port": 8080}),
        route({"name": "named", **backend}, name="c", parent={"sectionName": "p80"}),
        route({"name": "none", **backend}, name="d", parent={"sectionName": "p80", "port": 8080}),
    )
    assert [each["name"] for each in routes_of(draft)] == ["a.all", "c.named"]
    assert [each["name"] for each in routes_of(draft, "orders-p8080")] == ["a.all", "b.one"]
    assert "has no such port (NoMatchingParent)" in notes_of(draft, "ignored")[0]


def test_a_route_of_a_gateway_alone_is_passed_over_and_one_of_both_is_not() -> None:
    gateway = {"name": "edge"}
    document = route({"backendRefs": to("v1")})
    document["spec"]["parentRefs"].append(gateway)
    assert not notes_of(drafted(document), "ignored")
    document["spec"]["parentRefs"] = [gateway]
    draft = drafted(document)
    assert "is for gateways" in notes_of(draft, "passed")[0]
    assert not notes_of(draft, "ignored")
    assert not draft.services
    document["spec"]["parentRefs"] = [{"group": "multicluster.x-k8s.io", "kind": "ServiceImport", "name": "v1"}]
    assert "through no multicluster.x-k8s.io/ServiceImport" in notes_of(drafted(document), "ignored")[0]


def test_what_the_api_allows_can_be_loaded(tmp_path: Path) -> None:
    same = {"matches": [path("/a")], "backendRefs": to("v1")}
    long = [route({**same, "name": "r" * 200}, name=f"{'n' * 200}{index}") for index in range(2)]
    slow = route({**same, "timeouts": {"backendRequest": "2m"}, "retry": {"attempts": 9, "backoff": "1m"}}, name="slow")
    (tmp_path / "routes.yaml").write_text(yaml.safe_dump_all([route(same, same), *long, slow]))
    config = load_mapping({"namespace": "shop", "include": [str(tmp_path)]})
    assert len(config.services["orders"].routes) == 6


_VALUES = st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab"])
_MATCHES = st.fixed_dictionaries(
    {"path": st.fixed_dictionaries({"type": st.sampled_from(["Exact", "PathPrefix"]), "value": _VALUES})},
    optional={
        "method": st.sampled_from(["GET", "PUT"]),
        "headers": st.lists(st.sampled_from([{"name": "A", "value": "1"}, {"name": "b", "value": "2"}]), max_size=3),
        "queryParams": st.lists(st.sampled_from([{"name": "q", "value": "1"}]), max_size=2),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(_MATCHES, min_size=1, max_size=3), min_size=1, max_size=5), st.permutations(range(5)))
def test_the_order_of_the_documents_does_not_matter(rules: list[Any], order: list[int]) -> None:
    documents = [route({"matches": matches}, name=f"r{index}") for index, matches in enumerate(rules)]
    shuffled = [documents[index] for index in order if index < len(documents)]
    assert routes_of(drafted(*documents)) == routes_of(drafted(*shuffled))
