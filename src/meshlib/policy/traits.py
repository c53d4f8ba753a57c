"""What policies read of one request: worked out once, before the call begins, and only where a policy asks for it.

Most calls need nothing of it, and then there is none: `CallFacts.readers` is empty and `Call.traits` None. A policy
that looks at requests (a hash policy, session affinity, a rate limit by key, faults by header) adds a reader in
`readers_of`, and finds what that noted in `Call.traits`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from meshlib.routing.match import RequestView

if TYPE_CHECKING:
    from meshlib.balance.cluster import ClusterState
    from meshlib.policy.settings import CallPolicy

__all__ = ["Reader", "Traits", "read_traits", "readers_of"]


class Traits:
    """What was read of one request, and what is to be told in its response.

    Attributes:
        hash_key: what the caller gave as `hash_key`; None for nothing.
        hash: 64 bits by which a hash balancer chooses; None for none.
        retries: attempts before the one that is picked for; set for each pick.
        set_cookies: values of ``Set-Cookie`` headers that the caller's response gets besides its own.
    """

    __slots__ = ("hash", "hash_key", "retries", "set_cookies")

    def __init__(self, hash_key: str | None = None) -> None:
        self.hash_key = hash_key
        self.hash: int | None = None
        self.retries = 0
        self.set_cookies: list[bytes] = []


Reader: TypeAlias = Callable[[RequestView, Traits], None]
"""Notes in the traits what one policy wants to know of the request. Never raises."""


def readers_of(policy: CallPolicy, clusters: Sequence[ClusterState]) -> tuple[Reader, ...]:
    """The readers that calls with this policy over these clusters need."""
    return ()


def read_traits(readers: Sequence[Reader], request: RequestView, hash_key: str | None = None) -> Traits:
    """What they note of a request."""
    traits = Traits(hash_key)
    for reader in readers:
        reader(request, traits)
    return traits
