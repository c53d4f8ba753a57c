"""What hash balancers and session affinity read of a request, and the cookies that its response gets for it.

The balancers themselves are in `meshlib.balance`; this is where they meet a call.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.affinity import affinity_cookie, applies, bound_to
from meshlib.balance.hash_policy import hash_of_call, hash_of_key
from meshlib.balance.settings import HashOn, SessionAffinity
from meshlib.context import current_scope
from meshlib.routing.match import RequestView

if TYPE_CHECKING:
    from meshlib.policy.traits import Reader, Traits

__all__ = ["affinity_reader", "hash_reader", "response_cookies", "source_of_calls"]


def source_of_calls() -> str:
    """Who calls: the address of the peer whose request is being served here; else the name of this host."""
    request = current_scope().request
    return request.peer if request is not None and request.peer else _host_name()


@cache
def _host_name() -> str:
    return os.uname().nodename


def hash_reader(policies: Sequence[HashOn], rng: Random) -> Reader:
    """Notes the hash of a request: that of the key which the caller gave, or what the policies make of it."""
    asks_source = any(policy.source for policy in policies)

    def read(request: RequestView, traits: Traits) -> None:
        if traits.hash_key is not None:
            traits.hash = hash_of_key(traits.hash_key)
            return
        source = source_of_calls() if asks_source else ""
        traits.hash, cookies = hash_of_call(policies, request.headers, request.query, source, rng)
        traits.set_cookies += [cookie.encode("latin-1") for cookie in cookies]

    return read


def affinity_reader(settings: SessionAffinity) -> Reader:
    """Notes the endpoint that a request's cookie names."""

    def read(request: RequestView, traits: Traits) -> None:
        if applies(settings, request.path):
            traits.affinity = settings
            traits.bound_to = bound_to(settings, request.headers.get("cookie", ""))

    return read


def response_cookies(traits: Traits) -> list[bytes]:
    """The values of the ``Set-Cookie`` headers that the caller's response gets."""
    settings, address = traits.affinity, traits.answered_by
    if settings is None or address is None or address == traits.bound_to:
        return traits.set_cookies
    return [*traits.set_cookies, affinity_cookie(settings, address).encode("latin-1")]
