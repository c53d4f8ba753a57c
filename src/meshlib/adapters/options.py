"""What a caller says of one call, or of all calls in a block, besides the configuration."""

from __future__ import annotations

import contextvars
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from meshlib.context import decorate
from meshlib.dataclass import dataclass, field, replace
from meshlib.durations import LONGEST_S, Duration, parse_duration
from meshlib.policy.settings import CallPolicy
from meshlib.routing.route import Route

__all__ = ["EXTENSION", "NO_OPTIONS", "CallBlock", "CallOptions", "PolicyBlock", "call", "in_force", "overrides_of"]

F = TypeVar("F", bound=Callable[..., Any])

EXTENSION = "meshlib"
"""The key under which options travel in a request's ``extensions``, and a call's record in a response's."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of one call; None leaves a thing to the configuration.

    Attributes:
        idempotent: whether the request may be repeated although it may have been processed.
        timeout_s: for the call as a whole.
        route: a low-cardinality name of the operation, for spans, metrics and the record.
        hash_key: by which a hash balancer chooses.
        metadata_match: of the endpoints that may be called, sorted; besides those of the route.
        explain: keep the reasons in full in the record.
        complete_body: the caller will read the whole body; set by the adapters.
        plain_timeout_s: of each phase, where the call does not go through the mesh after all; infinite for what the
            request itself says, None for the client's. Set by the adapters.
    """

    idempotent: bool | None = None
    timeout_s: float | None = None
    route: str | None = None
    explain: bool = False
    complete_body: bool = False
    plain_timeout_s: float | None = None
    hash_key: str | None = None
    metadata_match: tuple[tuple[str, str], ...] = ()


NO_OPTIONS = CallOptions()


def call(
    *,
    idempotent: bool | None = None,
    timeout: Duration | None = None,
    route: str | None = None,
    explain: bool = False,
    hash_key: str | None = None,
    metadata_match: Mapping[str, str] | None = None,
) -> CallBlock:
    """Options for one call, to be given as ``extensions=meshlib.call(...)``; or for the calls in a block, with any
    client: ``with meshlib.call(...):``, or as a decorator. What a call is given itself comes first.

    Args:
        idempotent: whether the request may be repeated although it may have been processed. True for a POST that the
            service recognises when it comes twice; False for a GET that must not be repeated.
        timeout: for the call as a whole, waits and retries included: ``"800ms"``, seconds, or a timedelta.
        route: a low-cardinality name of the operation, for spans, metrics and the record: ``"/orders/{id}"``.
        explain: keep the reasons in full in the record: routes and endpoints not taken, and why.
        hash_key: what ``ring_hash`` and ``maglev`` choose an endpoint by, in place of the properties of the request
            that ``hash_on`` names: the same key, the same endpoint. A user's id, say.
        metadata_match: the metadata of the endpoints that may be called, besides those that the route names, where
            ``load_balancing.subset`` makes subsets of them: ``{"version": "v2"}``.

    Raises:
        ValueError: if `timeout` is not a duration, or one above 100 years.
        TypeError: if `hash_key`, `route`, or a name or value of `metadata_match` is no text, or `idempotent` is neither
            True nor False.
    """
    if idempotent is not None and not isinstance(idempotent, bool):  # a text "no" would have a POST repeated
        raise TypeError(f"idempotent is to be True or False, not {idempotent!r}")
    if route is not None and not isinstance(route, str):
        raise TypeError(f"route is to be text, not {type(route).__name__}: route='/orders/{{id}}'")
    if hash_key is not None and not isinstance(hash_key, str):
        raise TypeError(f"hash_key is to be text, not {type(hash_key).__name__}: write hash_key=str(...)")
    timeout_s = None if timeout is None else parse_duration(timeout)
    if timeout_s is not None and timeout_s > LONGEST_S:
        raise ValueError(f"timeout: {timeout!r} is longer than 100 years")
    match: tuple[tuple[str, str], ...] = ()
    if metadata_match:
        pairs = metadata_match.items() if hasattr(metadata_match, "items") else ()
        if not pairs or not all(isinstance(text, str) for pair in pairs for text in pair):
            raise TypeError("metadata_match is to be a map of text to text, as metadata are: {'version': 'v2'}")
        match = tuple(sorted(metadata_match.items()))
    options = CallOptions(idempotent, timeout_s, route, explain, hash_key=hash_key, metadata_match=match)
    return CallBlock({EXTENSION: options})


Override = Callable[[CallPolicy], CallPolicy]


@dataclass(frozen=True, slots=True, eq=False)
class _Overrides:
    """The overrides in force, innermost last, and the policies they made of each route's; and options of calls."""

    chain: tuple[tuple[object, Override], ...] = ()
    options: CallOptions = NO_OPTIONS
    made: dict[int, tuple[Route, CallPolicy]] = field(default_factory=dict)

    def apply(self, mesh: object, route: Route) -> CallPolicy:
        known = self.made.get(id(route))
        if known is not None and known[0] is route:
            return known[1]
        policy = route.policy
        for owner, override in self.chain:
            if owner is mesh:
                policy = override(policy)
        self.made[id(route)] = (route, policy)
        return policy


_overrides: contextvars.ContextVar[_Overrides | None] = contextvars.ContextVar("meshlib.policy", default=None)
_entered: contextvars.ContextVar[tuple[contextvars.Token[_Overrides | None], ...]] = contextvars.ContextVar(
    "meshlib.policy.entered", default=()
)


def overrides_of(mesh: object, route: Route) -> CallPolicy:
    """The route's policy, with what the blocks of this mesh around the call change."""
    overrides = _overrides.get()
    return route.policy if overrides is None else overrides.apply(mesh, route)


def in_force(mesh: object, route: Route, options: CallOptions) -> tuple[CallPolicy, CallOptions]:
    """The route's policy and the options of a call, with what the blocks around it say."""
    overrides = _overrides.get()
    if overrides is None:
        return route.policy, options
    return overrides.apply(mesh, route), _within(overrides.options, options)


def _within(outer: CallOptions, inner: CallOptions) -> CallOptions:
    """Options, and where they leave something open what was said around them."""
    if outer is NO_OPTIONS:
        return inner
    return replace(
        inner,
        idempotent=outer.idempotent if inner.idempotent is None else inner.idempotent,
        timeout_s=outer.timeout_s if inner.timeout_s is None else inner.timeout_s,
        route=outer.route if inner.route is None else inner.route,
        explain=outer.explain or inner.explain,
        hash_key=outer.hash_key if inner.hash_key is None else inner.hash_key,
        metadata_match=tuple(sorted({**dict(outer.metadata_match), **dict(inner.metadata_match)}.items())),
    )


class _Block(ABC):
    """Holds for every call made inside: ``with``, ``async with``, or a decorator, sync and async."""

    __slots__ = ()

    @abstractmethod
    def _inside(self, outer: _Overrides) -> _Overrides:
        """What holds inside, where `outer` holds around it."""

    def __enter__(self) -> Self:
        inside = self._inside(_overrides.get() or _Overrides())
        _entered.set((*_entered.get(), _overrides.set(inside)))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        entered = _entered.get()
        if entered:
            _entered.set(entered[:-1])
            try:
                _overrides.reset(entered[-1])
            except ValueError:
                return  # left in another context than it was entered in: there is nothing here to restore

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, tb)

    def __call__(self, function: F) -> F:
        return decorate(function, lambda: self)


class PolicyBlock(_Block):
    """Changes the policy of every call made inside: ``with``, ``async with``, or a decorator, sync and async."""

    __slots__ = ("_mesh", "_override")

    def __init__(self, mesh: object, override: Override) -> None:
        self._mesh = mesh
        self._override = override

    def _inside(self, outer: _Overrides) -> _Overrides:
        return _Overrides((*outer.chain, (self._mesh, self._override)), outer.options)


class CallBlock(dict[str, Any], _Block):
    """What `call` gives: ``extensions`` of one request, or a block whose calls have these options."""

    __slots__ = ()

    def _inside(self, outer: _Overrides) -> _Overrides:
        return _Overrides(outer.chain, _within(outer.options, self[EXTENSION]))
