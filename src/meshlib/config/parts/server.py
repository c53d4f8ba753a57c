"""The callee's side, as it is written under ``server``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from meshlib.config.fields import Cidr, Interval, Many, OrFalse, Part, Span
from meshlib.config.parts.serving import Admission, Health
from meshlib.config.server_settings import Accepted, Cancel, DrainSettings, ServerSettings

__all__ = ["Drain", "Server"]

_SERVER = ServerSettings()
_DRAIN = DrainSettings()


class Drain(Part):
    """How this process ends: see `meshlib.server.draining`.

    Attributes:
        notice: how long it goes on serving after it has left the registry, until callers have heard; unless given, as
            long as the registry needs for that, and no time where this process is in none.
        timeout: how long what is in flight then has to finish.
    """

    compiles_to: ClassVar = DrainSettings

    notice: Span | None = None
    timeout: Interval = _DRAIN.timeout_s


class Server(Part):
    """What the callee's side believes of an incoming request.

    Attributes:
        trusted_peers: networks whose deadline, criticality and baggage are taken in.
        accept: what is taken in of them: ``deadline``, ``criticality``, ``baggage``, ``trace``.
        min_remaining: a request with less time left than this is refused as expired.
        cancel: whose handlers end when the caller goes away or its deadline passes: ``off``, ``safe_methods``, ``all``.
        drain: how this process ends.
        admission: how many requests are served at once, and what becomes of the others; null or false for no limit.
        health: endpoints by which others ask how this process is; null or false for none.
    """

    trusted_peers: Many[Cidr] = _SERVER.trusted_peers
    accept: Many[Accepted] = _SERVER.accept
    min_remaining: Span = _SERVER.min_remaining_s
    cancel: Cancel = _SERVER.cancel
    drain: Drain = Field(default_factory=Drain)
    admission: OrFalse[Admission] | None = None
    health: OrFalse[Health] | None = None
