"""Consistent hashing and session affinity, as they are written."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, model_validator

from meshlib.balance import settings
from meshlib.config.fields import TOKEN, Count, Flag, HeaderName, Many, Part, Span, Text, reject

__all__ = ["CookieName", "HashBalance", "HashCookie", "HashOn", "Ring", "SessionAffinity", "TableSize"]

_RING = settings.RingSettings()
_AFFINITY = settings.SessionAffinity()
_LARGEST_RING = 8_388_608
_LARGEST_TABLE = 5_000_011
_KINDS = ("header", "cookie", "query", "source")


def _cookie_name(value: str) -> str:
    if not TOKEN.fullmatch(value):
        reject("is not the name of a cookie")
    return value


def _cookie_path(value: str) -> str:
    if not value.startswith("/"):
        reject("does not begin with '/'")
    if not value.isascii() or not value.isprintable() or any(character in value for character in ';," \\'):
        reject("is not the path of a cookie: it has a character that a cookie cannot hold")
    return value


def _path_or_none(value: str) -> str:
    return _cookie_path(value) if value else value


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _prime(value: int) -> int:
    if not _is_prime(value):
        above = next(number for number in range(value, 2 * value) if _is_prime(number))
        reject("is not a prime number", nearest=str(above))
    return value


CookieName = Annotated[str, AfterValidator(_cookie_name)]
CookiePath = Annotated[str, AfterValidator(_cookie_path)]
TableSize = Annotated[Count, Field(ge=2, le=_LARGEST_TABLE), AfterValidator(_prime)]
HashBalance = Annotated[Count, Field(ge=100)] | None
_RingSize = Annotated[Count, Field(ge=1, le=_LARGEST_RING)]


class Ring(Part):
    """The ring of the balancer ``ring_hash``.

    Attributes:
        min_size: points at least; more make shares more even.
        max_size: points at most.
        hash: what puts endpoints on it: ``xxhash`` or ``murmur2``.
    """

    compiles_to: ClassVar = settings.RingSettings

    min_size: _RingSize = _RING.min_size
    max_size: _RingSize = _RING.max_size
    hash: settings.HashName = _RING.hash


class HashCookie(Part):
    """A cookie that calls are hashed by.

    Attributes:
        name: of the cookie.
        ttl: of one that is made for calls without it; 0 for one that ends with the client's session; null to make none.
        path: of one that is made; that of the request unless given.
    """

    compiles_to: ClassVar = settings.HashCookie

    name: CookieName
    ttl: Span | None = None
    path: Annotated[str, AfterValidator(_path_or_none)] = ""


class HashOn(Part):
    """A property that calls are hashed by: exactly one of the first four.

    Attributes:
        header: its name.
        cookie: which.
        query: the name of a parameter of the URL.
        source: who calls: the peer of the request that is being served, else this host.
        terminal: whether the list ends here if there is a hash by then.
    """

    compiles_to: ClassVar = settings.HashOn

    header: HeaderName | None = None
    cookie: HashCookie | None = None
    query: Text | None = None
    source: Flag = False
    terminal: Flag = False

    @model_validator(mode="after")
    def _one_kind(self) -> HashOn:
        given = [kind for kind in _KINDS if getattr(self, kind)]
        if len(given) != 1:
            found = f"has {' and '.join(given)}" if given else "has nothing to hash"
            reject(f"{found}: exactly one of {', '.join(_KINDS)} is expected")
        return self


class SessionAffinity(Part):
    """Calls stay at one endpoint, by a cookie.

    Attributes:
        cookie: its name.
        path: the paths that it is for.
        ttl: how long clients keep it; 0 for as long as their session lives.
        statuses: the health of the endpoints that calls may be bound to: ``healthy``, ``degraded``, ``draining``,
            ``unhealthy``.
    """

    compiles_to: ClassVar = settings.SessionAffinity

    cookie: CookieName = _AFFINITY.cookie
    path: CookiePath = _AFFINITY.path
    ttl: Span = _AFFINITY.ttl_s
    statuses: Annotated[Many[settings.BoundStatus], Field(min_length=1)] = _AFFINITY.statuses
