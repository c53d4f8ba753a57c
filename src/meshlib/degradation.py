"""A lesser answer in the place of an error: ``@meshlib.fallback``.

(The module cannot have the name of what it defines: importing it would then hide ``meshlib.fallback``.)
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, ParamSpec, TypeVar, overload

from meshlib.errors import MeshError

__all__ = ["Fallback", "fallback"]

P = ParamSpec("P")
R = TypeVar("R")
V = TypeVar("V")

_UNSET: Any = object()


class Fallback(Generic[V]):
    """The decorator that `fallback` returns."""

    __slots__ = ("_answer", "_on")

    def __init__(self, answer: Callable[[MeshError], Any], on: tuple[type[MeshError], ...]) -> None:
        self._answer = answer
        self._on = on

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Coroutine[Any, Any, R | V]]: ...
    @overload
    def __call__(self, function: Callable[P, R]) -> Callable[P, R | V]: ...
    def __call__(self, function: Callable[P, Any]) -> Callable[P, Any]:
        """Wrap `function`, sync or async.

        Raises:
            TypeError: if it is a generator, or is sync while the answer needs to be awaited.
        """
        answer, on = self._answer, self._on
        name = getattr(function, "__qualname__", repr(function))
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(
                f"fallback cannot wrap the generator {name}: some of its values may be out already when it fails. "
                "Wrap the function that makes the call, or catch meshlib.MeshError inside"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def guarded_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                try:
                    return await function(*args, **kwargs)
                except on as error:
                    lesser = answer(error)
                    return await lesser if inspect.isawaitable(lesser) else lesser

            return guarded_async
        if inspect.iscoroutinefunction(answer):
            raise TypeError(f"fallback: {name} is not async, so what `call` names must not be either")

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                return function(*args, **kwargs)
            except on as error:
                return answer(error)

        return guarded


@overload
def fallback(*, value: V, on: type[MeshError] | tuple[type[MeshError], ...] = ...) -> Fallback[V]: ...
@overload
def fallback(
    *, call: Callable[[MeshError], Awaitable[V]], on: type[MeshError] | tuple[type[MeshError], ...] = ...
) -> Fallback[V]: ...
@overload
def fallback(
    *, call: Callable[[MeshError], V], on: type[MeshError] | tuple[type[MeshError], ...] = ...
) -> Fallback[V]: ...
def fallback(
    *,
    value: Any = _UNSET,
    call: Callable[[MeshError], Any] | None = None,
    on: type[MeshError] | tuple[type[MeshError], ...] = MeshError,
) -> Fallback[Any]:
    """Answer with something lesser when a meshed call inside fails. A decorator, for sync and async functions.

    It catches errors of the mesh alone: a bug in the function is still seen, and so is an error status that nobody
    raised. It comes last, when all retries are over.

    Args:
        value: what is returned; always the same object, so let it be one that nobody changes.
        call: a function of the error, whose result is returned; it may be async where the wrapped function is.
        on: only these errors of the mesh.

    Raises:
        TypeError: if not exactly one of `value` and `call` is given, or `on` names other than errors of the mesh.
    """
    if (value is _UNSET) == (call is None):
        raise TypeError("fallback takes either value= or call=")
    errors: tuple[Any, ...] = on if isinstance(on, tuple) else (on,)
    for error in errors:
        if not (isinstance(error, type) and issubclass(error, MeshError)):
            raise TypeError(f"fallback catches errors of the mesh only, and {error!r} is none")
    return Fallback(call if call is not None else lambda _: value, errors)
