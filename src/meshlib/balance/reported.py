"""What one endpoint says of its own load, as it comes with responses, for the balancers that go by it.

A client that asks, by the request header ``x-meshlib-load``, names the forms that it reads:

    x-meshlib-load: orca             the response has ``endpoint-load-metrics`` (`meshlib.balance.load_report`)
    x-meshlib-load: in-flight        the response has, in few bytes, what is in flight at this moment:

    x-meshlib-load: in_flight=3, latency_ms=12.5

that is, the requests that are being served, and the median time that recent ones took which found about as many. A
latency of 0 is one that is not known yet. What is not exactly of this form is as good as absent. Of a server that has
only ORCA the metrics ``named_metrics.in_flight`` and ``named_metrics.latency_ms`` are read in its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from meshlib.balance.load_report import BINARY_HEADER, HEADER, LONGEST, LoadReport, parse_binary, parse_report
from meshlib.propagation import LOAD

if TYPE_CHECKING:
    from meshlib.balance.probe_pool import ProbePool
    from meshlib.balance.probing import Probing
    from meshlib.balance.server_weights import ReportedWeight

__all__ = ["QUIET_S", "Reported", "parse_in_flight", "write_in_flight"]

QUIET_S: Final = 60.0
"""An endpoint that answers a probe and says nothing of its load is not probed for so long."""

_LOAD, _HEADER, _BINARY_HEADER = LOAD.encode(), HEADER.encode(), BINARY_HEADER.encode()
_IN_FLIGHT = re.compile(rb"in_flight=(\d{1,9}), latency_ms=(\d{1,9}(?:\.\d{1,9})?)")


def write_in_flight(in_flight: int, latency_s: float) -> bytes:
    """The header's value in a response."""
    return b"in_flight=%d, latency_ms=%.3f" % (min(in_flight, 999_999_999), min(latency_s * 1000.0, 999_999_999.0))


def parse_in_flight(value: bytes) -> tuple[float, float] | None:
    """The requests in flight, and seconds; None if it says neither. Never raises."""
    match = _IN_FLIGHT.fullmatch(value)
    return None if match is None else (float(match[1]), float(match[2]) / 1000.0)


class Reported:
    """What one endpoint says, in one cluster. Threads may overlap: the last report counts.

    Attributes:
        asks: what requests say in `meshlib.propagation.LOAD`.
        weight: what it makes of reports for `meshlib.balance.server_weights`; None if nobody asks that.
        pool: hears of what is in flight with each answer to a call; None if nobody does. That of the balancer that
            picked the endpoint last.
        probing: where probes are asked for; None without.
        in_flight, latency_s, at: what it said last, and when; at minus infinity before the first time.
        quiet_until: until when it is not probed, as it has nothing to say.
    """

    __slots__ = ("_last", "asks", "at", "in_flight", "latency_s", "pool", "probing", "quiet_until", "weight")

    def __init__(self) -> None:
        self.asks = b""
        self.weight: ReportedWeight | None = None
        self.pool: ProbePool | None = None
        self.probing: Probing | None = None
        self.in_flight = self.latency_s = 0.0
        self.at = self.quiet_until = float("-inf")
        self._last: tuple[bytes, LoadReport | None] = (b"", None)

    def weigh(self, weight: ReportedWeight) -> None:
        """Have reports read for a weight, too."""
        self.weight = weight
        self.asks = b"orca" if self.probing is None else b"orca, in-flight"

    def probe(self, probing: Probing) -> None:
        """Have reports read for a pool, too."""
        self.probing = probing
        self.asks = b"in-flight" if self.weight is None else b"orca, in-flight"

    def report(self, report: LoadReport, now: float) -> None:
        """A response brought this."""
        if self.weight is not None:
            self.weight.report(report, now)

    def read(self, headers: Iterable[tuple[bytes, bytes]], now: float) -> None:
        """The answer to a call has these headers, perhaps a report among them. Never raises."""
        if self.hear(headers, now) and (pool := self.pool) is not None:
            pool.refresh(self, self.in_flight, self.latency_s, now)

    def hear(self, headers: Iterable[tuple[bytes, bytes]], now: float) -> bool:
        """Any answer has these headers. Never raises.

        Returns:
            Whether they say what is in flight.
        """
        in_flight: tuple[float, float] | None = None
        report: LoadReport | None = None
        for name, value in headers:
            size = len(name)
            if size == 14:
                if in_flight is None and name.lower() == _LOAD:
                    in_flight = parse_in_flight(value)
            elif (size == 21 or size == 25) and report is None:
                lowered = name.lower()
                if lowered in (_HEADER, _BINARY_HEADER):
                    report = self._parse(lowered, value)
        if report is not None:
            self.report(report, now)
            if in_flight is None and "in_flight" in report.named_metrics:
                in_flight = report.named_metrics["in_flight"], report.metric("named_metrics.latency_ms") / 1000.0
        if in_flight is None:
            return False
        self.in_flight, self.latency_s = in_flight
        self.at = now
        return True

    def _parse(self, name: bytes, value: bytes) -> LoadReport | None:
        if value != self._last[0]:
            text = value.decode("latin-1") if len(value) <= LONGEST else ""
            self._last = value, parse_binary(text) if name == _BINARY_HEADER else parse_report(text)
        return self._last[1]
