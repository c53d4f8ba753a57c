"""Admission before a simulated server: the queue that production runs, driven by virtual time.

What `meshlib.server.admission` does in threads and event loops. Callers are not told apart here.
"""

from __future__ import annotations

from collections.abc import Callable

from meshlib.context import Criticality
from meshlib.policy.serving_queue import ServingQueue, Shed
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.propagation import CRITICALITY, parse_criticality
from meshlib.server.refusal import EXPIRED, Refusal, overload
from meshlib.sim.network import Answer, Exchange

__all__ = ["Gate"]


class Gate:
    """Lets so many in at once.

    Attributes:
        queue: who has a place, who waits, and how many were refused.
    """

    __slots__ = ("queue",)

    def __init__(self, settings: AdmissionSettings, first: Exchange) -> None:
        """With nobody inside; time and chance are those of the `first` that comes."""
        self.queue = ServingQueue(settings, first.clock.now, first.rng)

    def enter(self, exchange: Exchange, begin: Callable[[Exchange], object]) -> None:
        """Call `begin` once it has a place, which `leave` gives back; or answer it as the middleware does."""
        clock, queue = exchange.clock, self.queue
        level, attempts = exchange.header(CRITICALITY.encode()), exchange.header(b"x-envoy-attempt-count")
        criticality = None if level is None else parse_criticality({CRITICALITY: [level.decode()]})
        found = queue.enter(
            clock.now,
            Criticality.CRITICAL if criticality is None else criticality,
            deadline=exchange.deadline,
            retry=None if attempts is None else attempts != b"1",
        )
        if found is None:
            begin(exchange)
        elif isinstance(found, Shed):
            _refuse(exchange, found)
        else:
            waiter = found

            def over() -> None:
                timer.cancel()
                # Through the clock, for this may come in the midst of another request's event.
                clock.after(0.0, outcome)

            def outcome() -> None:
                shed = queue.give_up(clock.now, waiter)
                if shed is not None:
                    _refuse(exchange, shed)
                elif exchange.gone:
                    queue.end(clock.now, 0.0, None)
                else:
                    begin(exchange)

            timer = clock.at(waiter.leaves_at, outcome)
            queue.watch(waiter, over)

    def leave(self, exchange: Exchange, began_at: float) -> None:
        """It is over, however it ended; its place goes to the next."""
        now, deadline = exchange.clock.now, exchange.deadline
        late = deadline is not None and now >= deadline
        self.queue.end(now, now - began_at, False if late else None if exchange.gone else True)


def _refuse(exchange: Exchange, shed: Shed) -> None:
    refusal = EXPIRED if shed.reason == "expired" else overload(shed.reason, shed.retry_after_s, final=shed.final)
    exchange.answer(_answer(refusal))


def _answer(refusal: Refusal) -> Answer:
    headers = dict(refusal.headers)
    after = headers.get("retry-after")
    return Answer(
        0.0,
        status=refusal.status,
        retry_after_s=None if after is None else float(after),
        overloaded="x-envoy-overloaded" in headers,
        headers=tuple((name.encode(), value.encode()) for name, value in refusal.headers),
    )
