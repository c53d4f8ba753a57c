"""``TrafficPolicy``: the policy of a host, of one of its ports, or of a subset.

A policy is a handful of blocks. A subset's blocks replace those of the host, each as a whole; a port's policy replaces
that of the host altogether, and what it leaves out is as Istio has it by default. Source: ``MergeSubsetTrafficPolicy``
and ``GetPortLevelTrafficPolicy`` in Istio's ``networking/util``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from meshlib.config.dialects.draft import Context
from meshlib.config.dialects.durations import written
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.istio.client_tls import read_tls
from meshlib.config.dialects.istio.connection_pool import read_connection_pool
from meshlib.config.dialects.istio.load_balancer import LoadBalancer, read_load_balancer
from meshlib.config.dialects.istio.outlier import read_outlier_detection
from meshlib.config.dialects.istio.values import port_number
from meshlib.dataclass import dataclass, field

__all__ = ["Blocks", "TrafficPolicy", "native_policy", "overlay", "read_traffic_policy"]

Blocks = Mapping[str, Any]

_PORTED: Final[Mapping[str, Callable[[Reader], Any]]] = {
    "loadBalancer": read_load_balancer,
    "connectionPool": read_connection_pool,
    "outlierDetection": read_outlier_detection,
    "tls": read_tls,
}


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """One policy.

    Attributes:
        blocks: by Istio's names, in our words.
        ports: the blocks of single ports, by number.
    """

    blocks: Blocks = field(default_factory=dict)
    ports: Mapping[int, Blocks] = field(default_factory=dict)

    def at(self, port: int | None) -> Blocks:
        """The blocks that hold at a port."""
        return self.blocks if port is None else self.ports.get(port, self.blocks)

    def under(self, subset: TrafficPolicy, port: int | None) -> Blocks:
        """The blocks of a subset at a port: its own over those of this policy."""
        own = subset.at(port)
        if port in subset.ports:
            return {**{name: block for name, block in self.at(port).items() if name not in _PORTED}, **own}
        return {**self.at(port), **own}


def read_traffic_policy(reader: Reader) -> TrafficPolicy:
    """Read one."""
    blocks = _blocks(reader)
    budget = reader.map("retryBudget")
    if budget is not None:
        blocks["retryBudget"] = _retry_budget(budget)
    reader.ignore("tunnel", "connections go straight to the endpoints, without CONNECT")
    reader.ignore("proxyProtocol", "connections begin with the request; servers that expect a PROXY header refuse them")
    ports: dict[int, Blocks] = {}
    for each in reader.maps("portLevelSettings"):
        number = port_number(each)
        own = _blocks(each)
        each.rest()
        if number is None:
            each.wrong("port", "a number is needed")
        else:
            ports.setdefault(number, own)
    reader.rest()
    return TrafficPolicy(blocks, ports)


def _blocks(reader: Reader) -> dict[str, Any]:
    found = {}
    for name, read in _PORTED.items():
        inner = reader.map(name)
        if inner is not None:
            found[name] = read(inner)
    return found


def _retry_budget(reader: Reader) -> dict[str, Any]:
    percent, least = reader.number("percent"), reader.integer("minRetryConcurrency")
    if reader.duration("budgetInterval"):
        reader.ignore("budgetInterval", "the budget is a share of the calls that are under way at the moment")
    reader.rest()
    return {"kind": "concurrency", "percent": 20 if percent is None else percent, "min_concurrency": least or 3}


def native_policy(blocks: Blocks, context: Context) -> dict[str, Any]:
    """What a handful of blocks come to in our words, as fields of a service."""
    theirs = context.settings.defaults == "theirs" and "load_balancing" not in context.defaults
    native = dict(blocks.get("connectionPool", {}))
    if "retryBudget" in blocks:
        native["retry_budget"] = blocks["retryBudget"]
    if tls := blocks.get("tls"):
        native["tls"] = tls
    balancer: LoadBalancer = blocks.get("loadBalancer", LoadBalancer())
    balancing = dict(balancer.native)
    outlier = blocks.get("outlierDetection")
    if outlier is not None:
        native["outlier_detection"], healthy = outlier
        balancing |= balancer.failover or {}
        balancing["panic_percent"] = healthy
    elif theirs:
        balancing["panic_percent"] = 0
    if theirs:
        balancing.setdefault("policy", "least_request")
    if balancing:
        native["load_balancing"] = balancing
    return native


_UNSET: Final[Mapping[tuple[str, ...], Any]] = {
    ("connect_timeout",): written(10.0),
    ("http2",): False,
    ("limits", "max_connections"): None,
    ("limits", "max_in_flight"): None,
    ("limits", "max_pending"): None,
    ("load_balancing", "distribute"): [],
    ("load_balancing", "failover"): False,
    ("load_balancing", "failover_priority"): [],
    ("load_balancing", "slow_start"): None,
    ("outlier_detection",): False,
    ("outlier_detection", "split_external_local_origin_errors"): False,
    ("pool", "idle"): "4s",
    ("tls",): {"mode": "off"},
}
"""What to write where a subset is not to have what its host has."""


def overlay(base: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What, laid over `base` field by field, comes to `wanted`."""
    return _overlay(base, wanted, ())


def _overlay(base: Mapping[str, Any], wanted: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in wanted.items():
        here = (*path, name)
        old = base.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            if inner := _overlay(old, value, here):
                result[name] = inner
        elif value != old:
            result[name] = value
    for name in base.keys() - wanted.keys():
        here = (*path, name)
        if here in _UNSET:
            result[name] = _UNSET[here]
        elif isinstance(base[name], Mapping) and (gone := _overlay(base[name], {}, here)):
            result[name] = gone
    return result
