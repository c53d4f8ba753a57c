"""A simulated server with a queue: what overload looks like from outside."""

from __future__ import annotations

from collections import deque
from functools import partial
from math import exp

from meshlib.balance.reported import write_in_flight
from meshlib.policy.classify import ResponseHeaders
from meshlib.policy.serving_settings import AdmissionSettings
from meshlib.server.latency_bins import LatencyBins
from meshlib.sim.admission import Gate
from meshlib.sim.clock import VirtualClock
from meshlib.sim.network import Answer, Exchange, Latency, constant

__all__ = ["Server"]

_WINDOW_S = 10.0


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
        admission: of the middleware before it: a place is held from there until the answer, or until what is past its
            deadline is dropped, which is then not left until its turn; None for no such middleware.
        reports: its answers say how much it was used, and how many it gave a second, as averages that forget in 10 s
            (``endpoint-load-metrics``); and, as its answers to probes do, what it has in flight (``x-meshlib-load``).
        attempts: how many came.
        served, dropped, refused: how many of them it worked on, dropped, and answered 503 for its `max_queue`.
        gate: see `admission`; None until the first request comes.
    """

    __slots__ = (
        "_busy",
        "_latencies",
        "_rate",
        "_report",
        "_resumes_at",
        "_second",
        "_used",
        "_waiting",
        "_worked",
        "admission",
        "attempts",
        "drop_expired",
        "drop_gone",
        "dropped",
        "gate",
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
        admission: AdmissionSettings | None = None,
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
        self.admission = admission
        self.gate: Gate | None = None
        self.attempts = self.served = self.dropped = self.refused = 0
        self._waiting: deque[tuple[Exchange, int, float]] = deque()  # each with how many it found, and since when
        self._busy = 0
        self._resumes_at = 0.0
        self._second = 0
        self._used = self._rate = 0.0
        self._worked: list[float] = []  # in this second, each for so long
        self._report: ResponseHeaders = ()
        self._latencies = LatencyBins()

    @classmethod
    def of_capacity(cls, per_second: float, **settings: int | bool | float | AdmissionSettings | None) -> Server:
        """One worker that always takes as long, so that it can do so many a second."""
        return cls(constant(1.0 / per_second), **settings)  # type: ignore[arg-type]

    @property
    def queue(self) -> int:
        """How many wait."""
        return len(self._waiting) + (0 if self.gate is None else self.gate.queue.pending)

    @property
    def in_flight(self) -> int:
        """How many wait or are worked on."""
        return self.queue + self._busy

    def stall(self, clock: VirtualClock, for_s: float) -> None:
        """Begin nothing for a while; requests go on coming in."""
        self._resumes_at = clock.now + for_s
        clock.at(self._resumes_at, lambda: self._begin(clock))

    def serve(self, exchange: Exchange) -> bool:
        """Take an attempt."""
        self.attempts += 1
        if self.admission is None:
            self._join(exchange)
        else:
            if self.gate is None:
                self.gate = Gate(self.admission, exchange)
            self.gate.enter(exchange, self._join)
        return True

    def _join(self, exchange: Exchange) -> None:
        if self.max_queue is not None and len(self._waiting) >= self.max_queue and not self._idle(exchange.clock.now):
            self.refused += 1
            exchange.answer(Answer(0.0, status=503, overloaded=self.overloaded))
            self._leave(exchange, exchange.clock.now)
            return
        waits = exchange, self.in_flight, exchange.clock.now
        self._waiting.append(waits)
        self._begin(exchange.clock)
        if self.gate is not None and self.drop_expired and (deadline := exchange.deadline) is not None:
            exchange.clock.at(deadline, partial(self._cut, waits))

    def _cut(self, waits: tuple[Exchange, int, float]) -> None:
        """As the middleware cancels a handler at the deadline: what still waits is dropped."""
        if waits in self._waiting:
            self._waiting.remove(waits)
            self.dropped += 1
            self._leave(waits[0], waits[2])

    def _leave(self, exchange: Exchange, since: float) -> None:
        if self.gate is not None:
            self.gate.leave(exchange, since)

    def _idle(self, now: float) -> bool:
        return self._busy < self.workers and now >= self._resumes_at

    def _begin(self, clock: VirtualClock) -> None:
        waiting = self._waiting
        while waiting and self._idle(clock.now):
            last_first = self.lifo_beyond is not None and len(waiting) > self.lifo_beyond
            exchange, found, since = waiting.pop() if last_first else waiting.popleft()
            if self._is_dead(exchange, clock.now):
                self.dropped += 1
                self._leave(exchange, since)
                continue
            self._busy += 1
            self.served += 1
            took_s = self.service(exchange.rng) / self.speed
            clock.after(took_s, partial(self._done, exchange, took_s, found, since))

    def _is_dead(self, exchange: Exchange, now: float) -> bool:
        if self.drop_gone and exchange.gone:
            return True
        return self.drop_expired and (deadline := exchange.deadline) is not None and now >= deadline

    def load(self, now: float) -> tuple[int, float]:
        """What it has in flight, and how long requests take that find about as much, in seconds."""
        return self.in_flight, self._latencies.median(self.in_flight, now)

    def _done(self, exchange: Exchange, took_s: float, found: int, since: float) -> None:
        self._busy -= 1
        headers: ResponseHeaders = ()
        if self.reports:
            now = exchange.clock.now
            self._note(now, took_s)
            self._latencies.note(found, now - exchange.at, now)
            headers = (*self._report, (b"x-meshlib-load", write_in_flight(*self.load(now))))
        exchange.answer_now(Answer(0.0, status=200, headers=headers))
        self._leave(exchange, since)
        self._begin(exchange.clock)

    def _note(self, now: float, took_s: float) -> None:
        """Count what was done, and once a second make a new report of it."""
        if int(now) != self._second:
            passed_s = max(1, int(now) - self._second)
            keep = exp(-passed_s / _WINDOW_S)
            used, rate = sum(self._worked) / self.workers / passed_s, len(self._worked) / passed_s
            self._used += (used - self._used) * (1.0 - keep)
            self._rate += (rate - self._rate) * (1.0 - keep)
            self._second, self._worked = int(now), []
            text = f"TEXT application_utilization={self._used:.6f}, rps_fractional={self._rate:.3f}"
            self._report = ((b"endpoint-load-metrics", text.encode()),)
        self._worked.append(took_s)
