"""An HTTPRoute: its parents and its rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.gateway_api.filters import Actions, read_filters
from meshlib.config.dialects.gateway_api.match import EVERYTHING, Match, read_match
from meshlib.config.dialects.gateway_api.parents import Parent, read_parents
from meshlib.config.dialects.gateway_api.policies import read_retry, read_session, read_timeouts
from meshlib.config.dialects.gateway_api.references import Reference, References
from meshlib.config.dialects.resources import Place, Resource
from meshlib.dataclass import dataclass

__all__ = ["ERROR", "HttpRoute", "Rule", "Share", "read_http_route"]

ERROR: dict[str, Any] = {"direct_response": {"status": 500}}
"""What requests get whose backend, or a filter for it, is none that can be resolved."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of the requests that a rule matches.

    Attributes:
        below: the shares up to and with this one, in percent; 100 for the last.
        native: what becomes of them.
    """

    below: float
    native: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a route.

    Attributes:
        name: unique in the route.
        matches: what it matches; at least one.
        shares: what becomes of which part of the requests.
        place: where it is.
    """

    name: str
    matches: tuple[Match, ...]
    shares: tuple[Share, ...]
    place: Place

    @property
    def changes_prefix(self) -> bool:
        """Whether it matters by which prefix a request was matched."""
        changes = (share.native.get(key, {}) for share in self.shares for key in ("rewrite", "redirect"))
        return any("prefix" in change for change in changes)


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """A route.

    Attributes:
        name, namespace: its own.
        created: when; empty if it is not written.
        parents: the Services that it is for.
        rules: in order.
    """

    name: str
    namespace: str
    created: str
    parents: tuple[Parent, ...]
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class _Backend:
    weight: float
    reference: Reference
    actions: Actions
    place: Place

    @property
    def written(self) -> dict[str, Any]:
        """It, as one of several that are drawn from."""
        native: dict[str, Any] = {"service": self.reference.service}
        if self.weight != 1:
            native["weight"] = int(self.weight) if self.weight == int(self.weight) else self.weight
        headers = self.actions.headers
        return {**native, "headers": headers} if headers else native


def read_http_route(draft: Draft, resource: Resource, references: References) -> HttpRoute:
    """Read an HTTPRoute."""
    reader = Reader(draft, resource)
    reader.skip("apiVersion", "kind", "metadata", "status")
    spec = reader.map("spec") or Reader(draft, resource, {}, ("spec",))
    reader.rest()
    namespace = draft.namespace_of(resource)
    parents = read_parents(spec, namespace)
    spec.skip("useDefaultGateways")
    if parents and spec.texts("hostnames"):
        spec.different("hostnames", "say nothing on a route of a Service (GEP-1294); match the header Host instead")
    spec.skip("hostnames")
    rules = []
    names: set[str] = set()
    readers = spec.maps("rules")
    if parents:
        own = frozenset((parent.namespace, parent.name) for parent in parents)
        for index, each in enumerate(readers, 1):
            rules.append(_rule(each, index, names, namespace, references, own))
        if not readers and "rules" not in spec:
            rules.append(Rule("1", (EVERYTHING,), (Share(100.0, ERROR),), resource.place("spec")))
    spec.rest()
    return HttpRoute(resource.name, namespace, resource.created, tuple(parents), tuple(rules))


def _rule(
    reader: Reader,
    index: int,
    names: set[str],
    namespace: str,
    references: References,
    parents: frozenset[tuple[str, str]],
) -> Rule:
    def find(each: Reader) -> Reference:
        return references.find(each, namespace, parents)

    name = reader.text("name") or str(index)
    if name in names:
        reader.wrong("name", f"{name!r} is the name of another rule as well")
    names.add(name)
    matches = tuple(read_match(each) for each in reader.maps("matches")) or (EVERYTHING,)
    actions = read_filters(reader.maps("filters"), find)
    backends = [_backend(each, find) for each in reader.maps("backendRefs")]
    policy = {**read_timeouts(reader.map("timeouts")), **read_retry(reader.map("retry"))}
    session = read_session(reader.map("sessionPersistence"))
    reader.rest()
    if session:
        _bind(reader, session, backends)
    shares = _shares(reader, actions, backends, policy)
    rule = Rule(name, matches, tuple(shares), reader.place())
    if rule.changes_prefix and any("path_prefix" not in match.native["path"] for match in matches):
        reader.wrong("matches", "ReplacePrefixMatch is for matches of the type PathPrefix alone")
    return rule


def _backend(reader: Reader, find: Any) -> _Backend:
    weight = reader.number("weight")
    reference = find(reader)
    actions = read_filters(reader.maps("filters"), find)
    reader.rest()
    if weight is not None and weight < 0:
        reader.wrong("weight", "is below 0")
    return _Backend(1.0 if weight is None else max(0.0, weight), reference, actions, reader.place())


def _bind(reader: Reader, session: dict[str, Any], backends: Sequence[_Backend]) -> None:
    """Keep sessions at endpoints of the backends. In the native form that is the business of each service."""
    services = {backend.reference.service: backend.place for backend in backends if backend.reference.service}
    for name, place in services.items():
        service = reader.draft.services[name]
        held = service.data.get("load_balancing", {}).get("session_affinity", session)
        if held == session:
            service.merge("load_balancing", {"session_affinity": session}, place)
        else:
            text = f"is not honoured for {name}: another rule binds its sessions otherwise"
            reader.draft.note(reader.place("sessionPersistence"), text, "ignored")
    if services:
        reader.different("sessionPersistence", f"holds for all calls to {' and '.join(sorted(services))}")
    if sum(backend.weight > 0 for backend in backends) > 1:
        text = "is not honoured between backends: which one is drawn for each call, and a session is bound within it"
        reader.draft.note(reader.place("sessionPersistence"), text, "ignored")


def _shares(reader: Reader, actions: Actions, backends: Sequence[_Backend], policy: dict[str, Any]) -> list[Share]:
    """What becomes of a rule's requests.

    Backends that differ in nothing but edits of headers are drawn from, as those of one route. One that redirects,
    rewrites, mirrors or cannot be called gets a route of its own, which takes its share of the requests by chance.
    """
    if actions.refused:
        return [Share(100.0, ERROR)]
    if actions.redirect is not None:
        if backends:
            reader.wrong("backendRefs", "and a RequestRedirect are given; one of them is expected")
        return [Share(100.0, _reply(actions))]
    total = sum(backend.weight for backend in backends)
    for backend in backends:
        if backend.reference.service is None:
            share = backend.weight / total * 100.0 if total else 0.0
            text = f"is not honoured: {share:.3g} % of the rule's requests are answered with 500, since"
            reader.draft.note(backend.place, f"{text} {backend.reference.why}", "ignored")
    if not total:
        return [Share(100.0, ERROR)]
    plain = [backend for backend in backends if backend.reference.service and backend.actions.is_plain]
    special = [backend for backend in backends if backend not in plain and backend.weight > 0]
    shares: list[Share] = []
    reached = 0.0
    for backend in special:
        reached += backend.weight
        shares.append(Share(reached / total * 100.0, _alone(backend, actions, policy)))
    if reached < total:
        shares.append(Share(100.0, _forward([backend.written for backend in plain], actions, policy)))
    return shares


def _reply(actions: Actions) -> dict[str, Any]:
    reply: dict[str, Any] = {"redirect": dict(actions.redirect or {})}
    if actions.response:
        reply["headers"] = {"response": actions.response}
    return reply


def _forward(backends: list[dict[str, Any]], actions: Actions, policy: dict[str, Any]) -> dict[str, Any]:
    native: dict[str, Any] = {"backends": backends}
    if actions.headers:
        native["headers"] = actions.headers
    if actions.rewrite:
        native["rewrite"] = actions.rewrite
    if actions.mirrors:
        native["mirror"] = actions.mirrors
    return {**native, **policy}


def _alone(backend: _Backend, actions: Actions, policy: dict[str, Any]) -> dict[str, Any]:
    """What becomes of requests for a backend that has a route of its own; its filters come after the rule's."""
    own = backend.actions
    if backend.reference.service is None or own.refused:
        return ERROR
    if own.redirect is not None:
        return _reply(own)
    both = Actions(
        actions.request,
        actions.response,
        {**actions.rewrite, **own.rewrite},
        None,
        [*actions.mirrors, *own.mirrors],
    )
    if {"path", "prefix"} <= both.rewrite.keys():
        del both.rewrite["prefix" if "path" in own.rewrite else "path"]
    return _forward([{key: value for key, value in backend.written.items() if key != "weight"}], both, policy)
