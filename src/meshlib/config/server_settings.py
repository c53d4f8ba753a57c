"""What the callee's side goes by: the settings of `server:` and of what stands below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from meshlib.dataclass import dataclass

if TYPE_CHECKING:
    from meshlib.config.health_settings import HealthSettings
    from meshlib.policy.serving_settings import AdmissionSettings

__all__ = ["ACCEPTED", "Accepted", "Cancel", "DrainSettings", "HopelessSettings", "LoadReports", "ServerSettings"]

Accepted: TypeAlias = Literal["deadline", "criticality", "baggage", "trace"]
Cancel: TypeAlias = Literal["off", "safe_methods", "all"]
LoadReports: TypeAlias = Literal["asked", "always", "off"]

ACCEPTED: Final[tuple[Accepted, ...]] = ("deadline", "criticality", "baggage", "trace")
"""All that a request may bring along."""


@dataclass(frozen=True, slots=True)
class DrainSettings:
    """How a process that serves comes to its end.

    Attributes:
        notice_s: how long it goes on serving after it has left the registry; None for as long as the registry needs to
            tell callers, and no time where the process is in none.
        timeout_s: how long what is in flight then has to finish.
    """

    notice_s: float | None = None
    timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class HopelessSettings:
    """When a request is refused because it cannot finish in time; see `meshlib.server.hopeless`.

    Attributes:
        percentile: of the times that requests of its kind took of late: a request with less time left is refused.
        min_samples: with fewer of them none is.
        probe_interval_s: so often one is served all the same, of each kind.
    """

    percentile: float = 5.0
    min_samples: int = 20
    probe_interval_s: float = 1.0


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What this process does with the requests that come in, and how it ends.

    Attributes:
        trusted_peers: networks (CIDR) whose deadline, criticality and baggage are taken in; anybody else's are ignored.
            The default trusts loopback and private networks.
        accept: what is taken in of them.
        min_remaining_s: a request with less time left than this is refused as expired.
        cancel: which handlers end when their caller goes away, or its deadline passes: those of ``safe_methods`` (GET,
            HEAD, OPTIONS, TRACE), ``all``, or none (``off``).
        hopeless: whether a request is refused that cannot finish in time; None for not.
        drain: how the process ends.
        admission: how many requests are served at once; None for any number.
        health: the endpoints that say how this process is; None for none.
        load: which trusted callers are told how loaded this process is: those that have ``asked``, all (``always``), or
            none (``off``).
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
    accept: tuple[Accepted, ...] = ACCEPTED
    min_remaining_s: float = 0.001
    cancel: Cancel = "safe_methods"
    hopeless: HopelessSettings | None = None
    drain: DrainSettings = DrainSettings()
    admission: AdmissionSettings | None = None
    health: HealthSettings | None = None
    load: LoadReports = "asked"
