"""What a call is before it begins, and what it may wait for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from meshlib.balance.cluster import Cluster
from meshlib.policy.budget import RetryBudget
from meshlib.policy.settings import CallPolicy
from meshlib.routing.route import Route

__all__ = ["CallFacts", "Ready"]


class Ready(Protocol):
    """Something a call waits for."""

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, from any thread, when it is ready; at once, if it is."""
        ...

    def leave(self) -> None:
        """Stop waiting."""
        ...


@dataclass(slots=True)
class CallFacts:
    """What a call is, before it begins.

    Attributes:
        service, method, path: as the caller named them.
        route: that matched.
        policy: the route's, with what the caller overrode.
        clusters: reads the snapshot: the clusters of the route's backends, in their order. Read once, and again only
            after a wait for first endpoints.
        budget: of the service.
        endpoints_ready: gives what to wait on until discovery has answered.
        deadline: inherited, on the monotonic clock; None for none.
        timeout_name: what the total timeout is called in the record: ``timeout``, or ``client`` if the caller set it.
        safe: whether the request may be repeated although it may have been processed.
        replayable: whether its body can be produced again; the driver may change its mind while the call runs.
        complete_body: the caller wants the whole body: an attempt succeeds only when its body is there.
        observe: decide and count, but believe nothing of single endpoints (the answer came from elsewhere).
        explain: keep the reasons in full.
        scheme, host, port, query: of the URL as the caller wrote it, for telemetry; an empty host is the service, no
            port
            is the scheme's own.
        operation: a low-cardinality name of what is called, if the caller gave one; else the route's template stands.
    """

    service: str
    method: str
    path: str
    route: Route
    policy: CallPolicy
    clusters: Callable[[], Sequence[Cluster]]
    budget: RetryBudget
    endpoints_ready: Callable[[], Ready] | None = None
    deadline: float | None = None
    timeout_name: str = "timeout"
    safe: bool = False
    replayable: bool = True
    complete_body: bool = False
    observe: bool = False
    explain: bool = False
    why: list[str] = field(default_factory=list)
    scheme: str = "http"
    host: str = ""
    port: int | None = None
    query: str = ""
    operation: str | None = None

    def say(self, reason: str) -> None:
        """Note a reason, if they are asked for."""
        if self.explain:
            self.why.append(reason)
