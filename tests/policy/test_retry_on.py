"""The conditions, against Envoy's matrix, and those that are ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.errors import (
    AttemptTimeout,
    BodyBroken,
    ConnectFailed,
    ConnectTimeout,
    LimitExceeded,
    MeshError,
    PoolTimeout,
    ProtocolError,
    Reset,
    TLSFailed,
)
from meshlib.policy.classify import Failure, asks_for_peace
from meshlib.policy.retry_on import CONDITIONS, HEADER_CONDITIONS, named_by
from meshlib.routing.match import StringMatch

ENVOY = json.loads((Path(__file__).parents[1] / "data" / "envoy_retry_state.json").read_text())


def refused() -> Reset:
    error = Reset("x")
    error.refused = True
    return error


RESETS = {
    "remote": lambda: Reset("x"),
    "refused": refused,
    "overflow": lambda: PoolTimeout("x"),
    "connect": lambda: ConnectFailed("x"),
    "timeout": lambda: AttemptTimeout("x"),
}


@pytest.mark.parametrize("row", ENVOY["rows"], ids=lambda row: row["test"])
def test_what_a_condition_names_is_what_envoy_retries(row: dict[str, Any]) -> None:
    headers = [(name.encode(), value.encode()) for name, value in row.get("headers", {}).items()]
    error = RESETS[row["reset"]]() if "reset" in row else None
    failure = Failure(row.get("status"), error, row.get("sent", True), headers=headers)
    matchers = [(name, StringMatch(kind, value)) for name, (kind, value) in row.get("matchers", {}).items()]
    named = named_by(frozenset(row["on"]), failure, statuses=frozenset(row.get("statuses", ())), headers=matchers)
    assert (named is not None) is row["retried"]
    assert named is None or named in row["on"]


@pytest.mark.parametrize(
    "error", [LimitExceeded("x"), PoolTimeout("x"), MeshError("x")], ids=lambda error: type(error).__name__
)
@pytest.mark.parametrize("sent", [True, False])
def test_no_condition_names_what_this_process_caused_itself(error: MeshError, sent: bool) -> None:
    assert named_by(frozenset(CONDITIONS), Failure(None, error, sent)) is None


@pytest.mark.parametrize("error", [ConnectTimeout("x"), TLSFailed("x")], ids=lambda error: type(error).__name__)
def test_every_way_to_have_no_connection_is_a_connect_failure(error: MeshError) -> None:
    assert named_by(frozenset({"connect-failure"}), Failure(None, error, False)) == "connect-failure"


@pytest.mark.parametrize("error", [ProtocolError("x"), BodyBroken("x")], ids=lambda error: type(error).__name__)
def test_a_broken_answer_is_a_reset(error: MeshError) -> None:
    assert named_by(frozenset({"reset"}), Failure(None, error)) == "reset"


def test_before_the_request_means_this_attempts_own() -> None:
    failure = Failure(None, Reset("x"), sent=True, began=False)
    assert named_by(frozenset({"reset-before-request"}), failure) == "reset-before-request"


def test_a_status_among_the_conditions_is_that_status_and_no_reset() -> None:
    on = frozenset({503})
    assert named_by(on, Failure(503)) == 503
    assert named_by(on, Failure(502)) is None
    assert named_by(on, Failure(None, Reset("x"))) is None


@pytest.mark.parametrize(("status", "named"), [(429, "retry-after"), (503, "retry-after"), (500, None), (200, None)])
def test_retry_after_counts_with_the_statuses_of_overload(status: int, named: str | None) -> None:
    assert named_by(frozenset({"retry-after"}), Failure(status, retry_after_s=1.0)) == named
    assert named_by(frozenset({"retry-after"}), Failure(status)) is None


def test_a_header_that_comes_twice_is_looked_at_whole() -> None:
    failure = Failure(200, headers=[(b"X-Verdict", b"a"), (b"x-verdict", b"b")])
    on = frozenset({"retriable-headers"})
    assert named_by(on, failure, headers=[("x-verdict", StringMatch("exact", "a,b"))]) == "retriable-headers"
    assert named_by(on, failure, headers=[("x-verdict", StringMatch("exact", "a"))]) is None


@given(
    st.frozensets(st.one_of(st.sampled_from(CONDITIONS), st.integers(100, 599))),
    st.integers(0, 999),
    st.lists(st.tuples(st.binary(), st.binary())),
)
def test_no_response_breaks_it_and_what_names_it_is_a_condition(
    on: frozenset[str | int], status: int, headers: list[tuple[bytes, bytes]]
) -> None:
    named = named_by(on, Failure(status, headers=[*headers, (b"grpc-status", b"\xff")]))
    assert named is None or named in on


def test_conditions_that_look_at_headers_are_conditions() -> None:
    assert set(CONDITIONS) > HEADER_CONDITIONS


@pytest.mark.parametrize(
    ("name", "value", "peace"),
    [
        (b"X-Envoy-Overloaded", b"true", True),
        (b"finagle-http-nonretryable-nack", b"true", True),
        (b"grpc-retry-pushback-ms", b"-1", True),
        (b"grpc-retry-pushback-ms", b"soon", True),
        (b"grpc-retry-pushback-ms", b"250", False),
        (b"retry-after", b"1", False),
    ],
)
def test_who_asks_not_to_be_retried(name: bytes, value: bytes, peace: bool) -> None:
    assert asks_for_peace([(b"content-type", b"text/plain"), (name, value)]) is peace
