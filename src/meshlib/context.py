"""What travels with the work and not with the arguments: deadline, criticality, baggage.

One context variable holds one immutable `Scope`. What came with a request being served belongs to that request: when
the last byte of its response has gone out, the server side closes it, and from then on its deadline no longer binds
what the handler left running (background tasks, created tasks). A deadline set in code by `timeout()` binds whatever
runs inside.

A ``deadline`` is a point on the monotonic clock, in seconds; a ``timeout`` is a duration.
"""

from __future__ import annotations

import contextlib
import contextvars
import enum
import functools
import inspect
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from meshlib.dataclass import dataclass, field, replace
from meshlib.durations import Duration, parse_duration
from meshlib.served_request import ServedRequest

if TYPE_CHECKING:
    from meshlib.executor import ContextExecutor as ContextExecutor

__all__ = [
    "ContextExecutor",
    "Criticality",
    "Current",
    "HeldScope",
    "Override",
    "Scope",
    "ServedRequest",
    "carry",
    "criticality",
    "current",
    "current_scope",
    "decorate",
    "detached",
    "reset_scope",
    "scoped",
    "set_scope",
    "timeout",
    "too_late",
]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

monotonic: Callable[[], float] = time.monotonic
_NO_BAGGAGE: Mapping[str, str] = MappingProxyType({})


class Criticality(enum.IntEnum):
    """How bad it is to lose a request, after Google's SRE book, chapter 21. The higher, the later it is shed."""

    SHEDDABLE = 0
    SHEDDABLE_PLUS = 1
    CRITICAL = 2
    CRITICAL_PLUS = 3

    def __str__(self) -> str:
        """As it is written, in code and on the wire."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Override:
    """What replaces services for one request, and all that it leads to; see `meshlib.routing.override`.

    Attributes:
        pairs: services, each with what takes its place: a service or an address.
        text: as it travels; whoever has it may use it.
        expires_at: in seconds since 1970; None for never.
    """

    pairs: tuple[tuple[str, str], ...]
    text: str = field(repr=False)
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What a call inherits.

    Attributes:
        own_deadline: set in code, on the monotonic clock, in seconds; None for none.
        request: the request being served here, with the deadline of its caller.
        criticality: of the work being done.
        baggage: what travels with it to every service down the line.
        override: what replaces services; None for nothing.
    """

    own_deadline: float | None = None
    request: ServedRequest | None = None
    criticality: Criticality | None = None
    baggage: Mapping[str, str] = field(default_factory=lambda: _NO_BAGGAGE, hash=False)
    override: Override | None = None

    @property
    def deadline(self) -> float | None:
        """The earlier of the deadline set in code and that of the request being served, if that is not over."""
        request = self.request
        if request is None or request.closed:
            return self.own_deadline
        deadline = request.deadline  # once: with the response, another thread may put off or take away this one
        if deadline is None:
            return self.own_deadline
        if self.own_deadline is None:
            return deadline
        return min(self.own_deadline, deadline)


_EMPTY = Scope()
_scope: contextvars.ContextVar[Scope] = contextvars.ContextVar("meshlib.scope", default=_EMPTY)

_entered: contextvars.ContextVar[tuple[contextvars.Token[Scope], ...]] = contextvars.ContextVar(
    "meshlib.scope.entered", default=()
)

current_scope: Callable[[], Scope] = _scope.get
"""The scope that a call made here inherits."""


@dataclass(frozen=True, slots=True)
class Current:
    """What `current()` returns.

    Attributes:
        remaining: seconds until the deadline, never below 0; None without one.
        criticality: of the work being done, or None.
        baggage: what travels with it.
        cancelled: why nobody waits for the work any more: ``disconnect`` if the caller of the request being served was
            seen to go away, ``deadline`` if that of the caller, or one set in code, has passed; empty while somebody
            may. A thread that computes for long can look at it and stop; nothing else can end it.
    """

    remaining: float | None
    criticality: Criticality | None
    baggage: Mapping[str, str]
    cancelled: str = ""


def current() -> Current:
    """The remaining time, criticality and baggage of the work being done here, and whether anybody waits for it."""
    scope = _scope.get()
    deadline = scope.deadline
    remaining = None if deadline is None else max(0.0, deadline - monotonic())
    cancelled = "" if scope.request is None else scope.request.cancelled
    if not cancelled and remaining == 0.0:
        cancelled = "deadline"
    return Current(remaining, scope.criticality, scope.baggage, cancelled)


def too_late() -> str:
    """Why a call whose deadline had passed before it began is too late."""
    request = _scope.get().request
    if request is not None and request.cancelled == "disconnect":
        return "the caller of the request being served had gone away"
    return "the deadline had passed"


class scoped:
    """Changes the scope for what runs inside: a context manager, sync or async, and a decorator of both.

    The change is worked out at each entry, so one object may be entered many times, and by many tasks at once. Around
    a generator it is worked out when the generator starts, and holds while its body runs, not between its values.
    """

    __slots__ = ("_change",)

    def __init__(self, change: Callable[[Scope], Scope]) -> None:
        self._change = change

    def __enter__(self) -> Self:
        token = _scope.set(self._change(_scope.get()))
        _entered.set((*_entered.get(), token))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        entered = _entered.get()
        if not entered:
            # Left in another context than it was entered in (an async generator that another task closes):
            # there is nothing here to restore.
            return
        _entered.set(entered[:-1])
        with contextlib.suppress(ValueError):
            _scope.reset(entered[-1])

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, tb)

    def __call__(self, function: F) -> F:
        """Wrap `function` so that it runs inside."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            return decorate(function, self._once)
        return decorate(function, lambda: self)

    def _once(self) -> scoped:
        """The same change, worked out at the first entry alone; a timeout would start anew at each further one."""
        changed: Scope | None = None

        def change(scope: Scope) -> Scope:
            nonlocal changed
            if changed is None:
                changed = self._change(scope)
            return changed

        return scoped(change)


def decorate(function: F, manager: Callable[[], AbstractContextManager[Any]]) -> F:
    """Wrap `function`, sync or async, plain or generator, so that it runs inside ``with manager():``.

    `manager` is called once per call. What it returns is entered once or, for a generator, each time its body runs on:
    between its values the caller's own context holds.
    """
    call: Callable[..., Any] = function
    wrapper: Callable[..., Any]
    if inspect.isasyncgenfunction(function):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            generator = call(*args, **kwargs)
            inside = manager()
            resume, sent = generator.asend, None
            try:
                while True:
                    with inside:
                        try:
                            value = await resume(sent)
                        except StopAsyncIteration:
                            return
                    try:
                        resume, sent = generator.asend, (yield value)
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        resume, sent = generator.athrow, error
            finally:
                with inside:
                    await generator.aclose()

    elif inspect.isgeneratorfunction(function):

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            generator = call(*args, **kwargs)
            inside = manager()
            resume, sent = generator.send, None
            try:
                while True:
                    with inside:
                        try:
                            value = resume(sent)
                        except StopIteration as end:
                            return end.value
                    try:
                        resume, sent = generator.send, (yield value)
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        resume, sent = generator.throw, error
            finally:
                with inside:
                    generator.close()

    elif inspect.iscoroutinefunction(function):

        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            with manager():
                return await call(*args, **kwargs)

    else:

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with manager():
                return call(*args, **kwargs)

    return functools.wraps(function)(wrapper)  # type: ignore[return-value]


def timeout(limit: Duration) -> scoped:
    """A deadline for every meshed call made inside, and for all that they call in turn.

    Nested, the earlier deadline holds; it never extends what was inherited. Usable as ``with``, ``async with`` and as a
    decorator (the time then runs from each call). It bounds calls through the mesh, not other code.

    Args:
        limit: ``"2s"``, seconds, or a timedelta.

    Raises:
        ValueError: if `limit` is not a duration.
    """
    limit_s = parse_duration(limit)

    def change(scope: Scope) -> Scope:
        deadline = monotonic() + limit_s
        if scope.own_deadline is not None:
            deadline = min(deadline, scope.own_deadline)
        return replace(scope, own_deadline=deadline)

    return scoped(change)


def criticality(value: Criticality | str) -> scoped:
    """Say how critical the work inside is: that of every meshed call made inside, and of all that they call in turn.

    It replaces what was inherited. Usable as ``with``, ``async with`` and as a decorator. Under overload the least
    critical calls are shed first, where a service has a throttle.

    Args:
        value: of `Criticality`, or its name: ``"sheddable"``.

    Raises:
        ValueError: if there is no such criticality.
    """
    try:
        given = Criticality[value.upper()] if isinstance(value, str) else Criticality(value)
    except KeyError:
        names = ", ".join(each.name.lower() for each in Criticality)
        raise ValueError(f"{value!r} is not one of {names}") from None
    return scoped(lambda scope: replace(scope, criticality=given))


def detached() -> scoped:
    """Leave the inherited deadline: for work that must be done though its caller no longer waits."""
    return scoped(lambda scope: replace(scope, own_deadline=None, request=None))


set_scope: Callable[[Scope], contextvars.Token[Scope]] = _scope.set
"""Enter a scope that is complete, for server middleware; `reset_scope` leaves it."""


def reset_scope(token: contextvars.Token[Scope]) -> None:
    """Leave a scope; in another context than it was entered in there is nothing to restore."""
    try:  # `contextlib.suppress` would take longer than all the rest
        _scope.reset(token)
    except ValueError:
        pass


class HeldScope:
    """A scope for work that runs in pieces, such as the chunks of a response: taken up at each piece, then put down.

    Between the pieces nothing of it is left in the context, which belongs to whoever asks for the next one. What one
    piece changed and left open (a ``with timeout(...)`` around a ``yield``) holds again in the next.
    """

    __slots__ = ("_entered", "_scope")

    def __init__(self, start: Scope | scoped) -> None:
        if isinstance(start, Scope):
            self._scope = start
        else:
            with start:
                self._scope = _scope.get()
        self._entered: tuple[contextvars.Token[Scope], ...] = ()

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` as one piece of the work."""
        scope, entered = _scope.get(), _entered.get()
        _scope.set(self._scope)
        if self._entered is not entered:  # mostly both are empty; and to set a variable is not free
            _entered.set(self._entered)
        try:
            return function(*args, **kwargs)
        finally:
            self._scope, self._entered = _scope.get(), _entered.get()
            _scope.set(scope)
            if self._entered is not entered:
                _entered.set(entered)

    async def run_async(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what `run` does, with a coroutine function."""
        scope, entered = _scope.get(), _entered.get()
        _scope.set(self._scope)
        if self._entered is not entered:
            _entered.set(self._entered)
        try:
            return await function(*args, **kwargs)
        finally:
            self._scope, self._entered = _scope.get(), _entered.get()
            _scope.set(scope)
            if self._entered is not entered:
                _entered.set(entered)


def carry(function: Callable[P, T]) -> Callable[P, T]:
    """Bind `function` to the context of here and now, for a thread or an executor that does not inherit it.

    The returned function may be called many times and by several threads at once; each call has a copy of the context.
    """
    context = contextvars.copy_context()

    @functools.wraps(function)
    def bound(*args: P.args, **kwargs: P.kwargs) -> T:
        return context.copy().run(function, *args, **kwargs)

    return bound


def __getattr__(name: str) -> Any:
    # Those that use no executor load none.
    if name == "ContextExecutor":
        from meshlib.executor import ContextExecutor

        return ContextExecutor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
