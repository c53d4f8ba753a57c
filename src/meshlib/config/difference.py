"""What would behave differently between two configurations: per service and route, in words.

Compared is what both compile to, so that two ways to write the same are equal, whatever dialect they are in. Routes
are paired by name and conditions. What changes for a whole service is said once, for the service, and not again for
each of its routes and subsets.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Literal, TypeAlias

from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import ClusterSettings, MeshSettings, ServiceSettings, StaticSettings
from meshlib.config.words import AS_BY_DEFAULT, HIDDEN, match_words, open_fields, shortened, value_words, written_name
from meshlib.dataclass import dataclass
from meshlib.routing.route import Backend, HeaderEdits, Route

__all__ = ["Difference", "differences"]

Change: TypeAlias = Literal["added", "removed", "changed"]

_NOT_COMPARED = frozenset({"sources", "notes", "services", "fallback", "overlay", "discovery", "security_documents"})
"""Of the whole: what changes nothing about a call, and what is compared by itself."""

_APART = frozenset({"name", "routes", "clusters", "declared", "budget"})
_ROUTE_APART = frozenset({"name", "backends", "policy", "matches", "request_edits", "response_edits", "template"})
_CLUSTER_APART = frozenset({"service", "subset"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that would behave differently.

    Attributes:
        service: its name; empty for the mesh as a whole, ``*`` for services that are not declared.
        route: its name; empty for the service as a whole.
        field: as it is written, dotted; empty for a whole service or route.
        change: whether it came, went or changed.
        before, after: in words; empty where there is nothing to say.
        text: what is different, as a sentence would say it.
    """

    service: str
    route: str
    field: str
    change: Change
    before: str
    after: str
    text: str

    def __str__(self) -> str:
        where = self.service or "mesh"
        if self.service == "*":
            where = "services not declared"
        return f"{where}{f' / route {self.route}' if self.route else ''}: {self.text}"

    def to_dict(self) -> dict[str, str]:
        """The same, as JSON has it."""
        return {name: getattr(self, name) for name, _, _ in open_fields(self)}


def differences(before: MeshSettings, after: MeshSettings) -> list[Difference]:
    """Everything that differs, services in the order of their names."""
    found = list(_fields("", "", before, after, apart=_NOT_COMPARED))
    sources = [[each for each in side.discovery if not isinstance(each, StaticSettings)] for side in (before, after)]
    if sources[0] != sources[1]:
        found.append(_changed("", "", "discovery", _sources(sources[0]), _sources(sources[1])))
    found += _service("*", before.fallback("*"), after.fallback("*"))
    for name in sorted(before.services.keys() | after.services.keys()):
        old, new = before.services.get(name), after.services.get(name)
        if old is None or new is None:
            found.append(_came_or_went(name, "", old is None, "the service"))
            continue
        found += _service(name, old, new)
        found += _endpoints(name, _static(before, name), _static(after, name))
    return found


def _service(name: str, before: ServiceSettings, after: ServiceSettings) -> Iterator[Difference]:
    yield from _fields(name, "", before, after, apart=_APART)
    yield from _fields(name, "", before.budget, after.budget, "retry_budget")
    whole = list(_fields(name, "", before.routes[-1].policy, after.routes[-1].policy))
    yield from whole
    cluster = list(_fields(name, "", before.clusters[None], after.clusters[None], apart=_CLUSTER_APART))
    yield from cluster
    yield from _subsets(name, before.clusters, after.clusters, {(each.field, each.after) for each in cluster})
    yield from _routes(name, before.routes, after.routes, {(each.field, each.before, each.after) for each in whole})


def _subsets(
    name: str,
    before: Mapping[str | None, ClusterSettings],
    after: Mapping[str | None, ClusterSettings],
    said: set[tuple[str, str]],
) -> Iterator[Difference]:
    for subset in sorted(each for each in before.keys() | after.keys() if each is not None):
        old, new = before.get(subset), after.get(subset)
        if old is None or new is None:
            yield _came_or_went(name, "", old is None, f"the subset {subset}", f"subsets.{subset}")
            continue
        for each in _fields(name, "", old, new, f"subsets.{subset}", apart=_CLUSTER_APART):
            if (each.field.removeprefix(f"subsets.{subset}."), each.after) not in said:
                yield each


def _routes(
    name: str, before: Sequence[Route], after: Sequence[Route], said: set[tuple[str, str, str]]
) -> Iterator[Difference]:
    pairs = _paired(before, after)
    kept = {id(new) for _, new in pairs if new is not None}
    for old, new in pairs:
        if new is None:
            yield _came_or_went(name, old.name, False, f"the route for {_matches(old)}")
            continue
        yield from _route(name, old, new, said)
    for new in after:
        if id(new) not in kept:
            yield _came_or_went(name, new.name, True, f"the route for {_matches(new)}")
    order = [[pair[0].name for pair in pairs if pair[1] is not None], []]
    by_id = {id(new): old.name for old, new in pairs if new is not None}
    order[1] = [by_id[id(new)] for new in after if id(new) in by_id]
    if order[0] != order[1]:
        old_order, new_order = (", ".join(side) for side in order)
        yield _changed(name, "", "routes", old_order, new_order, "order of routes")


def _paired(before: Sequence[Route], after: Sequence[Route]) -> list[tuple[Route, Route | None]]:
    """Each route of `before` with what became of it: of the same name and conditions, else of one of the two."""
    found: dict[int, Route] = {}
    taken: set[int] = set()
    rules: tuple[Callable[[Route], object], ...] = (
        lambda route: (route.name, route.matches),
        lambda route: None if route.name == "default" else route.matches,
        lambda route: route.name,
    )
    for rule in rules:
        free: dict[object, deque[int]] = {}
        for place, new in enumerate(after):
            if place not in taken:
                free.setdefault(rule(new), deque()).append(place)
        for index, old in enumerate(before):
            key = rule(old)
            if index not in found and key is not None and (places := free.get(key)):
                place = places.popleft()
                found[index] = after[place]
                taken.add(place)
    return [(old, found.get(index)) for index, old in enumerate(before)]


def _route(service: str, before: Route, after: Route, said: set[tuple[str, str, str]]) -> Iterator[Difference]:
    name = before.name
    if name != after.name and not (_numbered(name) and _numbered(after.name)):
        yield _changed(service, name, "name", name, after.name)
    if before.matches != after.matches:
        old_words, new_words = _matches(before), _matches(after)
        if old_words == new_words:
            yield Difference(service, name, "match", "changed", HIDDEN, HIDDEN, f"match changes {HIDDEN}")
        else:
            yield _changed(service, name, "match", old_words, new_words)
    yield from _backends(service, name, before.backends, after.backends)
    for field in ("request_edits", "response_edits"):
        yield from _edits(service, name, getattr(before, field), getattr(after, field), written_name(field), "")
    yield from _fields(service, name, before, after, apart=_ROUTE_APART)
    for each in _fields(service, name, before.policy, after.policy):
        if (each.field, each.before, each.after) not in said:
            yield each


def _numbered(name: str) -> bool:
    stem, _, number = name.rpartition("-")
    return stem == "route" and number.isdigit()


def _matches(route: Route) -> str:
    return shortened(" or ".join(map(match_words, route.matches)) or "everything")


def _backends(
    service: str, route: str, before: tuple[Backend, ...], after: tuple[Backend, ...]
) -> Iterator[Difference]:
    shares = [_shares(before), _shares(after)]
    for cluster in dict.fromkeys([*shares[0], *shares[1]]):
        old, new = shares[0].get(cluster), shares[1].get(cluster)
        if old != new:
            said, was = f"{new or 0:.4g} %", f"{old or 0:.4g} %"
            change: Change = "added" if old is None else "removed" if new is None else "changed"
            text = f"{said} of calls go to {cluster} instead of {was}"
            yield Difference(service, route, f"backends.{cluster}", change, was, said, text)
    edits = [{each.cluster: each for each in side} for side in (before, after)]
    for cluster in [each for each in edits[0] if each in edits[1]]:
        hosts = [edits[side][cluster].host or "as it is" for side in (0, 1)]
        if hosts[0] != hosts[1]:
            path = f"backends.{cluster}.headers.request.set.host"
            yield _changed(service, route, path, hosts[0], hosts[1], f"the host for {cluster}")
        for field in ("request_edits", "response_edits"):
            old_edits, new_edits = getattr(edits[0][cluster], field), getattr(edits[1][cluster], field)
            path = f"backends.{cluster}.{written_name(field)}"
            yield from _edits(service, route, old_edits, new_edits, path, f" for {cluster}")


def _shares(backends: tuple[Backend, ...]) -> dict[str, float]:
    total = sum(backend.weight for backend in backends) or 1.0
    shares: dict[str, float] = {}
    for backend in backends:
        shares[backend.cluster] = shares.get(backend.cluster, 0.0) + backend.weight * 100.0 / total
    return shares


def _edits(
    service: str, route: str, before: HeaderEdits, after: HeaderEdits, path: str, whom: str
) -> Iterator[Difference]:
    side = "request" if path.endswith("request") else "response"
    doings: Mapping[str, str] = {"set": "set", "add": "added", "remove": "removed"}
    for doing, done in doings.items():
        old, new = (_edited(getattr(edits, doing)) for edits in (before, after))
        for name in dict.fromkeys([*old, *new]):
            if old.get(name) == new.get(name):
                continue
            header = f"{side} header {name.decode('ascii')}{whom}"
            here = f"{path}.{doing}.{name.decode('ascii')}"
            if name not in new:
                yield Difference(service, route, here, "removed", "", "", f"{header} is no longer {done}")
            elif name not in old:
                yield Difference(service, route, here, "added", "", "", f"{header} is {done}")
            else:
                yield Difference(
                    service, route, here, "changed", HIDDEN, HIDDEN, f"{header} is {done} to another value"
                )


def _edited(edits: Any) -> dict[bytes, list[bytes]]:
    if isinstance(edits, frozenset):
        return {name: [] for name in sorted(edits)}
    named: dict[bytes, list[bytes]] = {}
    for name, value in edits:
        named.setdefault(name, []).append(value)
    return named


def _static(settings: MeshSettings, name: str) -> tuple[Endpoint, ...] | None:
    for source in settings.discovery:
        if isinstance(source, StaticSettings):
            return source.services.get(name)
    return None


def _endpoints(
    service: str, before: tuple[Endpoint, ...] | None, after: tuple[Endpoint, ...] | None
) -> Iterator[Difference]:
    if (before is None) != (after is None):
        old, new = ("discovery" if each is None else f"{len(each)} written" for each in (before, after))
        yield _changed(service, "", "endpoints", old, new)
        return
    olds, news = ({each.address: each for each in side or ()} for side in (before, after))
    for address in dict.fromkeys([*olds, *news]):
        if address not in news or address not in olds:
            yield _came_or_went(service, "", address in news, f"the endpoint {address}", f"endpoints.{address}")
        else:
            yield from _fields(service, "", olds[address], news[address], f"endpoints.{address}")


def _sources(sources: Sequence[Any]) -> str:
    named = [(type(each).__name__.removesuffix("Settings").lower(), value_words(each)) for each in sources]
    return "; ".join(name if words == AS_BY_DEFAULT else f"{name} ({words})" for name, words in named) or "none"


def _fields(
    service: str, route: str, before: Any, after: Any, path: str = "", *, apart: frozenset[str] = frozenset()
) -> Iterator[Difference]:
    """Every field that differs, settings inside settings field by field."""
    if before == after:
        return
    for (name, old, shown), (_, new, _) in zip(open_fields(before), open_fields(after), strict=True):
        if name in apart or old == new:
            continue
        here = f"{path}.{written_name(name)}" if path else written_name(name)
        if not shown:
            yield Difference(service, route, here, "changed", HIDDEN, HIDDEN, f"{here} changes {HIDDEN}")
        elif is_dataclass(old) and type(old) is type(new):
            yield from _fields(service, route, old, new, here)
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _keys(service, route, here, old, new, name)
        elif is_dataclass(old) or is_dataclass(new):
            another = old is not None and new is not None
            yield _changed(service, route, here, *(_switched(each, another) for each in (old, new)))
        else:
            yield _changed(service, route, here, value_words(old, name), value_words(new, name))


def _switched(settings: Any, named: bool) -> str:
    """Whether something is there, and how it is set; `named`: of several kinds which it is."""
    if settings is None:
        return "off"
    kind = (
        re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(settings).__name__.removesuffix("Settings")).lower() if named else ""
    )
    words = value_words(settings)
    told = ", ".join(each for each in (kind, "" if words == AS_BY_DEFAULT else words) if each)
    return f"on ({told})" if told else "on"


def _keys(
    service: str, route: str, path: str, before: Mapping[Any, Any], after: Mapping[Any, Any], field: str
) -> Iterator[Difference]:
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            old, new = (value_words(side.get(key), field) for side in (before, after))
            yield _changed(service, route, f"{path}.{key}", old, new)


def _changed(service: str, route: str, path: str, before: str, after: str, called: str = "") -> Difference:
    return Difference(service, route, path, "changed", before, after, f"{called or path} {before} -> {after}")


def _came_or_went(service: str, route: str, came: bool, what: str, path: str = "") -> Difference:
    text = f"{what} is {'new' if came else 'gone'}"
    return Difference(service, route, path, "added" if came else "removed", "", "", text)
