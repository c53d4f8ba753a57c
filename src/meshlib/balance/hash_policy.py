"""What a call is hashed by: a list of its properties, each of which may add to the hash.

With each one that the call has, ``hash = rotate_left(hash, 1) XOR xxHash64(value)``, from 0 on. A policy that is
`terminal` ends the list if there is a hash by then. A call with none of the properties has no hash, and goes to an
endpoint at random. Source: Envoy's ``hash_policy.cc``, to the bit: values are hashed as they are sent (a query
parameter is not decoded), of a repeated parameter or cookie the first counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from meshlib.balance.cookies import cookie_value, set_cookie
from meshlib.balance.hashing import xxh64
from meshlib.balance.settings import HashOn

__all__ = ["hash_of_call", "hash_of_key"]

_MASK = 0xFFFFFFFFFFFFFFFF


def hash_of_key(key: str) -> int:
    """The hash of a key that the caller gave."""
    return xxh64(key.encode(errors="surrogatepass"))


def hash_of_call(
    policies: Sequence[HashOn], headers: Mapping[str, str], query: str, source: str, rng: Random
) -> tuple[int | None, tuple[str, ...]]:
    """The hash of a call, and the ``Set-Cookie`` headers that its response is to have.

    Args:
        policies: in order.
        headers: of the request, with names in lower case.
        query: of its URL, as sent.
        source: who calls; empty if that is not known.
        rng: for new cookies.

    Returns:
        The hash, None if there is none; and the headers' values.
    """
    found: int | None = None
    cookies: tuple[str, ...] = ()
    for policy in policies:
        value: str | None = None
        if policy.header is not None:
            value = headers.get(policy.header)
        elif policy.query is not None:
            value = query_value(query, policy.query)
        elif policy.source:
            value = source or None
        elif (cookie := policy.cookie) is not None:
            value = cookie_value(headers.get("cookie", ""), cookie.name) or None
            if value is None and cookie.ttl_s is not None:
                value = f"{rng.getrandbits(64):016x}"
                cookies = (*cookies, set_cookie(cookie.name, value, cookie.path, cookie.ttl_s))
        if value is not None:
            turned = 0 if found is None else (found << 1 | found >> 63) & _MASK
            found = turned ^ hash_of_key(value)
        if policy.terminal and found is not None:
            break
    return found, cookies


def query_value(query: str, name: str) -> str | None:
    """The first value of a parameter, not decoded; None if there is no such parameter."""
    for part in query.split("&"):
        found, _, value = part.partition("=")
        if found == name:
            return value
    return None
