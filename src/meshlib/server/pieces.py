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
    from meshlib.server.intake import Arrival

__all__ = ["Pieces"]

P = ParamSpec("P")
T = TypeVar("T")


class Pieces:
    """Runs the pieces of one request, each with the scope and the trace that the one before it left."""

    __slots__ = ("_scope", "_trace")

    def __init__(self, arrival: Arrival) -> None:
        self._scope = HeldScope(arrival.inherited())
        self._trace = arrival.trace

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` as one piece."""
        if self._trace is None:
            return self._scope.run(function, *args, **kwargs)
        token = otel_context.attach(self._trace)
        try:
            return self._scope.run(function, *args, **kwargs)
        finally:
            self._trace = otel_context.get_current()
            otel_context.detach(token)

    async def run_async(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Await what `function` returns as one piece."""
        if self._trace is None:
            return await self._scope.run_async(function, *args, **kwargs)
        token = otel_context.attach(self._trace)
        try:
            return await self._scope.run_async(function, *args, **kwargs)
        finally:
            self._trace = otel_context.get_current()
            otel_context.detach(token)
