"""What a test makes go wrong: rules that attempts at a service meet on arrival."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import httpx

from meshlib.adapters.httpx_errors import from_httpx
from meshlib.errors import MeshError, WireError

__all__ = ["Failure", "Fault", "FaultKind", "Faults", "Trouble", "check_failure", "make_error"]

Failure = type[WireError] | WireError | type[httpx.TransportError] | httpx.TransportError
"""How an attempt may fail, as a class or an object: a wire error of meshlib, or the httpx error that it stands for."""


class FaultKind(Enum):
    """What a fault does to an attempt."""

    SLOW = auto()
    HANG = auto()
    FAIL = auto()


@dataclass(slots=True)
class Fault:
    """One rule.

    Attributes:
        kind: what it does.
        instances: whom it concerns; None for every instance of the service, also those served later.
        times: how many attempts it meets yet; None for all.
        delay_s: how much later a slow answer comes.
        response: what is answered instead.
        error: how the attempt fails.
    """

    kind: FaultKind
    instances: frozenset[str] | None = None
    times: int | None = None
    delay_s: float = 0.0
    response: httpx.Response | None = None
    error: Failure | None = None

    def concerns(self, instance: str) -> bool:
        """Whether an attempt at `instance` meets it."""
        return (self.instances is None or instance in self.instances) and (self.times is None or self.times > 0)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What one attempt meets.

    Attributes:
        delay_s: how much later its answer comes.
        hangs: whether it gets none.
        failure: how it fails; None if it does not.
    """

    delay_s: float = 0.0
    hangs: bool = False
    failure: Fault | None = None


NO_TROUBLE = Trouble()


@dataclass(slots=True)
class Faults:
    """The rules of one service. Of several slow ones the newest holds; failures happen in the order they were asked."""

    rules: list[Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, fault: Fault) -> None:
        """Let attempts meet `fault` from now on."""
        with self._lock:
            self.rules.append(fault)

    def clear(self) -> None:
        """Let all be well."""
        with self._lock:
            self.rules.clear()

    def meet(self, instance: str) -> Trouble:
        """What an attempt at `instance` meets. It counts for the rules that have a number of times."""
        if not self.rules:
            return NO_TROUBLE
        with self._lock:
            failure = self._take(FaultKind.FAIL, instance, self.rules)
            hangs = failure is None and self._take(FaultKind.HANG, instance, self.rules) is not None
            slow = self._take(FaultKind.SLOW, instance, list(reversed(self.rules)))
            self.rules = [fault for fault in self.rules if fault.times != 0]
        return Trouble(0.0 if slow is None else slow.delay_s, hangs, failure)

    def _take(self, kind: FaultKind, instance: str, rules: list[Fault]) -> Fault | None:
        found = next((fault for fault in rules if fault.kind is kind and fault.concerns(instance)), None)
        if found is not None and found.times is not None:
            found.times -= 1
        return found


def check_failure(failure: Any) -> None:
    """See that an attempt can end with it.

    Raises:
        TypeError: if it cannot.
    """
    kind = failure if isinstance(failure, type) else type(failure)
    if not issubclass(kind, (WireError, httpx.TransportError)):
        shown = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        raise TypeError(
            "error: what an attempt can end with is expected, meshlib.Reset or another WireError, or httpx's error for "
            f"the same, not {shown}"
        )


def make_error(failure: Failure, address: str) -> MeshError:
    """An error for one attempt; each attempt gets its own, as callers write their record into it."""
    if isinstance(failure, type):
        failure = failure("made to fail by the test")
    if isinstance(failure, httpx.TransportError):
        return from_httpx(failure, address)
    error = failure.__class__.__new__(failure.__class__, *failure.args)
    error.args = failure.args
    error.__dict__.update(failure.__dict__)
    error.endpoint = error.endpoint or address
    return error
