"""Admission: requests wait for a place here, in event loops and in threads, or are refused.

Who gets one is decided by `meshlib.policy.serving_queue`; this waits. All loops and threads of a process share one
queue. A request that gives up, is cancelled, or whose client goes away, leaves it; a place that it was given at that
very moment is passed on.

In mode ``observe`` nobody waits and nobody is refused: each request is served at once, while the queue is told of it as
if it were not, and counts what it would have refused.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from functools import lru_cache
from ipaddress import IPv6Address
from random import Random
from typing import TYPE_CHECKING

from meshlib.context import Criticality
from meshlib.policy.serving_queue import ServingQueue, Shed, Waiter
from meshlib.server.refusal import EXPIRED, Refusal, overload
from meshlib.telemetry.events import Event, SheddingBegan, SheddingEnded

if TYPE_CHECKING:
    from meshlib.policy.serving_settings import AdmissionSettings
    from meshlib.server.asgi import Message, Send
    from meshlib.server.departure import Departure
    from meshlib.server.intake import Arrival, ReceivedHeaders

__all__ = ["Admission", "Ticket"]

_ATTEMPT = "x-envoy-attempt-count"
_LONGEST_NAME = 256


class Ticket:
    """A place, until `release`."""

    __slots__ = ("_admission", "_began_at", "_blocked_s", "_caller", "_life", "_open", "_waiter")

    def __init__(self, admission: Admission, caller: Hashable, waiter: Waiter | None = None) -> None:
        self._admission = admission
        self._began_at = admission.clock()
        self._blocked_s = 0.0
        self._caller = caller
        self._life = admission.life
        self._waiter = waiter
        self._open = True

    def timed(self, send: Send) -> Send:
        """`send` of an ASGI application; the time that is spent in it is the client's, and teaches no limit.

        A server waits there while the client does not read. Where the limit is fixed it is `send` itself.
        """
        if self._admission.queue.settings.adaptive is None:
            return send

        async def timed(message: Message) -> None:
            began_at = self._admission.clock()
            try:
                await send(message)
            finally:
                self._blocked_s += max(0.0, self._admission.clock() - began_at)

        return timed

    @property
    def refused(self) -> str:
        """Why a request that is only observed would have been refused while it waited; empty if it would not."""
        waiter, now = self._waiter, self._admission.clock()
        if waiter is None or waiter.granted:
            return ""
        # The queue itself may not be asked: this may be a finalizer, in the middle of what its lock guards.
        reason = waiter.refused or (waiter.why_late(now) if waiter.leaves_at <= now else "")
        return reason and ("expired" if reason == "expired" else "overload")

    def release(self, ok: bool | None = True) -> None:
        """The request is over. Once more does nothing.

        Args:
            ok: False if it took longer than its caller waited; None if nothing is to be learnt of its time.
        """
        if self._open:
            self._open = False
            if self._life is self._admission.life:
                self._admission.released(self._began_at, ok, self._caller, self._waiter, self._blocked_s)


class Admission:
    """The queue of one process, and those who wait in it.

    Attributes:
        queue: decides; has the numbers.
        clock: in seconds, monotonic.
        life: of this process, which begins anew in a forked child.

    Args:
        settings: as of now; `change` sets others.
        clock: see above.
        rng: for what adapts the limit.
        tell: called when shedding begins and ends.
    """

    def __init__(
        self,
        settings: AdmissionSettings,
        *,
        clock: Callable[[], float],
        rng: Random | None = None,
        tell: Callable[[Event], object] | None = None,
    ) -> None:
        self.clock = clock
        self.life = object()
        self.queue = ServingQueue(settings, clock(), rng or Random())
        self._lock = threading.Lock()
        self._tell = tell
        self._told = False

    def change(self, settings: AdmissionSettings) -> None:
        """Go by other settings from now on."""
        self.queue.change(settings, self.clock())

    # Entering

    def enter(self, arrival: Arrival, headers: ReceivedHeaders) -> Ticket | Refusal | Waiter:
        """A place for a request, or the answer that it gets instead, or who waits for it by `wait` or `wait_blocking`.

        Args:
            arrival: the request.
            headers: its headers.
        """
        caller = self._caller(arrival, headers)
        answer = self._ask(arrival, headers, caller)
        if answer is None:
            return Ticket(self, caller)
        return answer if isinstance(answer, Waiter) else _refused(answer)

    async def wait(self, waiter: Waiter, departure: Departure | None = None) -> Ticket | Refusal:
        """What becomes of a request that waits, in an event loop.

        Args:
            waiter: from `enter`, just before.
            departure: tells whether its client goes away meanwhile.
        """
        shed = await self._wait(waiter, departure)
        return Ticket(self, waiter.caller) if shed is None else _refused(shed)

    def wait_blocking(self, waiter: Waiter) -> Ticket | Refusal:
        """What becomes of a request that waits, in a thread or greenlet."""
        shed = self._wait_blocking(waiter)
        return Ticket(self, waiter.caller) if shed is None else _refused(shed)

    def observe(self, arrival: Arrival, headers: ReceivedHeaders) -> Ticket | Refusal:
        """What would become of a request that is served whatever that is: a place, perhaps in the queue, or refused."""
        caller = self._caller(arrival, headers)
        self.queue.settle(self.clock())
        answer = self._ask(arrival, headers, caller)
        return _refused(answer) if isinstance(answer, Shed) else Ticket(self, caller, answer)

    def _caller(self, arrival: Arrival, headers: ReceivedHeaders) -> Hashable:
        source = self.queue.settings.fair_by
        if source is None:
            return None
        # A stranger could call itself differently with each request, and have a new share each time.
        values = headers.values(source.name) if source.kind == "header" and arrival.trusted else ()
        if values:
            return values[0][:_LONGEST_NAME]
        return "peer", _place_of(arrival.request.peer[:_LONGEST_NAME], arrival.trusted)

    def _ask(self, arrival: Arrival, headers: ReceivedHeaders, caller: Hashable) -> Waiter | Shed | None:
        criticality = Criticality.CRITICAL if arrival.criticality is None else arrival.criticality
        retry = None
        if arrival.trusted and (attempts := headers.values(_ATTEMPT)):
            retry = attempts[0] != "1"
        answer = self.queue.enter(self.clock(), criticality, caller, arrival.request.deadline, retry)
        if (self.queue.shedding_since is not None) is not self._told:
            self._changed()
        return answer

    # Waiting

    async def _wait(self, waiter: Waiter, departure: Departure | None) -> Shed | None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # another kind of loop, as of trio: nobody waits there
            return self._outcome(waiter, "queue_full")
        over: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not over.done():
                over.set_result(None)

        def wake_from_anywhere() -> None:
            try:
                loop.call_soon_threadsafe(wake)
            except RuntimeError:  # the loop is closed, and nobody there to take the place
                self._abandon(waiter)

        self.queue.watch(waiter, wake_from_anywhere)
        timer = loop.call_later(max(0.0, waiter.leaves_at - waiter.came_at), wake)
        watching = None
        if departure is not None:
            watching = loop.create_task(departure.wait())
            watching.add_done_callback(lambda _: wake() if departure.gone else None)
        try:
            await over
        except BaseException:
            self._abandon(waiter)
            raise
        finally:
            timer.cancel()
            if watching is not None:
                watching.cancel()
        return self._outcome(waiter, "gone" if departure is not None and departure.gone else "")

    def _wait_blocking(self, waiter: Waiter) -> Shed | None:
        over = threading.Event()
        self.queue.watch(waiter, over.set)
        try:
            over.wait(max(0.0, waiter.leaves_at - waiter.came_at))
        except BaseException:  # a greenlet is killed
            self._abandon(waiter)
            raise
        return self._outcome(waiter, "")

    def _outcome(self, waiter: Waiter, reason: str) -> Shed | None:
        if waiter.granted and not reason:
            return None
        # A timer may be a moment early.
        shed = self.queue.give_up(max(self.clock(), waiter.leaves_at), waiter, reason)
        if shed is None and reason == "gone":
            self._pass_on(waiter)
            shed = Shed(reason)
        if (self.queue.shedding_since is not None) is not self._told:
            self._changed()
        return shed

    def _abandon(self, waiter: Waiter) -> None:
        if self.queue.give_up(self.clock(), waiter, "gone") is None:
            self._pass_on(waiter)

    def _pass_on(self, waiter: Waiter) -> None:
        """It has a place, and is not there to take it."""
        self.queue.end(self.clock(), 0.0, None, waiter.caller)

    # Leaving

    def released(
        self, began_at: float, ok: bool | None, caller: Hashable, waiter: Waiter | None, blocked_s: float
    ) -> None:
        """A request is over: see `Ticket.release`."""
        now, queue = self.clock(), self.queue
        queue.end(now, now - began_at, ok, caller, blocked_s, waiter)
        if (queue.shedding_since is not None) is not self._told:
            self._changed()

    def _changed(self) -> None:
        """Shedding has begun, or ended. Of threads that see it at once one tells."""
        queue = self.queue
        began = queue.shedding_since is not None
        if not self._lock.acquire(blocking=False):  # another one tells; or this is a finalizer in the middle of that
            return
        changed, self._told = began is not self._told, began
        self._lock.release()
        if not changed or self._tell is None:
            return
        if began:
            event: Event = SheddingBegan(limit=queue.limit, in_flight=queue.in_flight, pending=queue.pending)
        else:
            event = SheddingEnded(refused=sum(queue.shed.values()))
        self._tell(event)

    def after_fork_in_child(self) -> None:
        """What the parent serves, and who waits there, is the parent's."""
        self.life = object()
        self._lock = threading.Lock()
        self.queue.renew(self.clock())
        self._told = False

    def __repr__(self) -> str:
        queue = self.queue
        return f"<Admission [{queue.in_flight} of {queue.limit} in flight, {queue.pending} waiting]>"


@lru_cache(maxsize=4096)
def _place_of(peer: str, trusted: bool) -> str:
    """Where a peer is, as far as it cannot choose that itself.

    Of an IPv6 address a stranger chooses the last 64 bits as it likes (RFC 4291, section 2.5.1; RFC 8981), so it is the
    network that counts. A trusted peer stands for itself: those of a cluster share a network.
    """
    if ":" not in peer:
        return peer
    try:
        address = IPv6Address(peer)
    except ValueError:
        return peer
    if address.ipv4_mapped is not None:  # how a dual-stack socket shows an IPv4 peer
        return str(address.ipv4_mapped)
    return peer if trusted else f"{IPv6Address(int(address) >> 64 << 64)}/64"


def _refused(shed: Shed) -> Refusal:
    if shed.reason == "expired":
        return EXPIRED
    return overload(_DETAILS[shed.reason], shed.retry_after_s, final=shed.final)


_DETAILS = {
    "queue_full": "Too many requests wait to be served; this one was refused.",
    "queue_timeout": "Too many requests are being served; this one waited for as long as it may.",
    "outranked": "Too many requests are being served; this one gave way to a more critical one.",
    "over_share": "Too many requests of this caller are being served or wait.",
    "gone": "The client went away while its request waited.",
}
