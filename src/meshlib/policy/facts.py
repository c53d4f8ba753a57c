"""What a call is before it begins, and what it may wait for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from meshlib.balance.cluster import Cluster
from meshlib.dataclass import dataclass, field
from meshlib.policy.budget import Budget
from meshlib.policy.settings import CallPolicy
from meshlib.policy.traits import Reader
from meshlib.routing.route import Route

if TYPE_CHECKING:
    from meshlib.policy.call import Call
    from meshlib.policy.fault import ActiveFaults
    from meshlib.policy.hedge import Hedging

__all__ = ["CallFacts", "Pause", "Ready"]


class Ready(Protocol):
    """Something a call waits for."""

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once, from any thread, when it is ready; at once, if it is."""
        ...

    def leave(self) -> None:
        """Stop waiting."""
        ...


class Pause:
    """Something a call waits for that nothing but time makes ready."""

    __slots__ = ()

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Nobody calls it: its time comes, and the call's own timer says so."""

    def leave(self) -> None:
        """Stop waiting."""


@dataclass(frozen=True, slots=True, eq=False)
class CallFacts:
    """What all calls of one kind have in common. Made once, and shared by them; what differs is in `Call` itself.

    Attributes:
        service, method: as the caller named them.
        route: that matched.
        policy: the route's, with what the caller overrode.
        clusters: reads the snapshot: the clusters of the route's backends, in their order. Read once by each call, and
            again only after a wait for first endpoints.
        budget: of the service.
        endpoints_ready: gives what to wait on until discovery has answered.
        timeout_name: what the total timeout is called in the record: ``timeout``, or ``client`` if the caller set it.
        safe: whether the request may be repeated although it may have been processed; None where only the policy can
            say that it may (`RetryPolicy.unsafe`), False where the caller said that it may not.
        complete_body: the caller wants the whole body: an attempt succeeds only when its body is there.
        observe: decide and count, but believe nothing of single endpoints (the answer came from elsewhere).
        scheme, host, port: of the URL as the caller wrote it, for telemetry; an empty host is the service, no port is
            the scheme's own.
        readers: what reads of a request the traits that policies look at; empty where none does.
        operation: a low-cardinality name of what is called, if the caller gave one; else the route's template stands.
        body_idle_s: how long each read of the response's body may take. Where the whole body is wanted, an endpoint
            that falls silent in the middle of it has failed the attempt, and is given no longer than an attempt has.
        hedging: what the hedged calls of the route share; None where they are not hedged.
        faults: calls of the service that have an injected fault; None if none is to be injected.
        again: makes the call anew, once the routes of its service are known; None where they are.
        intercepted: whether a fault, or the route's own answer, may come before the call is let in anywhere.
        told: what telemetry says alike of all these calls, kept here by itself.
    """

    service: str
    method: str
    route: Route
    policy: CallPolicy
    clusters: Callable[[], Sequence[Cluster]]
    budget: Budget
    endpoints_ready: Callable[[], Ready] | None = None
    timeout_name: str = "timeout"
    safe: bool | None = False
    complete_body: bool = False
    observe: bool = False
    scheme: str = "http"
    host: str = ""
    port: int | None = None
    operation: str | None = None
    readers: tuple[Reader, ...] = ()
    hedging: Hedging | None = None
    faults: ActiveFaults | None = None
    again: Callable[[], Call | None] | None = None
    body_idle_s: float | None = field(init=False)
    intercepted: bool = field(init=False)
    told: dict[object, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        limits = [self.policy.body_idle_s, self.policy.per_try_timeout_s if self.complete_body else None]
        object.__setattr__(self, "told", {})
        object.__setattr__(self, "intercepted", self.policy.fault is not None or self.route.reply is not None)
        object.__setattr__(self, "body_idle_s", min([each for each in limits if each is not None], default=None))
