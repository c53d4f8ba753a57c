"""Where events go: to subscribers, and to the logger ``meshlib``, which gets one line at a time and not a flood.

A thing that flaps changes its state many times a second. Of one kind of event about one subject, one line is written in
`LOG_EVERY_S`. The last one that was held back is not lost: it is written, with the number of those before it, as soon
as the time is over and anything else happens, or `flush` is called; so the log never ends on a state that was left long
ago.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from meshlib.telemetry.events import Event

__all__ = ["LOG_EVERY_S", "Deliver", "EventBus", "Subscriber"]

LOG_EVERY_S = 10.0
_MAX_SUBJECTS = 10_000

Subscriber: TypeAlias = Callable[[Event], object]
Deliver: TypeAlias = Callable[[Callable[[], None]], object]
Line: TypeAlias = tuple[Event, int]

_log = logging.getLogger("meshlib")


class _Logged:
    """What was written of one kind and subject, and what was held back since."""

    __slots__ = ("at", "held", "last", "last_number")

    def __init__(self, at: float) -> None:
        self.at = at
        self.held = 0
        self.last: Event | None = None
        self.last_number = 0


class EventBus:
    """Hands events on. Safe from any thread.

    Args:
        clock: monotonic seconds, for the limit on log lines.
        deliver: runs what it is given, in order and soon; None for at once, in the thread where the event happened. The
            mesh gives its control loop's ``call_soon_threadsafe``, so that a slow subscriber delays no call. Where it
            raises (a closed loop), the event is delivered at once.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, deliver: Deliver | None = None) -> None:
        self._clock = clock
        self._deliver = deliver
        self._subscribers: tuple[Subscriber, ...] = ()
        self._logged: dict[tuple[str, str], _Logged] = {}
        self._written: dict[tuple[str, str], int] = {}  # by family and subject: the number of the last event written
        self._number = 0
        self._lock = threading.Lock()

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Have `subscriber` called with each event from now on.

        An exception of it is logged and changes nothing else.

        Returns:
            A function that ends the subscription; calling it again is harmless.

        Raises:
            TypeError: if it is no function, or an async one, which nobody would await.
        """
        from inspect import iscoroutinefunction

        given: object = subscriber
        if not callable(given) or iscoroutinefunction(given):
            raise TypeError(f"a function that takes an event, and is not async, is expected, not {given!r}")

        # A wrapper of its own: the same function may subscribe twice, and each ends only its own subscription.
        def call(event: Event) -> object:
            return subscriber(event)

        with self._lock:
            self._subscribers = (*self._subscribers, call)

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(each for each in self._subscribers if each is not call)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell of an event. Takes no time that anybody waits for, and must not be called with a lock held."""
        lines = self._lines(event, self._clock())

        def dispatch() -> None:
            self._dispatch(event, lines)

        self._run(dispatch)

    def flush(self) -> None:
        """Write the lines that were held back and whose time is over."""
        with self._lock:
            lines = self._due(self._clock())
        if lines:
            self._run(lambda: _write(lines))

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self._lock = threading.Lock()

    def _run(self, work: Callable[[], None]) -> None:
        if self._deliver is not None:
            try:
                self._deliver(work)
                return
            except RuntimeError:  # the control loop is closed
                pass
        work()

    def _lines(self, event: Event, now: float) -> list[Line]:
        """Which lines this event makes due: its own, if it is not held back, and those of others that were."""
        key = (event.kind, event.subject)
        with self._lock:
            self._number += 1
            logged = self._logged.get(key)
            held = 0
            if logged is not None and not _over(logged, now):
                logged.held += 1
                logged.last, logged.last_number = event, self._number
                return self._due(now)
            if logged is not None:
                held = logged.held
                del self._logged[key]
            lines = self._due(now)
            if len(self._logged) < _MAX_SUBJECTS:
                self._logged[key] = _Logged(now)
                self._written[event.family, event.subject] = self._number
                if len(self._written) > _MAX_SUBJECTS:
                    self._forget_subjects()
            lines.append((event, held))
        return lines

    def _forget_subjects(self) -> None:
        """Forget what no line that may still be held back is about."""
        current = {subject for _, subject in self._logged}
        self._written = {about: number for about, number in self._written.items() if about[1] in current}

    def _due(self, now: float) -> list[Line]:
        """Take the lines that were held back and whose time is over. Entries are in the order of their times."""
        lines: list[Line] = []
        while self._logged:
            key = next(iter(self._logged))
            logged = self._logged[key]
            if not _over(logged, now):
                break
            del self._logged[key]
            event = logged.last
            if event is None:
                continue
            about = (event.family, event.subject)
            # What has been overtaken by a later state that stands in the log would say the opposite of the truth.
            if logged.last_number > self._written.get(about, 0):
                self._written[about] = logged.last_number
                self._logged[key] = _Logged(now)
                lines.append((event, logged.held - 1))
        if not self._logged:
            self._written.clear()
        return lines

    def _dispatch(self, event: Event, lines: list[Line]) -> None:
        _write(lines)
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                _log.exception("a subscriber failed on the event %s", event.kind)


def _over(logged: _Logged, now: float) -> bool:
    return not 0.0 <= now - logged.at < LOG_EVERY_S


def _write(lines: list[Line]) -> None:
    for event, held in lines:
        if held:
            _log.log(event.level, "%s (and %d more like it in the %g s before)", event, held, LOG_EVERY_S)
        else:
            _log.log(event.level, "%s", event)
