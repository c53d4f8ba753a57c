"""What a rule of a route matches, and which of two matches goes first.

Of the matches of all rules that fit, the one with an exact path goes first; then the one with the longest prefix; then
one with a method; then the one with most headers; then the one with most query parameters (``HTTPRouteRule.Matches`` in
``httproute_types.go``). The place of regular expressions is left to implementations: last, as Istio has it
(``getURIRank`` of its ``pilot/pkg/config/kube/gateway``).
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from meshlib.config.dialects.fields import Reader
from meshlib.dataclass import dataclass

__all__ = ["EVERYTHING", "Match", "Rank", "read_match"]

Rank: TypeAlias = tuple[int, int, int, int, int]
"""Less goes first: kind of path, its length, method, headers, parameters."""

_PATHS: Final = {"Exact": "exact", "PathPrefix": "path_prefix", "RegularExpression": "regex"}
_ORDER: Final = tuple(_PATHS)
_VALUES: Final = {"Exact": "exact", "RegularExpression": "regex"}
_METHODS: Final = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}


@dataclass(frozen=True, slots=True)
class Match:
    """One match of a rule.

    Attributes:
        native: its conditions in the native form, the path among them.
        rank: see `Rank`.
    """

    native: dict[str, Any]
    rank: Rank

    @property
    def is_everything(self) -> bool:
        """Whether every request meets it."""
        return self.native == {"path": {"path_prefix": "/"}}

    def written(self, whole: bool) -> dict[str, Any]:
        """Its conditions, without the path if that says nothing; with it if `whole`, for a change of the prefix."""
        path = self.native["path"]
        if whole or path.get("path_prefix") != "/":
            return dict(self.native)
        return {name: value for name, value in self.native.items() if name != "path"}


def read_match(reader: Reader) -> Match:
    """Read a match; one that says nothing matches everything."""
    path = reader.narrowing().map("path")
    kind, value = "PathPrefix", "/"
    if path is not None:
        kind, value = path.text("type") or kind, path.text("value") or value
        path.rest()
        if kind not in _PATHS:
            path.wrong("type", f"{kind!r} is none of {', '.join(_PATHS)}")
            kind = "Exact"
    method = reader.text("method")
    headers, parameters = _values(reader.maps("headers"), True), _values(reader.maps("queryParams"), False)
    reader.rest()
    native: dict[str, Any] = {"path": {_PATHS[kind]: value}}
    if method is not None:
        if method not in _METHODS:
            reader.wrong("method", f"{method!r} is none of {', '.join(sorted(_METHODS))}")
        native["method"] = method
    count = len(headers)
    host = headers.pop("host", None)
    if host is not None:
        native["authority"] = host
    if headers:
        native["headers"] = headers
    if parameters:
        native["query"] = parameters
    # A slash at the end of a prefix means nothing.
    length = len(value.rstrip("/") if kind == "PathPrefix" else value)
    return Match(native, (_ORDER.index(kind), -length, int(method is None), -count, -len(parameters)))


def _values(readers: list[Reader], headers: bool) -> dict[str, dict[str, str]]:
    """Conditions by name; of several for one name the first, as the API says."""
    found: dict[str, dict[str, str]] = {}
    for reader in readers:
        name, value, kind = reader.text("name"), reader.text("value"), reader.text("type") or "Exact"
        reader.rest()
        if not name or value is None:
            reader.wrong("value" if name else "name", "is required")
        elif kind not in _VALUES:
            reader.wrong("type", f"{kind!r} is none of {', '.join(_VALUES)}")
        else:
            found.setdefault(name.lower() if headers else name, {_VALUES[kind]: value})
    return found


EVERYTHING: Final = Match({"path": {"path_prefix": "/"}}, (1, 0, 1, 0, 0))
"""What a rule without matches matches."""
