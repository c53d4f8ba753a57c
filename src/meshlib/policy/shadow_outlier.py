"""A second outlier detector beside the live one: it has endpoints out in its own books, and calls go on all the same.

It hears of every attempt that the live detector hears of, at the same moment. Of one at an endpoint that it has out it
takes no notice, as there would have been none; but once that one's time is up, the next attempt there stands for the
probe. An endpoint that the live detector has out gets no calls, so there is nothing to be heard of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from meshlib.balance.balancer import Member
from meshlib.balance.health import EndpointHealth
from meshlib.policy.accrual import AccruingDetector, AccruingSweepingDetector
from meshlib.policy.outlier import EjectionProbe, OutlierDetector, make_detector
from meshlib.policy.outlier_sweep import SweepingDetector
from meshlib.policy.settings import OutlierSettings

if TYPE_CHECKING:
    from meshlib.policy.comparison import Comparison

__all__ = ["ShadowOutlier", "make_watched"]

_REMEMBER_S = 300.0
_NEVER = OutlierSettings(consecutive_errors=0)


class ShadowOutlier:
    """The shadow of one cluster's detector.

    Attributes:
        detector: which decides nothing.
        comparison: what it counts in.
    """

    __slots__ = ("_left", "_own", "_rng", "comparison", "detector")

    def __init__(self, settings: OutlierSettings, comparison: Comparison, rng: Random) -> None:
        detector = make_detector(settings, self._changed)
        assert detector is not None
        self.detector = detector
        self.comparison = comparison
        self._rng = rng
        # By the health of a member, its double: the same in all but the health, which is the shadow's own.
        self._own: dict[EndpointHealth, Member] = {}
        self._left: dict[EndpointHealth, float] = {}

    def rebind(self, members: Sequence[Member], now: float) -> None:
        """The cluster's endpoints changed; those that left are remembered for a while."""
        own = dict(self._own)
        for member in members:
            double = own.get(member.health)
            if double is None or double.endpoint is not member.endpoint:
                health = EndpointHealth() if double is None else double.health
                own[member.health] = Member(member.endpoint, member.node, member.load, health)
        present = {member.health for member in members}
        left = {health: self._left.get(health, now) for health in own.keys() - present}
        for health in [health for health, at in left.items() if now - at > _REMEMBER_S]:
            del left[health], own[health]
        self._own, self._left = own, left
        self.detector.rebind([own[member.health] for member in members], now, self._rng)

    def failed(self, member: Member, now: float, **how: Any) -> None:
        """An attempt failed; see `OutlierDetector.failed`."""
        double, probe = self._double(member, now)
        if double is not None:
            if probe is not None:
                probe.ended(now, False)
            self.detector.failed(double, now, **how)

    def succeeded(self, member: Member, now: float, status: int | None) -> None:
        """An attempt succeeded; see `OutlierDetector.succeeded`."""
        double, probe = self._double(member, now)
        if double is not None:
            if probe is not None:
                probe.ended(now, True)
            self.detector.succeeded(double, now, status)

    def passed_check(self, health: EndpointHealth, now: float) -> None:
        """An endpoint has passed an active check."""
        double = self._own.get(health)
        if double is not None:
            double.health.active_failed = health.active_failed
            self.detector.passed_check(double.health, now)

    def live_ejected(self, member: Member) -> None:
        """The live detector has put an endpoint out."""
        if not self.is_out(member):
            address = member.endpoint.address
            self.comparison.decided(f"{address} would not have been put out ({member.health.ejected_for})", "spared")

    def is_out(self, member: Member) -> bool:
        """Whether it has an endpoint out."""
        double = self._own.get(member.health)
        return double is not None and double.health.ejected

    def would_pass_over(self, member: Member, now: float, healthy: int, panic_at: float) -> bool:
        """Whether an endpoint that was picked would not have been: it is out, its probe is not due, and nobody panics.

        Args:
            member: that was picked.
            now: on the monotonic clock.
            healthy: members that the cluster has.
            panic_at: with fewer than this left, all are used.
        """
        double = self._own.get(member.health)
        if double is None or not double.health.ejected or member.health.ejected:
            return False  # if both have it out, it was picked for want of others
        if self.detector.settings.return_by == "probe" and now >= double.health.ejected_until:
            return False
        return healthy - self.detector.ejected_healthy >= panic_at

    def sweep(self, now: float) -> None:
        """Do what is due at intervals."""
        self.detector.sweep(now)

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self.detector.renew_lock()

    def _double(self, member: Member, now: float) -> tuple[Member | None, EjectionProbe | None]:
        """The double of a member, if the attempt would have been made; and the probe that it would have been."""
        double = self._own.get(member.health)
        if double is None:
            return None, None
        health, probe = double.health, None
        if health.ejected:
            health.active_failed = member.health.active_failed
            probe = self.detector.due(now, True, (), {health})  # which may find that it is back
            if probe is None and health.ejected:
                return None, None
        return double, probe

    def _changed(self, double: Member, ejected: bool) -> None:
        if ejected:
            self.comparison.count("ejected")


class _Watched(OutlierDetector):
    """A live detector that has its shadow hear what it hears, first."""

    __slots__ = ()

    shadow: ShadowOutlier

    def succeeded(self, member: Member, now: float, status: int | None = None) -> None:
        self.shadow.succeeded(member, now, status)
        super().succeeded(member, now, status)
        member.health.heeds_success = True

    def failed(
        self,
        member: Member,
        now: float,
        *,
        status: int | None = None,
        timed_out: bool = False,
        connected: bool = False,
    ) -> None:
        self.shadow.failed(member, now, status=status, timed_out=timed_out, connected=connected)
        super().failed(member, now, status=status, timed_out=timed_out, connected=connected)

    def passed_check(self, health: EndpointHealth, now: float) -> None:
        self.shadow.passed_check(health, now)
        super().passed_check(health, now)

    def sweep(self, now: float) -> None:
        self.shadow.sweep(now)
        super().sweep(now)

    def rebind(self, members: Sequence[Member], now: float = 0.0, rng: Random | None = None) -> None:
        self.shadow.rebind(members, now)
        super().rebind(members, now, rng)
        for member in members:
            member.health.heeds_success = True

    def _tell(self, member: Member, ejected: bool) -> None:
        if ejected:
            self.shadow.live_ejected(member)
        super()._tell(member, ejected)


class _WatchedDetector(_Watched):
    __slots__ = ("shadow",)


class _WatchedSweeping(_Watched, SweepingDetector):
    __slots__ = ("shadow",)


class _WatchedAccruing(_Watched, AccruingDetector):
    __slots__ = ("shadow",)


class _WatchedAccruingSweeping(_Watched, AccruingSweepingDetector):
    __slots__ = ("shadow",)


_Kind: TypeAlias = (
    type[_WatchedDetector] | type[_WatchedSweeping] | type[_WatchedAccruing] | type[_WatchedAccruingSweeping]
)
_KINDS: Final[dict[type[OutlierDetector], _Kind]] = {
    OutlierDetector: _WatchedDetector,
    SweepingDetector: _WatchedSweeping,
    AccruingDetector: _WatchedAccruing,
    AccruingSweepingDetector: _WatchedAccruingSweeping,
}


def make_watched(
    settings: OutlierSettings | None, on_change: Callable[[Member, bool], None] | None, shadow: ShadowOutlier
) -> OutlierDetector:
    """The live detector that these settings ask for, with a shadow; None for one that puts nobody out."""
    settings = _NEVER if settings is None else settings
    detector = make_detector(settings)
    assert detector is not None
    made = _KINDS[type(detector)](settings, on_change)
    made.shadow = shadow
    return made
