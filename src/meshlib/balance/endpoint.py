"""Endpoints: the addresses that serve a service, as a discovery source reports them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from meshlib.dataclass import dataclass, field

__all__ = ["Endpoint", "Health", "Locality"]

_NO_METADATA: Mapping[str, str] = MappingProxyType({})


class Health(enum.Enum):
    """What the source says of an endpoint. One that is in maintenance is not reported at all."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """Works, but is to be used only as far as the healthy ones do not suffice."""
    UNHEALTHY = "unhealthy"
    """Kept for panic: used when too few are healthy."""
    DRAINING = "draining"
    """Finishes what it has; gets no new call."""


@dataclass(frozen=True, slots=True)
class Locality:
    """Where an endpoint runs; empty strings are unknown."""

    region: str = ""
    zone: str = ""
    sub_zone: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address that serves a service.

    Attributes:
        host: an IP address or a host name, without brackets; or a Unix socket: ``unix:`` and its path.
        port: 1 to 65535; 0 for a Unix socket, which has none.
        weight: its share of calls relative to the others, above 0.
        instance_id: the source's own id of the instance. A process that takes over a dead one's address has another id,
            so it starts with a clean history.
        locality: where it runs.
        metadata: what subsets select by.
        health: what the source says of it.
        priority: 0 for the first choice; the higher ones stand by, and take over as health falls.
    """

    host: str
    port: int
    weight: float = 1.0
    instance_id: str = ""
    locality: Locality = Locality()
    metadata: Mapping[str, str] = field(default_factory=lambda: _NO_METADATA, hash=False)
    health: Health = Health.HEALTHY
    priority: int = 0

    @property
    def address(self) -> str:
        """``10.0.0.1:8080``, ``[::1]:8080``, or ``unix:/run/orders.sock``."""
        if self.socket_path is not None:
            return self.host
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def socket_path(self) -> str | None:
        """The path of the Unix socket; None if it is none."""
        return self.host[5:] if not self.port and self.host.startswith("unix:") else None

    @property
    def authority(self) -> str:
        """What a ``Host`` header calls it: its address; a Unix socket, which has no name, is ``localhost``."""
        return self.address if self.socket_path is None else "localhost"

    @property
    def key(self) -> tuple[str, str, int]:
        """What live state is kept under: the same instance at the same address."""
        return (self.instance_id, self.host, self.port)
