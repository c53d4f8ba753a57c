"""Which overrides of single requests are believed. What they are is in `meshlib.routing.override`."""

from __future__ import annotations

from typing import Final, Literal

from meshlib.dataclass import dataclass, field

__all__ = ["OVERRIDE_HEADER", "AllowedOverride", "OverrideSettings"]

OVERRIDE_HEADER: Final = "x-meshlib-override"


@dataclass(frozen=True, slots=True)
class AllowedOverride:
    """What may take the place of a service.

    Attributes:
        service: that is replaced; ``*`` for any.
        to: names of services, with ``*`` for any part of one.
    """

    service: str = "*"
    to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OverrideSettings:
    """Which overrides are believed.

    Attributes:
        header: that they travel in, in lower case.
        key: the secrets, any of which a signature may be made with; none: nothing need be signed.
        allow: what may take whose place; none: anything in the mesh, if it is signed.
        addresses: networks (CIDR) of addresses that may take the place of a service.
        peers: ``trusted`` for those of the server's `trusted_peers`, ``any`` for everybody who has a signed one.
        missing: what to do while nobody serves the replacement: ``fallback`` to the service itself, or ``fail``.
        max_age_s: how far ahead the expiry of a signed one may lie.
    """

    header: str = OVERRIDE_HEADER
    key: tuple[str, ...] = field(default=(), repr=False)
    allow: tuple[AllowedOverride, ...] = ()
    addresses: tuple[str, ...] = ()
    peers: Literal["trusted", "any"] = "trusted"
    missing: Literal["fallback", "fail"] = "fallback"
    max_age_s: float = 86_400.0
