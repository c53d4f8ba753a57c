"""Which overrides of single requests are believed, as it is written."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from meshlib.config import shown
from meshlib.config.fields import WIRE_HEADERS, Cidr, HeaderName, Interval, Many, Part, reject
from meshlib.propagation import INCOMING
from meshlib.routing.override_settings import AllowedOverride, OverrideSettings

__all__ = ["OverrideAllowed", "Overrides"]

_SETTINGS = OverrideSettings()
_PATTERN = re.compile(r"[a-z0-9*](?:[a-z0-9*._-]{0,251}[a-z0-9*])?")
_LEAST_KEY: Final = 16


def _key(value: str) -> str:
    if len(value) < _LEAST_KEY:
        reject(f"is too short: at least {_LEAST_KEY} characters are expected, of which nobody can guess any")
    return value


def _pattern(value: str) -> str:
    if not _PATTERN.fullmatch(value):
        reject("is not the name of a service, or one with '*' for any part of it: users-dev-*")
    return value


def _header(value: str) -> str:
    if value in WIRE_HEADERS or value in INCOMING or value in ("host", "traceparent", "tracestate", "cookie"):
        reject("is a header with a meaning of its own", nearest=_SETTINGS.header)
    return value


_Key = Annotated[str, AfterValidator(_key)]
_Pattern = Annotated[str, AfterValidator(_pattern)]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class OverrideAllowed(Part):
    """What may take the place of a service.

    Attributes:
        service: that is replaced; ``*`` for any.
        to: names of services, ``*`` in one for any part of it.
    """

    compiles_to: ClassVar = AllowedOverride

    service: _Pattern
    to: Annotated[Many[_Pattern], BeforeValidator(_listed), shown.OrOne()] = ()


class Overrides(Part):
    """Requests that ask for another instance of a service, for development, by a header.

    Attributes:
        header: that they travel in.
        key: the secret that they are signed with; or several, to change it: any will do. Never shown.
        allow: what may take whose place; without it anything in the mesh may, if it is signed.
        addresses: networks of addresses that may take the place of a service, if that is signed.
        peers: whose requests are looked at: those of ``server.trusted_peers``, or ``any``, if they are signed.
        missing: while nobody serves the replacement: ``fallback`` to the service itself, or ``fail``.
        max_age: how far ahead the expiry of a signed one may lie.
    """

    compiles_to: ClassVar = OverrideSettings

    header: Annotated[HeaderName, AfterValidator(_header)] = _SETTINGS.header
    key: Annotated[Many[_Key], BeforeValidator(_listed), shown.OrOne()] = Field(default=(), repr=False)
    allow: Many[OverrideAllowed] = ()
    addresses: Many[Cidr] = _SETTINGS.addresses
    peers: Literal["trusted", "any"] = _SETTINGS.peers
    missing: Literal["fallback", "fail"] = _SETTINGS.missing
    max_age: Interval = _SETTINGS.max_age_s

    @model_validator(mode="after")
    def _guarded(self) -> Overrides:
        if not self.key and not self.allow:
            reject("has neither 'key' nor 'allow': anybody could send anything anywhere")
        if not self.key:
            for name, asked in (("addresses", bool(self.addresses)), ("peers: any", self.peers == "any")):
                if asked:
                    reject(f"has '{name}' without 'key': only what is signed may do that")
            if any(not each.to for each in self.allow):
                reject("allows a service to be replaced by nothing: name in 'to' what may take its place")
        return self
