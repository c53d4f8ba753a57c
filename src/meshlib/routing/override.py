"""The override of one request, for development: one service is replaced, for this request and all that it leads to.

The idea is Finagle's ``Dtab.local`` (header ``dtab-local``), which travels with a request through the whole graph of
calls. What a Dtab leaves to whoever guards the edge is part of this one: it is believed only if it is signed, or
allowed by name.

    users=users-dev-alice; billing=billing-dev                                  unsigned
    users=users-dev-alice; billing=10.8.0.9:8080; @exp=1767225600; @sig=...     signed

The signature is the unpadded base64url of HMAC-SHA256 over ``meshlib-override-1``, a line feed, and all that stands
before ``; @sig=``. ``@exp`` is in seconds since 1970; without it nothing is signed, so that no signature holds for
ever. Whoever has seen a signed one may use it until then: it says what may be done, not by whom.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from typing import Final, Literal, TypeAlias

from meshlib.context import Override, scoped
from meshlib.dataclass import replace
from meshlib.routing.override_settings import OverrideSettings

__all__ = [
    "MAX_LENGTH",
    "MAX_PAIRS",
    "Refusal",
    "address_of",
    "overriding",
    "permits",
    "read_override",
    "sign_override",
]

MAX_LENGTH: Final = 2048
"""Of the header, in characters."""

MAX_PAIRS: Final = 16
"""A request for which more services are to be replaced asks for an environment of its own."""

Refusal: TypeAlias = Literal["malformed", "unsigned", "wrong signature", "expired", "valid for too long", "not allowed"]
"""Why a header is not believed."""

_SAID: Final = ("@exp", "@sig")
_CONTEXT: Final = b"meshlib-override-1\n"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?")
_ADDRESS = re.compile(r"(?:(\d{1,3}(?:\.\d{1,3}){3})|\[([0-9a-f:.]{2,45})\]):([0-9]{1,5})", re.ASCII)
_EXPIRY = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"[A-Za-z0-9_-]{43}")


def sign_override(pairs: Mapping[str, str], key: str, *, expires_at: float) -> str:
    """The value of a header that is believed where `key` is.

    Args:
        pairs: by service, what takes its place: a service, or an IP address and a port (``10.8.0.9:8080``).
        key: the secret.
        expires_at: until when, in seconds since 1970.

    Raises:
        ValueError: if a name is none, there are no pairs or more than 16, the key is empty, or the header would be too
            long.
    """
    if not key:
        raise ValueError("the key is empty")
    if not pairs:
        raise ValueError("nothing is to be replaced: name at least one service")
    for service, target in pairs.items():
        if not _is_pair(service, target):
            raise ValueError(f"{service}={target}: not the name of a service and another, or 10.8.0.9:8080")
    if not 0 <= expires_at < 1e12:
        raise ValueError(f"{expires_at!r} is no time in seconds since 1970")
    payload = _payload(tuple(pairs.items()), int(expires_at))
    text = f"{payload}; @sig={_signature(payload, key)}"
    if len(pairs) > MAX_PAIRS or len(text) > MAX_LENGTH:
        raise ValueError(f"at most {MAX_PAIRS} services can be replaced, in {MAX_LENGTH} characters")
    return text


def read_override(values: Sequence[str], settings: OverrideSettings, wall: float) -> Override | Refusal:
    """What the header says, if it is to be believed; else why not.

    Args:
        values: of the header; it may come once.
        settings: which are believed.
        wall: the time, in seconds since 1970.
    """
    parsed = _parse(values[0]) if len(values) == 1 else None
    if parsed is None:
        return "malformed"
    pairs, expires_at, signature = parsed
    if settings.key:
        if signature is None or expires_at is None:
            return "unsigned"
        payload = _payload(pairs, expires_at)
        if not _is_signed(payload, signature, settings.key):
            return "wrong signature"
        if expires_at <= wall:
            return "expired"
        if expires_at - wall > settings.max_age_s:
            return "valid for too long"
        # It is passed on as a whole: what is not allowed here may be so further on.
        return Override(pairs, f"{payload}; @sig={signature}", float(expires_at))
    # Without a signature nothing vouches for what this service does not know, so that is not passed on.
    known = tuple(pair for pair in pairs if permits(settings, *pair))
    return Override(known, _joined(known)) if known else "not allowed"


def permits(settings: OverrideSettings, service: str, target: str) -> bool:
    """Whether `target` may take the place of `service`."""
    allowed = [each for each in settings.allow if each.service in (service, "*")]
    if settings.allow and not allowed:
        return False
    address = address_of(target)
    if address is not None:
        host = ip_address(address[0])
        return bool(settings.key) and any(host in ip_network(network, strict=False) for network in settings.addresses)
    if not settings.allow:
        return bool(settings.key)
    return any(fnmatchcase(target, pattern) for each in allowed for pattern in each.to)


def overriding(text: str) -> scoped:
    """Let all calls made inside, and all that they call in turn, go by an override; for scripts and tests.

    Usable as ``with``, ``async with`` and as a decorator. Whether it holds, the mesh's ``overrides`` say: without them
    it does nothing.

    Args:
        text: as in the header; a signed one where the services that are called ask for that.

    Raises:
        ValueError: if it is malformed.
    """
    parsed = _parse(text)
    if parsed is None:
        raise ValueError("it is not an override such as 'users=users-dev-alice'")
    pairs, expires_at, signature = parsed
    whole = _joined(pairs) if expires_at is None else f"{_payload(pairs, expires_at)}; @sig={signature}"
    override = Override(pairs, whole, None if expires_at is None else float(expires_at))
    return scoped(lambda scope: replace(scope, override=override))


def address_of(target: str) -> tuple[str, int] | None:
    """The host and port of a target that is an address; None if it is none."""
    match = _ADDRESS.fullmatch(target)
    if match is None:
        return None
    host, port = match[1] or match[2], int(match[3])
    try:
        ip_address(host)
    except ValueError:
        return None
    return (host, port) if 0 < port < 65536 else None


def _parse(text: str) -> tuple[tuple[tuple[str, str], ...], int | None, str | None] | None:
    """The pairs, the expiry and the signature; None if it is malformed."""
    if len(text) > MAX_LENGTH or not text.isascii():
        return None
    pairs: dict[str, str] = {}
    said: dict[str, str] = {}
    for part in text.split(";"):
        name, equals, value = part.strip(" \t").partition("=")
        if not equals or name in pairs or name in said:
            return None
        if name in _SAID:
            said[name] = value
        elif said or not _is_pair(name, value):
            return None
        else:
            pairs[name] = value
    if not pairs or len(pairs) > MAX_PAIRS:
        return None
    if not said:
        return tuple(pairs.items()), None, None
    if tuple(said) != _SAID or not _EXPIRY.fullmatch(said["@exp"]) or not _SIGNATURE.fullmatch(said["@sig"]):
        return None
    return tuple(pairs.items()), int(said["@exp"]), said["@sig"]


def _is_pair(service: str, target: str) -> bool:
    if _NAME.fullmatch(service) is None:
        return False
    return _NAME.fullmatch(target) is not None or address_of(target) is not None


def _joined(pairs: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{service}={target}" for service, target in pairs)


def _payload(pairs: Sequence[tuple[str, str]], expires_at: int) -> str:
    return f"{_joined(pairs)}; @exp={expires_at}"


def _signature(payload: str, key: str) -> str:
    digest = hmac.digest(key.encode(), _CONTEXT + payload.encode("ascii"), "sha256")
    return urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def _is_signed(payload: str, signature: str, keys: Sequence[str]) -> bool:
    """Whether one of the keys made the signature; as long for each that did not."""
    found = False
    for key in keys:
        found |= hmac.compare_digest(_signature(payload, key), signature)
    return found
