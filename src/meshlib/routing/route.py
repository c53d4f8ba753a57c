"""Routes: match, where to, and what to do on the way."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from meshlib.dataclass import dataclass, field
from meshlib.policy.settings import CallPolicy
from meshlib.routing.actions import DirectResponse, Mirror, Redirect, Rewrite, Sticky
from meshlib.routing.match import RequestView, RouteMatch

__all__ = ["NO_EDITS", "Backend", "HeaderEdits", "HeaderList", "Route", "find_route"]

HeaderList: TypeAlias = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Changes to headers: remove, then set (replace), then add. Names are in lower case. Values may be secrets."""

    remove: frozenset[bytes] = frozenset()
    set: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    add: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)

    def __bool__(self) -> bool:
        return bool(self.remove or self.set or self.add)

    def apply(self, headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
        """Return the edited headers."""
        gone = self.remove | {name for name, _ in self.set}
        return [*((name, value) for name, value in headers if name.lower() not in gone), *self.set, *self.add]


NO_EDITS = HeaderEdits()


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a share of a route's calls goes: a service, or one subset of it.

    Attributes:
        service, subset: the cluster.
        weight: its share, relative to the other backends'.
        request_edits, response_edits: header edits, besides the route's.
        host: what its servers see as ``Host``; None leaves it as it is.
    """

    service: str
    subset: str | None = None
    weight: float = 1.0
    request_edits: HeaderEdits = NO_EDITS
    response_edits: HeaderEdits = NO_EDITS
    host: str | None = None

    @property
    def cluster(self) -> str:
        """The name of the cluster: ``orders`` or ``orders/v2``."""
        return self.service if self.subset is None else f"{self.service}/{self.subset}"


@dataclass(frozen=True, slots=True)
class Route:
    """One route of a service. `policy` is complete: the service's and the defaults' values are merged in.

    Attributes:
        name: for the record, spans and metrics.
        matches: any of them; none at all matches everything.
        backends: where to, by weight; at least one.
        policy: how to call.
        request_edits, response_edits: header edits.
        template: a low-cardinality name of the path, if the route has one.
        rewrite: of path and host; None for none.
        reply: what answers instead of a backend; None for none.
        mirrors: who gets copies.
        sticky: what the draw of the backend goes by; None for chance.
        shapes, reshapes: whether requests, and whether responses, are changed by it or by one of its backends.
    """

    name: str
    backends: tuple[Backend, ...]
    policy: CallPolicy
    matches: tuple[RouteMatch, ...] = ()
    request_edits: HeaderEdits = NO_EDITS
    response_edits: HeaderEdits = NO_EDITS
    template: str | None = None
    rewrite: Rewrite | None = None
    reply: Redirect | DirectResponse | None = None
    mirrors: tuple[Mirror, ...] = ()
    sticky: Sticky | None = None
    shapes: bool = field(init=False, repr=False, compare=False)
    reshapes: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        backends = self.backends
        shapes = self.rewrite or self.request_edits or any(each.request_edits or each.host for each in backends)
        reshapes = self.response_edits or any(each.response_edits for each in backends)
        object.__setattr__(self, "shapes", bool(shapes))
        object.__setattr__(self, "reshapes", bool(reshapes))

    def accepts(self, request: RequestView) -> bool:
        for match in self.matches:
            if match.matches(request):
                return True
        return not self.matches

    def why_not(self, request: RequestView) -> str | None:
        """Why this route does not match, in words; None if it does."""
        if self.accepts(request):
            return None
        return "; ".join(filter(None, (match.why_not(request) for match in self.matches)))


def find_route(routes: Sequence[Route], request: RequestView) -> Route | None:
    """The first route that matches, or None."""
    if type(routes) is not tuple and hasattr(routes, "find"):
        found: Route | None = routes.find(request)
        return found
    for route in routes:
        if route.accepts(request):
            return route
    return None
