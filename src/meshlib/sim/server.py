"""A simulated server with a queue: what overload looks like from outside."""

from __future__ import annotations

from collections import deque
from functools import partial

from meshlib.policy.classify import ResponseHeaders
from meshlib.sim.clock import VirtualClock
from meshlib.sim.network import Answer, Exchange, Latency, constant

__all__ = ["Server"]


class Server:
    """So many workers, and a line before them. Change its attributes while the simulation runs.

    It works on what is asked whether or not somebody still waits for it, as most servers do, unless it is told to look.

    Attributes:
        service: how long a worker takes for one request, at speed 1.
        workers: how many are served at a time.
        speed: of the workers: 0.5 takes twice as long.
        max_queue: beyond this many that wait, it answers 503 at once; None for no bound.
        overloaded: whether those 503 say ``x-envoy-overloaded``.
        lifo_beyond: with more than this many waiting, the last that came is served first (Facebook's adaptive LIFO);
            None for never.
        drop_expired: it drops, when its turn comes, what is past the deadline in its header, as
            `meshlib.server` does.
        drop_gone: it drops what its client gave up: it sees that the connection is closed.
        reports: its answers say how much it was used in the second before, and how many it gave then
            (``endpoint-load-metrics``).
        attempts: how many came.
        served, dropped, refused: how many of them it worked on, dropped, and answered 503.
    """

    __slots__ = (
        "_busy",
        "_report",
        "_resumes_at",
        "_second",
        "_waiting",
        "_worked",
        "attempts",
        "drop_expired",
        "drop_gone",
        "dropped",
        "lifo_beyond",
        "max_queue",
        "overloaded",
        "refused",
        "reports",
        "served",
        "service",
        "speed",
        "workers",
    )

    def __init__(
        self,
        service: Latency,
        *,
        workers: int = 1,
        speed: float = 1.0,
        max_queue: int | None = None,
        overloaded: bool = False,
        lifo_beyond: int | None = None,
        drop_expired: bool = False,
        drop_gone: bool = False,
        reports: bool = False,
    ) -> None:
        """An idle server; see the attributes."""
        self.service = service
        self.workers = workers
        self.speed = speed
        self.max_queue = max_queue
        self.overloaded = overloaded
        self.lifo_beyond = lifo_beyond
        self.drop_expired = drop_expired
        self.drop_gone = drop_gone
        self.reports = reports
        self.attempts = self.served = self.dropped = self.refused = 0
        self._waiting: deque[Exchange] = deque()
        self._busy = 0
        self._resumes_at = 0.0
        self._second = 0
        self._worked: list[float] = []  # in this second, each for so long
        self._report: ResponseHeaders = ()

    @classmethod
    def of_capacity(cls, per_second: float, **settings: int | bool | float | None) -> Server:
        """One worker that always takes as long, so that it can do so many a second."""
        return cls(constant(1.0 / per_second), **settings)  # type: ignore[arg-type]

    @property
    def queue(self) -> int:
        """How many wait."""
        return len(self._waiting)

    @property
    def in_flight(self) -> int:
        """How many wait or are worked on."""
        return len(self._waiting) + self._busy

    def stall(self, clock: VirtualClock, for_s: float) -> None:
        """Begin nothing for a while; requests go on coming in."""
        self._resumes_at = clock.now + for_s
        clock.at(self._resumes_at, lambda: self._begin(clock))

    def serve(self, exchange: Exchange) -> bool:
        """Take an attempt."""
        self.attempts += 1
        if self.max_queue is not None and len(self._waiting) >= self.max_queue and not self._idle(exchange.clock.now):
            self.refused += 1
            exchange.answer(Answer(0.0, status=503, overloaded=self.overloaded))
            return True
        self._waiting.append(exchange)
        self._begin(exchange.clock)
        return True

    def _idle(self, now: float) -> bool:
        return self._busy < self.workers and now >= self._resumes_at

    def _begin(self, clock: VirtualClock) -> None:
        waiting = self._waiting
        while waiting and self._idle(clock.now):
            last_first = self.lifo_beyond is not None and len(waiting) > self.lifo_beyond
            exchange = waiting.pop() if last_first else waiting.popleft()
            if self._is_dead(exchange, clock.now):
                self.dropped += 1
                continue
            self._busy += 1
            self.served += 1
            took_s = self.service(exchange.rng) / self.speed
            clock.after(took_s, partial(self._done, exchange, took_s))

    def _is_dead(self, exchange: Exchange, now: float) -> bool:
        if self.drop_gone and exchange.gone:
            return True
        return self.drop_expired and (deadline := exchange.deadline) is not None and now >= deadline

    def _done(self, exchange: Exchange, took_s: float) -> None:
        self._busy -= 1
        if self.reports:
            self._note(exchange.clock.now, took_s)
        exchange.answer_now(Answer(0.0, status=200, headers=self._report))
        self._begin(exchange.clock)

    def _note(self, now: float, took_s: float) -> None:
        """Count what was done, and once a second make a new report of it."""
        if int(now) != self._second:
            passed_s = max(1, int(now) - self._second)
            used, rate = min(1.0, sum(self._worked) / self.workers / passed_s), len(self._worked) / passed_s
            self._second, self._worked = int(now), []
            text = f"TEXT application_utilization={used:.4f}, rps_fractional={rate:.2f}"
            self._report = ((b"endpoint-load-metrics", text.encode()),)
        self._worked.append(took_s)
