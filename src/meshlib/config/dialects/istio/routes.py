"""Routes in our words, from rules that were read.

Each match of a rule is a route of Envoy's; here they are one, as long as they are rewritten alike: `rewrite` replaces
the prefix where a prefix matched, and the whole path elsewhere. What no rule takes is answered with 404, as by Envoy.
Source: ``BuildHTTPRoutesForVirtualService`` and ``TranslateRoute`` in Istio's ``route.go``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.durations import written
from meshlib.config.dialects.istio.headers import Edits, both, in_turn
from meshlib.config.dialects.istio.http_route import Mirror, Rule, Share
from meshlib.config.dialects.istio.matching import MESH, match_of, native_match
from meshlib.config.dialects.istio.values import Destination
from meshlib.config.dialects.names import route_name
from meshlib.config.dialects.resources import Place
from meshlib.dataclass import dataclass

__all__ = ["NO_ROUTE", "Writer"]

NO_ROUTE: Final = "no-route"
"""The name of the route that takes what no other does."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the routes of one service.

    Attributes:
        draft: where notes go.
        service: the name of the service.
        port: by which it is called; None where that is not known.
        service_of: the name of the service that a destination means, if it is called by a port.
        subset: the subset to call of a destination; None for all of it.
        hash_on: what calls to a destination are hashed by.
    """

    draft: Draft
    service: str
    port: int | None
    service_of: Callable[[Destination, int | None], str]
    subset: Callable[[Destination], str | None]
    hash_on: Callable[[Destination], Sequence[Mapping[str, Any]]]

    def routes(self, rules: Iterable[Rule], stem: str) -> tuple[list[dict[str, Any]], list[Place]]:
        """The routes, and where each was said; none at all if no rule is for this workload.

        Args:
            rules: of the VirtualService.
            stem: for the names of rules that have none.
        """
        routes: list[dict[str, Any]] = []
        places: list[Place] = []
        names = {NO_ROUTE}
        context, met = self.draft.context, False
        for number, rule in enumerate(rules, 1):
            matches = rule.fields.get("match") or [{}]
            met = met or any(match_of(match, context.labels, context.namespace) for match in matches)
            for name, kind, native in _groups(rule, rule.fields.get("name") or f"{stem}-{number}"):
                everything = any(not match for match in native)
                native = [{}] if everything else native
                action = self._action(rule, kind, native)
                condition = {} if native == [{}] else {"match": native}
                routes.append({"name": route_name(name, names), **condition, **action})
                places.append(rule.place)
                if everything:
                    return (routes, places) if met else ([], [])
        if not met or not routes:
            return [], []
        return [*routes, {"name": NO_ROUTE, "direct_response": {"status": 404}}], [*places, places[-1]]

    def _action(self, rule: Rule, kind: str, native: list[dict[str, Any]]) -> dict[str, Any]:
        fields = rule.fields
        edits: Edits = fields.get("headers", Edits())
        if "redirect" in fields:
            route: dict[str, Any] = {"redirect": self._redirect(fields["redirect"], kind)}
            _see_prefix(route["redirect"], native)
            return _with_edits(route, edits)
        if "directResponse" in fields:
            return _with_edits({"direct_response": fields["directResponse"]}, edits)
        route, edits = self._backends(rule, edits)
        rewrite = dict(fields.get("rewrite", {}))
        uri, host = rewrite.pop("uri", None), rewrite.pop("host", None) or edits.host
        if uri is not None:
            rewrite[kind] = uri
        if host:
            rewrite["host"] = host
        if rewrite:
            _see_prefix(rewrite, native)
            route["rewrite"] = rewrite
        timeout_s = fields.get("timeout")
        if timeout_s is not None:
            route["timeout"] = written(timeout_s) if timeout_s else None
        route |= _retries(fields.get("retries", {}), timeout_s)
        if fields.get("fault"):
            route["fault"] = fields["fault"]
        if mirrors := [self._mirror(mirror) for mirror in fields.get("mirrors", ())]:
            route["mirror"] = mirrors[0] if len(mirrors) == 1 else mirrors
        return _with_edits(route, edits)

    def _backends(self, rule: Rule, edits: Edits) -> tuple[dict[str, Any], Edits]:
        shares: list[Share] = list(rule.fields.get("route", ()))
        backends, hash_on = [], []
        single = len(shares) == 1
        inner = Edits()
        if single:
            merged = both(edits, shares[0].edits)
            # What is laid on last in the native form is what the route says, in Istio what its one destination says.
            inner, edits = in_turn(edits, shares[0].edits) if merged is None else (inner, merged)
        for share in shares:
            if not single and not share.weight:
                continue
            backend = self._target(share.destination)
            if not single:
                backend["weight"] = share.weight
            if edited := _native(inner if single else share.edits):
                backend["headers"] = edited
            backends.append(backend)
            hash_on += [key for key in self.hash_on(share.destination) if key not in hash_on]
        if shares and not backends:
            self.draft.note(rule.place, "the weights sum to zero, so no call can go anywhere", "wrong")
        route: dict[str, Any] = {}
        # A route without backends goes to the service itself.
        if backends not in ([], [{}]):
            route["backends"] = backends
        if hash_on:
            route["hash_on"] = hash_on
        return route, edits

    def _target(self, destination: Destination) -> dict[str, Any]:
        # Without a port a service with several is called by the one at which the caller called.
        port = self.port if destination.port is None else destination.port
        name = self.service_of(destination, port)
        target: dict[str, Any] = {} if name == self.service else {"service": name}
        subset = self.subset(destination)
        return target if subset is None else {**target, "subset": subset}

    def _mirror(self, mirror: Mirror) -> dict[str, Any]:
        target = self._target(mirror.destination)
        return target if mirror.percent == 100 and target else {**target, "percent": mirror.percent}

    def _redirect(self, redirect: Mapping[str, Any], kind: str) -> dict[str, Any]:
        native = {name: value for name, value in redirect.items() if name != "derivePort"}
        if "prefix" in native and kind == "path":
            native["path"] = native.pop("prefix")
        if redirect.get("derivePort") and self.port is not None:
            native["port"] = self.port
        if native.get("port") == _DEFAULT_PORTS[native.get("scheme") or "http"]:
            del native["port"]
        return native


def _groups(rule: Rule, name: str) -> Iterable[tuple[str, str, list[dict[str, Any]]]]:
    """Matches side by side that are named and rewritten alike: their name, how, and they in our words."""
    fields = rule.fields
    replaces = "uri" in fields.get("rewrite", ()) or "prefix" in fields.get("redirect", ())
    native = [(match, found) for match in fields.get("match") or [{}] if (found := _for_mesh(match)) is not None]

    def alike(pair: tuple[Mapping[str, Any], Any]) -> tuple[str | None, str]:
        return pair[0].get("name"), _kind(pair[0]) if replaces else ""

    for (own, kind), group in groupby(native, key=alike):
        yield f"{name}.{own}" if own else name, kind, [found for _, found in group]


def _for_mesh(match: Mapping[str, Any]) -> dict[str, Any] | None:
    gateways = match.get("gateways")
    return None if gateways and MESH not in gateways else native_match(match)


def _kind(match: Mapping[str, Any]) -> str:
    """What `rewrite.uri` replaces."""
    uri = match.get("uri") or {}
    return "path" if "exact" in uri or "regex" in uri else "prefix"


def _see_prefix(action: Mapping[str, Any], native: list[dict[str, Any]]) -> None:
    """Where a prefix is replaced there has to be one: of all paths it is the slash."""
    if "prefix" in action:
        for match in native:
            match.setdefault("path", {"prefix": "/"})


def _retries(found: Mapping[str, Any], timeout_s: float | None) -> dict[str, Any]:
    native: dict[str, Any] = {"retry": found["retry"]} if "retry" in found else {}
    per_try_s = found.get("per_try_timeout")
    # One that is longer than the timeout never ends an attempt.
    if per_try_s and not (timeout_s and per_try_s > timeout_s):
        native["per_try_timeout"] = written(per_try_s)
    return native


def _native(edits: Edits) -> dict[str, Any]:
    """The edits of a destination; the host that it is to have is one of them."""
    native: dict[str, Any] = {side: dict(each) for side, each in edits.native.items()}
    if edits.host:
        request = native.setdefault("request", {})
        request["set"] = {**request.get("set", {}), "host": edits.host}
    return native


def _with_edits(route: dict[str, Any], edits: Edits) -> dict[str, Any]:
    return {**route, "headers": dict(edits.native)} if edits.native else route
