"""Does a request match? Pure predicates over what routing may see of a request, each able to say why not.

What a condition means, to the letter, is what Envoy 1.40 makes of it: `docs/routing/matching.md` has it in full.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final, Literal, Protocol, TypeAlias

from meshlib.dataclass import dataclass, field
from meshlib.routing.fields import Repeated

__all__ = [
    "PathKind",
    "PathMatch",
    "RequestView",
    "RouteMatch",
    "StringKind",
    "StringMatch",
    "is_secret",
    "lowered",
    "string_match",
]

PathKind: TypeAlias = Literal["exact", "prefix", "path_prefix", "regex", "template"]
StringKind: TypeAlias = Literal["exact", "prefix", "suffix", "contains", "regex", "present", "range"]

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,25}")
_PORTS: Final = {"http": 80, "https": 443}
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
        """The query's parameters as sent, percent-encoded; of a repeated one the first."""
        parameters: dict[str, str] = {}
        for pair in self.query.split("&"):
            name, _, value = pair.partition("=")
            parameters.setdefault(name, value)
        return parameters

    @cached_property
    def cookies(self) -> dict[str, str]:
        """The cookies, without quotes around them; of a repeated one the first."""
        cookies: dict[str, str] = {}
        for pair in self.headers.get("cookie", "").split(";"):
            name, found, value = pair.lstrip(" ").partition("=")
            if found:
                quoted = len(value) > 1 and value[0] == value[-1] == '"'
                cookies.setdefault(name, value[1:-1] if quoted else value)
        return cookies

    @cached_property
    def chance(self) -> float:
        """One random number in [0, 1), the same for all that is drawn for this request; 0 where nothing draws."""
        return 0.0 if self._random is None else self._random()

    @property
    def url_port(self) -> int | None:
        """The port of the URL, or its scheme's own."""
        return _PORTS.get(self.scheme) if self.port is None else self.port

    @property
    def authority(self) -> str:
        """``Host`` as the caller wrote it: with the port, unless that is the scheme's own."""
        given = self.headers.get("host")
        if given is not None:
            return given
        return self.host if self.port is None else f"{self.host}:{self.port}"


class Pattern(Protocol):
    """What can match a whole text."""

    def fullmatch(self, text: str) -> bool:
        """Whether it does."""
        ...


@dataclass(frozen=True, slots=True)
class PathMatch:
    """A condition on the path.

    ``exact``; ``prefix``: raw string prefix, as Istio and Envoy mean it; ``path_prefix``: by whole segments, as the
    Gateway API means it; ``regex``: must match the whole path; ``template``: ``/orders/{id}``, each variable one
    segment. `ignore_case` is of ASCII letters, for the first three.
    """

    kind: PathKind
    value: str
    ignore_case: bool = False
    pattern: Pattern | None = field(init=False, repr=False, compare=False, default=None)
    text: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        text = self.value.rstrip("/") if self.kind == "path_prefix" else self.value
        object.__setattr__(self, "text", lowered(text) if self.ignore_case else text)
        if self.kind == "regex":
            object.__setattr__(self, "pattern", _regex(self.value))
        elif self.kind == "template":
            object.__setattr__(self, "pattern", _Template(self.value))

    def matches(self, path: str) -> bool:
        kind = self.kind
        if self.ignore_case:
            path = lowered(path)
        if kind == "exact":
            return path == self.text
        if kind == "prefix":
            return path.startswith(self.text)
        if kind == "path_prefix":
            text = self.text
            return path.startswith(text) and (len(path) == len(text) or path[len(text)] == "/")
        return self.pattern is not None and self.pattern.fullmatch(path)

    def __str__(self) -> str:
        return f"{self.kind} {self.value!r}{', in any case' if self.ignore_case else ''}"


@dataclass(frozen=True, slots=True)
class StringMatch:
    """A condition on a header, a cookie or a query parameter. ``present`` with ``invert`` is "absent".

    Attributes:
        kind: what of the value is looked at.
        value: compared with.
        invert: whether it holds where the rest does not.
        ignore_case: of ASCII letters, in texts other than regexes.
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
    pattern: Pattern | None = field(init=False, repr=False, compare=False, default=None)
    text: str = field(init=False, repr=False, compare=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", lowered(self.value) if self.ignore_case else self.value)
        if self.kind == "regex":
            object.__setattr__(self, "pattern", _regex(self.value))

    def matches(self, value: str | None) -> bool:
        """Whether a header meets it. One that is not there meets no inverted condition but ``present``, as in Envoy."""
        if value is None:
            if not self.absent_as_empty:
                return self.invert and self.kind == "present"
            value = ""
        elif type(value) is Repeated:
            return any(map(self.holds, value.each)) is not self.invert
        return self.holds(value) is not self.invert

    def matches_value(self, value: str | None) -> bool:
        """Whether a cookie or parameter meets it. One that is not there meets each inverted condition, as in Envoy."""
        if value is None and not self.absent_as_empty:
            return self.invert
        return self.holds(value or "") is not self.invert

    def holds(self, value: str) -> bool:
        """Whether a value that is there is as it says, before it is inverted."""
        kind = self.kind
        if self.ignore_case:
            value = lowered(value)
        if kind == "exact":
            return value == self.text
        if kind == "prefix":
            return value.startswith(self.text)
        if kind == "suffix":
            return value.endswith(self.text)
        if kind == "contains":
            return self.text in value
        if kind == "range":
            return self._in_range(value)
        return kind == "present" or (self.pattern is not None and self.pattern.fullmatch(value))

    def _in_range(self, value: str) -> bool:
        value = value.strip(" \t")
        if _WHOLE_NUMBER.fullmatch(value) is None:
            return False
        number = int(value)
        # Envoy reads 64 bits, and what is larger is no number to it.
        return self.bounds[0] <= number < self.bounds[1] and -(2**63) <= number < 2**63

    def __str__(self) -> str:
        if self.kind == "present":
            text = "present"
        elif self.kind == "range":
            text = f"a whole number from {self.bounds[0]} to below {self.bounds[1]}"
        else:
            text = f"{self.kind} {self.value!r}{', in any case' if self.ignore_case else ''}"
        return f"not {text}" if self.invert else text


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """All of its conditions must hold. Header names are in lower case.

    Attributes:
        path, methods, headers, query, cookies, scheme, authority, port: of the request.
        percent: of the requests that meet the rest.
        never: why no request of this process can ever match, in words; None if one can.
        also: further conditions: those of the route that hands over to the one that these belong to.
        unless: what a request must not match, none of them.
    """

    path: PathMatch | None = None
    methods: frozenset[str] = frozenset()
    headers: tuple[tuple[str, StringMatch], ...] = field(default=(), repr=False)
    query: tuple[tuple[str, StringMatch], ...] = field(default=(), repr=False)
    cookies: tuple[tuple[str, StringMatch], ...] = field(default=(), repr=False)
    scheme: str | None = None
    authority: StringMatch | None = None
    port: int | None = None
    percent: float = 100.0
    never: str | None = None
    also: RouteMatch | None = None
    unless: tuple[RouteMatch, ...] = ()
    rare: bool = field(init=False, repr=False, compare=False, default=False)
    """Whether it has any of the conditions that few have, so that the others need not ask for each."""

    def __post_init__(self) -> None:
        few = (self.cookies, self.scheme, self.authority, self.port, self.never, self.also, self.unless)
        object.__setattr__(self, "rare", any(each is not None and each != () for each in few) or self.percent < 100.0)

    def matches(self, request: RequestView) -> bool:
        if self.methods and request.method not in self.methods:
            return False
        if self.path is not None and not self.path.matches(request.path):
            return False
        if self.headers:
            given = request.headers
            for name, condition in self.headers:
                if not condition.matches(given.get(name)):
                    return False
        if self.query:
            parameters = request.parameters
            for name, condition in self.query:
                if not condition.matches_value(parameters.get(name)):
                    return False
        return not self.rare or self._others(request)

    def _others(self, request: RequestView) -> bool:
        if self.never is not None or (self.scheme is not None and request.scheme != self.scheme):
            return False
        if self.port is not None and request.url_port != self.port:
            return False
        if self.authority is not None and not self.authority.matches(request.authority):
            return False
        for name, condition in self.cookies:
            if not condition.matches_value(request.cookies.get(name)):
                return False
        if self.also is not None and not self.also.matches(request):
            return False
        for match in self.unless:
            if match.matches(request):
                return False
        return self.percent >= 100.0 or request.chance * 100.0 < self.percent

    def why_not(self, request: RequestView) -> str | None:
        """The first condition that does not hold, in words; None if all hold."""
        return next(self._reasons(request), None)

    def _reasons(self, request: RequestView) -> Iterator[str]:
        if self.never is not None:
            yield self.never
        if self.methods and request.method not in self.methods:
            yield f"method {request.method} is not {' or '.join(sorted(self.methods))}"
        if self.path is not None and not self.path.matches(request.path):
            yield f"path {request.path!r} is not {self.path}"
        if self.scheme is not None and request.scheme != self.scheme:
            yield f"scheme {request.scheme} is not {self.scheme}"
        if self.port is not None and request.url_port != self.port:
            yield f"port {request.url_port} is not {self.port}"
        if self.authority is not None and not self.authority.matches(request.authority):
            yield f"authority is {request.authority!r}, not {self.authority}"
        for name, condition in self.headers:
            if not condition.matches(value := request.headers.get(name)):
                yield _differs("header", name, value, condition)
        for what, pairs, values in (
            ("query parameter", self.query, request.parameters),
            ("cookie", self.cookies, request.cookies),
        ):
            for name, condition in pairs:
                if not condition.matches_value(value := values.get(name)):
                    yield _differs(what, name, value, condition)
        if self.also is not None and (reason := self.also.why_not(request)) is not None:
            yield f"of the route that delegates to it: {reason}"
        if any(match.matches(request) for match in self.unless):
            yield "it meets one of the conditions under 'unless'"
        if self.percent < 100.0 and request.chance * 100.0 >= self.percent:
            yield f"it takes {self.percent:g} % of such requests, by chance, and not this one"


class _Template:
    """A path with variables, each of them a part of one segment, or all of it."""

    __slots__ = ("_pattern",)

    def __init__(self, template: str) -> None:
        parts = re.split(r"\{[^{}/]+\}", template)
        self._pattern = re.compile("[^/]+".join(map(re.escape, parts)))

    def fullmatch(self, text: str) -> bool:
        return self._pattern.fullmatch(text) is not None


def lowered(text: str) -> str:
    """With ASCII letters in lower case, and no others, as Envoy compares where case is ignored."""
    return text.lower() if text.isascii() else text.encode("utf-8", "surrogatepass").lower().decode("utf-8", "replace")


def _regex(text: str) -> Pattern:
    from meshlib.routing.regex import compile_regex

    return compile_regex(text)


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
    shown = "absent" if value is None else repr(str(value))
    if what != "cookie" and not is_secret(name):
        return f"{what} {name} is {shown}, not {condition}"
    return f"{what} {name} is {'absent' if value is None else 'there'}, and not as its {condition.kind} condition says"
