"""The watch of one service: one task per source that is asked, on the control loop.

What to believe, and when to ask again, is `resolver.py`; this file only runs it: generators in, resolutions out. Where
the endpoints are written in the configuration there is nothing to ask, so no task, and no need of a loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from meshlib.discovery.control_thread import Timer
from meshlib.discovery.resolver import Resolution, ResolutionState, Resolver
from meshlib.discovery.source import Source, Written
from meshlib.errors import MeshError

if TYPE_CHECKING:
    from asyncio import Task

__all__ = ["ServiceWatch"]

_log = logging.getLogger("meshlib")
_UNKNOWN_S = 60.0
"""A name that no source knows is forgotten after so long: names may come from anywhere, and each costs a watch."""


class ServiceWatch:
    """The watch of one service: one task per source asked, one timer. Lives on the control thread.

    Attributes:
        used_at: when the service was last used; any thread sets it.
        ended: True once the directory has forgotten this watch.
        published: the last resolution that was published, if any.
    """

    def __init__(
        self,
        service: str,
        sources: Sequence[Source],
        resolver: Resolver,
        clock: Callable[[], float],
        later: Callable[[float, Callable[[], object]], Timer],
        changed: Callable[[str, Resolution, Resolution], None],
        forget: Callable[[ServiceWatch], float | None],
    ) -> None:
        self.service = service
        self.used_at = clock()
        self.ended = False
        self.published: Resolution | None = None
        self._sources = sources
        self._resolver = resolver
        self._clock = clock
        self._later = later
        self._changed = changed
        self._forget = forget
        self._tasks: dict[int, Task[None]] = {}
        self._leaving: set[Task[None]] = set()
        self._timer: Timer | None = None
        self._unused_at = self.used_at
        self._stopped = False

    def __repr__(self) -> str:
        return f"<ServiceWatch {self.service} [{self.resolution.state.value}, {len(self._tasks)} sources watched]>"

    @property
    def sources(self) -> Sequence[Source]:
        """Those that it asks."""
        return self._sources

    @property
    def resolution(self) -> Resolution:
        """The current resolution."""
        return self._resolver.resolution

    @property
    def unknown(self) -> bool:
        """Whether no source knows the service."""
        return self.resolution.state is ResolutionState.UNKNOWN

    def idle_s(self, unused_s: float) -> float:
        """After how long without use it is to end, where that is `unused_s` for services that somebody knows."""
        return min(unused_s, _UNKNOWN_S) if self.unknown else unused_s

    def begin(self) -> None:
        """Begin. Tasks, if a source has to be asked, and a timer go on."""
        if not self._stopped:
            self._advance()

    async def run(self) -> None:
        """Begin, on the loop."""
        self.begin()

    def end(self) -> None:
        """Cancel all."""
        self._stopped = self.ended = True
        self._end_all()

    async def stop(self) -> None:
        """Cancel all, and wait until every generator is closed."""
        self.end()
        if self._leaving:
            import asyncio

            await asyncio.gather(*self._leaving, return_exceptions=True)

    def _advance(self) -> None:
        """Publish what changed, start and stop what the resolver says, and set the timer for the next time."""
        now = self._clock()
        self._resolver.tick(now)
        self._look_up(now)
        for index in self._resolver.to_stop():
            self._leave(index)
        self._publish_change()
        if self.unknown:
            self._unused_at = min(self._unused_at, self.used_at + _UNKNOWN_S)
        if now >= self._unused_at:
            unused_at = self._forget(self)
            if unused_at is None:
                self._stopped = True
                self._end_all()
                return
            self._unused_at = unused_at
        for index in self._resolver.to_start(now):
            self._resolver.started(index, now)
            self._ask(index)
        self._set_timer(now)

    def _look_up(self, now: float) -> None:
        """Take what is written, and what is written for services that the sources before do not know."""
        while to_start := [i for i in self._resolver.to_start(now) if isinstance(self._sources[i], Written)]:
            for index in to_start:
                source = self._sources[index]
                assert isinstance(source, Written)
                self._resolver.started(index, now)
                self._resolver.answered(index, source.written(self.service), now)

    def _ask(self, index: int) -> None:
        from asyncio import get_running_loop

        name = f"meshlib watch {self._sources[index].name}/{self.service}"
        self._tasks[index] = get_running_loop().create_task(self._watch(index), name=name)

    def _set_timer(self, now: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wakeup = self._resolver.next_wakeup()
        at = self._unused_at if wakeup is None else min(wakeup, self._unused_at)
        self._timer = self._later(max(0.0, at - now), self._advance)

    def _publish_change(self) -> None:
        new, old = self._resolver.resolution, self.published or Resolution()
        if (new.endpoints, new.state, new.source, new.error) == (old.endpoints, old.state, old.source, old.error):
            return
        if new.state is ResolutionState.PENDING and self.published is None:
            return
        self.published = new
        self._changed(self.service, old, new)

    async def _watch(self, index: int) -> None:
        from asyncio import current_task

        me = current_task()
        try:
            async with aclosing(self._sources[index].watch(self.service)) as answers:
                async for answer in answers:
                    if self._tasks.get(index) is not me:
                        return  # cancelled while the answer was under way
                    self._resolver.answered(index, answer, self._clock())
                    self._advance()
            reason = "its watch ended"
        except Exception as error:
            reason = (error.message if isinstance(error, MeshError) else str(error)) or type(error).__name__
            _log.debug("discovery of %s by %s failed", self.service, self._sources[index].name, exc_info=True)
        if self._tasks.get(index) is me:
            del self._tasks[index]
            self._resolver.failed(index, reason, self._clock())
            self._advance()

    def _leave(self, index: int) -> None:
        task = self._tasks.pop(index, None)
        if task is not None:
            task.cancel()
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _end_all(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for index in list(self._tasks):
            self._leave(index)
