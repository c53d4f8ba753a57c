"""Who hears that this process is to end: the mesh first, the server once callers have heard.

A server that hears SIGTERM closes its port at once. So its handler is put aside and called by ours, in the main thread
as ever, when the process has left the registry and the notice is over. What was there before is put back at the end.

    the first SIGTERM or SIGINT     drains; then the server hears it, and finishes what is in flight
    a second one                    ends at once: the server hears it now, and is told to drop what is in flight
    SIGTERM after SIGINT            adds nothing: Ctrl+C reaches a whole process group, and a parent of workers then
                                    ends each of them by SIGTERM as well

A handler runs between any two instructions of the main thread, which may hold any lock. So ours takes none: it writes
one byte to a pipe, and the control plane does the rest. A forked child that inherits the handler is not drained by it.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import FrameType
from typing import Any, TypeAlias

from meshlib.errors import MeshError
from meshlib.server.lifecycle import Lifecycle

__all__ = ["Install", "Signals"]

Handler: TypeAlias = Callable[[int, "FrameType | None"], object]
Install: TypeAlias = Callable[[int, Handler], object]

_log = logging.getLogger("meshlib.server")

_TELL_S = 5.0


class _State(enum.Enum):
    SERVING = enum.auto()
    DRAINING = enum.auto()
    DRAINED = enum.auto()
    LEFT_TO_SERVER = enum.auto()
    OVERDUE = enum.auto()
    ENDING = enum.auto()


class Signals:
    """The signals by which this process is told to end.

    Args:
        lifecycles: what is to be drained.
        numbers: of the signals.
        pass_on: what has the server end, given the signal; None for the handler that was there before.
        force: what has it end at once; None for its handler of SIGINT, called once more.
        patient: whether the server itself bounds the time that it takes to end.
    """

    def __init__(
        self,
        lifecycles: Sequence[Lifecycle],
        numbers: Sequence[int] = (signal.SIGTERM, signal.SIGINT),
        *,
        pass_on: Callable[[int], object] | None = None,
        force: Callable[[], object] | None = None,
        patient: bool = False,
    ) -> None:
        self._lifecycles = tuple(lifecycles)
        self._numbers = tuple(numbers)
        self._server_hears = pass_on or self._call_previous
        self._server_drops = force or (lambda: self._call_previous(signal.SIGINT))
        self._patient = patient
        self._previous: dict[int, Any] = {}
        self._state = _State.SERVING
        self._first = 0
        self._pid = 0
        self._bell: tuple[int, int] | None = None
        self._listening: Future[None] | None = None

    def take(self, install: Install | None = None) -> bool:
        """Hear them from now on. In the main thread.

        Args:
            install: how a handler is installed; None for `signal.signal`.

        Returns:
            Whether they are heard; somebody else may do so for all of `lifecycles` already. It is not possible in
            another thread, nor where an event loop has a handler that cannot be put aside.
        """
        self._lifecycles = tuple(lifecycle for lifecycle in self._lifecycles if not lifecycle.heeds_signals)
        if not self._lifecycles:
            return True
        if install is None and any(map(_belongs_to_a_loop, self._numbers)):
            return False
        self._pid = os.getpid()
        self._bell = os.pipe()
        os.set_blocking(self._bell[1], False)
        try:
            for number in self._numbers:
                self._previous[number] = signal.getsignal(number)
                (install or signal.signal)(number, self._on_signal)
        except ValueError:
            self._close_bell()
            return False
        try:
            self._listening = self._lifecycles[0].control.submit(self._listen)
        except MeshError:
            self.give_back()
            raise
        for lifecycle in self._lifecycles:
            lifecycle.heeds_signals = True
        return True

    def give_back(self) -> None:
        """Put back what was there before, unless somebody has replaced ours."""
        if os.getpid() != self._pid:
            return
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._on_signal and previous is not None:
                signal.signal(number, previous)
        for lifecycle in self._lifecycles:
            lifecycle.heeds_signals = False
        if self._listening is not None:
            self._listening.cancel()
        self._listening = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a child that was forked while it served
            self._call_previous(number)
        elif self._state is _State.SERVING:
            self._first, self._state = number, _State.DRAINING
            if not self._ring():
                self._state = _State.LEFT_TO_SERVER
                self._server_hears(number)
        elif self._state is _State.DRAINED:
            self._state = _State.LEFT_TO_SERVER
            self._server_hears(self._first)
        elif self._state is not _State.OVERDUE and (number, self._first) == (signal.SIGTERM, signal.SIGINT):
            pass
        else:
            state, self._state = self._state, _State.ENDING
            if state is _State.DRAINING:
                self._server_hears(self._first)
            self._server_drops()

    def _ring(self) -> bool:
        if self._bell is None:
            return False
        try:
            os.write(self._bell[1], b"!")
        except OSError:
            return False
        return True

    def _call_previous(self, number: int) -> None:
        previous = self._previous.get(number, signal.SIG_DFL)
        if callable(previous):
            previous(number, None)
        elif previous is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    async def _listen(self) -> None:
        try:
            await self._until_it_rings()
        finally:
            self._close_bell()
        try:
            await asyncio.gather(*map(self._drain, self._lifecycles), return_exceptions=True)
        finally:
            # In any case, also when the mesh is closed meanwhile: a process that was told to end has to.
            self._raise_again(_State.DRAINING, _State.DRAINED)
        await self._watch_the_end()

    async def _drain(self, lifecycle: Lifecycle) -> None:
        if lifecycle.control is self._lifecycles[0].control:
            await lifecycle.adrain_here()
        else:
            await asyncio.wrap_future(lifecycle.control.submit(lifecycle.adrain_here))

    async def _watch_the_end(self) -> None:
        left_s = max(lifecycle.settings.timeout_s for lifecycle in self._lifecycles)
        while left_s > 0 or self._patient:
            wait_s = _TELL_S if self._patient else min(left_s, _TELL_S)
            await asyncio.sleep(wait_s)
            left_s -= wait_s
            in_flight = sum(lifecycle.in_flight for lifecycle in self._lifecycles)
            _log.info("draining: %d request%s in flight", in_flight, "" if in_flight == 1 else "s")
        _log.warning("draining takes too long: what is still in flight is dropped")
        self._raise_again(_State.LEFT_TO_SERVER, _State.OVERDUE)

    def _raise_again(self, at: _State, then: _State) -> None:
        """Have the handler run in the main thread once more, for what comes next."""
        if self._state is at and os.getpid() == self._pid:
            self._state = then
            os.kill(self._pid, self._first)

    async def _until_it_rings(self) -> None:
        assert self._bell is not None
        loop, rung = asyncio.get_running_loop(), asyncio.Event()
        reader = self._bell[0]
        loop.add_reader(reader, rung.set)
        try:
            await rung.wait()
        finally:
            loop.remove_reader(reader)

    def _close_bell(self) -> None:
        bell, self._bell = self._bell, None
        for end in bell or ():
            os.close(end)


def _belongs_to_a_loop(number: int) -> bool:
    """Whether an event loop handles the signal: it does so by itself, whatever handler is installed beside."""
    module = getattr(signal.getsignal(number), "__module__", None) or ""
    return module.startswith(("asyncio", "uvloop")) and module != "asyncio.runners"
