"""What the callee's side goes by: the settings of `server:` and of what stands below it."""

from __future__ import annotations

from meshlib.dataclass import dataclass

__all__ = ["ServerSettings"]


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the callee's side believes of an incoming request.

    Attributes:
        trusted_peers: networks (CIDR) whose deadline, criticality and baggage are taken in; anybody else's are ignored.
            The default trusts loopback and private networks.
        min_remaining_s: a request with less time left than this is refused as expired.
    """

    trusted_peers: tuple[str, ...] = (
        "127.0.0.0/8",
        "::1/128",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "fc00::/7",
        "fe80::/10",
        "100.64.0.0/10",
    )
    min_remaining_s: float = 0.001
