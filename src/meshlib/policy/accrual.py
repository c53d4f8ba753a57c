"""Failure accrual: an endpoint whose own success rate has fallen too low is an outlier, whatever the others do.

    ema      Finagle's: ``ema = x * (1 - w) + ema * w``, ``w = exp(-gap / window)``, where x is 1 for a success and 0
             for a failure, and the gap is the time since the outcome before; or 1, where the window is one of requests.
             A failure trips it if ``ema < success_rate_percent``, a whole window has passed since the endpoint joined
             or came back, and, by time, there were `min_requests` outcomes in the last window (in 5 slices).
    window   Linkerd's: exact counts in 10 buckets. Any outcome trips it if there are `min_requests` of them in the
             window, and ``good / total < success_rate_percent``.

Source: ``FailureAccrualPolicy.scala`` and ``Ema.scala`` of Finagle, and ``success_rate.rs`` of Linkerd's proxy. As
there, an answer of 5xx is a failure here, and for Linkerd a 429 too; so is what `meshlib.policy.classify` calls one.

What is left to the detector is what becomes of the endpoint: `meshlib.policy.outlier`. Nothing is counted while it is
out, and it begins anew when it comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from random import Random

from meshlib.balance.balancer import Member
from meshlib.balance.health import Accrual, EndpointHealth, Tally
from meshlib.policy.outlier import OutlierDetector
from meshlib.policy.outlier_sweep import SweepingDetector
from meshlib.policy.rolling import RollingCounts
from meshlib.policy.settings import AccrualSettings

__all__ = ["AccruingDetector", "AccruingSweepingDetector", "MovingAverage", "MovingCounts", "make_accrual"]

_TOTAL, _GOOD = 0, 1


class MovingAverage:
    """The moving average of one endpoint's outcomes. Whoever owns it holds a lock around each use.

    Attributes:
        settings: what it was made by.
        ema: the share of calls that went well, from 0 to 1; 0 before the first.
    """

    __slots__ = ("_latest", "_recent", "_stamp", "_started", "ema", "settings")

    def __init__(self, settings: AccrualSettings, now: float) -> None:
        self.settings = settings
        self.reset(now)

    def reset(self, now: float) -> None:
        """Begin anew."""
        self.ema = 0.0
        self._started = self._latest = now
        self._stamp: float | None = None
        self._recent = RollingCounts(1, self.settings.window_s, now, 5)

    def note(self, now: float, good: bool) -> str | None:
        """One more outcome. Returns what is wrong with the endpoint, if that trips it."""
        settings = self.settings
        if settings.requests is not None:
            window, stamp = float(settings.requests), 1.0 if self._stamp is None else self._stamp + 1
        else:
            window = settings.window_s
            self._latest = now = _in_order(self, now, good, window, self._latest)
            stamp = now - self._started
            self._recent.roll(now)
            self._recent.add(_TOTAL)
        value = 1.0 if good else 0.0
        if self._stamp is None:
            self.ema = value
        else:
            weight = exp(-(stamp - self._stamp) / window)
            self.ema = value * (1.0 - weight) + self.ema * weight
        self._stamp = stamp
        percent = self.ema * 100.0
        if good or stamp < window or percent >= settings.success_rate_percent:
            return None
        if settings.requests is None and self._recent.totals[_TOTAL] < settings.min_requests:
            return None
        return f"{percent:.3g} % of calls went well on a moving average, below {settings.success_rate_percent:.3g} %"


class MovingCounts:
    """What became of one endpoint's calls in the last window. Whoever owns it holds a lock around each use.

    Attributes:
        settings: what it was made by.
    """

    __slots__ = ("_counts", "_latest", "settings")

    def __init__(self, settings: AccrualSettings, now: float) -> None:
        self.settings = settings
        self.reset(now)

    def reset(self, now: float) -> None:
        """Begin anew."""
        self._latest = now
        self._counts = RollingCounts(2, self.settings.window_s, now, 10)

    @property
    def percent(self) -> float | None:
        """How many calls went well, as of the last outcome; None without any."""
        total, good = self._counts.totals
        return good * 100.0 / total if total else None

    def note(self, now: float, good: bool) -> str | None:
        """One more outcome. Returns what is wrong with the endpoint, if that trips it."""
        settings = self.settings
        self._latest = now = _in_order(self, now, good, settings.window_s, self._latest)
        self._counts.roll(now)
        self._counts.add(_TOTAL)
        if good:
            self._counts.add(_GOOD)
        total, went_well = self._counts.totals
        if total < settings.min_requests or went_well * 100.0 >= settings.success_rate_percent * total:
            return None
        percent = went_well * 100.0 / total
        return f"{percent:.3g} % of {total} calls went well, below {settings.success_rate_percent:.3g} %"


def _in_order(of: Accrual, now: float, good: bool, window_s: float, latest: float) -> float:
    """The time of an outcome, never before that of the one noted last.

    A success is as of its headers, and noted when its body has ended: it may be late by as long as that took. A failure
    is noted at once, so if it comes from long before, the clock went back.
    """
    if not good and now < latest - window_s:
        of.reset(now)
        return now
    return max(now, latest)


def make_accrual(settings: AccrualSettings, now: float) -> Accrual:
    """What counts for one endpoint."""
    return MovingAverage(settings, now) if settings.kind == "ema" else MovingCounts(settings, now)


class _Accruing(OutlierDetector):
    """A detector with this rule besides."""

    __slots__ = ()

    def failed(
        self,
        member: Member,
        now: float,
        *,
        status: int | None = None,
        timed_out: bool = False,
        connected: bool = False,
    ) -> None:
        # First: what trips both rules is a matter of failures in a row, as in Linkerd.
        super().failed(member, now, status=status, timed_out=timed_out, connected=connected)
        self._note(member.health, now, False)

    def rebind(self, members: Sequence[Member], now: float = 0.0, rng: Random | None = None) -> None:
        settings = self.settings.accrual
        assert settings is not None
        for member in members:
            health = member.health
            health.heeds_success = True
            tally = health.tally
            if tally is None:
                tally = health.tally = Tally()
            if tally.accrual is None or tally.accrual.settings != settings:
                tally.accrual = make_accrual(settings, now)
        super().rebind(members, now, rng)

    def _note(self, health: EndpointHealth, now: float, good: bool) -> None:
        out = None
        with self._lock:
            accrual = None if health.tally is None or health.ejected else health.tally.accrual
            because = None if accrual is None else accrual.note(now, good)
            if because is not None:
                out = self._detect(health, now, "accrual", because)
        if out is not None:
            self._tell(out, True)

    def _note_answer(self, health: EndpointHealth, now: float, status: int | None) -> None:
        settings = self.settings.accrual
        assert settings is not None
        good = status is None or not (status >= 500 or (status == 429 and settings.kind == "window"))
        self._note(health, now, good)

    def _take_back(self, health: EndpointHealth, now: float, because: str) -> None:
        if health.tally is not None and health.tally.accrual is not None:
            health.tally.accrual.reset(now)
        super()._take_back(health, now, because)


class AccruingDetector(_Accruing):
    """Ejections in one cluster by failures in a row, and by success rates of endpoints."""

    __slots__ = ()

    def succeeded(self, member: Member, now: float, status: int | None = None) -> None:
        with self._lock:
            member.health.consecutive = 0
        self._note_answer(member.health, now, status)


class AccruingSweepingDetector(_Accruing, SweepingDetector):
    """The same, with Envoy's rules besides."""

    __slots__ = ()

    def succeeded(self, member: Member, now: float, status: int | None = None) -> None:
        super().succeeded(member, now, status)
        self._note_answer(member.health, now, status)
