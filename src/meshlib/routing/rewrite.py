"""Rewriting a request's path: the whole, the prefix that matched, or by a regular expression.

Sources: for whole paths, raw prefixes and expressions Envoy's ``currentUrlPathAfterRewriteWithMatchedPath``, in
``source/common/router/config_impl.cc``; for prefixes by segment the table of ``HTTPPathModifier.ReplacePrefixMatch`` in
the Gateway API's ``httproute_types.go``. The query is never touched.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote

from meshlib.routing.actions import Redirect, Rewrite
from meshlib.routing.match import PathMatch, RequestView, RouteMatch

__all__ = ["matched_path", "rewrite_path", "sendable"]

_KEPT = "/%:@!$&'()*+,;=~-._"


def matched_path(matches: Iterable[RouteMatch], request: RequestView) -> PathMatch | None:
    """The condition on the path by which a route was taken; None if there was none.

    Args:
        matches: of the route.
        request: that it was taken by.
    """
    for match in matches:
        if match.matches(request):
            within: RouteMatch | None = match
            while within is not None:
                if within.path is not None:
                    return within.path
                within = within.also  # the route that handed over had one
            return None
    return None


def rewrite_path(change: Rewrite | Redirect, path: str, matched: PathMatch | None) -> str:
    """The path after a change. What comes of it can be sent, whatever was asked for.

    Args:
        change: names at most one of a whole path, a prefix and an expression.
        path: of the request, without its query.
        matched: the condition by which the route was taken: says what of the path is its prefix.
    """
    if change.path is not None:
        new = change.path
    elif change.prefix is not None:
        new = _swap(change.prefix, path, matched)
    elif change.regex is not None:
        new = change.regex.compiled.replace(path, change.regex.substitution)
    else:
        return path
    return new if new.isascii() and new[:1] == "/" else sendable(new)


def _swap(prefix: str, path: str, matched: PathMatch | None) -> str:
    """The path with another prefix. What matched as a whole is swapped as a whole, as Envoy does."""
    if matched is None:
        return prefix + path[1:]  # Envoy's route without a condition on the path has the prefix "/"
    if matched.kind == "prefix":
        return prefix + path[len(matched.value) :]
    if matched.kind == "path_prefix":
        return prefix.rstrip("/") + path[len(matched.value.rstrip("/")) :] or "/"
    return prefix


def sendable(path: str) -> str:
    """A path that begins with a slash, and has nothing in it that a request line cannot have."""
    return quote(path if path[:1] == "/" else f"/{path}", safe=_KEPT)
