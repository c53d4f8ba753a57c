"""What policies read of one request: worked out once, before the call begins, and only where a policy asks for it.

Most calls need nothing of it, and then there is none: `CallFacts.readers` is empty and `Call.traits` None. A policy
that looks at requests (a hash policy, session affinity, a rate limit by key, faults by header) adds a reader in
`readers_of`, and finds what that noted in `Call.traits`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from meshlib.balance.settings import HASH_BALANCERS
from meshlib.routing.match import RequestView

if TYPE_CHECKING:
    from random import Random

    from meshlib.balance.cluster import ClusterState
    from meshlib.balance.settings import SessionAffinity
    from meshlib.context import Criticality
    from meshlib.policy.fault import Injected
    from meshlib.policy.settings import CallPolicy, RetryPolicy
    from meshlib.routing.answer import Answer
    from meshlib.routing.route import Route
    from meshlib.routing.split import Draw

__all__ = ["NO_HEADERS", "Reader", "Traits", "read_traits", "readers_of"]


NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Traits:
    """What was read of one request, and what is to be told in its response.

    Attributes:
        hash_key: what the caller gave as `hash_key`; None for nothing.
        hash: 64 bits by which a hash balancer chooses; None for none.
        affinity: of the session that the call is part of; None where there is none.
        bound_to: the address that the session's cookie names; None for none.
        answered_by: the address of the endpoint whose response is delivered.
        criticality: of the work that the call is part of; None if nobody said.
        keys: the headers by which limits tell callers apart; None for none.
        retries: attempts before the one that is picked for; set for each pick.
        retriable: whether the policy's conditions on requests let this one be retried.
        headers: of the request, with names in lower case, where faults may be asked for by them.
        fault: that is being injected; None for none.
        set_cookies: values of ``Set-Cookie`` headers that the caller's response gets besides its own.
        shadow: what shadows would have decided otherwise when they picked.
        sticky: what the draw of the backend goes by; None for chance.
        rewritten: the path to send, without the query, where the route rewrites it; None where it does not.
        answer, replied: what the route answers instead of a backend, None for nothing; and whether it did.
    """

    __slots__ = (
        "affinity",
        "answer",
        "answered_by",
        "bound_to",
        "criticality",
        "fault",
        "hash",
        "hash_key",
        "headers",
        "keys",
        "replied",
        "retriable",
        "retries",
        "rewritten",
        "set_cookies",
        "shadow",
        "sticky",
    )

    def __init__(self, hash_key: str | None = None) -> None:
        self.hash_key = hash_key
        self.hash: int | None = None
        self.affinity: SessionAffinity | None = None
        self.bound_to: str | None = None
        self.answered_by: str | None = None
        self.criticality: Criticality | None = None
        self.keys: dict[str, str | None] | None = None
        self.retries = 0
        self.retriable = True
        self.headers: Mapping[str, str] = NO_HEADERS
        self.fault: Injected | None = None
        self.set_cookies: list[bytes] = []
        self.shadow: tuple[str, ...] = ()
        self.sticky: Draw | None = None
        self.rewritten: str | None = None
        self.answer: Answer | None = None
        self.replied = False


Reader: TypeAlias = Callable[[RequestView, Traits], None]
"""Notes in the traits what one policy wants to know of the request. Never raises."""


def readers_of(
    policy: CallPolicy, clusters: Sequence[ClusterState], rng: Random, route: Route | None = None
) -> tuple[Reader, ...]:
    """The readers that calls with this policy over these clusters need, and what their `route` does to them."""
    readers: list[Reader] = []
    if route is not None and (route.rewrite or route.reply or route.sticky):
        from meshlib.policy.routed import route_reader

        readers.append(route_reader(route))
    if policy.retry.retriable_request_headers or policy.retry.retriable_methods:
        readers.append(_retriable(policy.retry))
    if policy.fault is not None:
        readers.append(_keep_headers)
    for state in clusters:
        for gate in state.gates or ():
            readers += gate.readers
    settings = [state.load_balancing for state in clusters]
    affinity = next((each.session_affinity for each in settings if each.session_affinity is not None), None)
    settings += [state.shadow.load_balancing for state in clusters if state.shadow and state.shadow.load_balancing]
    hashed = policy.hash_on or any(each.policy in HASH_BALANCERS for each in settings)
    if hashed or affinity is not None:
        from meshlib.policy.sticky import affinity_reader, hash_reader

        if hashed:
            readers.append(hash_reader(policy.hash_on, rng))
        if affinity is not None:
            readers.append(affinity_reader(affinity))
    return tuple(readers)


def _retriable(policy: RetryPolicy) -> Reader:
    methods, conditions = policy.retriable_methods, policy.retriable_request_headers

    def read(request: RequestView, traits: Traits) -> None:
        method = not methods or request.method in methods
        header = not conditions or any(each.match.matches(request.headers.get(each.name)) for each in conditions)
        traits.retriable = method and header

    return read


def _keep_headers(request: RequestView, traits: Traits) -> None:
    traits.headers = request.headers


def read_traits(readers: Sequence[Reader], request: RequestView, hash_key: str | None = None) -> Traits:
    """What they note of a request."""
    traits = Traits(hash_key)
    for reader in readers:
        reader(request, traits)
    return traits
