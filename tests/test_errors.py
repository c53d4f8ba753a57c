"""Errors: one class per reason, and each survives a trip to another process."""

from __future__ import annotations

import copy
import pickle

import pytest

from meshlib import errors
from meshlib.errors import CircuitOpen, ConfigError, ConnectTimeout, DeadlineExceeded, MeshError, Reset, WireError
from meshlib.policy.record import AttemptRecord, Record, Wait

RECORD = Record(
    service="orders",
    method="GET",
    path="/x",
    route="default",
    outcome="failure",
    duration_s=1.5,
    error="Reset",
    attempts=(AttemptRecord(1, "orders", "10.0.0.1:80", 0.0, 0.25, "failure", error="Reset", phase="headers"),),
    waits=(Wait("backoff", 0.01),),
    no_retry="retries are off",
)
CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_is_pickled_with_all_it_knows(cls: type[MeshError]) -> None:
    error = cls("it broke", service="orders", record=RECORD, retryable=True)
    error.__cause__ = ConnectionRefusedError(111, "refused")
    error.add_note("look at the registry")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is cls
        assert str(again) == str(error) == "orders: it broke"
        assert again.__dict__ == error.__dict__
        assert (again.service, again.record, again.retryable) == ("orders", RECORD, True)
        assert isinstance(again.__cause__, ConnectionRefusedError)
        assert again.__notes__ == ["look at the registry"]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_has_a_reason_and_lives_at_module_level(cls: type[MeshError]) -> None:
    assert issubclass(cls, MeshError)
    assert cls.__doc__
    assert getattr(errors, cls.__name__) is cls
    assert cls.retryable in ((None,) if cls is MeshError else (True, False))
    assert str(cls()) == ""


def test_causes_that_cannot_be_pickled_leave_their_text() -> None:
    class Local(Exception):
        pass

    error = Reset("it broke")
    error.__cause__ = Local("deep down")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again.__cause__, RuntimeError)
    assert str(again.__cause__) == "Local: deep down"


def test_chains_of_mesh_errors_travel_whole() -> None:
    error = CircuitOpen("open", retry_after_s=2.5)
    error.__cause__ = Reset("reset", endpoint="10.0.0.1:80")
    again = pickle.loads(pickle.dumps(error))
    assert again.retry_after_s == 2.5
    assert again.__cause__.endpoint == "10.0.0.1:80"


def test_they_are_the_builtin_exceptions_that_people_catch() -> None:
    assert issubclass(DeadlineExceeded, TimeoutError)
    assert issubclass(ConnectTimeout, TimeoutError)
    assert issubclass(WireError, ConnectionError)
    assert issubclass(ConfigError, ValueError)


def test_a_configuration_error_lists_all_problems() -> None:
    error = ConfigError("mesh.yaml is wrong", problems=("a", "b"))
    assert str(error) == "mesh.yaml is wrong\n  - a\n  - b"
    assert pickle.loads(pickle.dumps(error)).problems == ("a", "b")


def test_a_record_reads_as_one_line() -> None:
    assert str(RECORD) == (
        "GET orders/x (default): Reset in 1.5s [#1 10.0.0.1:80 Reset in headers after 250ms; "
        "not retried: retries are off]"
    )
    assert pickle.loads(pickle.dumps(RECORD)) == RECORD
