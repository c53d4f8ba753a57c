"""The discovery chain of a service: from its routes over its splits to the instances that serve it.

Consul compiles its configuration entries to one graph per service (``agent/consul/discoverychain/compile.go``), and
this module does the same for entries that are read from files. The rules that are easily missed:

- only the router of the service that is called counts, not those of the services that it leads to;
- a destination without a subset goes through the splitter of its service, one with a subset does not; splits of splits
  are multiplied out, in hundredths of a percent;
- a redirect takes the place of a service wherever it is resolved, and keeps what it does not change: datacenter and,
  for the same service, subset. Splitters of where it leads to are not asked;
- the default subset comes after the redirect, and failover after both;
- failover targets are resolved alike, but have no failover of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, Final

from meshlib.config.dialects.consul.schema import Fields
from meshlib.dataclass import dataclass, field, replace

__all__ = [
    "CONNECT_TIMEOUT_S",
    "MAX_TARGETS",
    "Chain",
    "ChainError",
    "ChainRoute",
    "Entries",
    "Resolved",
    "Split",
    "Step",
    "Target",
    "compile_chain",
]

CONNECT_TIMEOUT_S: Final = 5.0
MAX_TARGETS: Final = 200_000
"""So many targets all chains of a configuration may come to; splitters that lead to splitters multiply them."""
_MAX_STEPS: Final = 64
"""So many times in a row a service may be split, and so many times it may be redirected."""
_HASHING: Final = frozenset({"ring_hash", "maglev"})


class ChainError(ValueError):
    """The entries of a service contradict each other; `where` is the map that does. Or they are too much: `bound`."""

    def __init__(self, text: str, where: Fields | None = None, *, bound: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.where = where
        self.bound = bound


@dataclass(frozen=True, slots=True)
class Target:
    """Instances of a service: all, or a subset; here, or in another datacenter (an empty one is the agent's own)."""

    service: str
    subset: str = ""
    datacenter: str = ""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Where a step of a chain ends.

    Attributes:
        target: whose instances.
        expression: the filter of its subset.
        only_passing: whether instances with a warning are left out.
        connect_timeout_s: for one connection.
        request_timeout_s: for calls, where the chain has neither routes nor splits; None for the default.
        failover: who takes over while none of them is healthy, in this order.
        balancer: Consul's ``LoadBalancer``; None for the default.
    """

    target: Target
    expression: str = ""
    only_passing: bool = False
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    request_timeout_s: float | None = None
    failover: tuple[Resolved, ...] = ()
    balancer: Mapping[str, Any] | None = None

    @property
    def hashes(self) -> bool:
        """Whether instances are chosen by a hash of the request."""
        return self.balancer is not None and self.balancer.get("Policy") in _HASHING


@dataclass(frozen=True, slots=True)
class Split:
    """A share of the calls.

    Attributes:
        weight: in percent.
        to: where it goes.
        edits: the header edits of the splits that lead here, the outermost first.
        own: whether it was resolved by the splitter itself, and not by one within.
    """

    weight: float
    to: Resolved
    edits: tuple[Mapping[str, Any], ...] = ()
    own: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """What follows a route: splits, or one alone that takes all."""

    splits: tuple[Split, ...]
    is_split: bool = False

    @property
    def hashing(self) -> Mapping[str, Any] | None:
        """The load balancer whose hash policies hold: of a splitter the first that hashes."""
        found = (split.to for split in self.splits if split.own and split.to.hashes)
        return next((each.balancer for each in found), None)


@dataclass(frozen=True, slots=True)
class ChainRoute:
    """One route: Consul's ``Match`` and ``Destination``, and what follows."""

    match: Mapping[str, Any] | None
    destination: Fields | None
    step: Step


@dataclass(frozen=True, slots=True)
class Chain:
    """The chain of one service.

    Attributes:
        service: whose.
        step: where calls go that no route takes.
        routes: of its router, in order, without the one that Consul adds for the rest.
        protocol: ``http``, ``http2``, ``grpc`` or ``tcp``; empty if unknown.
        targets: how many were resolved for it.
    """

    service: str
    step: Step
    routes: tuple[ChainRoute, ...] = ()
    protocol: str = ""
    targets: int = 1

    def ends(self) -> Iterator[Resolved]:
        """All that its steps end at, failover targets after what they stand in for."""
        for step in (*(route.step for route in self.routes), self.step):
            for split in step.splits:
                yield split.to
                yield from split.to.failover


@dataclass(frozen=True, slots=True)
class Entries:
    """Configuration entries by name."""

    routers: dict[str, Fields] = field(default_factory=dict)
    splitters: dict[str, Fields] = field(default_factory=dict)
    resolvers: MutableMapping[str, Fields] = field(default_factory=dict)
    protocols: dict[str, str] = field(default_factory=dict)
    protocol: str = ""


def compile_chain(service: str, entries: Entries, most: int = MAX_TARGETS) -> Chain:
    """The chain of `service`.

    Args:
        service: its name.
        entries: all that there are.
        most: how many targets it may come to.

    Raises:
        ChainError: if it cannot be followed to its end.
    """
    compiler = _Compiler(entries, most)
    step = compiler.step(service)
    router = entries.routers.get(service)
    routes = []
    for route in router.get("Routes", ()) if router else ():
        destination = route.get("Destination")
        to = (destination or {}).get("Service") or service
        subset = (destination or {}).get("ServiceSubset") or ""
        follows = Step((Split(100.0, compiler.resolve(Target(to, subset), destination)),)) if subset else None
        routes.append(ChainRoute(route.get("Match"), destination, follows or compiler.step(to)))
    protocol = entries.protocols.get(service) or entries.protocol
    return Chain(service, step, tuple(routes), protocol, compiler.targets)


class _Compiler:
    def __init__(self, entries: Entries, most: int) -> None:
        self._entries = entries
        self._most = most
        self.targets = 0

    def step(self, service: str) -> Step:
        if service in self._entries.splitters:
            splits = tuple(self._splits(service, (service,)))
            if not splits:
                raise ChainError("has no splits", self._entries.splitters[service])
            return Step(splits, is_split=True)
        return Step((Split(100.0, self.resolve(Target(service))),))

    def _splits(self, service: str, chain: tuple[str, ...]) -> Iterator[Split]:
        for split in self._entries.splitters[service].get("Splits", ()):
            to = split.get("Service") or service
            subset = split.get("ServiceSubset") or ""
            weight = round(float(split.get("Weight", 0)), 2)
            edits = (split,) if split.get("RequestHeaders") or split.get("ResponseHeaders") else ()
            if to != service and not subset and to in self._entries.splitters:
                if to in chain:
                    raise ChainError(f"splits in a circle: {' -> '.join((*chain, to))}", split)
                if len(chain) >= _MAX_STEPS:
                    raise ChainError(f"splits more than {_MAX_STEPS} times in a row", split)
                for inner in self._splits(to, (*chain, to)):
                    share = _hundredths(weight * inner.weight / 100)
                    yield replace(inner, weight=share, edits=(*edits, *inner.edits), own=False)
            else:
                yield Split(weight, self.resolve(Target(to, subset), split), edits)

    def resolve(self, target: Target, where: Fields | None = None, *, failover: bool = True) -> Resolved:
        seen: list[Target] = []
        while True:
            resolver = self._entries.resolvers.get(target.service) or Fields()
            if target in seen:
                names = " -> ".join(each.service for each in (*seen, target))
                raise ChainError(f"redirects in a circle: {names}", resolver)
            if len(seen) >= _MAX_STEPS:
                raise ChainError(f"redirects more than {_MAX_STEPS} times in a row", resolver)
            seen.append(target)
            redirect = resolver.get("Redirect")
            # What cluster peers have is not looked up.
            moved = _rewritten(target, redirect) if redirect and not redirect.get("Peer") else target
            if moved != target:
                target, where = moved, redirect
            elif not target.subset and resolver.get("DefaultSubset"):
                target, where = replace(target, subset=resolver["DefaultSubset"]), resolver
            else:
                return self._resolved(target, resolver, where, failover)

    def _resolved(self, target: Target, resolver: Fields, where: Fields | None, failover: bool) -> Resolved:
        self.targets += 1
        if self.targets > self._most:
            text = f"comes, with all chains before it, to more than {MAX_TARGETS} targets"
            raise ChainError(text, where, bound=True)
        subsets = resolver.get("Subsets", {})
        subset = subsets.get(target.subset, {})
        if target.subset and target.subset not in subsets:
            known = ", ".join(sorted(subsets)) or "none"
            text = f"the service {target.service!r} has no subset {target.subset!r} (its resolver has {known})"
            raise ChainError(text, where)
        return Resolved(
            target,
            subset.get("Filter", ""),
            subset.get("OnlyPassing", False),
            resolver.get("ConnectTimeout") or CONNECT_TIMEOUT_S,
            resolver.get("RequestTimeout"),
            tuple(self._failover(target, resolver)) if failover else (),
            resolver.get("LoadBalancer"),
        )

    def _failover(self, target: Target, resolver: Fields) -> Iterator[Resolved]:
        written = resolver.get("Failover", {})
        given = written.get(target.subset) if target.subset in written else written.get("*")
        if not given:
            return
        options: list[Fields] = [given]
        if given.get("Datacenters"):
            options = []
            for datacenter in given["Datacenters"]:
                option = Fields(given.resource, given.path)
                option.update(given, Datacenter=datacenter)
                options.append(option)
        elif given.get("Targets"):
            options = given["Targets"]
        for option in options:
            moved = _rewritten(target, option)
            if moved != target and not option.get("Peer"):
                yield self.resolve(moved, option, failover=False)


def _rewritten(target: Target, to: Mapping[str, Any]) -> Target:
    """`target` with what a redirect or a failover says; the subset is that of another service no more."""
    service = to.get("Service") or target.service
    subset = target.subset if service == target.service else ""
    return Target(service, to.get("ServiceSubset") or subset, to.get("Datacenter") or target.datacenter)


def _hundredths(weight: float) -> float:
    """Rounded to 0.01, half away from zero, as Go does."""
    return math.floor(weight * 100 + 0.5) / 100
