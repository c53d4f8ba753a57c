"""What happened in the mesh, as objects: an endpoint was ejected, a circuit opened, a registry fell silent.

An event is a change of state, never a single call. `EventBus` hands each one to whoever subscribed, and writes it as
one line to the logger ``meshlib``, which therefore tells of trouble also where there is neither metrics nor traces.
"""

from __future__ import annotations

import logging
from typing import ClassVar

from meshlib.dataclass import dataclass
from meshlib.telemetry.event import Event
from meshlib.telemetry.lifecycle_events import DrainingBegan, DrainingEnded
from meshlib.telemetry.serving_events import SheddingBegan, SheddingEnded

__all__ = [
    "BreakerClosed",
    "BreakerHalfOpened",
    "BreakerOpened",
    "CheckFailed",
    "CheckPassed",
    "ConfigRefused",
    "ConfigReloaded",
    "DiscoveryReady",
    "DiscoveryStale",
    "DiscoveryUnwell",
    "DrainingBegan",
    "DrainingEnded",
    "Ejected",
    "Event",
    "FleetUnwell",
    "FleetWell",
    "GateRefuses",
    "LimitReached",
    "LoadReported",
    "LoadUnreported",
    "ModeChanged",
    "Panic",
    "PanicEnded",
    "RegistrationLost",
    "RegistrationRestored",
    "Returned",
    "ServiceEmpty",
    "ServiceForgotten",
    "ServiceUnknown",
    "ShadowDiffers",
    "SheddingBegan",
    "SheddingEnded",
    "SidecarFound",
    "from_discovery",
]


_SHOWN = 10
"""How many changes of a configuration a log line tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfCluster(Event):
    """Something changed in a cluster: ``orders``, or ``orders/v2``."""

    about: ClassVar[tuple[str, ...]] = ("cluster",)

    cluster: str


# Endpoints


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfEndpoint(_OfCluster):
    """Something changed for an endpoint, by its address, in a cluster."""

    about: ClassVar[tuple[str, ...]] = ("cluster", "endpoint")

    endpoint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ejected(_OfEndpoint):
    """An endpoint kept failing and gets no calls for `for_s` seconds; then one probe, or its share at a sweep."""

    kind: ClassVar[str] = "ejected"
    family: ClassVar[str] = "ejection"
    level: ClassVar[int] = logging.WARNING
    says: ClassVar[str] = "{event.endpoint} was ejected for {event.for_s:.3g} s, {event.why}"

    for_s: float
    failures: int
    reason: str = ""

    @property
    def why(self) -> str:
        return self.reason or f"{self.failures} failure{'' if self.failures == 1 else 's'} in a row"


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned(_OfEndpoint):
    """An ejected endpoint gets calls again: a probe or an active check of it succeeded, or its time was up."""

    kind: ClassVar[str] = "returned"
    family: ClassVar[str] = "ejection"
    says: ClassVar[str] = "{event.endpoint} is back: {event.reason}"

    reason: str = "its probe succeeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadUnreported(_OfCluster):
    """Most endpoints of a cluster that ``prequal`` balances do not say what they have in flight."""

    kind: ClassVar[str] = "load_unreported"
    family: ClassVar[str] = "load_reports"
    level: ClassVar[int] = logging.WARNING
    says: ClassVar[str] = (
        "{event.quiet} of {event.endpoints} endpoints do not say what they have in flight: peak_ewma picks most of them"
    )

    quiet: int
    endpoints: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReported(_OfCluster):
    """Most endpoints of the cluster say so again."""

    kind: ClassVar[str] = "load_reported"
    family: ClassVar[str] = "load_reports"
    says: ClassVar[str] = "most of the endpoints say what they have in flight"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFailed(_OfEndpoint):
    """An endpoint fails its active check and gets no calls until it passes it again."""

    kind: ClassVar[str] = "check_failed"
    family: ClassVar[str] = "check"
    level: ClassVar[int] = logging.WARNING
    says: ClassVar[str] = "{event.endpoint} fails its active check: {event.reason}"

    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckPassed(_OfEndpoint):
    """An endpoint that failed its active check passes it again, or has changed its mind on being `degraded`."""

    kind: ClassVar[str] = "check_passed"
    family: ClassVar[str] = "check"
    says: ClassVar[str] = "{event.endpoint} passes its active check{event.how}"

    degraded: bool = False

    @property
    def how(self) -> str:
        return ", and asks to be spared (degraded)" if self.degraded else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panic(_OfCluster):
    """So few endpoints are left that all are used, those known to fail too."""

    kind: ClassVar[str] = "panic"
    family: ClassVar[str] = "panic"
    level: ClassVar[int] = logging.WARNING
    says: ClassVar[str] = "too few of its {event.members} endpoints are well, so all of them are used (panic)"

    members: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PanicEnded(_OfCluster):
    """Enough endpoints are well again."""

    kind: ClassVar[str] = "panic_ended"
    family: ClassVar[str] = "panic"
    says: ClassVar[str] = "enough of its endpoints are well again; the others are left out as before"


# Whether to send at all


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOpened(_OfCluster):
    """A circuit opened: calls are refused for `for_s` seconds; then one probe."""

    kind: ClassVar[str] = "breaker_opened"
    family: ClassVar[str] = "breaker"
    level: ClassVar[int] = logging.WARNING
    says: ClassVar[str] = "its circuit is open: calls are refused at once for {event.for_s:.3g} s"

    for_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerHalfOpened(_OfCluster):
    """One call was let through an open circuit, to see."""

    kind: ClassVar[str] = "breaker_half_opened"
    family: ClassVar[str] = "breaker"
    says: ClassVar[str] = "its circuit is half open: one call is let through as a probe"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerClosed(_OfCluster):
    """A circuit closed: calls pass again."""

    kind: ClassVar[str] = "breaker_closed"
    family: ClassVar[str] = "breaker"
    says: ClassVar[str] = "its circuit is closed: calls pass again"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitReached(_OfCluster):
    """The limit on calls in flight was reached and the line before it is full: calls are refused.

    So it is told where a part of a bulkhead has its share: `gate` is ``bulkhead`` then.
    """

    kind: ClassVar[str] = "limit_reached"
    family: ClassVar[str] = "limit"
    level: ClassVar[int] = logging.WARNING
    says: ClassVar[str] = (
        "calls are refused by its {event.gate}: {event.in_flight} in flight, {event.pending} waiting in line"
    )

    in_flight: int
    pending: int
    gate: str = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateRefuses(_OfCluster):
    """A gate (a throttle, a rate limit, ...) refuses calls; `refused` of them since the mesh began."""

    kind: ClassVar[str] = "gate_refuses"
    family: ClassVar[str] = "gate"
    level: ClassVar[int] = logging.WARNING
    about: ClassVar[tuple[str, ...]] = ("cluster", "gate")
    says: ClassVar[str] = "calls are refused by its {event.gate}"

    gate: str
    refused: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowDiffers(_OfCluster):
    """A policy that runs beside the live one would have decided otherwise; `differed` times since the mesh began."""

    kind: ClassVar[str] = "shadow_differs"
    family: ClassVar[str] = "shadow"
    about: ClassVar[tuple[str, ...]] = ("cluster", "policy")
    says: ClassVar[str] = "its shadow {event.policy} would decide otherwise: {event.detail}"

    policy: str
    detail: str
    differed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetUnwell(Event):
    """The Redis over which a fleet shares its limits does not answer in time: calls go on as if there were none."""

    kind: ClassVar[str] = "fleet_unwell"
    family: ClassVar[str] = "fleet"
    level: ClassVar[int] = logging.WARNING
    says: ClassVar[str] = "what the fleet shares is not there, so calls go on without: {event.detail}"

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetWell(Event):
    """The Redis of a fleet answers again."""

    kind: ClassVar[str] = "fleet_well"
    family: ClassVar[str] = "fleet"
    says: ClassVar[str] = "what the fleet shares is there again"


# Discovery


@dataclass(frozen=True, slots=True, kw_only=True)
class _OfDiscovery(Event):
    """Something changed in what is known of a service's endpoints; `detail` says what, in words."""

    family: ClassVar[str] = "discovery"
    says: ClassVar[str] = "{event.detail}"

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryStale(_OfDiscovery):
    """The endpoints in use are the last good ones: their registry is unwell, or says what is not believed yet."""

    kind: ClassVar[str] = "discovery_stale"
    level: ClassVar[int] = logging.WARNING


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryUnwell(_OfDiscovery):
    """The registry cannot be asked, and there are no good endpoints to fall back on."""

    kind: ClassVar[str] = "discovery_unwell"
    level: ClassVar[int] = logging.WARNING


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoveryReady(_OfDiscovery):
    """The endpoints are known, and vouched for."""

    kind: ClassVar[str] = "discovery_ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUnknown(_OfDiscovery):
    """No source knows the service."""

    kind: ClassVar[str] = "service_unknown"
    level: ClassVar[int] = logging.WARNING


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEmpty(_OfDiscovery):
    """The service is known, but nobody serves it."""

    kind: ClassVar[str] = "service_empty"
    level: ClassVar[int] = logging.WARNING


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceForgotten(_OfDiscovery):
    """The service was not used for so long that its watches have ended."""

    kind: ClassVar[str] = "service_forgotten"


_BY_STATE: dict[str, type[_OfDiscovery]] = {
    "ok": DiscoveryReady,
    "stale": DiscoveryStale,
    "unwell": DiscoveryUnwell,
    "unknown": ServiceUnknown,
    "empty": ServiceEmpty,
    "forgotten": ServiceForgotten,
}


def from_discovery(kind: str, service: str, detail: str) -> Event:
    """The event for what a `Directory` tells its ``on_event``."""
    made = _BY_STATE.get(kind)
    return (
        _OfDiscovery(service=service, detail=f"{kind}: {detail}")
        if made is None
        else made(service=service, detail=detail)
    )


# The mesh itself


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigRefused(Event):
    """A changed configuration is wrong; the one before stays in force."""

    kind: ClassVar[str] = "config_refused"
    about: ClassVar[tuple[str, ...]] = ("source",)
    family: ClassVar[str] = "config"
    level: ClassVar[int] = logging.ERROR
    says: ClassVar[str] = "{event.source} was refused, and the configuration before it stays: {event.detail}"

    source: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReloaded(Event):
    """A changed configuration is in force; `changes` says what is different, a sentence each."""

    kind: ClassVar[str] = "config_reloaded"
    about: ClassVar[tuple[str, ...]] = ("source",)
    family: ClassVar[str] = "config"
    says: ClassVar[str] = "{event.source} is in force as it is now: {event.what}"

    source: str
    changes: tuple[str, ...] = ()

    @property
    def what(self) -> str:
        """The first of the changes, and how many more there are."""
        more = len(self.changes) - _SHOWN
        return "; ".join(self.changes[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeChanged(Event):
    """The mesh, or one service of it, is now in another mode: ``off``, ``observe`` or ``on``."""

    kind: ClassVar[str] = "mode_changed"
    family: ClassVar[str] = "mode"
    level: ClassVar[int] = logging.WARNING
    says: ClassVar[str] = "the mode is now {event.new!r}; it was {event.old!r}"

    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationLost(Event):
    """This process is no longer in the registry, against its will."""

    kind: ClassVar[str] = "registration_lost"
    family: ClassVar[str] = "registration"
    level: ClassVar[int] = logging.WARNING
    says: ClassVar[str] = "this process is not registered any more: {event.detail}"

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationRestored(Event):
    """This process is in the registry again."""

    kind: ClassVar[str] = "registration_restored"
    family: ClassVar[str] = "registration"
    says: ClassVar[str] = "this process is registered again {event.detail}"

    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarFound(Event):
    """A proxy of another mesh stands beside this process: ``Istio`` or ``Linkerd``."""

    kind: ClassVar[str] = "sidecar_found"
    family: ClassVar[str] = "sidecar"
    level: ClassVar[int] = logging.WARNING
    says: ClassVar[str] = (
        "a sidecar of {event.proxy} stands beside this process ({event.evidence}): its retries multiply with those of "
        "the mesh, and TLS may be done twice; leave one of the two out, or write `sidecar: ignore`"
    )

    proxy: str
    evidence: str = ""
