"""What the validated configuration compiles to, for the parts around the core: frozen, plain, no validation left.

The policies' own settings live beside each policy (`meshlib.policy`); this module has the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from meshlib.balance.endpoint import Endpoint

__all__ = [
    "ConsulSettings",
    "DiscoverySettings",
    "LocalSettings",
    "PoolSettings",
    "RegisterSettings",
    "ServerSettings",
    "StaticSettings",
    "TlsSettings",
]


@dataclass(frozen=True, slots=True)
class StaticSettings:
    """Endpoints written in the configuration, by service."""

    services: dict[str, tuple[Endpoint, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The embedded registry of one machine.

    Attributes:
        directory: where instances are entered; None for the user's own: ``$MESHLIB_LOCAL_DIR``, else
            ``$XDG_RUNTIME_DIR/meshlib``, else a directory of the user's under the system's temporary directory.
        poll_interval_s: how often a watch looks at the directory.
    """

    directory: str | None = None
    poll_interval_s: float = 0.2


@dataclass(frozen=True, slots=True)
class ConsulSettings:
    """A Consul agent.

    Attributes:
        address: its HTTP address, ``http://127.0.0.1:8500``.
        token: ACL token; never shown.
        datacenter: another datacenter to ask for; None for the agent's own.
        tag: only instances with this tag.
        wait_s: how long a blocking query may block at the server.
        retry_base_s, retry_max_s: full-jitter back-off while Consul is unwell.
    """

    address: str = "http://127.0.0.1:8500"
    token: str | None = field(default=None, repr=False)
    datacenter: str | None = None
    tag: str | None = None
    wait_s: float = 60.0
    retry_base_s: float = 0.1
    retry_max_s: float = 1.0


DiscoverySettings: TypeAlias = StaticSettings | LocalSettings | ConsulSettings


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Connections to one endpoint.

    Attributes:
        max_connections: open at once, per endpoint and event loop (or, in sync code, per process).
        max_pending: calls that wait for one of them; a further one fails at once.
        idle_s: a connection idle for longer is not used again.
        idle_unsafe_s: the same for a request that could not be sent twice.
        connect_timeout_s: for TCP and TLS together.
    """

    max_connections: int = 100
    max_pending: int = 1000
    idle_s: float = 4.0
    idle_unsafe_s: float = 1.5
    connect_timeout_s: float = 1.0


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """How connections to a service are encrypted; None where they are not.

    Attributes:
        server_name: for SNI and for the verification of the peer's certificate; None for the service's name.
        ca_file: a PEM bundle of trusted roots; None for the system's.
        cert_file, key_file: this workload's own certificate, if the peer asks for one.
        verify: False turns verification off, for tests only.
    """

    server_name: str | None = None
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = field(default=None, repr=False)
    verify: bool = True


@dataclass(frozen=True, slots=True)
class RegisterSettings:
    """How this process enters itself into the registry.

    Attributes:
        service: the name; None for the configuration's ``service``.
        host: the address that callers use; None for the one that reaches the registry (127.0.0.1 for the local one).
        port: the port that callers use.
        weight: its share of calls relative to the other instances'.
        metadata: what subsets select by.
        check_path: an HTTP path to check; None for a check of the TCP port.
        check_interval_s: between checks.
    """

    port: int
    service: str | None = None
    host: str | None = None
    weight: float = 1.0
    metadata: dict[str, str] = field(default_factory=dict)
    check_path: str | None = None
    check_interval_s: float = 5.0


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
