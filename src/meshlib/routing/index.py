"""Many routes, of which the first that matches is found without looking at each.

Each match of each route is an *entry*, numbered in the order of the routes. A first step sorts entries by the path they
ask for: exact, by raw prefix, by the segments of a path prefix or a template, by the text that a regex begins with.
Where many are left together, further steps sort them by what else they ask for exactly: the authority, a header, a
cookie, a parameter, the method. A request is looked up in each, and of the entries found, which may match, the lowest
that does match wins: the same as in a scan, for what nothing sorts stays in a rest that is always looked at.

An entry is kept once, or once for each of its methods. Nothing is kept of requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import chain
from typing import Final, Protocol, TypeAlias

from meshlib.routing.fields import Repeated
from meshlib.routing.match import RequestView, RouteMatch, StringMatch, lowered
from meshlib.routing.route import Route

__all__ = ["MIN_INDEXED", "RouteTable", "literal_prefix"]

MIN_INDEXED = 8
"""Fewer routes than this are scanned as fast; see benchmarks/routes.py."""

_MIN_SORTED = 8
"""So many entries that are found together are worth a further step."""

_MAX_STEPS = 4
_MANY = 64

Key: TypeAlias = tuple[str, str]
"""What an entry asks for exactly: ``("header", "end-user")``."""

Read: TypeAlias = Callable[[RequestView], tuple[str, ...]]
Node: TypeAlias = "list[int] | _Step"


class RouteTable(tuple[Route, ...]):
    """Routes with an index of them; otherwise a tuple like any other."""

    _matches: list[RouteMatch | None]
    _routes: list[Route]
    _paths: _Paths

    @classmethod
    def of(cls, routes: Sequence[Route]) -> tuple[Route, ...]:
        """The routes, with an index if they are so many that it pays."""
        if len(routes) < MIN_INDEXED:
            return tuple(routes)
        table = cls(routes)
        table._matches, table._routes = [], []
        for route in routes:
            for match in route.matches or (None,):
                if match is None or all(each.never is None for each in _whole(match)):
                    table._matches.append(match)
                    table._routes.append(route)
        table._paths = _Paths(table._matches)
        return table

    def find(self, request: RequestView) -> Route | None:
        """The first route that matches, or None."""
        found: list[list[int]] = []
        self._paths.collect(request, found)
        matches = self._matches
        entries: Iterable[int]
        if len(found) == 1:
            entries = found[0]
        elif sum(map(len, found)) <= _MANY:
            entries = sorted(chain.from_iterable(found))
        else:
            entries = merge(*found)
        for entry in entries:
            match = matches[entry]
            if match is None or match.matches(request):
                return self._routes[entry]
        return None


class _Step:
    """Entries by a value that they ask for exactly."""

    __slots__ = ("by_value", "read", "rest")

    def __init__(self, read: Read, by_value: dict[str, Node], rest: Node) -> None:
        self.read = read
        self.by_value = by_value
        self.rest = rest


def _collect(node: Node, request: RequestView, found: list[list[int]]) -> None:
    while type(node) is not list:
        assert isinstance(node, _Step)
        for value in node.read(request):
            below = node.by_value.get(value)
            if below is not None:
                _collect(below, request, found)
        node = node.rest
    if node:
        found.append(node)


class _Prefixes:
    """Entries by texts that paths begin with. One look for each length that there is."""

    __slots__ = ("by_text", "lengths")

    def __init__(self, by_text: dict[str, Node]) -> None:
        self.by_text = by_text
        self.lengths = sorted({len(text) for text in by_text})

    def collect(self, path: str, request: RequestView, found: list[list[int]]) -> None:
        size, get = len(path), self.by_text.get
        for length in self.lengths:
            if length > size:
                return
            node = get(path[:length])
            if node is not None:
                _collect(node, request, found)


class _Stems:
    """Entries by whole segments that paths begin with."""

    __slots__ = ("by_text",)

    def __init__(self, by_text: dict[str, Node]) -> None:
        self.by_text = by_text

    def collect(self, path: str, request: RequestView, found: list[list[int]]) -> None:
        get, at = self.by_text.get, path.find("/", 1)
        while at >= 0:
            node = get(path[:at])
            if node is not None:
                _collect(node, request, found)
            at = path.find("/", at + 1)
        node = get(path)
        if node is not None:
            _collect(node, request, found)


class _Exact:
    """Entries by whole paths."""

    __slots__ = ("by_text",)

    def __init__(self, by_text: dict[str, Node]) -> None:
        self.by_text = by_text

    def collect(self, path: str, request: RequestView, found: list[list[int]]) -> None:
        node = self.by_text.get(path)
        if node is not None:
            _collect(node, request, found)


class _Segments:
    """Entries by templates: a tree of segments, in which a variable is a branch of its own."""

    __slots__ = ("_root",)

    def __init__(self, by_text: dict[str, Node]) -> None:
        self._root = _Segment()
        for template, node in by_text.items():
            at = self._root
            for segment in template.split("/")[1:]:
                if "{" in segment:
                    at.variable = at.variable or _Segment()
                    at = at.variable
                else:
                    at = at.literal.setdefault(segment, _Segment())
            at.nodes.append(node)

    def collect(self, path: str, request: RequestView, found: list[list[int]]) -> None:
        here = [self._root]
        for segment in path.split("/")[1:]:
            after = []
            for each in here:
                below = each.literal.get(segment)
                if below is not None:
                    after.append(below)
                if each.variable is not None and segment:
                    after.append(each.variable)
            if not after:
                return
            here = after
        for each in here:
            for node in each.nodes:
                _collect(node, request, found)


class _Segment:
    __slots__ = ("literal", "nodes", "variable")

    def __init__(self) -> None:
        self.literal: dict[str, _Segment] = {}
        self.variable: _Segment | None = None
        self.nodes: list[Node] = []


class _ByPath(Protocol):
    def collect(self, path: str, request: RequestView, found: list[list[int]]) -> None: ...


_KINDS: Final[Mapping[str, Callable[[dict[str, Node]], _ByPath]]] = {
    "exact": _Exact,
    "prefix": _Prefixes,
    "path_prefix": _Stems,
    "template": _Segments,
}


class _Paths:
    """All entries, by the path that they ask for."""

    __slots__ = ("_as_written", "_lowered", "_rest")

    def __init__(self, matches: Sequence[RouteMatch | None]) -> None:
        kinds: dict[tuple[str, bool], dict[str, list[int]]] = {}
        rest: list[int] = []
        for entry, match in enumerate(matches):
            key = None if match is None else next(filter(None, map(_path_key, _whole(match))), None)
            if key is None:
                rest.append(entry)
            else:
                kind, text, ignore_case = key
                kinds.setdefault((kind, ignore_case), {}).setdefault(text, []).append(entry)
        made = {
            kind: _KINDS[kind[0]]({text: _sorted(entries, matches) for text, entries in by_text.items()})
            for kind, by_text in kinds.items()
        }
        self._as_written = [each for (_, ignore_case), each in made.items() if not ignore_case]
        self._lowered = [each for (_, ignore_case), each in made.items() if ignore_case]
        self._rest = _sorted(rest, matches)

    def collect(self, request: RequestView, found: list[list[int]]) -> None:
        path = request.path
        for each in self._as_written:
            each.collect(path, request, found)
        if self._lowered:
            path = lowered(path)
            for each in self._lowered:
                each.collect(path, request, found)
        _collect(self._rest, request, found)


def _whole(match: RouteMatch) -> Iterator[RouteMatch]:
    """A match, and those that must be met besides."""
    also: RouteMatch | None = match
    while also is not None:
        yield also
        also = also.also


def _path_key(match: RouteMatch) -> tuple[str, str, bool] | None:
    """What sorts a match by its path: the kind, the text, whether case is ignored. None for what nearly all have."""
    path = match.path
    if path is None:
        return None
    if path.kind == "template":
        return path.kind, path.value, False
    if path.kind == "regex":
        ignore_case = path.value.startswith("(?i)")
        text = literal_prefix(path.value[4:] if ignore_case else path.value)
        if ignore_case:
            text = lowered(text) if text.isascii() else ""
        return None if len(text) < 2 else ("prefix", text, ignore_case)
    return None if path.kind != "exact" and len(path.text) < 2 else (path.kind, path.text, path.ignore_case)


def literal_prefix(pattern: str) -> str:
    """A text that whatever a regex matches begins with; empty if none is plain to see."""
    if r"\Q" in pattern or _has_alternatives(pattern):
        return ""
    text, at = "", 1 if pattern[:1] == "^" else 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\" and at + 1 < len(pattern) and not pattern[at + 1].isalnum():
            character, at = pattern[at + 1], at + 1
        elif character in "*?{":
            return text[:-1]
        elif character in "\\^$.|+()[]":
            break
        text += character
        at += 1
    return text


_ATOMS: Final = re.compile(r"\\.|\[\^?\]?(?:\[:[^\]]*:\]|\\.|[^\]\\])*\]", re.DOTALL)
"""Escapes and classes: a bar or a parenthesis in them is a character like any other."""


def _has_alternatives(pattern: str) -> bool:
    """Whether there is a ``|`` outside of groups; in doubt yes."""
    depth = 0
    for character in _ATOMS.sub("", pattern):
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            return True
    return depth != 0


def _sorted(entries: list[int], matches: Sequence[RouteMatch | None], done: frozenset[Key] = frozenset()) -> Node:
    """Entries that are found together, sorted by what else they ask for if they are many."""
    if len(entries) < _MIN_SORTED or len(done) == _MAX_STEPS:
        return entries
    asked: dict[Key, dict[str, list[int]]] = {}
    for entry in entries:
        match = matches[entry]
        for key, values in () if match is None else _exact_keys(match):
            if key not in done:
                by_value = asked.setdefault(key, {})
                for value in values:
                    by_value.setdefault(value, []).append(entry)
    best, spared = None, 0
    for key, by_value in asked.items():
        # A request has one value, so it is spared the entries of all others.
        sizes = [len(each) for each in by_value.values()]
        if sum(sizes) - max(sizes) > spared:
            best, spared = key, sum(sizes) - max(sizes)
    if best is None or spared < _MIN_SORTED // 2:
        return entries
    by_value, done = asked[best], done | {best}
    taken = set(chain.from_iterable(by_value.values()))
    return _Step(
        _reader(best),
        {value: _sorted(each, matches, done) for value, each in by_value.items()},
        _sorted([entry for entry in entries if entry not in taken], matches, done),
    )


def _exact_keys(match: RouteMatch) -> Iterator[tuple[Key, Iterable[str]]]:
    seen = set()
    for each in _whole(match):
        conditions = [(("header", name), condition) for name, condition in each.headers]
        conditions += [(("query", name), condition) for name, condition in each.query]
        conditions += [(("cookie", name), condition) for name, condition in each.cookies]
        if each.authority is not None:
            conditions.append((("authority", ""), each.authority))
        found = [(key, (condition.value,)) for key, condition in conditions if _is_plain(condition)]
        keys: list[tuple[Key, Iterable[str]]] = [*found, *([(("method", ""), each.methods)] if each.methods else [])]
        for key, values in keys:
            if key not in seen:
                seen.add(key)
                yield key, values


def _is_plain(condition: StringMatch) -> bool:
    return condition.kind == "exact" and not (condition.invert or condition.ignore_case or condition.absent_as_empty)


def _reader(key: Key) -> Read:
    kind, name = key
    if kind == "method":
        return lambda request: (request.method,)
    if kind == "authority":
        return lambda request: _values(request.authority)
    if kind == "header":
        return lambda request: _values(request.headers.get(name))
    if kind == "query":
        return lambda request: _values(request.parameters.get(name))
    return lambda request: _values(request.cookies.get(name))


def _values(value: str | None) -> tuple[str, ...]:
    if value is None:
        return ()
    return value.each if isinstance(value, Repeated) else (value,)
