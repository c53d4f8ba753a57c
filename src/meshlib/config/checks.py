"""Contradictions: fields that are right each by itself and wrong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import starmap

from meshlib.config import model as written
from meshlib.config.checks_admission import admission_faults, fleet_faults
from meshlib.config.checks_balancers import balancer_faults
from meshlib.config.checks_failover import failover_faults
from meshlib.config.checks_hashing import hash_faults, unhashed
from meshlib.config.checks_health import check_faults, outlier_faults, uncheckable
from meshlib.config.checks_hedge import hedge_faults, unhedgeable
from meshlib.config.checks_keys import unmatched, unnamed
from meshlib.config.checks_places import place_faults
from meshlib.config.checks_retry import budget_faults, fault_faults, retry_faults
from meshlib.config.checks_routes import delegations, endless, placed_routes, route_faults, subset_faults
from meshlib.config.checks_server import server_faults
from meshlib.config.checks_shadow import as_policy, shadow_faults
from meshlib.config.compile import Levels, consul_settings, levels_of
from meshlib.config.compile_routes import route_policy
from meshlib.config.fields import Part, split_endpoint
from meshlib.config.own_hosts import EACH_HOST
from meshlib.config.problems import Path
from meshlib.dataclass import dataclass
from meshlib.durations import format_duration
from meshlib.policy.settings import BreakerSettings, CallPolicy

__all__ = ["Contradiction", "contradictions"]


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One of them.

    Attributes:
        path: of the field to change.
        text: what is wrong.
        needs: the names of the fields that it rests on: if one of them is itself in error, this may not be true.
        other: another field concerned, to be named with its file.
        services: others than the field's own that it rests on.
    """

    path: Path
    text: str
    needs: frozenset[str]
    other: Path | None = None
    services: tuple[str, ...] = ()


def contradictions(config: written.MeshConfig) -> Iterator[Contradiction]:
    """All contradictions in `config`; where its routes never end, only that."""
    without_end = [Contradiction(*each) for each in endless(config)]
    if without_end:
        yield from without_end
        return
    defaults = levels_of("", config.defaults)
    yield from _policy(("defaults",), config.defaults, defaults)
    for policy_path, policy in _policies(config):
        yield from starmap(Contradiction, fleet_faults(policy_path, policy, config))
    for name, service in config.services.items():
        path: Path = ("services", name)
        levels = levels_of(name, config.defaults, service)
        yield from _policy(path, service, levels)
        yield from _endpoints((*path, "endpoints"), service)
        yield from _routes((*path, "routes"), name, service.routes, levels.call, config)
        yield from _fallbacks(path, service)
    for name, routes in config.route_sets.items():
        yield from starmap(Contradiction, route_faults(("route_sets", name), routes))
    yield from starmap(Contradiction, delegations(config))
    yield from _hosts(config)
    yield from starmap(Contradiction, failover_faults(config))
    yield from starmap(Contradiction, unhedgeable(config))
    yield from starmap(Contradiction, unhashed(config))
    yield from starmap(Contradiction, unnamed(config))
    yield from starmap(Contradiction, unmatched(config))
    yield from starmap(Contradiction, uncheckable(config))
    yield from starmap(Contradiction, server_faults(config))
    for index, source in enumerate(config.discovery):
        if isinstance(source, written.Consul):
            settings = consul_settings(source)
            times = ("retry_base", settings.retry_base_s, "retry_max", settings.retry_max_s)
            yield from _ordered(("discovery", index, "consul"), source, *times)
    if config.registration and not (config.registration.service or config.service):
        text = "no name to register under: 'service' is needed here, or at the top"
        yield Contradiction(("register",), text, frozenset({"service"}))


def _policies(config: written.MeshConfig) -> Iterator[tuple[Path, written.Policy]]:
    yield ("defaults",), config.defaults
    for name, service in config.services.items():
        yield ("services", name), service


def _policy(path: Path, policy: written.Policy, levels: Levels) -> Iterator[Contradiction]:
    yield from _times(path, policy, levels.call)
    for balancing_faults in (balancer_faults, hash_faults, place_faults):
        yield from starmap(
            Contradiction,
            balancing_faults((*path, "load_balancing"), policy.load_balancing, levels.cluster.load_balancing),
        )
    yield from starmap(Contradiction, budget_faults((*path, "retry_budget"), policy.retry_budget, levels.budget))
    timeout, connect = levels.call.timeout_s, levels.cluster.pool.connect_timeout_s
    if "connect_timeout" in policy.model_fields_set and timeout is not None and connect > timeout:
        yield _above(path, policy, "connect_timeout", connect, "timeout", timeout)
    pool, breaker, outlier = levels.cluster.pool, levels.cluster.breaker, levels.cluster.outlier
    if "idle_unsafe" in policy.pool.model_fields_set and pool.idle_unsafe_s > pool.idle_s:
        yield _above((*path, "pool"), policy.pool, "idle_unsafe", pool.idle_unsafe_s, "idle", pool.idle_s)
    part: Part | bool = policy.circuit_breaker
    if isinstance(breaker, BreakerSettings) and isinstance(part, Part):
        times = ("open_for", breaker.open_for_s, "max_open_for", breaker.max_open_for_s)
        yield from _ordered((*path, "circuit_breaker"), part, *times)
    yield from starmap(Contradiction, admission_faults(path, policy, levels.cluster))
    part = policy.outlier_detection
    if outlier and isinstance(part, written.OutlierDetection):
        times = ("base_ejection", outlier.base_ejection_s, "max_ejection", outlier.max_ejection_s)
        yield from _ordered((*path, "outlier_detection"), part, *times)
        yield from starmap(Contradiction, outlier_faults((*path, "outlier_detection"), part, outlier))
    if isinstance(policy.health_check, written.HealthCheck) and levels.cluster.health_check:
        yield from starmap(
            Contradiction, check_faults((*path, "health_check"), policy.health_check, levels.cluster.health_check)
        )
    if isinstance(policy.shadow, written.Shadow):
        yield from starmap(Contradiction, shadow_faults((*path, "shadow"), policy.shadow))
        yield from _policy((*path, "shadow"), *as_policy(policy.shadow, levels))


def _times(path: Path, part: written.Policy | written.Route, call: CallPolicy) -> Iterator[Contradiction]:
    # Only a value written here can be wrong here: a service that narrows its timeout below the per-try timeout that it
    # inherits means just that, and the call is cut at the timeout.
    per_try, timeout = call.per_try_timeout_s, call.timeout_s
    if "per_try_timeout" in part.model_fields_set and per_try is not None and timeout is not None and per_try > timeout:
        yield _above(path, part, "per_try_timeout", per_try, "timeout", timeout)
    backoff = part.retry.backoff
    times = ("base", call.retry.backoff_base_s, "max", call.retry.backoff_max_s)
    yield from _ordered((*path, "retry", "backoff"), backoff, *times)
    yield from starmap(Contradiction, retry_faults((*path, "retry"), part.retry, call.retry))
    if isinstance(part.hedge, written.Hedge):
        yield from starmap(Contradiction, hedge_faults((*path, "hedge"), part.hedge, call))
    if isinstance(part.fault, written.Fault):
        yield from starmap(Contradiction, fault_faults((*path, "fault"), part.fault, call.fault))


def _ordered(path: Path, part: Part, low: str, below: float, high: str, above: float) -> Iterator[Contradiction]:
    if below > above and part.model_fields_set & {low, high}:
        yield _above(path, part, low, below, high, above)


def _above(path: Path, part: Part, low: str, below: float, high: str, above: float) -> Contradiction:
    given = part.model_fields_set
    origin = "" if {low, high} <= given else ", which is inherited or the default; write both"
    small, large = format_duration(above), format_duration(below)
    if low in given:
        return Contradiction((*path, low), f"{large} is above {high} ({small}{origin})", frozenset({low, high}))
    return Contradiction((*path, high), f"{small} is below {low} ({large}{origin})", frozenset({low, high}))


def _endpoints(path: Path, service: written.Service) -> Iterator[Contradiction]:
    seen: dict[tuple[str, int], int] = {}
    for index, one in enumerate(service.endpoints):
        address = _address(one)
        host, port = split_endpoint(address)
        if host == EACH_HOST and any(split_endpoint(_address(each))[0] != EACH_HOST for each in service.endpoints):
            text = f"{address} is each host by itself, and the other endpoints are of all hosts together"
            yield Contradiction((*path, index), text, frozenset({"endpoints"}))
        first = seen.setdefault((host.lower() if port else host, port), index)
        if first != index:
            text = f"{address} is there already, as endpoints[{first}]; a weight says that it is to get more"
            yield Contradiction((*path, index), text, frozenset({"endpoints"}))


def _routes(
    path: Path, name: str, routes: Sequence[written.Route], base: CallPolicy, config: written.MeshConfig
) -> Iterator[Contradiction]:
    yield from starmap(Contradiction, route_faults(path, routes))
    for here, route, policy in placed_routes(path, routes, base, config):
        yield from _times(here, route, route_policy(policy, route))
        yield from starmap(Contradiction, subset_faults(here, route, name, config))


def _address(one: written.Endpoint | str) -> str:
    return one if isinstance(one, str) else one.address


def _fallbacks(path: Path, service: written.Service) -> Iterator[Contradiction]:
    for subset in service.subset_fallback.keys() - service.subsets.keys():
        text = f"is of {subset!r}, and 'subsets' has no subset of this name"
        yield Contradiction((*path, "subset_fallback", subset), text, frozenset({"subsets", "subset_fallback"}))


def _hosts(config: written.MeshConfig) -> Iterator[Contradiction]:
    needs = frozenset({"hosts"})
    claimed: dict[str, Path] = {name: ("services", name) for name in config.services}
    for name, service in config.services.items():
        for index, host in enumerate(service.hosts):
            here: Path = ("services", name, "hosts", index)
            other = claimed.setdefault(host, here)
            if other is here or other == ("services", name):
                continue
            if other[1] == name:
                yield Contradiction(here, f"{host!r} is there already", needs)
            elif len(other) == 2:
                yield Contradiction(here, f"{host!r} is the name of another service", needs, other)
            else:
                yield Contradiction(here, f"{host!r} is claimed by the service {other[1]!r} as well", needs, other)
