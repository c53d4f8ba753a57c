"""Simulated endpoints: how long each takes to answer, with what, and how it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from meshlib.errors import ConnectFailed, MeshError, Reset

__all__ = ["Answer", "Latency", "Network", "SimEndpoint", "constant", "exponential", "uniform"]

Latency: TypeAlias = Callable[[Random], float]


def constant(seconds: float) -> Latency:
    """Always as long."""
    return lambda rng: seconds


def uniform(low_s: float, high_s: float) -> Latency:
    """Anything in between, each as likely."""
    return lambda rng: rng.uniform(low_s, high_s)


def exponential(mean_s: float) -> Latency:
    """As from a server with many small delays: without memory."""
    return lambda rng: rng.expovariate(1.0 / mean_s)


@dataclass(frozen=True, slots=True)
class Answer:
    """What comes of an attempt: a status or an error, after a time; no time is never."""

    after_s: float | None
    status: int | None = None
    error: MeshError | None = None
    phase: str = "headers"
    retry_after_s: float | None = None
    sent: bool = True


@dataclass(slots=True)
class SimEndpoint:
    """One endpoint. Change its attributes while the simulation runs to break and to mend it.

    Attributes:
        latency: from the request to the headers.
        hung: it accepts requests and never answers.
        refuses: it refuses connections, after `failure_s`.
        fail_percent: the share of requests that it fails, with `fail_status` (None: by a reset), after `failure_s`.
        retry_after_s: what its failures ask for.
        attempts: how many came here.
    """

    latency: Latency = field(default_factory=lambda: constant(0.02))
    hung: bool = False
    refuses: bool = False
    fail_percent: float = 0.0
    fail_status: int | None = 503
    failure_s: float = 0.001
    retry_after_s: float | None = None
    attempts: int = 0

    def answer(self, rng: Random) -> Answer:
        """What comes of an attempt that starts now."""
        self.attempts += 1
        if self.hung:
            return Answer(None)
        if self.refuses:
            return Answer(self.failure_s, error=ConnectFailed("refused"), phase="connect", sent=False)
        if self.fail_percent and rng.random() * 100.0 < self.fail_percent:
            if self.fail_status is None:
                return Answer(self.failure_s, error=Reset("reset"))
            return Answer(self.failure_s, status=self.fail_status, retry_after_s=self.retry_after_s)
        return Answer(self.latency(rng), status=200)


class Network:
    """The endpoints by address. An attempt at an address that nobody has is refused."""

    __slots__ = ("endpoints",)

    def __init__(self, endpoints: dict[str, SimEndpoint] | None = None) -> None:
        self.endpoints = {} if endpoints is None else endpoints

    def answer(self, address: str, rng: Random) -> Answer:
        """What comes of an attempt at `address` that starts now."""
        endpoint = self.endpoints.get(address)
        if endpoint is None:
            return Answer(0.001, error=ConnectFailed("nobody is there"), phase="connect", sent=False)
        return endpoint.answer(rng)
