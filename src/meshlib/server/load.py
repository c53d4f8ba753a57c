"""What this process tells its callers of its load, so that they can balance by it.

Callers that balance by load ask for it (``x-meshlib-load``), and a trusted one that asks is told with each response:
``server.load`` says so, or that all trusted ones are told, or none. Nothing is measured before somebody asks.

The header ``endpoint-load-metrics`` is an ORCA report, which Envoy and gRPC understand (`meshlib.balance.load_report`),
written anew ten times a second at most:

    rps_fractional, eps             requests and errors per second, as averages that forget in `window_s`
    cpu_utilization                 the CPU time of this process, as a share of `cpus`
    application_utilization         the application's own measure; else, with ``server.admission``, the share of its
                                    limit that is in use
    named_metrics.in_flight         requests that are being served or wait to be
    named_metrics.latency_ms        what those take that find about as many (`meshlib.server.latency_bins`)
    named_metrics.waiting           of them, those that wait for admission
    named_metrics.backlog           connections that wait to be accepted (`meshlib.server.backlog`)
    named_metrics.loop_lag_ms       how late the event loop is
    named_metrics.threads_wanted    what waits for a thread, of anyio's or the loop's (`meshlib.server.loop_lag`)

Of gunicorn's workers any one tells of all together, but for latency (`meshlib.server.workers`). A figure of 0 is left
out. The header ``x-meshlib-load`` has `in_flight` and `latency_ms` of the moment, for Prequal
(`meshlib.balance.prequal`); and a probe is answered with it (`meshlib.propagation.LOAD_PROBE`).

One process computes on one CPU at a time, as long as Python has its global lock, so a share of 1 is full use. An
application that waits more than it computes (for a database, for a pool of threads) does better with a measure of its
own: what share of the scarce thing is in use.

    app.add_middleware(MeshMiddleware, mesh=mesh, load=LoadReporter(lambda: pool.used / pool.size))
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from math import exp, inf, isfinite

from meshlib.balance.load_report import HEADER, LoadReport
from meshlib.balance.reported import write_in_flight
from meshlib.propagation import LOAD
from meshlib.server.backlog import Backlog, backlog
from meshlib.server.latency_bins import LatencyBins
from meshlib.server.loop_lag import LoopLag
from meshlib.server.refusal import Refusal
from meshlib.server.workers import Figures, Slot, mine, together

__all__ = ["LoadReporter"]

_log = logging.getLogger("meshlib.server")

_SAMPLE_S = 1.0
_RENEW_S = 0.1
_HEADER, _LOAD = HEADER.encode(), LOAD.encode()


def _idle() -> tuple[int, int, int]:
    return 0, 0, 0


class LoadReporter:
    """Measures this process, and writes reports. One for an application.

    There is no lock: where threads overlap a request may not be counted, which an average does not notice.

    Attributes:
        occupancy: gives the requests that are being served, those that wait, and how many may be served at once (0 for
            any number). The middleware sets it.

    Args:
        utilization: the application's own measure, asked ten times a second at most: the share of what it can do that
            is in use, 1 for all. Where it raises or returns no number, there is none; that it begins to is logged.
        window_s: how long rates remember.
        cpus: how many CPUs this process can keep busy.
        clock, cpu_clock: in seconds; for tests.
        backlog: gives the connections that wait to be accepted; for tests.

    Raises:
        TypeError: if `utilization` is no function.
        ValueError: if `window_s` or `cpus` is not above 0.
    """

    def __init__(
        self,
        utilization: Callable[[], float] | None = None,
        *,
        window_s: float = 10.0,
        cpus: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
        backlog: Callable[[], Backlog | None] = backlog,
    ) -> None:
        if utilization is not None and not callable(utilization):
            raise TypeError(f"the utilization has to be a function that measures it, not {utilization!r}")
        for name, value in (("window_s", window_s), ("cpus", cpus)):
            if not 0.0 < value < inf:
                raise ValueError(f"{name} is to be a number above 0, not {value!r}")
        self.occupancy: Callable[[], tuple[int, int, int]] = _idle
        self._utilization = utilization
        self._failing = False
        self._window_s = window_s
        self._cpus = cpus
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._backlog = backlog
        now = clock()
        self._requests_per_s = self._errors_per_s = 0.0
        self._requests = self._errors = 0  # since they were last reckoned in
        self._counted_at = now
        self._cpu = 0.0
        self._sampled_at, self._cpu_then = now, cpu_clock()
        self._text, self._written_at = b"", -inf
        self._written = 0, 0.0, write_in_flight(0, 0.0)
        self._latencies = LatencyBins()
        self._loops = LoopLag()
        self._slot: Slot | None = None

    def arrived(self) -> None:
        """A request has begun."""
        self._requests += 1
        if self._slot is not None:
            self._count(self._slot)

    def ended(self, found: int, took_s: float, error: bool) -> None:
        """A request has ended.

        Args:
            found: how many others were in flight when it began.
            took_s: from then to its last byte.
            error: whether the answer was one.
        """
        if error:
            # Of its time nothing is noted: who fails at once would look like the fastest of all.
            self._errors += 1
        elif took_s >= 0.0:  # the clock may have gone back
            self._latencies.note(found, took_s, self._clock())
        if self._slot is not None:
            self._count(self._slot)

    def report(self) -> LoadReport:
        """How loaded this process is now, together with those that share its port, as far as it knows them."""
        now = self._clock()
        self._reckon(now)
        self._sample(now)
        serving, waiting, limit = self.occupancy()
        rates, loops = (self._requests_per_s, self._errors_per_s), self._loops
        own = Figures(
            serving, waiting, limit, *rates, self._cpu, self._measure(), loops.lag_s, float(loops.threads_wanted)
        )
        all_of_them, slot = own, self._shared()
        if slot is not None:
            slot.write(now, own)
            all_of_them = together([own, *slot.others(now, self._window_s)])
        utilization = all_of_them.own
        if not utilization and all_of_them.limit > 0:
            utilization = all_of_them.serving / all_of_them.limit
        backlog = self._backlog()
        named = {
            "in_flight": float(all_of_them.serving + all_of_them.waiting),
            "latency_ms": 1000.0 * self._latencies.median(serving + waiting, now),
            "waiting": float(all_of_them.waiting),
            "backlog": 0.0 if backlog is None else float(backlog.waiting),
            "loop_lag_ms": 1000.0 * all_of_them.lag_s,
            "threads_wanted": all_of_them.threads_wanted,
        }
        rps, eps = all_of_them.requests_per_s, all_of_them.errors_per_s
        return LoadReport(utilization, all_of_them.cpu, 0.0, rps, eps, named_metrics=named)

    def header(self) -> bytes:
        """The value of ``endpoint-load-metrics``; empty while there is nothing to say."""
        now = self._clock()
        if not 0.0 <= now - self._written_at < _RENEW_S:
            text = self.report().text()
            self._text, self._written_at = text.encode() if "=" in text else b"", now
        return self._text

    def in_flight(self) -> bytes:
        """The value of ``x-meshlib-load``."""
        serving, waiting, _ = self.occupancy()
        in_flight, now = serving + waiting, self._clock()
        latency_s = self._latencies.median(in_flight, now)
        if (slot := self._shared()) is not None:
            in_flight += slot.in_flight(now)
        last = self._written
        if last[0] != in_flight or last[1] != latency_s:
            last = self._written = in_flight, latency_s, write_in_flight(in_flight, latency_s)
        return last[2]

    def headers(self, asked: str) -> list[tuple[bytes, bytes]]:
        """What a response says.

        Args:
            asked: the value of ``x-meshlib-load`` in the request; empty without one.
        """
        found: list[tuple[bytes, bytes]] = []
        in_flight = "in-flight" in asked
        if in_flight:
            found.append((_LOAD, self.in_flight()))
        if (not in_flight or "orca" in asked) and (value := self.header()):
            found.append((_HEADER, value))
        return found

    def seen_loop(self) -> None:
        """A request is served in the event loop that runs here: see how late that is."""
        self._loops.seen()

    def answer(self, asked: str) -> Refusal:
        """The response to a probe."""
        headers = tuple((name.decode(), value.decode()) for name, value in self.headers(asked))
        return Refusal(HTTPStatus.OK, (("content-length", "0"), ("cache-control", "no-store"), *headers), b"")

    def _shared(self) -> Slot | None:
        """Where this worker of several writes, from when somebody asks."""
        if self._slot is None and (slot := mine()) is not None and not slot.taken:
            slot.take(self._clock())
            self._slot = slot
            self._count(slot)
        return self._slot

    def _count(self, slot: Slot) -> None:
        """Tell the others how much there is here. Of threads that do so at once the last one is right, or the next."""
        for _ in range(4):
            counted = self.occupancy()
            slot.count(*counted)
            if self.occupancy() == counted:
                return

    def _measure(self) -> float:
        if self._utilization is None:
            return 0.0
        try:
            value = float(self._utilization())
        except Exception as error:
            if not self._failing:  # its type alone: what it says may hold what is secret
                _log.warning("the application's own measure of its load fails: %s", type(error).__name__)
            self._failing = True
            return 0.0
        self._failing = False
        return value if value > 0.0 and isfinite(value) else 0.0

    def _reckon(self, now: float) -> None:
        """The averages, with what came since the last time, as evenly as that may be."""
        elapsed_s = max(0.0, now - self._counted_at)
        keep = exp(-elapsed_s / self._window_s)
        part = (1.0 - keep) / elapsed_s if elapsed_s > 0.0 else 1.0 / self._window_s
        requests, errors, self._requests, self._errors = self._requests, self._errors, 0, 0
        self._requests_per_s = self._requests_per_s * keep + requests * part
        self._errors_per_s = self._errors_per_s * keep + errors * part
        self._counted_at = now

    def _sample(self, now: float) -> None:
        elapsed_s = now - self._sampled_at
        if 0.0 <= elapsed_s < _SAMPLE_S:
            return
        cpu = self._cpu_clock()
        # After a fork CPU time begins at 0 again, and a clock may have gone back.
        if elapsed_s > 0.0 and cpu >= self._cpu_then:
            self._cpu = (cpu - self._cpu_then) / elapsed_s / self._cpus
        self._sampled_at, self._cpu_then = now, cpu
