"""Does a request match? Pure predicates over method, path, headers and query, each able to say why not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qsl

from meshlib.dataclass import dataclass, field

__all__ = [
    "PathKind",
    "PathMatch",
    "RequestView",
    "RouteMatch",
    "StringKind",
    "StringMatch",
    "is_secret",
    "string_match",
]

PathKind: TypeAlias = Literal["exact", "prefix", "path_prefix", "regex", "template"]
StringKind: TypeAlias = Literal["exact", "prefix", "suffix", "contains", "regex", "present", "range"]

_SECRET = re.compile(r"auth|cookie|token|secret|passw|session|signature|credential|api-?_?key", re.IGNORECASE)
"""In the name of a header or parameter: its value is nobody's business who reads why a route was not taken."""


class RequestView:
    """What routing may look at.

    Attributes:
        method: in upper case.
        path: as sent (percent-encoded), without the query.
        query: as sent, without the question mark.
        headers: with names in lower case.
        scheme, host, port: of the URL as the caller wrote it, the host in lower case; no port is the scheme's own.
    """

    __slots__ = ("__dict__", "_random", "headers", "host", "method", "path", "port", "query", "scheme")

    def __init__(
        self,
        method: str,
        path: str,
        query: str = "",
        headers: Mapping[str, str] | None = None,
        *,
        scheme: str = "http",
        host: str = "",
        port: int | None = None,
        random: Callable[[], float] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers: Mapping[str, str] = {} if headers is None else headers
        self.scheme = scheme
        self.host = host
        self.port = port
        self._random = random

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The query's parameters; of a repeated one the first."""
        parameters: dict[str, str] = {}
        for name, value in parse_qsl(self.query, keep_blank_values=True):
            parameters.setdefault(name, value)
        return parameters

    @cached_property
    def cookies(self) -> dict[str, str]:
        """The cookies; of a repeated one the first."""
        cookies: dict[str, str] = {}
        for pair in self.headers.get("cookie", "").split(";"):
            name, found, value = pair.strip().partition("=")
            if found:
                cookies.setdefault(name, value)
        return cookies

    @cached_property
    def chance(self) -> float:
        """One random number in [0, 1), the same for all that is drawn for this request; 0 where nothing draws."""
        return 0.0 if self._random is None else self._random()

    @property
    def authority(self) -> str:
        """``Host`` as the caller wrote it: with the port, unless that is the scheme's own."""
        given = self.headers.get("host")
        if given is not None:
            return given
        return self.host if self.port is None else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A condition on the path.

    ``exact``; ``prefix``: raw string prefix, as Istio and Envoy mean it; ``path_prefix``: by whole segments, as the
    Gateway API means it; ``regex``: must match the whole path; ``template``: ``/orders/{id}``, each variable one
    segment.
    """

    kind: PathKind
    value: str
    ignore_case: bool = False
    pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.kind == "regex":
            object.__setattr__(self, "pattern", re.compile(self.value))
        elif self.kind == "template":
            parts = re.split(r"\{[^{}/]+\}", self.value)
            object.__setattr__(self, "pattern", re.compile("[^/]+".join(map(re.escape, parts))))

    def matches(self, path: str) -> bool:
        match self.kind:
            case "exact":
                return path == self.value
            case "prefix":
                return path.startswith(self.value)
            case "path_prefix":
                stem = self.value.rstrip("/")
                return path == stem or path.startswith(stem + "/")
            case _:
                return self.pattern is not None and self.pattern.fullmatch(path) is not None


@dataclass(frozen=True, slots=True)
class StringMatch:
    """A condition on a header, a cookie or a query parameter. ``present`` with ``invert`` is "absent".

    Attributes:
        kind: what of the value is looked at.
        value: compared with.
        invert: whether it holds where the rest does not.
        ignore_case: of texts other than regexes.
        absent_as_empty: whether what is not there is looked at as if it were empty (Envoy's
            ``treat_missing_header_as_empty``).
        bounds: of ``range``: from the first whole number up to, and without, the second.
    """

    kind: StringKind
    value: str = ""
    invert: bool = False
    ignore_case: bool = False
    absent_as_empty: bool = False
    bounds: tuple[int, int] = (0, 0)
    pattern: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if self.kind == "regex":
            object.__setattr__(self, "pattern", re.compile(self.value))

    def matches(self, value: str | None) -> bool:
        return self._holds(value) is not self.invert

    def _holds(self, value: str | None) -> bool:
        if value is None:
            return False
        match self.kind:
            case "exact":
                return value == self.value
            case "prefix":
                return value.startswith(self.value)
            case "suffix":
                return value.endswith(self.value)
            case "present":
                return True
            case _:
                return self.pattern is not None and self.pattern.fullmatch(value) is not None

    def __str__(self) -> str:
        text = self.kind if self.kind == "present" else f"{self.kind} {self.value!r}"
        return f"not {text}" if self.invert else text


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """All of its conditions must hold. Header names are in lower case.

    Attributes:
        path, methods, headers, query, cookies, scheme, authority, port: of the request.
        percent: of the requests that meet the rest.
        never: why no request of this process can ever match, in words; None if one can.
        also: further conditions: those of the route that hands over to the one that these belong to.
    """

    path: PathMatch | None = None
    methods: frozenset[str] = frozenset()
    headers: tuple[tuple[str, StringMatch], ...] = ()
    query: tuple[tuple[str, StringMatch], ...] = ()
    cookies: tuple[tuple[str, StringMatch], ...] = ()
    scheme: str | None = None
    authority: StringMatch | None = None
    port: int | None = None
    percent: float = 100.0
    never: str | None = None
    also: RouteMatch | None = None

    def matches(self, request: RequestView) -> bool:
        if self.methods and request.method not in self.methods:
            return False
        if self.path is not None and not self.path.matches(request.path):
            return False
        for name, condition in self.headers:
            if not condition.matches(request.headers.get(name)):
                return False
        return all(condition.matches(request.parameters.get(name)) for name, condition in self.query)

    def why_not(self, request: RequestView) -> str | None:
        """The first condition that does not hold, in words; None if all hold."""
        if self.methods and request.method not in self.methods:
            return f"method {request.method} is not {' or '.join(sorted(self.methods))}"
        if self.path is not None and not self.path.matches(request.path):
            return f"path {request.path!r} is not {self.path.kind} {self.path.value!r}"
        for name, condition in self.headers:
            value = request.headers.get(name)
            if not condition.matches(value):
                return _differs("header", name, value, condition)
        for name, condition in self.query:
            value = request.parameters.get(name)
            if not condition.matches(value):
                return _differs("query parameter", name, value, condition)
        return None


def string_match(given: Any) -> StringMatch:
    """The condition that `given`, a `ValueMatch` as it is written or settings of the same fields, stands for."""
    options = (given.ignore_case, given.absent_as_empty)
    for kind in _STRING_KINDS:
        value = getattr(given, kind)
        if value is not None:
            return StringMatch(kind, value, given.invert, *options)
    if given.range is not None:
        return StringMatch("range", "", given.invert, *options, tuple(given.range))
    present = given.present is not False
    return StringMatch("present", "", given.invert is present, *options)


_STRING_KINDS: Final[tuple[StringKind, ...]] = ("exact", "prefix", "suffix", "contains", "regex")


def is_secret(name: str) -> bool:
    """Whether the value of a header, cookie or parameter of this name is shown to nobody."""
    return _SECRET.search(name) is not None


def _differs(what: str, name: str, value: str | None, condition: StringMatch) -> str:
    shown = "absent" if value is None else repr(value)
    if not is_secret(name):
        return f"{what} {name} is {shown}, not {condition}"
    return f"{what} {name} is {'absent' if value is None else 'there'}, and not as its {condition.kind} condition says"
