"""Reads Consul's configuration entries: which service has a chain, and how this workload calls others."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from meshlib.config.dialects.consul.chain import MAX_TARGETS, Chain, ChainError, Entries, Target, compile_chain
from meshlib.config.dialects.consul.entries import ENTRIES, KINDS, OTHER_KINDS
from meshlib.config.dialects.consul.native import service_of, usual, write_chain, write_ends
from meshlib.config.dialects.consul.schema import Fields, Reading, read_table
from meshlib.config.dialects.draft import Draft, Effect
from meshlib.config.dialects.durations import written
from meshlib.config.dialects.resources import CONSUL, Resource
from meshlib.config.dialects.security import keep
from meshlib.config.problems import Path

__all__ = ["read"]

_INTENTIONS = "service-intentions"


def read(draft: Draft, resources: Sequence[Resource]) -> None:
    """Write what the entries say into the draft."""
    found: dict[str, dict[str, Fields]] = {kind: {} for kind in ENTRIES}
    for resource in resources:
        kind = resource.kind if resource.group == CONSUL else KINDS.get(resource.kind, resource.kind)
        if kind == _INTENTIONS:
            keep(draft, resource)
        elif kind in ENTRIES:
            _keep(draft, resource, kind, found[kind])
        else:
            why = OTHER_KINDS.get(kind, "is of a kind that is not known here")
            effect: Effect = "passed" if kind in OTHER_KINDS else "ignored"
            draft.note(resource.place(), f"is not honoured: it {why}", effect)
    _check(draft, found)
    _write(draft, found)


def _keep(draft: Draft, resource: Resource, kind: str, found: dict[str, Fields]) -> None:
    reading = Reading(draft, resource)
    custom = resource.group != CONSUL
    path: Path = ("spec",) if custom else ()
    fields = read_table(ENTRIES[kind], resource.data.get("spec") if custom else resource.data, path, reading)
    name = "global" if kind == "proxy-defaults" else resource.name
    if not name:
        draft.note(resource.place(), "has no name", "wrong")
    elif name in found:
        draft.note(resource.place(), f"is there twice: {found[name].place()} has the same kind and name", "wrong")
    else:
        found[name] = fields


def _check(draft: Draft, found: Mapping[str, Mapping[str, Fields]]) -> None:
    for splitter in found["service-splitter"].values():
        splits = splitter.get("Splits") or ()
        total = sum(round(split.get("Weight", 0) * 100) for split in splits)
        if total != 10_000:
            draft.note(splitter.place("Splits"), f"the weights add up to {total / 100:g}, not to 100", "wrong")
    for resolver in found["service-resolver"].values():
        if resolver.get("Redirect") and resolver.get("Failover"):
            draft.note(resolver.place("Failover"), "cannot stand beside a Redirect", "wrong")
        known = {"", "*", *resolver.get("Subsets", {})}
        for subset in resolver.get("Failover", {}):
            if subset not in known:
                draft.note(resolver.place("Failover"), f"is for {subset!r}, which is no subset", "wrong")


def _write(draft: Draft, found: Mapping[str, Mapping[str, Fields]]) -> None:
    routers, splitters, resolvers = (found[f"service-{kind}"] for kind in ("router", "splitter", "resolver"))
    general = found["proxy-defaults"].get("global") or Fields()
    entries = Entries(
        dict(routers),
        dict(splitters),
        dict(resolvers),
        {name: fields.get("Protocol", "").lower() for name, fields in found["service-defaults"].items()},
        _general_protocol(draft, general),
    )
    chains: dict[str, Chain] = {}
    left = MAX_TARGETS
    for name in dict.fromkeys((*routers, *splitters, *resolvers)):
        first = next(kind[name] for kind in (routers, splitters, resolvers) if name in kind)
        try:
            chains[name] = compile_chain(name, entries, left)
        except ChainError as error:
            where = error.where if error.where is not None and error.where.resource is not None else first
            draft.note(where.place(), error.text, "wrong")
            if error.bound:
                return
            continue
        left -= chains[name].targets
        write_chain(draft, chains[name], first.place())
        if chains[name].protocol == "tcp" and (name in routers or name in splitters):
            text = f"the protocol of {name!r} is tcp, for which Consul takes neither routers nor splitters"
            draft.note(first.place(), text, "different")
    for resolver in resolvers.values():
        _subsets(draft, resolver, entries)
    for name, fields in found["service-defaults"].items():
        _write_service(draft, name, fields, entries)
    own = found["service-defaults"].get(draft.context.service)
    if own is not None and own.get("UpstreamConfig"):
        _upstreams(draft, own["UpstreamConfig"], chains)


def _general_protocol(draft: Draft, general: Fields) -> str:
    """The protocol that ``proxy-defaults`` give to all services; all else there is for proxies."""
    config, protocol = general.get("Config"), ""
    for key, value in config.items() if isinstance(config, Mapping) else ():
        if key == "protocol":
            protocol = str(value).lower()
        elif general.resource is not None:
            place = general.resource.place(*general.path, general.spelled["Config"], str(key))
            draft.note(place, "is not honoured: is for a proxy, and there is none", "ignored")
    return protocol


def _subsets(draft: Draft, resolver: Fields, entries: Entries) -> None:
    """Subsets that no chain leads to, which routes in the native form may."""
    assert resolver.resource is not None
    name = resolver.resource.name
    if resolver.get("Redirect"):
        return
    for subset in resolver.get("Subsets", {}):
        place = resolver.place("Subsets")
        try:
            resolvers = ChainMap({name: _with_default(resolver, subset)}, entries.resolvers)
            chain = compile_chain(name, Entries({}, {}, resolvers))
        except ChainError as error:  # no error in Consul, as no route leads there
            draft.note(place, f"{subset!r} is left out, to which nothing leads: {error.text}", "different")
        else:
            write_ends(draft, chain, place)


def _with_default(resolver: Fields, subset: str) -> Fields:
    changed = Fields(resolver.resource, resolver.path)
    changed.update(resolver, DefaultSubset=subset)
    return changed


def _write_service(draft: Draft, name: str, fields: Fields, entries: Entries) -> None:
    place = fields.place()
    if not fields.get("Destination") and not fields.get("Protocol"):
        return
    service = service_of(draft, Target(name), place)
    usual(service, place)
    if entries.protocols.get(name) in ("http2", "grpc"):
        service.put("http2", True, place)
    destination = fields.get("Destination")
    if destination:
        port, given, place = int(destination.get("Port", 0)), destination.get("Addresses", ()), destination.place()
        service.put("endpoints", [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in given], place)
        service.add("hosts", [each for each in given if ":" not in each], place)


def _upstreams(draft: Draft, config: Fields, chains: Iterable[str]) -> None:
    """How this workload calls others: its own service-defaults say so."""
    overrides = {each.get("Name", ""): each for each in config.get("Overrides", ())}
    defaults = config.get("Defaults")
    for name in dict.fromkeys((*chains, *(name for name in overrides if name), *draft.services)):
        layers = [each for each in (defaults, overrides.get(name)) if each]
        merged: dict[str, Any] = {}
        for layer in layers:
            merged |= {field: value for field, value in layer.items() if value}
        if merged:
            place = layers[-1].place()
            service = service_of(draft, Target(name), place) if name not in draft.services else draft.services[name]
            usual(service, place)
            for field, value in _policy_of(merged).items():
                service.data.pop(field, None)
                service.put(field, value, place)


def _policy_of(upstream: Mapping[str, Any]) -> dict[str, Any]:
    policy: dict[str, Any] = {}
    if connect_ms := upstream.get("ConnectTimeoutMs"):
        policy["connect_timeout"] = written(connect_ms / 1000)
    if str(upstream.get("Protocol", "")).lower() in ("http2", "grpc"):
        policy["http2"] = True
    limits = upstream.get("Limits") or {}
    flights = [int(limits[name]) for name in ("MaxConnections", "MaxConcurrentRequests") if limits.get(name)]
    bounds = {"max_in_flight": min(flights, default=None), "max_pending": limits.get("MaxPendingRequests")}
    if any(value is not None for value in bounds.values()):
        policy["limits"] = {name: int(value) for name, value in bounds.items() if value is not None}
    if check := upstream.get("PassiveHealthCheck"):
        detection: dict[str, Any] = {"consecutive_5xx": int(check.get("MaxFailures") or 5)}
        for name, field in (("interval", "Interval"), ("base_ejection", "BaseEjectionTime")):
            if check.get(field):
                detection[name] = written(check[field])
        for name, field in (
            ("enforcing_consecutive_5xx_percent", "EnforcingConsecutive5xx"),
            ("max_ejection_percent", "MaxEjectionPercent"),
        ):
            if check.get(field) is not None:
                detection[name] = check[field]
        policy["outlier_detection"] = detection
    return policy
