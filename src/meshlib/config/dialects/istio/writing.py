"""Writes what Istio's documents come to into the draft, once all of them are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from meshlib.config.dialects.draft import CLUSTER_DOMAIN, Context, Draft, Port, ServiceDraft
from meshlib.config.dialects.draft import ServiceEntry as Declared
from meshlib.config.dialects.istio.destination_rule import DestinationRule, RuleIndex, merged_rule
from meshlib.config.dialects.istio.hosts import is_wildcard, most_specific
from meshlib.config.dialects.istio.http_route import Rule
from meshlib.config.dialects.istio.retries import usual_retry
from meshlib.config.dialects.istio.routes import Writer
from meshlib.config.dialects.istio.sidecar import Sidecar, imports_rule, imports_service
from meshlib.config.dialects.istio.traffic_policy import TrafficPolicy, native_policy, overlay
from meshlib.config.dialects.istio.values import Destination
from meshlib.config.dialects.istio.virtual_service import VirtualService, delegates_of, expanded, in_order
from meshlib.config.dialects.resources import Place
from meshlib.dataclass import dataclass, field

__all__ = ["Writing"]

_HTTP2: Final = ("HTTP2", "GRPC")
_TLS: Final = ("HTTPS", "TLS")
_CONNECT_TIMEOUT: Final = "10s"


@dataclass(slots=True)
class Writing:
    """One translation under way.

    Attributes:
        draft: where to.
        rules: the DestinationRules, in order.
        sidecar: the one that holds; None for none.
        known: each service that is written, by name: its host, by which port it is called, and who names it first.
        merged: the DestinationRule of each host, as it was put together.
        index: finds the rules of a host.
    """

    draft: Draft
    rules: Sequence[DestinationRule]
    sidecar: Sidecar | None
    known: dict[str, tuple[str, int | None, Place]] = field(default_factory=dict)
    merged: dict[str, DestinationRule | None] = field(default_factory=dict)
    index: RuleIndex = field(init=False)

    def __post_init__(self) -> None:
        self.index = RuleIndex(self.rules, self.draft.context.namespace)

    def write(self, services: Sequence[VirtualService]) -> None:
        draft = self.draft
        for entry in list(draft.inventory.services.values()):
            for each in entry.ports or (Port(0),):
                self.service(entry.host, entry.namespace, each.number, entry.place)
        self._routes(services)
        for rule in self.rules:
            if not is_wildcard(rule.host) and self._sees(rule.host) and self._rule(rule.host) is not None:
                self.service(rule.host, rule.namespace, None, rule.place)
        for name, (host, port, place) in self.known.items():
            self._policy(draft.services[name], host, port, place)
        self._scope()

    def service(self, host: str, namespace: str, port: int | None, place: Place) -> ServiceDraft:
        """The service of a host at one of its ports."""
        service = self.draft.port_service(host, namespace, port, place)
        entry = self.draft.inventory.services.get(self.draft.host_of(host, namespace))
        if entry is not None and self.draft.port_of(host, namespace, port) is None:
            port = entry.ports[0].number if entry.ports else None
        self.known.setdefault(service.name, (self.draft.host_of(host, namespace), port, place))
        return service

    def _sees(self, host: str) -> bool:
        entry = self.draft.inventory.services.get(host)
        egress = () if self.sidecar is None else self.sidecar.egress
        ports = None if entry is None else [port.number for port in entry.ports]
        return imports_service(egress, self.draft.context.namespace, host, _namespace(host, entry), ports)

    # Routes

    def _routes(self, services: Sequence[VirtualService]) -> None:
        draft, client = self.draft, self.draft.context.namespace
        egress = () if self.sidecar is None else self.sidecar.egress
        delegates = delegates_of(services)
        owners: dict[str, VirtualService] = {}
        for service in in_order(draft, services):
            if not imports_rule(egress, client, service.hosts, service.namespace):
                draft.note(service.place, "is for hosts that the Sidecar of this workload does not let in", "passed")
                continue
            for host in service.hosts:
                owner = owners.setdefault(host, service)
                if owner is not service:
                    text = f"{host} has the routes of {owner.place}, as in Istio: one VirtualService holds for a host"
                    draft.note(service.place, text, "ignored")
        declared = {entry.host: entry.namespace for entry in draft.inventory.services.values()}
        wildcards = [host for host in owners if is_wildcard(host)]
        covered_by: dict[str | None, list[str]] = {}
        for each in declared:
            if each not in owners or is_wildcard(each):
                covered_by.setdefault(most_specific(each, wildcards), []).append(each)
        for host, service in owners.items():
            covered = covered_by.get(host, [])
            rules = list(expanded(draft, service, delegates))
            for each in covered if is_wildcard(host) and (covered or host == "*") else [host]:
                self._route(each, declared.get(each, service.namespace), service, rules)
            if host == "*" and not covered:
                draft.note(
                    service.place, "'*' stands for the hosts that documents declare, and there are none", "ignored"
                )

    def _route(self, host: str, namespace: str, owner: VirtualService, rules: Sequence[Rule]) -> None:
        entry = self.draft.inventory.services.get(host)
        ports: list[int | None] = [port.number for port in entry.ports] if entry is not None else []
        for port in ports or [None]:
            service = self.service(host, namespace, port, owner.place)
            writer = Writer(
                self.draft,
                service.name,
                port,
                lambda to, at: self.service(to.host, to.namespace, at, to.place).name,
                self._subset,
                lambda to, at=port: self._hash_on(to, at),  # type: ignore[misc]
            )
            routes, places = writer.routes(rules, owner.name)
            if routes and "routes" not in service.data:
                service.routes(routes, places)

    def _subset(self, destination: Destination) -> str | None:
        """The subset of a destination; None for all of it, also where the subset selects nothing."""
        if not destination.subset:
            return None
        rule = self._rule(destination.host)
        subset = None if rule is None else rule.subsets.get(destination.subset)
        if subset is None:
            known = ", ".join(rule.subsets) if rule is not None and rule.subsets else "none"
            text = (
                f"nobody defines the subset {destination.subset!r} of {destination.host}; those that there are: {known}"
            )
            self.draft.note(destination.place, text, "wrong")
        return subset.name if subset is not None and subset.labels else None

    def _hash_on(self, destination: Destination, port: int | None) -> Sequence[Mapping[str, Any]]:
        rule = self._rule(destination.host)
        if rule is None:
            return ()
        port = port if destination.port is None else destination.port
        policy, subset = rule.policy or TrafficPolicy(), rule.subsets.get(destination.subset)
        blocks = policy.at(port) if subset is None or subset.policy is None else policy.under(subset.policy, port)
        balancer = blocks.get("loadBalancer")
        return () if balancer is None else balancer.hash_on

    # Policies

    def _rule(self, host: str) -> DestinationRule | None:
        if host not in self.merged:
            context = self.draft.context
            namespace = _namespace(host, self.draft.inventory.services.get(host))
            self.merged[host] = merged_rule(self.draft, self.index.of(host, namespace), context.labels)
        return self.merged[host]

    def _policy(self, service: ServiceDraft, host: str, port: int | None, place: Place) -> None:
        context, rule = self.draft.context, self._rule(host)
        entry = self.draft.inventory.services.get(host)
        if rule is not None:
            place = rule.place
            policy = rule.policy or TrafficPolicy()
            blocks = policy.at(port)
            native = native_policy(blocks, context) if blocks else {}
            for field_name, value in native.items():
                service.put(field_name, deepcopy(value), place)
            balancer = blocks.get("loadBalancer")
            if balancer is not None and balancer.hash_on:
                service.put("hash_on", list(balancer.hash_on), place)
            self._subsets(service, rule, policy, port)
        protocol = next((each.protocol for each in entry.ports if each.number == port), "") if entry is not None else ""
        if protocol.upper() in _HTTP2 and "http2" not in service.data:
            service.put("http2", True, place)
        if protocol.upper() in _TLS and "tls" not in service.data:
            service.put("tls", {"mode": "simple"}, place)
        tls, name = service.data.get("tls"), self.draft.name_of(host, context.namespace)
        if tls and tls["mode"] == "simple" and name != service.name:
            # Of a further port: the certificate is that of the host.
            tls.setdefault("server_name", name)
        _put_usual(service, place, context)

    def _subsets(self, service: ServiceDraft, rule: DestinationRule, policy: TrafficPolicy, port: int | None) -> None:
        base = native_policy(policy.at(port), self.draft.context)
        for subset in rule.subsets.values():
            if not subset.labels:
                text = "selects every endpoint, as the host itself does"
                also = " and its trafficPolicy is not honoured" if subset.policy is not None else ""
                self.draft.note(subset.place, text + also, "ignored" if also else "different")
                continue
            service.merge("subsets", {subset.name: dict(subset.labels)}, subset.place)
            if subset.policy is None:
                continue
            own = native_policy(policy.under(subset.policy, port), self.draft.context)
            if own.get("retry_budget") != base.get("retry_budget"):
                text = "maxRetries and retryBudget are not honoured for a subset: the budget is that of the whole host"
                self.draft.note(subset.place, text, "ignored")
                own.pop("retry_budget", None)
            changes = overlay({**base, "retry_budget": None}, {**own, "retry_budget": None})
            if changes:
                service.merge("subset_policies", {subset.name: changes}, subset.place)

    # Scope

    def _scope(self) -> None:
        """What the Sidecar does not let in is called as if it were outside the mesh, or not at all."""
        if self.sidecar is None:
            return
        if self.sidecar.refuses is not None:
            self.draft.put("egress", "refuse" if self.sidecar.refuses else "pass", self.sidecar.policy)
        led_to = {
            backend.get("service")
            for service in self.draft.services.values()
            for route in service.data.get("routes", ())
            for backend in route.get("backends", ())
        }
        for name, (host, *_) in self.known.items():
            if self._sees(host) or name in led_to or "routes" in self.draft.services[name].data:
                continue
            service = self.draft.services[name]
            if self.sidecar.refuses:
                answer = {"name": "outside-the-sidecar", "direct_response": {"status": 502}}
                service.routes([answer], [self.sidecar.place])
            else:
                service.put("mode", "off", self.sidecar.place)


def _namespace(host: str, entry: Declared | None) -> str | None:
    """The namespace of a host: where it is declared, or as its name says."""
    if entry is not None:
        return entry.namespace
    stem = host.removesuffix(f".{CLUSTER_DOMAIN}")
    return stem.rpartition(".")[2] if stem != host and "." in stem else None


def _put_usual(service: ServiceDraft, place: Place, context: Context) -> None:
    """What Istio does unless told otherwise."""
    usual: dict[str, Any] = {
        "timeout": None,
        "per_try_timeout": None,
        "connect_timeout": _CONNECT_TIMEOUT,
        "retry": usual_retry(context),
        "load_balancing": {"policy": "least_request", "panic_percent": 0},
        "outlier_detection": False,
        "circuit_breaker": False,
    }
    for name, value in usual.items():
        service.put_usual(name, value, place)
