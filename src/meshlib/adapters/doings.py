"""What a route would do to a request on its way, in words. Values that may be secret are not among them."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.routing.answer import answer_of
from meshlib.routing.match import RequestView
from meshlib.routing.rewrite import matched_path, rewrite_path
from meshlib.routing.route import HeaderEdits, Route
from meshlib.routing.split import draw, draw_of

__all__ = ["doings"]


def doings(route: Route, request: RequestView) -> tuple[str, ...]:
    """A line for each thing: what answers in place of a backend, rewrites, header edits, copies."""
    return tuple(_doings(route, request))


def _doings(route: Route, request: RequestView) -> Iterator[str]:
    matched = matched_path(route.matches, request)
    if route.reply is not None:
        answer = answer_of(route.reply, request, matched)
        yield f"it is answered with {answer.status} and nobody is called: {answer.text}"
        yield from _edits(route.response_edits, "response", "")
        return
    if route.rewrite is not None:
        path = rewrite_path(route.rewrite, request.path, matched)
        if path != request.path:
            yield f"the path becomes {path}"
        if route.rewrite.host is not None:
            yield f"the host becomes {route.rewrite.host}"
    yield from _edits(route.request_edits, "request", "")
    for backend in route.backends:
        if backend.host is not None:
            yield f"the host becomes {backend.host} to {backend.cluster}"
        yield from _edits(backend.request_edits, "request", f" to {backend.cluster}")
    yield from _edits(route.response_edits, "response", "")
    for backend in route.backends:
        yield from _edits(backend.response_edits, "response", f" from {backend.cluster}")
    if route.sticky is not None and len(route.backends) > 1:
        kinds = ("header", "cookie", "query", "number")
        named = [f"{kind} {getattr(route.sticky, kind)}" for kind in kinds if getattr(route.sticky, kind)]
        by = draw_of(route.sticky, request, None)
        drawn = None if by is None else draw(route.backends, by)
        so = "" if drawn is None else f": {route.backends[drawn].cluster}"
        yield f"the backend is drawn by {''.join(named) or 'the hash key of the call'}{so}"
    for mirror in route.mirrors:
        of = "" if mirror.percent >= 100 else f", for {mirror.percent:g} % of calls"
        yield f"a copy goes to {mirror.cluster}{of}"


def _edits(edits: HeaderEdits, what: str, whom: str) -> Iterator[str]:
    for name in sorted(edits.remove):
        yield f"{what} header {name.decode('ascii')}{whom} is removed"
    for name, _ in edits.set:
        yield f"{what} header {name.decode('ascii')}{whom} is set"
    for name, _ in edits.add:
        yield f"{what} header {name.decode('ascii')}{whom} is added"
