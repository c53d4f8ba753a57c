"""A discovery chain in the native form: what Consul's proxies are told, as a user of this mesh would have written it.

Source: ``agent/xds/routes.go``, ``clusters.go`` and ``endpoints.go`` of Consul.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from meshlib.balance.filter import FilterError, parse_filter
from meshlib.config.dialects.consul.chain import CONNECT_TIMEOUT_S, Chain, ChainRoute, Resolved, Split, Step, Target
from meshlib.config.dialects.consul.matches import native_match
from meshlib.config.dialects.consul.schema import Fields
from meshlib.config.dialects.draft import Draft, ServiceDraft
from meshlib.config.dialects.durations import written
from meshlib.config.dialects.envoy_values import edited_value, has_command
from meshlib.config.dialects.resources import Place
from meshlib.config.fields import WIRE_HEADERS

__all__ = ["CHECK_KEY", "service_of", "usual", "write_chain", "write_ends"]

CHECK_KEY: Final = "consul.check"
"""The metadata by which a subset leaves out instances with a warning."""

_TIMEOUT_S: Final = 15.0
_FULL_FAILOVER_PERCENT: Final = 100_000
_TERM = re.compile(
    r'\s*Service\.Meta\.(?P<key>[A-Za-z][\w/]*)\s*==\s*(?P<value>"[^"]*"|`[^`]*`|[A-Za-z]\w*|[0-9]+)\s*'
    r'|\s*(?P<tag>"[^"]*"|`[^`]*`|[A-Za-z]\w*)\s+in\s+Service\.Tags\s*',
    re.ASCII,
)


def service_of(draft: Draft, target: Target, place: Place) -> ServiceDraft:
    """The service that a target is: one of the same name, or that of another datacenter by its name in Consul's DNS."""
    dns = f"{target.service}.service.consul"
    name = f"{target.service}.service.{target.datacenter}.consul" if target.datacenter else target.service
    service = draft.services.get(name) or draft.new(name, place)
    if not target.datacenter:
        service.add("hosts", [dns, f"{target.service}.virtual.consul"], place)
    return service


def usual(service: ServiceDraft, place: Place) -> None:
    """What Consul's proxies do where no entry says anything. Connections stay ours, which fail sooner."""
    service.put_usual("timeout", written(_TIMEOUT_S), place)
    service.put_usual("per_try_timeout", None, place)
    service.put_usual("retry", {"max_retries": 0}, place)
    service.put_usual("load_balancing", {"policy": "round_robin", "panic_percent": 0}, place)
    service.put_usual("outlier_detection", {"consecutive_5xx": 5}, place)
    service.put_usual("circuit_breaker", False, place)


def write_chain(draft: Draft, chain: Chain, place: Place) -> None:
    """Write a service's chain, and what is known of the services that it leads to.

    Args:
        draft: where to.
        chain: compiled.
        place: the entry that most of it comes from.
    """
    write_ends(draft, chain, place)
    service = service_of(draft, Target(chain.service), place)
    usual(service, place)
    routes: list[dict[str, Any]] = []
    for route in chain.routes:
        routes.append(_route(draft, chain, route, place))
        if "match" not in routes[-1]:
            break  # what comes after it is never reached
    places = [_place_of(route, place) for route in chain.routes[: len(routes)]]
    last = _to_step(draft, chain.service, chain.step, place)
    if last and all("match" in each for each in routes):
        routes.append({"name": "consul-default", **last})
        places.append(place)
    if routes and not service.data.get("routes"):
        service.routes(routes, places)
    (only, *others) = chain.step.splits
    if not chain.routes and not chain.step.is_split and not others and only.to.request_timeout_s:
        timeout_s = only.to.request_timeout_s
        service.put("timeout", written(timeout_s) if timeout_s > 0 else None, place)
    if chain.protocol in ("http2", "grpc"):
        service.put("http2", True, place)


def write_ends(draft: Draft, chain: Chain, place: Place) -> None:
    """Write what is known of the services that a chain leads to."""
    for end in chain.ends():
        _write_end(draft, end, place)


def _place_of(route: ChainRoute, place: Place) -> Place:
    for fields in (route.destination, route.match):
        if isinstance(fields, Fields) and fields.resource is not None:
            return fields.place()
    return place


def _write_end(draft: Draft, end: Resolved, place: Place) -> None:
    service = service_of(draft, end.target, place)
    usual(service, place)
    if end.connect_timeout_s != CONNECT_TIMEOUT_S:
        # No connection is waited for beyond the call.
        limit_s = end.request_timeout_s if (end.request_timeout_s or 0) > 0 else _TIMEOUT_S
        service.put("connect_timeout", written(min(end.connect_timeout_s, limit_s or _TIMEOUT_S)), place)
    subset = end.target.subset
    if subset:
        _write_subset(draft, service, end, place)
    balancing = _balancing(draft, end, place)
    if end.failover:
        to = [_backend(draft, each.target, place) for each in end.failover]
        if subset:
            service.merge("subset_policies", {subset: {"failover_to": to}}, place)
        else:
            service.put("failover_to", to, place)
        balancing["overprovisioning_percent"] = _FULL_FAILOVER_PERCENT
    if balancing:
        held = service.data.get("load_balancing")
        service.data.pop("load_balancing", None)
        service.put("load_balancing", {**(held if isinstance(held, dict) else {}), **balancing}, place)


def _write_subset(draft: Draft, service: ServiceDraft, end: Resolved, place: Place) -> None:
    subset, expression = end.target.subset, end.expression
    try:
        parse_filter(expression)
    except FilterError as error:
        draft.note(place, f"the filter of the subset {subset!r} {error}: {expression[:200]!r}", "wrong")
        return
    metadata = None if end.only_passing else _as_metadata(expression)
    if metadata:
        service.merge("subsets", {subset: metadata}, place)
        return
    if end.only_passing:
        passing = f'Service.Meta["{CHECK_KEY}"] != warning'
        expression = f"({expression}) and {passing}" if expression.strip() else passing
    service.merge("subset_filters", {subset: expression}, place)


def _as_metadata(expression: str) -> dict[str, str] | None:
    """The metadata that a filter asks for, if it asks for nothing else."""
    metadata: dict[str, str] = {}
    for term in re.split(r"\band\b", expression):
        found = _TERM.fullmatch(term)
        if found is None:
            return None
        key = found["key"] or f"tag.{_bare(found['tag'])}"
        value = _bare(found["value"]) if found["key"] else "true"
        if not value or metadata.setdefault(key, value) != value:
            return None
    return metadata


def _bare(text: str) -> str:
    return text[1:-1] if text[:1] in '"`' else text


def _balancing(draft: Draft, end: Resolved, place: Place) -> dict[str, Any]:
    given = end.balancer or {}
    policy = given.get("Policy") or ""
    if policy not in ("", "random", "round_robin", "least_request", "ring_hash", "maglev"):
        draft.note(place, f"the policy of the load balancer, {policy!r}, is none of Consul's", "wrong")
        return {}
    balancing: dict[str, Any] = {"policy": policy} if policy else {}
    ring, least = given.get("RingHashConfig") or {}, given.get("LeastRequestConfig") or {}
    if policy == "ring_hash" and ring:
        sizes = {"min_size": ring.get("MinimumRingSize"), "max_size": ring.get("MaximumRingSize")}
        balancing["ring"] = {name: int(size) for name, size in sizes.items() if size}
    if policy == "least_request" and least.get("ChoiceCount"):
        balancing["least_request"] = {"choice_count": int(least["ChoiceCount"])}
    return balancing


def _backend(draft: Draft, target: Target, place: Place) -> dict[str, Any]:
    backend: dict[str, Any] = {"service": service_of(draft, target, place).name}
    if target.subset:
        backend["subset"] = target.subset
    return backend


def _to_step(draft: Draft, service: str, step: Step, place: Place) -> dict[str, Any]:
    """Where calls go, as fields of a route; nothing if that is the service itself."""
    hashing = step.hashing
    fields: dict[str, Any] = {"hash_on": _hash_on(hashing)} if hashing and hashing.get("HashPolicies") else {}
    (first, *others) = step.splits
    if not others and first.to.target == Target(service) and not first.edits:
        return {**({"backends": [{"service": service}]} if fields else {}), **fields}
    fields["backends"] = [_share(draft, split, place) for split in step.splits]
    return fields


def _share(draft: Draft, split: Split, place: Place) -> dict[str, Any]:
    backend = _backend(draft, split.to.target, place)
    if split.weight != 100.0:
        backend["weight"] = int(split.weight) if split.weight.is_integer() else split.weight
    headers: dict[str, Any] = {}
    for side, edits in (("request", split.edits), ("response", tuple(reversed(split.edits)))):
        # On the way back the splits are met in the other order.
        name = "RequestHeaders" if side == "request" else "ResponseHeaders"
        merged: dict[str, Any] = {"Add": {}, "Set": {}, "Remove": []}
        for definition in edits:
            given = definition.get(name) or {}
            merged["Add"] |= given.get("Add", {})
            merged["Set"] |= given.get("Set", {})
            merged["Remove"] += given.get("Remove", [])
        if edit := _header_edit(draft, merged, place):
            headers[side] = edit
    return {**backend, "headers": headers} if headers else backend


def _header_edit(draft: Draft, given: Mapping[str, Any], place: Place) -> dict[str, Any]:
    remove = {name.lower() for name in given.get("Remove", ())}
    add = _values(draft, given.get("Add", {}), place)
    # To remove and then to set, or to add, is to set.
    replaced = {name: value for name, value in add.items() if name in remove}
    values = {**replaced, **_values(draft, given.get("Set", {}), place)}
    edit = {
        "set": values,
        "add": {name: value for name, value in add.items() if name not in replaced},
        "remove": sorted(name for name in remove if name not in values and _editable(draft, name, place)),
    }
    return {name: value for name, value in edit.items() if value}


def _values(draft: Draft, given: Mapping[str, str], place: Place) -> dict[str, str]:
    values: dict[str, str] = {}
    for name, value in given.items():
        if has_command(value):
            text = f"is not honoured: the header {name} has variables of Envoy's in it, which are sent as they are"
            draft.note(place, text, "ignored")
        sent = edited_value(value)
        if sent is None:
            draft.note(place, f"the header {name} has an empty value, which changes nothing, as in Envoy", "different")
        elif _editable(draft, name.lower(), place):
            values[name.lower()] = sent
    return values


def _editable(draft: Draft, name: str, place: Place) -> bool:
    if name != "host" and not name.startswith(":") and name not in WIRE_HEADERS:
        return True
    draft.note(place, f"is not honoured: Envoy does not take edits of the header {name!r} either", "ignored")
    return False


def _hash_on(balancer: Mapping[str, Any]) -> list[dict[str, Any]]:
    policies: list[dict[str, Any]] = []
    for policy in balancer.get("HashPolicies", ()):
        kind, value = policy.get("Field") or "", policy.get("FieldValue") or ""
        found: dict[str, Any]
        if policy.get("SourceIP"):
            found = {"source": True}
        elif kind == "cookie":
            config = policy.get("CookieConfig") or {}
            found = {"cookie": {"name": value}}
            if config.get("TTL") or config.get("Session"):
                found["cookie"]["ttl"] = 0 if config.get("Session") else written(config["TTL"])
            if config.get("Path"):
                found["cookie"]["path"] = config["Path"]
        else:
            found = {"query" if kind == "query_parameter" else "header": value}
        if policy.get("Terminal"):
            found["terminal"] = True
        policies.append(found)
    return policies


def _route(draft: Draft, chain: Chain, route: ChainRoute, place: Place) -> dict[str, Any]:
    place = _place_of(route, place)
    http = (route.match or {}).get("HTTP") or {}
    native: dict[str, Any] = {}
    if match := native_match(draft, http, place):
        native["match"] = [match]
    native |= _to_step(draft, chain.service, route.step, place)
    destination = route.destination or Fields()
    if rewrite := destination.get("PrefixRewrite"):
        if not http.get("PathExact") and not http.get("PathPrefix"):
            draft.note(destination.place("PrefixRewrite"), "needs a PathExact or a PathPrefix to match", "wrong")
        else:
            native["rewrite"] = {"path" if http.get("PathExact") else "prefix": rewrite}
    if timeout_s := destination.get("RequestTimeout"):
        native["timeout"] = written(timeout_s) if timeout_s > 0 else None
    if idle_s := destination.get("IdleTimeout"):
        native["body_idle_timeout"] = written(idle_s) if idle_s > 0 else None
    native |= _retry(draft, destination)
    headers = {}
    for side, name in (("request", "RequestHeaders"), ("response", "ResponseHeaders")):
        if edit := _header_edit(draft, destination.get(name) or {}, place):
            headers[side] = edit
    if headers:
        native["headers"] = headers
    return native


_RETRY_ON: Final = frozenset(
    {
        *("5xx", "gateway-error", "reset", "connect-failure", "envoy-ratelimited", "retriable-4xx", "refused-stream"),
        *("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"),
    }
)


def _retry(draft: Draft, destination: Fields) -> dict[str, Any]:
    on: list[Any] = list(destination.get("RetryOn", ()))
    for condition in on:
        if condition not in _RETRY_ON:
            draft.note(destination.place("RetryOn"), f"{condition!r} is no condition that Consul knows", "wrong")
            on = [each for each in on if each in _RETRY_ON]
    if destination.get("RetryOnConnectFailure"):
        on = _with(on, "connect-failure")
    retry: dict[str, Any] = {}
    if codes := destination.get("RetryOnStatusCodes"):
        on = _with(on, "retriable-status-codes")
        retry["retriable_status_codes"] = list(dict.fromkeys(codes))
    if not on:
        if not destination.get("NumRetries"):
            return {}
        text = "names no condition to retry on, so nothing is retried, as in Envoy"
        draft.note(destination.place("NumRetries"), text, "different")
        return {"retry": {"max_retries": 0}}
    number = int(destination.get("NumRetries") or 1)
    retry |= {"max_retries": min(number, 100), "on": on}
    if draft.context.settings.retry_unsafe:
        retry["unsafe"] = True
    return {"retry": retry}


def _with(conditions: Iterable[str], condition: str) -> list[str]:
    return list(dict.fromkeys((*conditions, condition)))
