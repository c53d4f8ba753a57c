"""Delegation: a route hands over to a list of routes, which take its place.

After Istio's ``mergeHTTPRoute`` (``pilot/pkg/model/virtualservice.go``): one of them is taken where its own conditions
and those of the route that hands over hold, and what it does not say (edits, rewrite, mirrors) it takes from that.
"""

from __future__ import annotations

from meshlib.dataclass import replace
from meshlib.routing.match import RouteMatch
from meshlib.routing.route import Route

__all__ = ["delegated"]


def delegated(outer: Route, inner: Route) -> Route:
    """The route `inner` in the place of `outer`; its policy was laid over that of `outer` before."""
    edited = inner.request_edits or inner.response_edits
    rewrite, mirrors, sticky = inner.rewrite, inner.mirrors, inner.sticky
    if inner.reply is None:
        rewrite, mirrors = rewrite or outer.rewrite, mirrors or outer.mirrors
        if sticky is None and len(inner.backends) > 1:
            sticky = outer.sticky
    return replace(
        inner,
        name=f"{outer.name}/{inner.name}",
        matches=_both(outer.matches, inner.matches),
        request_edits=inner.request_edits if edited else outer.request_edits,
        response_edits=inner.response_edits if edited else outer.response_edits,
        template=inner.template or outer.template,
        rewrite=rewrite,
        mirrors=mirrors,
        sticky=sticky,
    )


def _both(outer: tuple[RouteMatch, ...], inner: tuple[RouteMatch, ...]) -> tuple[RouteMatch, ...]:
    """What meets one of `outer` and one of `inner`."""
    if not outer or not inner:
        return outer or inner
    return tuple(_within(match, first) for match in inner for first in outer)


def _within(match: RouteMatch, outer: RouteMatch) -> RouteMatch:
    return replace(match, also=outer if match.also is None else _within(match.also, outer))
