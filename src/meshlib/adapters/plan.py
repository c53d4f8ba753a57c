"""A dry run: what would happen to a request, and why. No I/O, and nothing is changed by looking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from meshlib.adapters.doings import doings
from meshlib.adapters.options import overrides_of
from meshlib.adapters.plane import DEFAULT_PORTS, DataPlane, RequestFacts, by_metadata
from meshlib.adapters.reasons import Candidate, candidates, routes_not_taken, share_of, undeclared_note
from meshlib.balance.cluster import Cluster
from meshlib.config.settings import Mode
from meshlib.config.words import match_words, plain
from meshlib.context import current_scope
from meshlib.dataclass import dataclass
from meshlib.durations import format_duration
from meshlib.policy.breaker import BreakerState
from meshlib.policy.retry import IDEMPOTENT_METHODS
from meshlib.policy.settings import CallPolicy, HedgeSettings

__all__ = ["Candidate", "Plan", "make_plan"]

_MOST_ROUTES: Final = 20
"""Of the routes not taken so many are told: those that come last before the one that is."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would happen to a request.

    Attributes:
        method, url: as asked.
        service: that it is for; None for a host outside the mesh.
        mode: what the mesh does with such calls.
        route: the name of the route that matches; empty outside the mesh.
        conditions: of that route, in words.
        routes_not_taken: each with the reason.
        backends: the clusters of the route and their shares, in percent; none where the route answers by itself.
        does: what the route does to the request on its way, a line each; of headers, names alone.
        candidates: the endpoints of these clusters.
        policy: how the call would be made.
        timeout_s: for the call; None for none.
        limit: what sets it: ``timeout`` or ``deadline``.
        safe: whether it would be repeated although it may have been processed.
        notes: what else there is to know: an open circuit, discovery that has not answered, panic.
    """

    method: str
    url: str
    service: str | None
    mode: Mode
    route: str = ""
    conditions: str = ""
    routes_not_taken: tuple[tuple[str, str], ...] = ()
    backends: tuple[tuple[str, float], ...] = ()
    does: tuple[str, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    policy: CallPolicy | None = None
    timeout_s: float | None = None
    limit: str = ""
    safe: bool = False
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.service is None:
            return "\n".join([f"{self.method} {self.url}: outside the mesh", *(f"  {note}" for note in self.notes)])
        lines = [f"{self.method} {self.url}: service {self.service}, mode {self.mode}"]
        others = self.routes_not_taken
        if len(others) > _MOST_ROUTES:
            lines.append(f"  {len(others) - _MOST_ROUTES} routes: not taken either")
        lines += [f"  route {name}: not taken: {reason}" for name, reason in others[-_MOST_ROUTES:]]
        lines.append(f"  route {self.route}: {self.shares}")
        lines += [f"  {each}" for each in self.does]
        for candidate in self.candidates:
            state = f"no: {candidate.why_not}" if candidate.why_not else f"cost {format_duration(candidate.cost_s)}"
            lines.append(f"  endpoint {candidate.address} ({candidate.cluster}, weight {candidate.weight:g}): {state}")
        if self.policy is not None and self.backends:
            limit = "none" if self.timeout_s is None else f"{format_duration(self.timeout_s)} ({self.limit})"
            repeated = self.safe or self.policy.retry.unsafe
            retries = self.policy.retry.max_retries if repeated else 0
            unsafe = "" if repeated else " (more only if nothing was sent: the request is not idempotent)"
            hedged = _hedged(self.policy.hedge) if self.safe else ""
            lines.append(f"  timeout {limit}, retries {retries}{unsafe}{hedged}")
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)

    @property
    def shares(self) -> str:
        """Where calls go, and which part of them, in words."""
        if not self.backends:
            return "answers by itself"
        return f"to {', '.join(f'{cluster} {share:.3g} %' for cluster, share in self.backends)}"

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON has it, with no secret in it."""
        told: dict[str, Any] = plain(self)
        told["routes_not_taken"] = [{"route": name, "why": why} for name, why in self.routes_not_taken]
        told["backends"] = [{"cluster": cluster, "percent": share} for cluster, share in self.backends]
        return told


def _hedged(hedge: HedgeSettings | None) -> str:
    if hedge is None:
        return ""
    after = format_duration(hedge.rule) if isinstance(hedge.rule, float) else hedge.rule
    both = (after, "the per-try timeout" if hedge.on_per_try_timeout else None)
    return f", hedged after {' and '.join(each for each in both if each is not None)}"


def make_plan(plane: DataPlane, method: str, url: str, headers: Mapping[str, str] | None = None) -> Plan:
    """Work out what would happen to a request.

    Args:
        plane: of the mesh.
        method: of the request.
        url: absolute.
        headers: of the request.

    Raises:
        ValueError: if `url` is not absolute.
        TypeError: if what is given is no method, no URL or no headers.
    """
    if not isinstance(method, str):
        raise TypeError(f"a method is expected, such as 'GET', not {type(method).__name__}")
    if not isinstance(url, str):
        raise TypeError(f"a URL is expected, such as 'http://orders/path', not {type(url).__name__}")
    if headers is not None and not isinstance(headers, Mapping):
        raise TypeError(f"headers are expected as a mapping, such as {{'accept': '*/*'}}, not {type(headers).__name__}")
    method = method.upper()
    parts = urlsplit(url)
    if not parts.scheme or not parts.hostname:
        raise ValueError(f"{url!r} is not an absolute URL such as 'http://orders/path'")
    service = plane.locate(parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme))
    if service is None:
        refused = plane.mode == "on" and plane.settings.egress == "refuse"
        note = "it would be refused (egress: refuse)" if refused else "it would go through the plain client"
        return Plan(method, url, None, plane.mode, notes=(note,))
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    facts = RequestFacts(method, parts.scheme, parts.hostname, parts.port, parts.path or "/", parts.query, lower)
    view = plane.snapshots.look(service)
    chosen = plane.route(view, facts, draws=False)
    policy, taken, scope, overridden = overrides_of(plane, chosen), chosen, current_scope(), None
    if scope.override is not None:
        overridden, chosen = plane.replacements.look(view, chosen, scope.override)
    backends = chosen.backends if chosen.reply is None else ()
    total = sum(backend.weight for backend in backends) or 1.0
    clusters = by_metadata(
        lambda: [
            plane.snapshots.look(backend.service, view.state.under).clusters[backend.subset] for backend in backends
        ],
        policy,
    )()
    now = plane.clock.now()
    notes = [note for cluster in clusters for note in _notes(cluster, now)]
    if not any(cluster.members for cluster in clusters) and (slip := undeclared_note(service, plane.settings)):
        notes.append(slip)
    share = share_of(taken, facts.view())
    if share < 100.0:
        notes.append(f"route {taken.name} takes {share:g} % of such requests, by chance; the others try the next one")
    if not view.state.budget.may_retry(now):
        notes.append("the retry budget is used up: nothing would be retried")
    if policy.fault is not None:
        notes.append(f"faults are injected: {policy.fault}")
    if overridden is not None:
        notes.append(f"by an override, {service} is {overridden}")
    deadline = scope.deadline
    timeout_s, limit = policy.timeout_s, "timeout"
    if deadline is not None and (timeout_s is None or deadline - now < timeout_s):
        timeout_s, limit = max(0.0, deadline - now), "deadline"
    return Plan(
        method=method,
        url=url,
        service=service,
        mode=plane.mode_of(service),
        route=chosen.name,
        conditions=" or ".join(map(match_words, chosen.matches)) or "everything",
        routes_not_taken=routes_not_taken(view.settings.routes, taken, facts.view()),
        backends=tuple((backend.cluster, backend.weight * 100.0 / total) for backend in backends),
        does=doings(chosen, facts.view()),
        candidates=tuple(candidate for cluster in clusters for candidate in candidates(cluster, now)),
        policy=policy,
        timeout_s=timeout_s,
        limit=limit,
        safe=method in IDEMPOTENT_METHODS or "idempotency-key" in lower,
        notes=tuple(notes),
    )


def _notes(cluster: Cluster, now: float) -> list[str]:
    notes = []
    breaker = cluster.state.breaker
    if breaker is not None and breaker.state is not BreakerState.CLOSED:
        left = breaker.open_for(now)
        probe = f"a probe in {format_duration(left)}" if left > 0 else "the next call is a probe"
        notes.append(f"cluster {cluster.name}: its circuit is open, {probe}")
    said = [gate.note(now) for gate in cluster.state.gates or (cluster.state.limit,)]
    notes += [f"cluster {cluster.name}: {note}" for note in said if note is not None]
    if not cluster.members:
        detail = f" ({cluster.detail})" if cluster.detail else ""
        notes.append(f"cluster {cluster.name}: no endpoints; discovery: {cluster.known.value}{detail}")
    elif cluster.panicking():
        notes.append(f"cluster {cluster.name}: too few healthy endpoints, so all are used (panic)")
    return notes
