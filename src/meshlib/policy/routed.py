"""What a route does to one request, worked out before the call begins: its new path, its answer, its draw."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshlib.routing.answer import answer_of
from meshlib.routing.match import RequestView
from meshlib.routing.rewrite import matched_path, rewrite_path
from meshlib.routing.split import draw_of

if TYPE_CHECKING:
    from meshlib.policy.traits import Reader, Traits
    from meshlib.routing.route import Route

__all__ = ["route_reader"]


def route_reader(route: Route) -> Reader:
    """Notes what the route does to a request: `Traits.rewritten`, `answer` and `sticky`."""
    rewrite, reply, sticky = route.rewrite, route.reply, route.sticky

    def read(request: RequestView, traits: Traits) -> None:
        if reply is not None:
            traits.answer = answer_of(reply, request, matched_path(route.matches, request))
            return
        if rewrite is not None and rewrite.changes_path:
            traits.rewritten = rewrite_path(rewrite, request.path, matched_path(route.matches, request))
        if sticky is not None:
            traits.sticky = draw_of(sticky, request, traits.hash_key)

    return read
