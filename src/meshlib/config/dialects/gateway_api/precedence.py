"""The rules of all routes of a Service, in the order in which they are to be tried.

Of two matches of the same rank that of the older route goes first, then that of the route whose namespace and name come
first in the alphabet, then that of the rule that comes first. What no rule matches is answered with 404.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeAlias

from meshlib.config.dialects.gateway_api.http_route import HttpRoute, Rule
from meshlib.config.dialects.gateway_api.match import Match, Rank
from meshlib.config.dialects.names import route_name
from meshlib.config.dialects.resources import Place
from meshlib.dataclass import dataclass

__all__ = ["Written", "in_order"]

_Key: TypeAlias = tuple[Rank, bool, str, str, str, int, int]


@dataclass(frozen=True, slots=True)
class Written:
    """A route in the native form, and where it is said.

    Attributes:
        native: the route.
        place: of its rule.
        reached: whether any request gets there.
    """

    native: dict[str, Any]
    place: Place
    reached: bool = True


@dataclass(frozen=True, slots=True)
class _Entry:
    key: _Key
    route: HttpRoute
    rule: Rule
    match: Match


def in_order(routes: Iterable[HttpRoute], port: int | None, end: Place) -> list[Written]:
    """The routes of one port of a Service in the native form.

    Args:
        routes: that are for it.
        port: its number; None if it is not known.
        end: what speaks for the last route, which answers what no rule matches.
    """
    entries = sorted(_entries(routes), key=lambda entry: entry.key)
    written: list[Written] = []
    names: set[str] = set()
    open_end = True
    for _, group in groupby(entries, key=lambda entry: id(entry.rule)):
        same = list(group)
        for native in _natives(same, port):
            native["name"] = route_name(native["name"], names)
            written.append(Written(native, same[0].rule.place, open_end))
        open_end = open_end and not any(entry.match.is_everything for entry in same)
    if open_end:
        last = {"name": route_name("no-rule", names), "direct_response": {"status": 404}}
        written.append(Written(last, end))
    return written


def _entries(routes: Iterable[HttpRoute]) -> Iterator[_Entry]:
    for route in routes:
        for index, rule in enumerate(route.rules):
            for place, match in enumerate(rule.matches):
                age = (not route.created, route.created, route.namespace, route.name)
                yield _Entry((match.rank, *age, index, place), route, rule, match)


def _natives(entries: Sequence[_Entry], port: int | None) -> Iterator[dict[str, Any]]:
    """The native routes of some matches of a rule: one for each of its shares."""
    rule = entries[0].rule
    whole = rule.changes_prefix
    matches = [entry.match.written(whole) for entry in entries]
    if not all(matches):
        matches = []  # one of them takes everything
    for number, share in enumerate(rule.shares, 1):
        name = f"{entries[0].route.name}.{rule.name}"
        native: dict[str, Any] = {"name": name if len(rule.shares) == 1 else f"{name}.{number}"}
        conditions = matches
        if share.below < 100.0 and number < len(rule.shares):
            conditions = [{**match, "percent": share.below} for match in matches or [{}]]
        if conditions:
            native["match"] = conditions
        yield {**native, **_at(share.native, port)}


def _at(native: dict[str, Any], port: int | None) -> dict[str, Any]:
    """What becomes of requests to a port: a redirect to another host keeps the port that was asked for."""
    redirect = native.get("redirect")
    if redirect is None or port is None or "host" not in redirect or "port" in redirect:
        return native
    return {**native, "redirect": {**redirect, "port": port}}
