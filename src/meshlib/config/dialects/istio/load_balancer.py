"""``LoadBalancerSettings``: the balancer, what calls are hashed by, localities, newcomers.

Sources: ``applyLoadBalancer`` and ``ApplyRingHashLoadBalancer`` in Istio's ``cluster_traffic_policy.go``,
``loadbalancer.go``, and ``ConsistentHashToHashPolicy`` in ``route.go``.
"""

from __future__ import annotations

from typing import Any, Final

from meshlib.config.dialects.durations import written
from meshlib.config.dialects.fields import Reader
from meshlib.dataclass import dataclass, field

__all__ = ["LoadBalancer", "read_load_balancer"]

_SIMPLE: Final = {
    "UNSPECIFIED": "least_request",
    "LEAST_CONN": "least_request",
    "LEAST_REQUEST": "least_request",
    "RANDOM": "random",
    "ROUND_ROBIN": "round_robin",
}
_KEYS: Final = ("httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName")
_WARM: Final = ("least_request", "round_robin")


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """What it comes to.

    Attributes:
        native: ``load_balancing`` in our words, without `policy` if none is named.
        hash_on: what calls are hashed by.
        failover: what holds of localities once there is outlier detection; None for nothing.
    """

    native: dict[str, Any] = field(default_factory=dict)
    hash_on: tuple[dict[str, Any], ...] = ()
    failover: dict[str, Any] | None = field(default_factory=lambda: {"failover": True})


def read_load_balancer(reader: Reader) -> LoadBalancer:
    """Read one."""
    native: dict[str, Any] = {}
    hash_on: tuple[dict[str, Any], ...] = ()
    simple = reader.text("simple")
    if simple == "PASSTHROUGH":
        reader.ignore(
            "simple", "calls are balanced over the endpoints that are known, not sent where the caller looked"
        )
    elif simple is not None:
        if simple not in _SIMPLE:
            reader.wrong("simple", f"is none of {', '.join([*_SIMPLE, 'PASSTHROUGH'])}")
        native["policy"] = _SIMPLE.get(simple, "least_request")
    consistent = reader.map("consistentHash")
    if consistent is not None:
        if simple is not None:
            reader.wrong(None, "has simple and consistentHash: one of them is expected")
        hash_on = _hash(consistent, native)
    failover = _locality(reader, native)
    _warmup(reader, native)
    zones = "zones count as localityLbSetting says; load_balancing: {zone_aware: ...} of the service is our form of it"
    reader.ignore("zoneAwareLbSetting", zones)
    reader.rest()
    return LoadBalancer(native, hash_on, failover)


def _hash(reader: Reader, native: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    ring, maglev = reader.map("ringHash"), reader.map("maglev")
    old = reader.integer("minimumRingSize")
    native["policy"] = "ring_hash" if maglev is None else "maglev"
    if maglev is not None:
        if table := maglev.integer("tableSize"):
            native["table_size"] = table
        maglev.rest()
    size = old
    if ring is not None:
        size = ring.integer("minimumRingSize")
        ring.rest()
    if size and maglev is None:
        native["ring"] = {"min_size": size}
    hash_on = _key(reader)
    reader.rest()
    return hash_on


def _key(reader: Reader) -> tuple[dict[str, Any], ...]:
    given = [name for name in _KEYS if name in reader]
    if len(given) != 1:
        reader.wrong(None, f"has {' and '.join(given) or 'nothing to hash'}: one of {', '.join(_KEYS)} is expected")
    header, query = reader.text("httpHeaderName"), reader.text("httpQueryParameterName")
    cookie, source = reader.map("httpCookie"), reader.flag("useSourceIp")
    if header:
        return ({"header": header},)
    if cookie is not None:
        native: dict[str, Any] = {"name": cookie.text("name") or ""}
        ttl_s = cookie.duration("ttl")
        if ttl_s is not None:
            native["ttl"] = written(ttl_s)
        if path := cookie.text("path"):
            native["path"] = path
        cookie.ignore("attributes", "a cookie that is made has a name, a value, a path and a lifetime")
        cookie.rest()
        return ({"cookie": native},)
    if source:
        text = "hashes whom this process serves at that moment, else this host: there is no other client in a library"
        reader.different("useSourceIp", text)
        return ({"source": True},)
    return ({"query": query},) if query else ()


def _locality(reader: Reader, native: dict[str, Any]) -> dict[str, Any] | None:
    """What is distributed goes into `native`; what fails over is returned, for the outlier detection it needs."""
    setting = reader.map("localityLbSetting")
    if setting is None:
        return {"failover": True}
    enabled = setting.flag("enabled")
    shares = [_distribute(each) for each in setting.maps("distribute")]
    regions = []
    for each in setting.maps("failover"):
        regions.append({"from": each.text("from") or "", "to": each.text("to") or ""})
        each.rest()
    labels = setting.texts("failoverPriority")
    setting.rest()
    if enabled is False:
        return None
    if shares:
        if regions or labels:
            setting.wrong(None, "distribute excludes failover and failoverPriority")
        native["distribute"] = shares
        return None
    failover: dict[str, Any] = {"failover": regions or True}
    if labels:
        return {"failover_priority": labels, **(failover if regions else {})}
    return failover


def _distribute(reader: Reader) -> dict[str, Any]:
    source, to = reader.text("from") or "", reader.map("to")
    shares: dict[str, Any] = {}
    if to is not None:
        shares = {place: to.integer(place) or 0 for place in map(str, to.data)}
    reader.rest()
    return {"from": source, "to": shares}


def _warmup(reader: Reader, native: dict[str, Any]) -> None:
    warmup, old_s = reader.map("warmup"), reader.duration("warmupDurationSecs")
    slow: dict[str, Any] = {}
    if warmup is not None:
        window_s = warmup.duration("duration")
        if not window_s:
            warmup.wrong("duration", "is required")
        percent, aggression = warmup.number("minimumPercent"), warmup.number("aggression")
        warmup.rest()
        slow = {
            **({"window": written(window_s)} if window_s else {}),
            **({} if percent is None else {"min_weight_percent": percent}),
            **({} if aggression is None else {"aggression": aggression}),
        }
    elif old_s:
        slow = {"window": written(old_s)}
    if slow and native.get("policy", "least_request") in _WARM:
        native["slow_start"] = slow
    elif slow:
        name = "warmup" if warmup is not None else "warmupDurationSecs"
        reader.different(name, "does nothing with this balancer, as in Istio")
