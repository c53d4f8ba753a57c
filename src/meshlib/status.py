"""The state of a mesh at one moment, as plain data with a readable text: `Mesh.status()`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from meshlib.adapters.plane import DataPlane
from meshlib.balance.cluster import Cluster
from meshlib.balance.endpoint import Locality
from meshlib.config.settings import MeshSettings
from meshlib.config.snapshot import Snapshots
from meshlib.dataclass import dataclass
from meshlib.discovery.watch import Directory
from meshlib.durations import format_duration
from meshlib.net.pool import PoolStats
from meshlib.propagation import IGNORED_KINDS, Ignored

if TYPE_CHECKING:
    from meshlib.discovery.registration import Registration, RegistrationStatus
    from meshlib.net.async_engine import AsyncEngine
    from meshlib.net.sync_engine import SyncEngine
    from meshlib.policy.fault import ActiveFaults
    from meshlib.policy.hedge import Hedging
    from meshlib.policy.serving_queue import ServingQueue
    from meshlib.policy.shadow import Shadows
    from meshlib.server.serving import Serving

__all__ = [
    "AdmissionStatus",
    "ClusterStatus",
    "EndpointStatus",
    "MeshStatus",
    "MeshView",
    "ServiceStatus",
    "ServingStatus",
    "ShadowStatus",
    "make_status",
]


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One endpoint, as seen from one cluster.

    Attributes:
        address: of the endpoint.
        state: ``healthy``, ``degraded``, ``unhealthy`` (says the registry), ``failed`` (its active check), ``ejected``.
        in_flight: attempts at it from this process.
        cost_s: what a call to it is expected to cost, in seconds.
    """

    address: str
    state: str
    in_flight: int
    cost_s: float


@dataclass(frozen=True, slots=True)
class ShadowStatus:
    """One policy that runs beside those of a cluster and decides nothing.

    Attributes:
        policy: the field of the configuration: ``throttle``.
        same, differed: decisions that it would have made, too, and that it would not.
        counts: what it would have done: ``refused`` or ``let_in`` (calls, other than the live policy), ``waited``,
            ``ejected``, ``spared`` (ejections not made); of a balancer, picks by address.
        now: how things are with it, in words; empty where there is nothing to say.
    """

    policy: str
    same: int
    differed: int
    counts: Mapping[str, int]
    now: str = ""

    def __str__(self) -> str:
        total = self.same + self.differed
        share = f" ({100 * self.differed / total:.3g} %)" if total else ""
        counts = ", ".join(f"{word} {count}" for word, count in self.counts.items())
        rest = "".join(f"; {text}" for text in (counts, self.now) if text)
        return f"{self.policy}: {self.differed} of {total} decisions differed{share}{rest}"


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """One cluster.

    Attributes:
        name: ``orders`` or ``orders/v2``.
        breaker: ``closed``, ``open``, ``half_open``, or ``off``.
        in_flight, pending: calls under its limit, and in line for it.
        panic: whether so few endpoints are healthy that all are used.
        endpoints: its members.
        shadow: what runs beside its policies and decides nothing.
        stands_in: what picks in place of the balancer of the configuration, and why; empty where nothing does.
    """

    name: str
    breaker: str
    in_flight: int
    pending: int
    panic: bool
    endpoints: tuple[EndpointStatus, ...]
    shadow: tuple[ShadowStatus, ...] = ()
    stands_in: str = ""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service in use.

    Attributes:
        name: of the service.
        mode: ``off``, ``observe`` or ``on``.
        discovery: what discovery knows of it: ``yes``, ``no``, ``pending``, ``unwell``.
        source: the discovery source in use.
        age_s: for how long nobody has vouched for its endpoints; 0 is current; None before the first answer.
        detail: what is wrong with discovery; empty if nothing is.
        budget_tokens: left in the retry budget; with one that has no tokens, retries that may be begun now.
        budget_open: whether retries may be made.
        clusters: the whole service, and its subsets.
    """

    name: str
    mode: str
    discovery: str
    source: str
    age_s: float | None
    detail: str
    budget_tokens: float
    budget_open: bool
    clusters: tuple[ClusterStatus, ...]


@dataclass(frozen=True, slots=True)
class AdmissionStatus:
    """Who is let in.

    Attributes:
        in_flight, limit: requests that have a place, and how many may.
        pending: requests that wait.
        waited, mean_wait_s: requests that had to wait and got a place, and for how long on average.
        shed: requests that got none, by reason.
        shedding: whether there were such in the last seconds.
    """

    in_flight: int
    limit: int
    pending: int
    waited: int
    mean_wait_s: float
    shed: Mapping[str, int]
    shedding: bool

    def __str__(self) -> str:
        parts = [f"{self.in_flight} of {self.limit} places taken", f"{self.pending} waiting"]
        if self.waited:
            parts.append(f"{self.waited} waited {format_duration(self.mean_wait_s)} on average")
        if self.shed:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.shed.items())
            parts.append(f"{sum(self.shed.values())} refused ({reasons})")
        return ", ".join(parts) + (", shedding now" if self.shedding else "")


@dataclass(frozen=True, slots=True)
class ServingStatus:
    """What this process serves.

    Attributes:
        in_flight: requests that are being served.
        outcomes: how many ended how, and why: ``("refused", "expired")``; see `meshlib.server.serving.Serving`.
        mean_s: how long one took, on average since the process began.
        draining: whether the process is about to leave.
        admission: who is let in; None where any number is served.
    """

    in_flight: int
    outcomes: Mapping[tuple[str, str], int]
    mean_s: float
    draining: bool
    admission: AdmissionStatus | None = None

    def __str__(self) -> str:
        parts = [f"{self.in_flight} in flight"]
        for outcome in ("ok", "error", "refused", "cancelled"):
            reasons = {reason: count for (of, reason), count in sorted(self.outcomes.items()) if of == outcome}
            if reasons:
                told = ", ".join(f"{reason} {count}" for reason, count in reasons.items() if reason)
                parts.append(f"{sum(reasons.values())} {outcome}{f' ({told})' if told else ''}")
        if self.mean_s:
            parts.append(f"{format_duration(self.mean_s)} on average")
        return ", ".join(parts) + (", draining" if self.draining else "")


@dataclass(frozen=True, slots=True)
class MeshStatus:
    """The mesh.

    Attributes:
        service: this workload's own name.
        mode: ``off``, ``observe`` or ``on``.
        services: those in use.
        pools: of connections.
        sidecar: whose proxy stands beside this process (``Istio``, ``Linkerd``); empty where none was found.
        serving: what this process serves; None if it has no middleware of this mesh.
        registrations: entries of this process in registries.
    """

    service: str
    mode: str
    services: tuple[ServiceStatus, ...]
    pools: tuple[PoolStats, ...]
    sidecar: str = ""
    serving: ServingStatus | None = None
    registrations: tuple[RegistrationStatus, ...] = ()

    def __str__(self) -> str:
        lines = [f"mesh {self.service or '(unnamed)'}, mode {self.mode}"]
        if self.sidecar:
            lines.append(f"  beside a sidecar of {self.sidecar}")
        lines += [f"  registration: {registration}" for registration in self.registrations]
        if self.serving is not None:
            lines.append(f"  serving: {self.serving}")
            if self.serving.admission is not None:
                lines.append(f"    admission: {self.serving.admission}")
        for service in self.services:
            age = f", age {format_duration(service.age_s)}" if service.age_s else ""
            source = f" by {service.source}" if service.source else ""
            detail = f" ({service.detail})" if service.detail else ""
            budget = "" if service.budget_open else ", retry budget used up"
            lines.append(f"  {service.name}: known {service.discovery}{source}{age}{detail}{budget}")
            for cluster in service.clusters:
                panic = ", panic" if cluster.panic else ""
                lines.append(f"    {cluster.name}: breaker {cluster.breaker}, {cluster.in_flight} in flight{panic}")
                if cluster.stands_in:
                    lines.append(f"      balanced by {cluster.stands_in}")
                lines += [
                    f"      {endpoint.address} {endpoint.state}, {endpoint.in_flight} in flight, "
                    f"cost {format_duration(endpoint.cost_s)}"
                    for endpoint in cluster.endpoints
                ]
                lines += [f"      shadow {shadow}" for shadow in cluster.shadow]
        lines += [
            f"  pool {pool.address}: {pool.busy} busy, {pool.idle} idle, {pool.pending} pending" for pool in self.pools
        ]
        return "\n".join(lines)


class MeshView:
    """What telemetry and the status read of a mesh; see `meshlib.telemetry.gauges.Observed`.

    Attributes:
        directory: what discovery knows.
        served: what each middleware counts.
        requests: what this process serves; None as long as nobody has asked for it.
        sidecar: whose proxy stands beside this process; empty where none was found.
        copied, replaced: read what became of copies for mirrors, and of calls with an override.
    """

    def __init__(self, snapshots: Snapshots, directory: Directory, engines: Sequence[SyncEngine | AsyncEngine]) -> None:
        self.directory = directory
        self.served: list[Ignored] = []
        self.requests: Serving | None = None
        self.sidecar = ""
        self.copied: Callable[[], Mapping[tuple[str, str], int]] = dict
        self.replaced: Callable[[], Mapping[tuple[str, str], int]] = dict
        self._snapshots = snapshots
        self._engines = engines

    def now(self) -> float:
        """The time on the mesh's clock."""
        return self._snapshots.now()

    def locality(self) -> Locality | None:
        """Where this process runs; None if nobody said."""
        here = self._snapshots.current.settings.locality
        return here if here.region or here.zone else None

    def clusters(self) -> list[Cluster]:
        """Every cluster of every service in use."""
        services = self._snapshots.current.services
        return [cluster for view in services.values() for cluster in view.clusters.values()]

    def budgets(self) -> dict[str, tuple[float, int]]:
        """What is left of the retry budget of every service in use, and how many retries it refused."""
        now, found = self._snapshots.now(), {}
        for name, view in self._snapshots.current.services.items():
            state = view.state
            both = {id(budget): budget for budget in (state.budget, state.high_budget)}.values()
            found[name] = (state.budget.left(now), sum(budget.refused for budget in both))
        return found

    def faults(self) -> dict[str, ActiveFaults]:
        """What was injected, for every service in use that has faults to inject."""
        services = self._snapshots.current.services
        return {name: view.state.faults for name, view in services.items() if view.state.faults is not None}

    def mirrors(self) -> Mapping[tuple[str, str], int]:
        """Copies for mirrors, by cluster and by what became of them."""
        return self.copied()

    def overrides(self) -> Mapping[tuple[str, str], int]:
        """Calls that an override asked to replace, by service and outcome."""
        return self.replaced()

    def hedgings(self) -> dict[tuple[str, str], tuple[Hedging, float | None]]:
        """What the hedged calls of each route share, by service and route, and how long they wait for an answer."""
        now, found = self._snapshots.now(), {}
        for name, view in self._snapshots.current.services.items():
            for (route, _), hedging in list(view.state.hedgings.items()):
                found[name, route] = hedging, hedging.delay_s(now)
        return found

    def pools(self) -> list[PoolStats]:
        """The connection pools of this process."""
        return [stats for engine in self._engines for stats in engine.stats()]

    def ages(self) -> Mapping[str, float]:
        """For how long nobody has vouched for the endpoints of each service, in seconds; 0 is current."""
        return self.directory.ages()

    def ignored(self) -> Ignored | None:
        """The incoming header values that this mesh's middleware left out; None if it serves nothing."""
        if not self.served:
            return None
        total = Ignored()
        for counts in self.served:
            for kind in IGNORED_KINDS:
                total.add(kind, getattr(counts, kind))
        return total

    def serving(self) -> Serving | None:
        """What this process serves; None if it serves nothing through this mesh."""
        return self.requests


def make_status(
    settings: MeshSettings, plane: DataPlane, view: MeshView, registrations: Sequence[Registration] = ()
) -> MeshStatus:
    """Look at everything once."""
    plane.settle()
    now, discovery = plane.clock.now(), view.directory.status()
    services = []
    for name, service in sorted(plane.snapshots.current.services.items()):
        found = discovery.get(name)
        services.append(
            ServiceStatus(
                name=name,
                mode=plane.mode_of(name),
                discovery=service.known.value,
                source=found.source if found is not None else "",
                age_s=found.age_s if found is not None else None,
                detail=service.detail,
                budget_tokens=service.state.budget.left(now),
                budget_open=service.state.budget.may_retry(now),
                clusters=tuple(_cluster(cluster, now) for cluster in service.clusters.values()),
            )
        )
    serving = None if view.requests is None else _serving(view.requests)
    entries = tuple(each.status for each in tuple(registrations) if each.active)
    pools = tuple(view.pools())
    return MeshStatus(settings.service, plane.mode, tuple(services), pools, view.sidecar, serving, entries)


def _serving(serving: Serving) -> ServingStatus:
    outcomes, admits = serving.outcomes, serving.admission
    ended = sum(count for (outcome, _), count in outcomes.items() if outcome != "refused")
    mean_s = serving.busy_s / ended if ended else 0.0
    admission = None if admits is None else _admission(admits.queue)
    return ServingStatus(serving.in_flight, outcomes, mean_s, serving.draining, admission)


def _admission(queue: ServingQueue) -> AdmissionStatus:
    return AdmissionStatus(
        in_flight=queue.in_flight,
        limit=queue.limit,
        pending=queue.pending,
        waited=queue.waited,
        mean_wait_s=queue.waited_s / queue.waited if queue.waited else 0.0,
        shed=queue.shed_by_reason(),
        shedding=queue.shedding_since is not None,
    )


def _cluster(cluster: Cluster, now: float) -> ClusterStatus:
    state = cluster.state
    endpoints = tuple(
        EndpointStatus(member.endpoint.address, member.state, member.node.in_flight, member.load.cost(now))
        for member in (*cluster.members, *cluster.draining)
    )
    return ClusterStatus(
        name=cluster.name,
        breaker="off" if state.breaker is None else state.breaker.state.value,
        in_flight=state.limit.in_flight,
        pending=state.limit.pending,
        panic=bool(cluster.members) and cluster.panicking(),
        endpoints=endpoints,
        shadow=() if state.shadow is None else _shadows(state.shadow),
        stands_in=_stands_in(cluster, now),
    )


def _stands_in(cluster: Cluster, now: float) -> str:
    if cluster.state.load_balancing.policy != "prequal":
        return ""
    from meshlib.balance.prequal import stands_in

    return stands_in(cluster.healthy, cluster.state.load_balancing, now) or ""


def _shadows(shadows: Shadows) -> tuple[ShadowStatus, ...]:
    return tuple(
        ShadowStatus(each.policy, each.same, each.differed, dict(each.counts), shadows.state_of(each))
        for each in shadows.comparisons
    )
