"""Session affinity: a cookie names the endpoint that a client's calls go to, as long as that one may be used.

The cookie holds ``base64(address)``. A call that comes with it goes to that endpoint if the cluster has it and its
health is one of `statuses`; otherwise the balancer picks, and so it does for retries. When the endpoint that answered
is not the one that the cookie named, the response sets a new one. Only calls whose path the cookie is for take part.

Source: gRPC's proposal A55, and the cookie of Envoy's ``stateful_session`` filter; like Envoy's, and unlike A55, a
retry is not bound.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode

from meshlib.balance.cookies import cookie_value, set_cookie
from meshlib.balance.settings import SessionAffinity

__all__ = ["affinity_cookie", "applies", "bound_to"]

_LONGEST = 512
"""Of a cookie's value. No address is as long."""


def applies(settings: SessionAffinity, path: str) -> bool:
    """Whether the cookie is for this path of a request, by RFC 6265 section 5.1.4."""
    own = settings.path
    if not own or own == "/":
        return True
    return path.startswith(own) and (own[-1] == "/" or path[len(own) :][:1] in ("", "/"))


def bound_to(settings: SessionAffinity, header: str) -> str | None:
    """The address that the request's cookie names; None if there is none that can be read.

    Args:
        settings: of the cluster.
        header: of the request, ``Cookie``.
    """
    value = cookie_value(header, settings.cookie)
    if not value or len(value) > _LONGEST:
        return None
    try:
        text = b64decode(value, validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        return None
    return text.partition(";")[0]  # gRPC's A75 has the cluster's name behind it


def affinity_cookie(settings: SessionAffinity, address: str) -> str:
    """The ``Set-Cookie`` header that binds a client to this address."""
    return set_cookie(settings.cookie, b64encode(address.encode()).decode("ascii"), settings.path, settings.ttl_s)
