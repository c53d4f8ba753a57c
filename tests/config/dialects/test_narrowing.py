"""What says which calls are meant is never left out in silence: else a document would speak of more of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.dialects.support import draft_of, notes


def istio(rule: dict[str, Any], **spec: Any) -> dict[str, Any]:
    to = {"route": [{"destination": {"host": "reviews"}}]}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews"},
        "spec": {"hosts": ["reviews"], "http": [{**rule, **to}], **spec},
    }


def gateway(rule: dict[str, Any], group: str = "gateway.networking.k8s.io", **spec: Any) -> dict[str, Any]:
    parent = {"group": "core" if group == "policy.linkerd.io" else "", "kind": "Service", "name": "web", "port": 80}
    return {
        "apiVersion": f"{group}/{'v1beta3' if group == 'policy.linkerd.io' else 'v1'}",
        "kind": "HTTPRoute",
        "metadata": {"name": "web"},
        "spec": {"parentRefs": [parent], "rules": [{**rule, "backendRefs": [{"name": "web", "port": 80}]}], **spec},
    }


def linkerd(rule: dict[str, Any]) -> dict[str, Any]:
    return gateway(rule, "policy.linkerd.io")


def profile(condition: dict[str, Any], **route: Any) -> dict[str, Any]:
    return {
        "apiVersion": "linkerd.io/v1alpha2",
        "kind": "ServiceProfile",
        "metadata": {"name": "web.default.svc.cluster.local"},
        "spec": {"routes": [{"name": "it", "condition": condition, **route}]},
    }


def consul(http: dict[str, Any], **route: Any) -> dict[str, Any]:
    return {"Kind": "service-router", "Name": "web", "Routes": [{"Match": {"HTTP": http}, **route}]}


CASES: list[tuple[dict[str, Any], str]] = [
    (istio({"match": [{"url": {"prefix": "/a"}}]}), "match[0].url"),
    (istio({"match": [{"uri": {"prefx": "/a"}}]}), "uri.prefx"),
    (istio({"match": [{"headers": {"user": {"exat": "x"}}}]}), "headers.user.exat"),
    (istio({"match": [{"withoutHeaders": {"user": {"contains": "x"}}}]}), "withoutHeaders.user.contains"),
    (istio({"macth": [{"uri": {"prefix": "/a"}}]}), "http[0].macth"),
    (istio({}, gateway=["front"]), "spec.gateway"),
    (istio({}, exportsTo=["."]), "spec.exportsTo"),
    (gateway({"matches": [{"pathes": {"value": "/a"}}]}), "matches[0].pathes"),
    (gateway({"matches": [{"path": {"value": "/a", "typ": "Exact"}}]}), "path.typ"),
    (gateway({"matches": [{"headers": [{"name": "a", "value": "b", "kind": "Exact"}]}]}), "headers[0].kind"),
    (gateway({"match": [{"path": {"value": "/a"}}]}), "rules[0].match"),
    (gateway({}, hostname=["a.example"]), "spec.hostname"),
    (linkerd({"matches": [{"header": [{"name": "a", "value": "b"}]}]}), "matches[0].header"),
    (linkerd({"matches": [{"path": {"value": "/a", "kind": "Exact"}}]}), "path.kind"),
    (linkerd({"matches": [{"queryParams": [{"name": "a", "value": "b", "typ": "x"}]}]}), "queryParams[0].typ"),
    (profile({"method": "GET", "path": "/a"}), "condition.path"),
    (profile({"all": [{"method": "GET", "pathregex": "/a"}]}), "all[0].pathregex"),
    (profile({"method": "GET"}, responseClasses=[{"condition": {"status": {"min": 500, "max": 599, "mx": 1}}}]), "mx"),
    (consul({"PathPrefx": "/a"}), "HTTP.PathPrefx"),
    (consul({"Header": [{"Name": "a", "Present": True, "Contains": "x"}]}), "Header[0].Contains"),
    ({**consul({}), "Routes": [{"Match": {"HTPP": {"PathExact": "/a"}}}]}, "Match.HTPP"),
    ({**consul({}), "Routes": [{"Macth": {"HTTP": {"PathExact": "/a"}}}]}, "Routes[0].Macth"),
]


@pytest.mark.parametrize(("document", "field"), CASES, ids=[field for _, field in CASES])
def test_an_unknown_condition_is_an_error(document: dict[str, Any], field: str) -> None:
    assert [note for note in notes(draft_of(document), "wrong") if f"{field}: unknown field here" in note]


def test_what_says_nothing_is_no_error() -> None:
    # Consul itself writes out what was not given.
    for document in (consul({"PathExact": "/a", "New": ""}), istio({"match": [{"uri": {"exact": "/a"}, "new": None}]})):
        assert notes(draft_of(document), "wrong") == []
        assert len(notes(draft_of(document), "ignored")) == 1


def test_an_empty_condition_of_linkerds_does_not_hold_for_everything() -> None:
    assert any("has to have one of" in note for note in notes(draft_of(profile({"all": None})), "wrong"))
