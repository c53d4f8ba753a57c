"""A discovery chain as Consul itself has compiled it: the answer of ``/v1/discovery-chain/:service``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshlib.config.dialects.consul.chain import (
    CONNECT_TIMEOUT_S,
    MAX_TARGETS,
    Chain,
    ChainError,
    ChainRoute,
    Resolved,
    Split,
    Step,
    Target,
)
from meshlib.config.dialects.consul.entries import DESTINATION, LOAD_BALANCER, MATCH, SPLIT
from meshlib.config.dialects.consul.schema import Field, Fields, Reading, Table, duration, read_table
from meshlib.config.problems import Path

__all__ = ["is_default", "read_chain"]

_DEFINITION: Final[Table] = {"Match": MATCH, "Destination": Field(DESTINATION)}


def is_default(chain: Mapping[str, Any]) -> bool:
    """Whether no entry has anything to do with the chain."""
    node = _map(_map(chain.get("Nodes")).get(str(chain.get("StartNode"))))
    resolver = _map(node.get("Resolver"))
    target = _map(_map(chain.get("Targets")).get(str(resolver.get("Target"))))
    return bool(resolver.get("Default")) and target.get("Service") == chain.get("ServiceName")


def read_chain(chain: Mapping[str, Any], reading: Reading) -> Chain:
    """The chain in an answer of Consul's.

    Args:
        chain: its ``Chain``.
        reading: where notes go.

    Raises:
        ChainError: if it is none.
    """
    reader = _Reader(chain, reading)
    start = reader.node(chain.get("StartNode"))
    service = str(chain.get("ServiceName") or "")
    routes: list[ChainRoute] = []
    step: Step | None = None
    if start.get("Type") == "router":
        for index, route in enumerate(_list(start.get("Routes"))):
            definition, follows = reader.definition(route, index), reader.step(_map(route).get("NextNode"))
            routes.append(ChainRoute(definition.get("Match"), definition.get("Destination"), follows))
        if not routes:
            raise ChainError("it has a router without routes")
        # The last one is for the rest; Consul adds it.
        step = routes.pop().step
    return Chain(
        service,
        step or reader.step(chain.get("StartNode")),
        tuple(routes),
        str(chain.get("Protocol") or ""),
    )


class _Reader:
    def __init__(self, chain: Mapping[str, Any], reading: Reading) -> None:
        self._nodes = _map(chain.get("Nodes"))
        self._targets = _map(chain.get("Targets"))
        self._datacenter = chain.get("Datacenter")
        self._reading = reading
        self._count = 0

    def node(self, name: Any) -> Mapping[str, Any]:
        node = self._nodes.get(name) if isinstance(name, str) else None
        if not isinstance(node, Mapping):
            raise ChainError(f"it has no node {name!r}")
        return node

    def definition(self, route: Any, index: int) -> Fields:
        path: Path = ("Chain", "Routes", index)
        return read_table(_DEFINITION, _map(route).get("Definition") or {}, path, self._reading)

    def step(self, name: Any) -> Step:
        node = self.node(name)
        if node.get("Type") != "splitter":
            return Step((Split(100.0, self.resolved(name)),))
        splits = []
        for index, split in enumerate(_list(node.get("Splits"))):
            given = _map(split)
            weight = given.get("Weight", 0)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 100:
                raise ChainError(f"a split has the weight {weight!r}")
            path: Path = ("Chain", "Splits", index)
            edits = read_table(SPLIT, given.get("Definition") or {}, path, self._reading)
            kept = (edits,) if edits.get("RequestHeaders") or edits.get("ResponseHeaders") else ()
            splits.append(Split(float(weight), self.resolved(given.get("NextNode")), kept))
        if not splits:
            raise ChainError("it has a splitter without splits")
        return Step(tuple(splits), is_split=True)

    def resolved(self, name: Any) -> Resolved:
        self._count += 1
        if self._count > MAX_TARGETS:
            raise ChainError(f"it comes to more than {MAX_TARGETS} targets")
        node = self.node(name)
        resolver = _map(node.get("Resolver"))
        failover = [each for each in _list(_map(resolver.get("Failover")).get("Targets")) if isinstance(each, str)]
        connect_s = duration(resolver.get("ConnectTimeout"))
        balancer = node.get("LoadBalancer")
        return Resolved(
            *self._target(resolver.get("Target")),
            connect_s if connect_s and connect_s > 0 else CONNECT_TIMEOUT_S,
            duration(resolver.get("RequestTimeout")),
            tuple(Resolved(*self._target(each)) for each in failover if not self._is_peer(each)),
            read_table(LOAD_BALANCER, balancer, ("Chain", "LoadBalancer"), self._reading) if balancer else None,
        )

    def _is_peer(self, name: str) -> bool:
        return bool(_map(self._targets.get(name)).get("Peer"))

    def _target(self, name: Any) -> tuple[Target, str, bool]:
        target = _map(self._targets.get(name)) if isinstance(name, str) else {}
        service = target.get("Service")
        if not isinstance(service, str) or not service:
            raise ChainError(f"it has no target {name!r}")
        datacenter = str(target.get("Datacenter") or "")
        subset = _map(target.get("Subset"))
        where = "" if datacenter == self._datacenter else datacenter
        to = Target(service, str(target.get("ServiceSubset") or ""), where)
        return to, str(subset.get("Filter") or ""), bool(subset.get("OnlyPassing"))


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
