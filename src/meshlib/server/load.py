"""What this server tells its callers of its load, so that they can balance by it (`meshlib.balance.server_weights`).

    app.add_middleware(MeshMiddleware, mesh=mesh, load=LoadReporter())

Each response to a trusted peer then has the header ``endpoint-load-metrics``, an ORCA report: the requests and the
errors per second, as averages that forget in `window_s`; the CPU time that this process uses, as a share of `cpus`; and
the application's own measure, if it has one.

One process computes on one CPU at a time, as long as Python has its global lock, so a share of 1 is full use. An
application that waits more than it computes (for a database, for a pool of threads) does better with a measure of its
own: what share of the scarce thing is in use.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import exp, inf, isfinite
from typing import TYPE_CHECKING, Any

from meshlib.balance.load_report import HEADER, LoadReport

if TYPE_CHECKING:
    from meshlib.server.asgi import Message, Send

__all__ = ["LoadReporter"]

_SAMPLE_S = 1.0
_RENEW_S = 0.1
_ERROR = 500


class LoadReporter:
    """Measures this process, and writes reports. One for an application.

    There is no lock: where threads overlap a request may not be counted, which an average does not notice.

    Args:
        utilization: the application's own measure, asked ten times a second at most: the share of what it can do that
            is in use, 1 for all. Where it raises or returns no number, there is none.
        window_s: how long rates remember.
        cpus: how many CPUs this process can keep busy.
        clock, cpu_clock: in seconds; for tests.
    """

    def __init__(
        self,
        utilization: Callable[[], float] | None = None,
        *,
        window_s: float = 10.0,
        cpus: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        cpu_clock: Callable[[], float] = time.process_time,
    ) -> None:
        self._utilization = utilization
        self._window_s = window_s
        self._cpus = cpus
        self._clock = clock
        self._cpu_clock = cpu_clock
        now = clock()
        self._requests_per_s = self._errors_per_s = 0.0
        self._counted_at = now
        self._cpu = 0.0
        self._sampled_at, self._cpu_then = now, cpu_clock()
        self._text, self._written_at = b"", -inf

    def count(self, status: int) -> None:
        """A request was answered."""
        self._decay(self._clock())
        self._requests_per_s += 1.0 / self._window_s
        if status >= _ERROR:
            self._errors_per_s += 1.0 / self._window_s

    def report(self) -> LoadReport:
        """How loaded this process is now."""
        now = self._clock()
        self._decay(now)
        self._sample(now)
        return LoadReport(self._measure(), self._cpu, 0.0, self._requests_per_s, self._errors_per_s)

    def header(self) -> bytes:
        """The header's value; empty while there is nothing to say. Written anew ten times a second at most."""
        now = self._clock()
        if not 0.0 <= now - self._written_at < _RENEW_S:
            text = self.report().text()
            self._text, self._written_at = text.encode() if "=" in text else b"", now
        return self._text

    def watch_asgi(self, send: Send, tell: bool) -> Send:
        """`send` of an ASGI application, with the header on its response, if the peer is to be told."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.count(message["status"])
                if tell and (value := self.header()):
                    message = {**message, "headers": [*message.get("headers", ()), (HEADER.encode(), value)]}
            await send(message)

        return watched

    def watch_wsgi(self, start_response: Callable[..., Any], tell: bool) -> Callable[..., Any]:
        """``start_response`` of a WSGI application, likewise."""

        def watched(status: str, headers: list[tuple[str, str]], *failed: Any) -> Any:
            if not failed or failed[0] is None:  # else it takes back one that was counted
                self.count(int(status[:3]) if status[:3].isdigit() else 0)
            if tell and (value := self.header()):
                headers = [*headers, (HEADER, value.decode())]
            return start_response(status, headers, *failed)

        return watched

    def _measure(self) -> float:
        if self._utilization is None:
            return 0.0
        try:
            value = float(self._utilization())
        except Exception:
            return 0.0
        return value if value > 0.0 and isfinite(value) else 0.0

    def _decay(self, now: float) -> None:
        keep = exp(-max(0.0, now - self._counted_at) / self._window_s)
        self._requests_per_s *= keep
        self._errors_per_s *= keep
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
