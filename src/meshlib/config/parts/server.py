"""The callee's side, as it is written under ``server``."""

from __future__ import annotations

from meshlib.config.fields import Cidr, Many, Part, Span
from meshlib.config.server_settings import ServerSettings

__all__ = ["Server"]

_SERVER = ServerSettings()


class Server(Part):
    """What the callee's side believes of an incoming request.

    Attributes:
        trusted_peers: networks whose deadline, criticality and baggage are taken in.
        min_remaining: a request with less time left than this is refused as expired.
    """

    trusted_peers: Many[Cidr] = _SERVER.trusted_peers
    min_remaining: Span = _SERVER.min_remaining_s
