"""ServiceProfiles: which route takes a request, what is retried of it, and where it goes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.dialects.support import draft_of, notes, route_of, services_of, settings_of

OWN = {"namespace": "shop"}


def profile(*routes: dict[str, Any], name: str = "books", namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "linkerd.io/v1alpha2",
        "kind": "ServiceProfile",
        "metadata": {"name": f"{name}.shop.svc.cluster.local", "namespace": namespace},
        "spec": {"routes": list(routes), **spec},
    }


def route(name: str, condition: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": name, "condition": condition, **fields}


def taken(condition: dict[str, Any], method: str, path: str) -> bool:
    books = settings_of(profile(route("it", condition)), **OWN).services["books"]
    return route_of(books, method, path).name == "it"


@pytest.mark.parametrize(
    ("condition", "yes", "no"),
    [
        ({"pathRegex": "/books/[^/]*"}, ["GET /books/1"], ["GET /books/1/x", "GET /a/books/1"]),
        ({"pathRegex": " ^/books$ "}, ["GET /books"], ["GET /books/1"]),
        ({"method": "get"}, ["GET /"], ["POST /"]),
        ({"method": "GET", "pathRegex": "/a"}, ["GET /a"], ["POST /a", "GET /b"]),
        ({"any": [{"method": "GET"}, {"pathRegex": "/a"}]}, ["GET /b", "POST /a"], ["POST /b"]),
        ({"not": {"method": "GET"}}, ["POST /"], ["GET /"]),
        ({"not": {"any": [{"method": "GET"}, {"pathRegex": "/a"}]}}, ["POST /b"], ["GET /b", "POST /a"]),
        ({"not": {"not": {"pathRegex": "/a"}}}, ["GET /a"], ["GET /b"]),
        (
            {"all": [{"pathRegex": "/a.*"}, {"pathRegex": ".*z"}, {"not": {"method": "PUT"}}]},
            ["GET /az"],
            ["GET /a", "PUT /az"],
        ),
        (
            {"any": [{"method": "PUT"}, {"method": "POST"}], "not": {"pathRegex": "/a"}},
            ["PUT /b", "POST /b"],
            ["PUT /a", "GET /b"],
        ),
        (
            {"all": [{"any": [{"method": "PUT"}, {"pathRegex": "/a"}]}, {"method": "GET"}]},
            ["GET /a"],
            ["PUT /a", "GET /b"],
        ),
        ({"any": []}, [], ["GET /"]),
        ({"all": []}, ["GET /"], []),
    ],
)
def test_conditions_are_boolean_and_of_the_whole_path(condition: dict[str, Any], yes: list[str], no: list[str]) -> None:
    for request in yes:
        assert taken(condition, *request.split()), request
    for request in no:
        assert not taken(condition, *request.split()), request


def test_the_first_route_that_matches_is_taken_and_the_rest_has_no_timeout() -> None:
    books = settings_of(
        profile(
            route("GET /a", {"pathRegex": "/a.*"}, timeout="250ms"), route("b", {"pathRegex": "/.*"}, timeout="0s")
        ),
        **OWN,
    ).services["books"]
    assert route_of(books, "GET", "/ab").policy.timeout_s == 0.25
    assert route_of(books, "GET", "/b").policy.timeout_s is None
    assert [each.name for each in books.routes] == ["get-a", "b", "default"]
    assert books.hosts == ("books.shop", "books.shop.svc", "books.shop.svc.cluster.local")


def test_retries_go_by_the_budget_and_by_what_counts_as_a_failure() -> None:
    classes = [
        {"condition": {"all": [{"status": {"min": 500, "max": 599}}, {"not": {"status": {"min": 503, "max": 503}}}]}},
        {"condition": {"any": [{"status": {"min": 429, "max": 429}}]}, "isFailure": True},
    ]
    books = settings_of(
        profile(
            route("plain", {"pathRegex": "/a"}, isRetryable=True),
            route("classes", {"pathRegex": "/b"}, isRetryable=True, responseClasses=classes),
            route("none", {"pathRegex": "/c"}),
            retryBudget={"retryRatio": 0.3, "minRetriesPerSecond": 4, "ttl": "20s"},
        ),
        **OWN,
    ).services["books"]
    plain, chosen, none, *_ = (each.policy.retry for each in books.routes)
    assert (plain.max_retries, plain.on, plain.backoff_base_s, plain.backoff_jitter) == (100, {"5xx"}, 0.0, "none")
    assert chosen.on == {"retriable-status-codes"}
    assert chosen.retriable_status_codes == {429, 503}
    assert none.max_retries == 0
    budget = books.budget
    assert (budget.kind, budget.percent, budget.min_per_second, budget.ttl_s) == ("rate", 30.0, 4.0, 20.0)
    assert budget.arithmetic == "tower"


def test_the_budget_is_linkerds_unless_it_is_given_and_retries_may_be_unsafe() -> None:
    retryable = profile(route("plain", {"pathRegex": "/a"}, isRetryable=True))
    books = settings_of(retryable, **OWN, documents={"retry_unsafe": True}).services["books"]
    assert (books.budget.percent, books.budget.min_per_second, books.budget.ttl_s) == (20.0, 10.0, 10.0)
    assert books.routes[0].policy.retry.unsafe
    assert not settings_of(retryable, **OWN).services["books"].routes[0].policy.retry.unsafe


def test_destination_overrides_split_all_calls() -> None:
    books = settings_of(
        profile(
            route("a", {"pathRegex": "/a"}),
            dstOverrides=[
                {"authority": "books.shop.svc.cluster.local:80", "weight": "900m"},
                {"authority": "books-v2.other.svc.cluster.local", "weight": "100m"},
                {"authority": "gone.shop.svc.cluster.local", "weight": 0},
            ],
        ),
        **OWN,
    ).services["books"]
    for each in books.routes[:2]:
        assert [(backend.cluster, backend.weight) for backend in each.backends] == [
            ("books", 0.9),
            ("books-v2.other", 0.1),
        ]
    assert books.routes[1].name == "linkerd-default"


def test_the_callers_own_profile_holds_and_others_are_not_for_it() -> None:
    theirs = profile(route("theirs", {"pathRegex": "/a"}))
    mine = profile(route("mine", {"pathRegex": "/a"}), namespace="app")
    foreign = profile(route("foreign", {"pathRegex": "/a"}), namespace="else")

    def names(namespace: str) -> list[str]:
        services = services_of(theirs, mine, foreign, namespace=namespace)
        return [each["name"] for service in services.values() for each in service.get("routes", ())]

    assert names("app") == ["mine"]
    assert names("shop") == ["theirs"]
    assert names("else") == ["foreign"]
    assert notes(draft_of(theirs, foreign, **OWN), "passed") == [
        "ServiceProfile else/books.shop.svc.cluster.local: says nothing here: it is for callers in the namespace 'else'"
    ]


def test_what_linkerd_would_refuse_is_an_error() -> None:
    wrong = notes(
        draft_of(
            profile(
                route("", {"pathRegex": "/a"}),
                {"name": "b"},
                route("c", {}),
                route(
                    "d", {"pathRegex": "/a"}, timeout="soon", responseClasses=[{"condition": {"status": {"min": 1}}}]
                ),
                dstOverrides=[{"authority": "x", "weight": "much"}],
                retryBudget={"retryRatio": -1, "ttl": "2h"},
            ),
            **OWN,
        ),
        "wrong",
    )
    for text in (
        "routes[0].name: is required",
        "routes[1].condition: is required",
        "routes[2].condition: has to have one of all, any, not, pathRegex and method",
        "routes[3].timeout: a duration such as",
        "condition.status: has to have a min and a max",
        "dstOverrides[0].weight: a quantity",
        "retryBudget.retryRatio: is required, from 0 to 1000",
        "retryBudget.ttl: is required, from 1s to 60s",
    ):
        assert any(text in each for each in wrong), (text, wrong)


def test_a_condition_without_end_is_refused() -> None:
    condition: dict[str, Any] = {"method": "GET"}
    for _ in range(25):
        condition = {"not": condition}
    assert any(
        "nested more than 20" in each for each in notes(draft_of(profile(route("a", condition)), **OWN), "wrong")
    )


def test_a_split_of_smi_is_told_of() -> None:
    split = {"apiVersion": "split.smi-spec.io/v1alpha1", "kind": "TrafficSplit", "metadata": {"name": "books"}}
    assert notes(draft_of(split), "ignored") == [
        "TrafficSplit books: is not honoured: documents of the kind TrafficSplit are not read"
    ]
