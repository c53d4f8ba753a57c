"""Delegates are merged as in Istio: its own cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from meshlib.config.dialects.istio.delegate import conflicts, merge_matches, merge_routes
from tests.config.dialects.istio.support import draft_of, http, load, notes, route_of, to, virtual_service

CASES = json.loads((Path(__file__).parents[3] / "data" / "istio_delegates.json").read_text())


def cases(kind: str) -> list[Any]:
    return [pytest.param(case, id=f"{index}-{case['name']}") for index, case in enumerate(CASES[kind])]


def without_empty(value: Any) -> Any:
    """Of what Istio calls empty nothing is there here."""
    if isinstance(value, dict):
        return {name: without_empty(each) for name, each in value.items() if each not in (None, {}, [])}
    return [without_empty(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("case", cases("routes"))
def test_routes_of_a_delegate_take_what_they_lack_from_the_root(case: Any) -> None:
    root = {name: value for name, value in case["root"].items() if name != "delegate"}
    assert without_empty(merge_routes(root, case["delegate"])) == without_empty(case["expected"])


@pytest.mark.parametrize("case", cases("matches"))
def test_matches_are_narrowed_or_contradict(case: Any) -> None:
    merged = merge_matches(case.get("root") or [], case.get("delegate") or [])
    assert without_empty(merged or []) == without_empty(case.get("expected") or [])


@pytest.mark.parametrize("case", cases("conflicts"))
def test_what_contradicts(case: Any) -> None:
    assert conflicts(case["root"], case["leaf"]) is case["expected"]


ROOT = {"match": [{"uri": {"prefix": "/v2"}}], "delegate": {"name": "v2", "namespace": "team"}, "timeout": "3s"}
V2 = {"name": "v2", "metadata": {"namespace": "team"}, "hosts": []}


def test_a_delegate_takes_the_place_of_the_route_that_names_it() -> None:
    narrow = http(to("other"), match=[{"uri": {"prefix": "/v2/other"}}], timeout="1s")
    text = virtual_service(ROOT, http()) + virtual_service(narrow, http(to("mine")), **V2)
    settings = load(text)
    found = {url: route_of(settings, f"http://reviews{url}") for url in ("/v2/other/x", "/v2/x", "/x")}
    # Short names are those of the namespace that they are written in.
    backends = [route.backends[0].service for route in found.values() if route is not None]
    assert backends == ["other.team", "mine.team", "reviews"]
    assert [route.policy.timeout_s for route in found.values() if route is not None] == [1.0, 3.0, None]


@pytest.mark.parametrize(
    ("delegate", "said"),
    [
        ("", "there is no VirtualService 'v2'"),
        (virtual_service(http(), **V2, exportTo=["."]), "is not exported to 'default'"),
        (virtual_service(http(match=[{"uri": {"exact": "/v1"}}]), **V2), "contradict"),
        (virtual_service({"delegate": {"name": "x"}}, **V2), "a delegate cannot delegate"),
    ],
)
def test_a_delegate_that_does_not_fit_leaves_the_route_out_and_is_told_of(delegate: str, said: str) -> None:
    draft = draft_of(virtual_service(ROOT, http()) + delegate)
    assert [route["name"] for route in draft.services["reviews"].data["routes"]] == ["reviews-1"]
    assert any(said in note for note in notes(draft))
