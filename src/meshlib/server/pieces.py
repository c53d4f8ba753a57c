"""A request whose work runs in pieces: the call of the application, each chunk of its response, its end.

Between them other work runs in the same thread or task, so the scope and the trace are set for each piece and taken
away behind it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from opentelemetry import context as otel_context

from meshlib.context import HeldScope

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from meshlib.server.intake import Arrival

__all__ = ["Pieces", "Untouched", "in_pieces"]

P = ParamSpec("P")
T = TypeVar("T")


def in_pieces(arrival: Arrival, *, observed: bool = False) -> HeldScope | Pieces | Untouched:
    """What runs the pieces of a request; one without a trace has a scope alone, one that is only observed nothing."""
    if observed:
        return _UNTOUCHED
    scope = HeldScope(arrival.inherited())
    return scope if arrival.trace is None else Pieces(scope, arrival.trace)


class Pieces:
    """Runs the pieces of one request, each with the scope and the trace that the one before it left."""

    __slots__ = ("_scope", "_trace")

    def __init__(self, scope: HeldScope, trace: Context) -> None:
        self._scope = scope
        self._trace = trace

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` as one piece."""
        token = otel_context.attach(self._trace)
        try:
            return self._scope.run(function, *args, **kwargs)
        finally:
            self._trace = otel_context.get_current()
            otel_context.detach(token)

    async def run_async(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await what `function` returns as one piece."""
        token = otel_context.attach(self._trace)
        try:
            return await self._scope.run_async(function, *args, **kwargs)
        finally:
            self._trace = otel_context.get_current()
            otel_context.detach(token)


class Untouched:
    """Runs pieces as if nobody did."""

    __slots__ = ()

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function`."""
        return function(*args, **kwargs)

    async def run_async(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await what `function` returns."""
        return await function(*args, **kwargs)


_UNTOUCHED = Untouched()
