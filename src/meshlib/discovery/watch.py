"""Watches: for each service in use, one task per source that is asked, on the control loop.

This file knows which services are watched, and publishes what is found; the watch of one is `service_watch.py`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeAlias

from meshlib.dataclass import dataclass, replace
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.resolver import Resolution, ResolutionState, Resolver, Retry
from meshlib.discovery.service_watch import ServiceWatch
from meshlib.discovery.source import UNKNOWN, Source, Written
from meshlib.discovery.threads import abandon, native_lock, renew_in_child
from meshlib.errors import MeshClosed

__all__ = ["Directory", "OnEvent", "Publish", "Resolution", "ResolutionState", "ServiceStatus", "ServiceWatch"]

Publish: TypeAlias = Callable[[str, Resolution | None], None]
"""Called on the control thread with a service and its new resolution; None when the service is forgotten."""

OnEvent: TypeAlias = Callable[[str, str, str], None]
"""Called on the control thread with the kind of change, the service, and a sentence about it."""

_log = logging.getLogger("meshlib")
_FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What a directory says of one service.

    Attributes:
        state: how much its endpoints are to be believed.
        source: the name of the source in use.
        endpoints: how many there are, unhealthy ones included.
        age_s: for how long nobody has vouched for them; 0 while a watch does; None before the first answer.
        error: why the state is not better.
    """

    state: ResolutionState
    source: str
    endpoints: int
    age_s: float | None
    error: str | None


class Directory:
    """Which endpoints each service has, kept up to date for as long as the service is used.

    Args:
        sources: asked in this order.
        control: where the watches run.
        publish: called on the control thread at each change; an exception of it is logged and changes nothing.
        clock: monotonic seconds.
        rng: for the back-off; None for one that is reseeded in forked children.
        on_event: called at each change of a service's state (``ok``, ``empty``, ``unknown``, ``stale``, ``unwell``,
            ``forgotten``); None for a log line instead.
        empty_hold_s: for how long an answer that takes away all endpoints is not believed.
        unused_s: a service that was not used for so long is forgotten, and its watches end.
        retry_base_s, retry_max_s: back-off for sources that have no ``retry`` (a `Retry`) of their own.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        control: ControlPlane,
        publish: Publish,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        on_event: OnEvent | None = None,
        empty_hold_s: float = 15.0,
        unused_s: float = 600.0,
        retry_base_s: float = 0.1,
        retry_max_s: float = 1.0,
    ) -> None:
        self._sources = tuple(sources)
        self._control = control
        self._publish = publish
        self._clock = clock
        self._own_rng = rng is None
        self._rng = random.Random() if rng is None else rng
        self._on_event = on_event or _log_event
        self._empty_hold_s = empty_hold_s
        self._unused_s = unused_s
        self._retry = Retry(retry_base_s, retry_max_s)
        self._lock = native_lock()
        self._watches: dict[str, ServiceWatch] = {}
        self._inherited: dict[str, Resolution] = {}
        self._retired: list[Source] = []
        self._closed = False
        renew_in_child(self)

    def __repr__(self) -> str:
        names = ", ".join(source.name for source in self._sources)
        return f"<Directory [{names}] {len(self._watches)} services>"

    def use(self, service: str) -> None:
        """Say that `service` is needed: start its watch, or keep it from ending. Any thread; never waits.

        Raises:
            MeshClosed: if the control plane was closed.
            ThreadsUnavailable: where this process can have no control thread.
        """
        watch = self._watches.get(service)
        if watch is not None:
            # Used first, ended second: `_forget` looks at the two in the other order, so one of us sees the other.
            watch.used_at = self._clock()
            if not watch.ended:
                return
        self._start(service)

    def renew(self, sources: Sequence[Source], held: Collection[Source] = ()) -> None:
        """Ask other sources from now on. Any thread; never waits.

        A service keeps its endpoints until those sources that are to be asked have told of it. Sources that are no
        longer asked are closed.

        Args:
            sources: asked in this order.
            held: those that somebody else uses as well; they are closed with the directory.
        """
        with self._lock:
            gone = [source for source in self._sources if source not in sources]
            self._sources = tuple(sources)
            self._retired += [source for source in gone if source in held]
        with suppress(RuntimeError):  # it does not run: nobody was asked, and nothing is held
            self._control.call_soon(lambda: self._renew([source for source in gone if source not in held]))

    def _renew(self, gone: Sequence[Source]) -> None:
        """On the control thread, where all watches run."""
        with self._lock:
            concerned = [watch for watch in self._watches.values() if not watch.ended and self._concerns(watch)]
        for watch in concerned:
            self._watch_anew(watch)
        if concerned or gone:
            with suppress(MeshClosed):
                self._control.submit(lambda: _end(concerned, gone))

    def _concerns(self, watch: ServiceWatch) -> bool:
        """Whether the sources of a watch are others than those of now, as far as its service goes."""
        asked, now = (
            [source.written(watch.service) if isinstance(source, Written) else source for source in sources]
            for sources in (watch.sources, self._sources)
        )
        return [each for each in asked if each is not UNKNOWN] != [each for each in now if each is not UNKNOWN]

    def _watch_anew(self, watch: ServiceWatch) -> None:
        service, resolution = watch.service, watch.resolution
        watch.end()
        with self._lock:
            if self._closed or self._watches.get(service) is not watch:
                return
            if resolution.endpoints:
                asked = {source.name for source in self._sources if not isinstance(source, Written)}
                name = resolution.source if resolution.source in asked else f"{resolution.source}, no longer asked"
                error = "the sources of discovery have changed, and have not answered yet"
                self._inherited[service] = replace(
                    resolution, state=ResolutionState.STALE, source=name, error=error, updated_at=self._clock()
                )
            new = self._watches[service] = self._make(service)
            new.used_at, new.published = watch.used_at, watch.published
        new.begin() if self._is_written(service) else self._control.submit(new.run)

    def resolution(self, service: str) -> Resolution | None:
        """Return what was last published of `service`; None if it is not watched or nothing is known yet."""
        watch = self._watches.get(service)
        return watch.published if watch is not None else None

    def status(self) -> dict[str, ServiceStatus]:
        """Return the state of every watched service."""
        now = self._clock()
        with self._lock:
            watches = dict(self._watches)
        return {name: _status(watch.resolution, now) for name, watch in sorted(watches.items())}

    def ages(self) -> dict[str, float]:
        """Return for each service that has endpoints how long nobody has vouched for them, in seconds; 0 is current."""
        ages = {name: (status.age_s, status.endpoints) for name, status in self.status().items()}
        return {name: age_s for name, (age_s, endpoints) in ages.items() if age_s is not None and endpoints}

    async def aclose(self) -> None:
        """End all watches, then close the sources. Runs on the control loop."""
        import asyncio

        await asyncio.gather(*(watch.stop() for watch in self._take_all()))
        await _end((), (*self._sources, *self._retired))

    def close(self, timeout_s: float = 5.0) -> None:
        """Do what `aclose` does, from another thread.

        What has not ended within `timeout_s` seconds is logged and left. If the control loop never ran, no source was
        ever asked, and none holds anything.
        """
        self._closed = True
        if not self._control.looping:
            for watch in self._take_all():
                watch.end()
            return
        try:
            self._control.run_sync(self.aclose, timeout_s)
        except (TimeoutError, MeshClosed) as error:
            _log.warning("discovery did not end cleanly: %s", error)

    def _take_all(self) -> list[ServiceWatch]:
        with self._lock:
            self._closed = True
            watches = list(self._watches.values())
            self._watches.clear()
        return watches

    def _start(self, service: str) -> None:
        with self._lock:
            present = self._watches.get(service)
            if self._closed or (present is not None and not present.ended):
                return
            watch = self._watches[service] = self._make(service)
        try:
            if self._is_written(service):
                self._control.call(watch.begin)
            else:
                self._control.submit(watch.run, log_errors=True)
        except BaseException:
            with self._lock:
                if self._watches.get(service) is watch:
                    del self._watches[service]
            raise

    def _is_written(self, service: str) -> bool:
        """Whether no source has to be asked."""
        for source in self._sources:
            if not isinstance(source, Written):
                return False
            if source.written(service) is not UNKNOWN:
                return True
        return True

    def _make(self, service: str) -> ServiceWatch:
        retries = [(source.name, getattr(source, "retry", self._retry)) for source in self._sources]
        seed = self._inherited.pop(service, None)
        resolver = Resolver(retries, rng=self._rng, empty_hold_s=self._empty_hold_s, seed=seed)
        later = self._control.call_later
        return ServiceWatch(service, self._sources, resolver, self._clock, later, self._changed, self._forget)

    def _changed(self, service: str, old: Resolution, new: Resolution) -> None:
        self._tell(service, new)
        if new.state is not old.state and new.state is not ResolutionState.PENDING:
            self._emit(new.state.value, service, _describe(new))

    def _forget(self, watch: ServiceWatch) -> float | None:
        """End `watch` if it is unused. Return when to ask again, or None if it has ended."""
        with self._lock:
            watch.ended = True
            idle_s = watch.idle_s(self._unused_s)
            unused_at = watch.used_at + idle_s
            if self._clock() < unused_at:
                watch.ended = False
                return unused_at
            if self._watches.get(watch.service) is watch:
                del self._watches[watch.service]
        self._tell(watch.service, None)
        self._emit(_FORGOTTEN, watch.service, f"not used for {idle_s:g} s; its watches have ended")
        return None

    def _tell(self, service: str, resolution: Resolution | None) -> None:
        try:
            self._publish(service, resolution)
        except Exception:
            _log.exception("the endpoints of %s could not be published", service)

    def _emit(self, kind: str, service: str, detail: str) -> None:
        try:
            self._on_event(kind, service, detail)
        except Exception:
            _log.exception("a listener failed on the event %r of %s", kind, service)

    def _after_fork(self) -> None:
        # The parent's watches do not run here. What they knew is the child's first knowledge, until its own answer.
        self._lock = native_lock()
        if self._own_rng:
            self._rng = random.Random()
        watches, self._watches = self._watches, {}
        abandon(*watches.values())
        for service, watch in watches.items():
            if watch.resolution.endpoints:
                error = "inherited over a fork; no watch of this process has answered yet"
                self._inherited[service] = Resolution(
                    watch.resolution.endpoints,
                    ResolutionState.STALE,
                    watch.resolution.source,
                    error,
                    watch.resolution.updated_at,
                )


async def _end(watches: Sequence[ServiceWatch], sources: Sequence[Source]) -> None:
    """End what is left of the watches, then close the sources."""
    for watch in watches:
        await watch.stop()
    for source in sources:
        try:
            await source.aclose()
        except Exception:
            _log.exception("discovery source %s failed to close", source.name)


def _status(resolution: Resolution, now: float) -> ServiceStatus:
    age_s: float | None = 0.0
    if resolution.state is ResolutionState.PENDING:
        age_s = None
    elif not resolution.up_to_date:
        age_s = max(0.0, now - resolution.updated_at) if resolution.updated_at else None
    return ServiceStatus(resolution.state, resolution.source, len(resolution.endpoints), age_s, resolution.error)


def _describe(resolution: Resolution) -> str:
    match resolution.state:
        case ResolutionState.OK:
            return f"{_count(resolution)} from {resolution.source}"
        case ResolutionState.EMPTY:
            return f"{resolution.source} knows it, but nobody serves it"
        case ResolutionState.UNKNOWN:
            return "no discovery source knows it"
        case ResolutionState.STALE:
            return f"keeping the last {_count(resolution)} from {resolution.source}: {resolution.error}"
        case _:
            return f"{resolution.source} cannot be asked: {resolution.error}"


def _count(resolution: Resolution) -> str:
    count = len(resolution.endpoints)
    return "1 endpoint" if count == 1 else f"{count} endpoints"


def _log_event(kind: str, service: str, detail: str) -> None:
    level = logging.WARNING if kind in ("stale", "unwell", "unknown", "empty") else logging.INFO
    _log.log(level, "discovery of %s: %s (%s)", service, kind, detail)
