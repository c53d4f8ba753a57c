"""Session affinity: a cookie names the endpoint that a client's calls go to, as long as that one may be used.

The cookie holds ``base64(address)``. A call that comes with it goes to that endpoint if the cluster has it and its
health is one of `statuses`; otherwise the balancer picks, and so it does for retries. When the endpoint that answered
is not the one that the cookie named, the response sets a new one. Only calls whose path the cookie is for take part.

Source: gRPC's proposal A55, and the cookie of Envoy's ``stateful_session`` filter; like Envoy's, and unlike A55, a
retry is not bound.
"""

from __future__ import annotations

import binascii
import threading
from base64 import b64decode, b64encode
from collections.abc import Container, Iterable

from meshlib.balance.balancer import Member
from meshlib.balance.cookies import cookie_value, set_cookie
from meshlib.balance.health import EndpointHealth
from meshlib.balance.settings import BoundStatus, SessionAffinity

__all__ = ["Sessions", "affinity_cookie", "applies", "bound_to", "status_of"]

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


class Sessions:
    """What sessions are bound to in one cluster.

    Attributes:
        bound: calls that went where their session is bound to.
        moved: calls that could not.
    """

    __slots__ = ("_lock", "_members", "_settings", "bound", "moved")

    def __init__(self, settings: SessionAffinity) -> None:
        self.bound = self.moved = 0
        self._settings = settings
        self._members: dict[str, Member] = {}
        self._lock = threading.Lock()

    def rebind(self, members: Iterable[Member]) -> None:
        """These are the cluster's members now, those that drain among them."""
        self._members = {member.endpoint.address: member for member in members}

    def member_at(self, address: str | None, own: Container[EndpointHealth] | None = None) -> Member | None:
        """The member that a call is bound to; None if there is none that may be called.

        Args:
            address: where it is; None for a call that is not bound.
            own: the health of those that the call may go to, where it is a part of the cluster; None for all.
        """
        if address is None:
            return None
        member = self._members.get(address)
        usable = member is not None and status_of(member) in self._settings.statuses
        if usable and member is not None and own is not None:
            usable = member.health in own
        with self._lock:
            if usable:
                self.bound += 1
            else:
                self.moved += 1
        return member if usable else None

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()


def status_of(member: Member) -> BoundStatus:
    """Its health as all say who watch it: the registry, active checks, outlier detection."""
    state = member.state
    return "unhealthy" if state == "failed" or state == "ejected" else state
