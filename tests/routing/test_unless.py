"""What a match excepts: conditions none of which may hold, and exceptions to exceptions."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.errors import ConfigError
from meshlib.routing.match import RequestView
from meshlib.routing.route import find_route


def taken(match: dict[str, Any], request: RequestView) -> bool:
    routes = [{"name": "it", "match": [match], "backends": [{"service": "other"}]}]
    service = compile_config(load_mapping({"services": {"orders": {"routes": routes}}})).services["orders"]
    found = find_route(service.routes, request)
    assert found is not None
    return found.name == "it"


GET, POST = RequestView("GET", "/a"), RequestView("POST", "/b", "", {"x-user": "root"})


@pytest.mark.parametrize(
    ("match", "get", "post"),
    [
        ({"unless": [{"method": "GET"}]}, False, True),
        ({"unless": [{"method": "GET"}, {"path": {"exact": "/b"}}]}, False, False),
        ({"unless": [{"method": "GET", "path": {"exact": "/b"}}]}, True, True),
        ({"path": {"prefix": "/"}, "unless": [{"headers": {"x-user": {"exact": "root"}}}]}, True, False),
        ({"unless": [{"unless": [{"method": "GET"}]}]}, True, False),
        ({"unless": [{"percent": 0}]}, True, True),
        ({"unless": [{"caller": {"namespace": "elsewhere"}}]}, True, True),
    ],
)
def test_a_request_that_meets_an_exception_is_not_taken(match: dict[str, Any], get: bool, post: bool) -> None:
    assert taken(match, GET) is get
    assert taken(match, POST) is post


def test_it_is_said_why_not() -> None:
    routes = [{"match": [{"unless": [{"method": "GET"}]}], "backends": [{"service": "other"}]}]
    service = compile_config(load_mapping({"services": {"orders": {"routes": routes}}})).services["orders"]
    assert service.routes[0].why_not(GET) == "it meets one of the conditions under 'unless'"
    assert service.routes[0].why_not(POST) is None


def test_an_exception_without_a_condition_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unless\[0\]: .*has no condition"):
        load_mapping({"services": {"orders": {"routes": [{"match": [{"unless": [{}]}]}]}}})
