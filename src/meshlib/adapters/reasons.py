"""Why not: the routes and the endpoints that a call does not take, each with its reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from meshlib.balance.balancer import OUTSIDE, Member
from meshlib.balance.cluster import Cluster
from meshlib.config.settings import MeshSettings
from meshlib.dataclass import dataclass
from meshlib.durations import format_duration
from meshlib.policy.traits import Traits
from meshlib.routing.match import RequestView, RouteMatch
from meshlib.routing.route import Route

__all__ = ["Candidate", "candidates", "explain", "explain_traits", "routes_not_taken", "share_of", "undeclared_note"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint, and why it would not be picked; None if it may be.

    Attributes:
        address: of the endpoint.
        cluster: the cluster in which it is looked at.
        weight: its share.
        cost_s: what a call to it is expected to cost, in seconds.
        in_flight: attempts at it from this process.
        why_not: in words.
    """

    address: str
    cluster: str
    weight: float
    cost_s: float
    in_flight: int
    why_not: str | None


def explain(
    routes: Sequence[Route], chosen: Route, request: RequestView, clusters: Iterable[Cluster], now: float
) -> list[str]:
    """The reasons in full, a line each."""
    lines = [f"route {name}: not taken: {reason}" for name, reason in routes_not_taken(routes, chosen, request)]
    lines.append(f"route {chosen.name}: taken")
    for cluster in clusters:
        for candidate in candidates(cluster, now):
            state = candidate.why_not or f"may be picked, cost {format_duration(candidate.cost_s)}"
            lines.append(f"endpoint {candidate.address} ({cluster.name}): {state}")
    return lines


def explain_traits(traits: Traits) -> list[str]:
    """What was read of the request that says where it goes."""
    lines = []
    if traits.hash is not None:
        lines.append(f"hash {traits.hash:016x}, of {'its key' if traits.hash_key is not None else 'the request'}")
    if traits.bound_to is not None:
        lines.append(f"its session is bound to {traits.bound_to}")
    return lines


def routes_not_taken(routes: Sequence[Route], chosen: Route, request: RequestView) -> tuple[tuple[str, str], ...]:
    """The routes that were looked at before the chosen one, each with the reason why it does not match."""
    not_taken = []
    for route in routes:
        if route is chosen:
            break
        not_taken.append((route.name, route.why_not(request) or "no reason"))
    return tuple(not_taken)


def candidates(cluster: Cluster, now: float) -> tuple[Candidate, ...]:
    """Every endpoint of a cluster, and whether it may be picked."""
    return tuple(_candidate(cluster, member, now) for member in (*cluster.members, *cluster.draining))


def _candidate(cluster: Cluster, member: Member, now: float) -> Candidate:
    return Candidate(
        address=member.endpoint.address,
        cluster=cluster.name,
        weight=member.weight,
        cost_s=member.load.cost(now),
        in_flight=member.node.in_flight,
        why_not=_why_not(cluster, member, now),
    )


def _why_not(cluster: Cluster, member: Member, now: float) -> str | None:
    if member in cluster.draining:
        return "draining: it finishes what it has"
    priorities = cluster.priorities
    panic = cluster.panicking() if priorities is None else priorities.in_panic(member, cluster.ejected)
    if panic:
        if cluster.state.load_balancing.fail_on_panic:
            return "too few are healthy, and calls fail then"
    elif member.health.active_failed:
        return "failed its active check"
    elif member.health.ejected:
        return _out(cluster, member, now)
    elif member.state not in ("healthy", "degraded"):
        return f"{member.state} in the registry"
    if priorities is not None:
        return priorities.why_not(member, cluster.ejected)
    return "outside this client's subset, for want of which it is used" if cluster.how(member) == OUTSIDE else None


def _out(cluster: Cluster, member: Member, now: float) -> str:
    left_s, outlier = member.health.ejected_until - now, cluster.state.outlier
    why = f" ({member.health.ejected_for})" if member.health.ejected_for else ""
    if left_s > 0:
        return f"ejected for another {format_duration(left_s)}{why}"
    by_sweep = outlier is not None and outlier.settings.return_by == "sweep"
    return f"ejected; {'the next sweep takes it back' if by_sweep else 'the next call probes it'}{why}"


def share_of(route: Route, request: RequestView) -> float:
    """The share of requests such as this one that a route takes by chance, in percent; 100 where none is left to it."""
    return max((_percent(match) for match in route.matches if match.matches(request)), default=100.0)


def _percent(match: RouteMatch) -> float:
    # One number is drawn for a request, so that of several shares the least holds.
    return match.percent if match.also is None else min(match.percent, _percent(match.also))


def undeclared_note(service: str, settings: MeshSettings) -> str | None:
    """What to say of a service that may be a slip for one that is declared; None if there is nothing to say."""
    if service in settings.services or any(each.each_host for each in settings.services.values()):
        return None
    from meshlib.config.undeclared import meant

    names = [name for each in settings.services.values() for name in (each.name, *each.hosts)]
    nearest = meant(service, names)
    return None if nearest is None else f"{service!r} is not declared; did you mean {nearest!r}?"
