"""What a caller may say of one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import meshlib
from meshlib import Mesh
from meshlib.adapters.attach import plane_of
from meshlib.adapters.options import EXTENSION, NO_OPTIONS
from meshlib.adapters.plane import RequestFacts
from meshlib.durations import LONGEST_S
from meshlib.policy.call import Call


def test_a_timeout_may_be_as_long_as_a_configured_one_and_no_longer() -> None:
    assert meshlib.call(timeout=LONGEST_S)[EXTENSION].timeout_s == LONGEST_S
    with pytest.raises(ValueError, match="timeout: 1e\\+300 is longer than 100 years"):
        meshlib.call(timeout=1e300)


@pytest.mark.parametrize(
    "wrong", [{"idempotent": "no"}, {"idempotent": 1}, {"route": 3}, {"hash_key": 7}, {"metadata_match": "v2"}], ids=str
)
def test_what_is_of_another_kind_is_refused_where_it_is_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"^{next(iter(wrong))} is to be"):
        meshlib.call(**wrong)


def test_a_block_says_what_calls_inside_leave_open(call_of: Callable[..., Call]) -> None:
    with meshlib.call(idempotent=True, route="/pay", metadata_match={"version": "v2"}):
        inside = call_of("POST")
        named = call_of("POST", meshlib.call(route="/refund", timeout="1s"))
        with meshlib.call(idempotent=False):
            innermost = call_of("POST")
    outside = call_of("POST")

    assert (inside.facts.safe, inside.facts.operation) == (True, "/pay")
    assert (named.facts.safe, named.facts.operation, named.facts.policy.timeout_s) == (True, "/refund", 1.0)
    assert (innermost.facts.safe, innermost.facts.operation) == (False, "/pay")
    assert (outside.facts.safe, outside.facts.operation) == (None, None)


def test_a_block_is_a_decorator_too_and_lives_beside_policies(call_of: Callable[..., Call]) -> None:
    mesh = call_of.mesh  # type: ignore[attr-defined]

    @meshlib.call(timeout="3s")
    def decorated() -> Call:
        with mesh.policy(per_try_timeout="1s"):
            return call_of("GET")

    policy = decorated().facts.policy

    assert (policy.timeout_s, policy.per_try_timeout_s) == (3.0, 1.0)
    assert call_of("GET").facts.policy.timeout_s == 30.0


@pytest.fixture
def call_of() -> Iterator[Callable[..., Call]]:
    """What a call is made of, and made with, without making it."""
    with Mesh({"discovery": [], "services": {"orders": {"endpoints": ["127.0.0.1:1"]}}}) as mesh:
        plane = plane_of(mesh)

        def make(method: str, options: dict[str, Any] | None = None) -> Call:
            facts = RequestFacts(method, "http", "orders", None, "/", "", {})
            view = plane.service("orders")
            return plane.call(view, plane.route(view, facts), facts, (options or {}).get(EXTENSION, NO_OPTIONS))

        make.mesh = mesh  # type: ignore[attr-defined]
        yield make
