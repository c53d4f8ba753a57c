"""What calls of one kind have in common is made once, and is never taken for that of another kind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.adapters.options import CallOptions
from meshlib.adapters.plane import DataPlane, RequestFacts
from meshlib.policy.call import Call
from meshlib.policy.settings import CallPolicy

WHOLE = CallOptions(complete_body=True)


@pytest.fixture
def mesh() -> Iterator[Mesh]:
    service = {"endpoints": ["127.0.0.1:8001"], "timeout": "2s"}
    with Mesh({"discovery": [], "services": {"orders": service}}) as mesh:
        yield mesh


def plane_of(mesh: Mesh) -> DataPlane:
    return mesh._wiring.plane


def a_call(plane: DataPlane, options: CallOptions = WHOLE, *, observe: bool = False, **request: Any) -> Call:
    given: dict[str, Any] = {
        "method": "GET",
        "scheme": "http",
        "host": "orders",
        "port": None,
        "headers": {},
        **request,
    }
    facts = RequestFacts(path="/42", query="", **given)
    view = plane.service("orders")
    return plane.call(view, plane.route(view, facts), facts, options, observe=observe)


def test_calls_of_one_kind_share_what_they_have_in_common(mesh: Mesh) -> None:
    plane = plane_of(mesh)
    assert a_call(plane).facts is a_call(plane, CallOptions(complete_body=True, explain=True)).facts


def test_what_differs_makes_another_kind(mesh: Mesh) -> None:
    plane = plane_of(mesh)
    first = a_call(plane).facts
    others = [
        a_call(plane, method="POST").facts,
        a_call(plane, method="POST", headers={"idempotency-key": "1"}).facts,
        a_call(plane, CallOptions(complete_body=True, timeout_s=1.0)).facts,
        a_call(plane, client_timeout_s=0.5).facts,
        a_call(plane, CallOptions(complete_body=True, route="/{id}")).facts,
        a_call(plane, CallOptions()).facts,
        a_call(plane, observe=True).facts,
        a_call(plane, scheme="https").facts,
        a_call(plane, port=8080).facts,
        a_call(plane, host="ORDERS").facts,
    ]
    assert len({id(facts) for facts in [first, *others]}) == len(others) + 1
    assert [(facts.policy.timeout_s, facts.timeout_name, facts.safe, facts.complete_body) for facts in others] == [
        (2.0, "timeout", None, True),
        (2.0, "timeout", True, True),
        (1.0, "client", True, True),
        (0.5, "client", True, True),
        (2.0, "timeout", True, True),
        (2.0, "timeout", True, False),
        (2.0, "timeout", True, False),
        (2.0, "timeout", True, True),
        (2.0, "timeout", True, True),
        (2.0, "timeout", True, True),
    ]


def test_a_block_changes_the_policy_of_calls_inside_it_alone(mesh: Mesh) -> None:
    plane = plane_of(mesh)

    def policy() -> CallPolicy:
        return a_call(plane).facts.policy

    before = policy()
    with mesh.policy(timeout="800ms"):
        assert (policy().timeout_s, policy().timeout_s) == (0.8, 0.8)
    assert policy() is before


def test_no_more_than_so_many_kinds_are_remembered(mesh: Mesh) -> None:
    plane = plane_of(mesh)
    for n in range(3000):
        assert a_call(plane, client_timeout_s=1.0 + n).facts.policy.timeout_s == 1.0 + n
    assert len(plane.service("orders").state.kinds) <= 1024


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ((3, "http://orders/x"), "a method is expected, such as 'GET', not int"),
        (("GET", b"http://orders/x"), "a URL is expected.*not bytes"),
        (("GET", "http://orders/x", [("authorization", "secret")]), r"headers are expected as a mapping.*not list"),
    ],
)
def test_a_plan_of_what_is_no_request_says_what_is_expected(mesh: Mesh, request_: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says) as caught:
        mesh.plan(*request_)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", [3, None, ["orders"]])
def test_what_is_no_name_is_not_waited_for(mesh: Mesh, name: Any) -> None:
    with pytest.raises(TypeError, match="the name of a service is expected, such as 'orders', not"):
        mesh.wait_ready(name, timeout=0.0)
