"""Slow start: a newcomer's share grows to its full weight over a window, while its caches and pools fill.

``factor = max(min_weight_percent / 100, (max(elapsed, 1 ms) / window) ** (1 / aggression))``, and 1 once the window is
over. With an aggression of 1 the share grows in a straight line; above 1 it grows fast at first, below 1 slowly.
Source: Envoy's ``load_balancer_impl.cc`` (``EdfLoadBalancerBase::applySlowStartFactor``).

An endpoint enters when it joins the cluster, or, where it is checked actively, when it passes its check after it had
not. The first endpoints of a cluster all enter together, so their shares stay those of their weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.balance.balancer import Member
from meshlib.balance.edf import Weigh
from meshlib.balance.settings import SlowStartSettings

__all__ = ["factor", "starting"]

_LEAST_S = 0.001


def factor(settings: SlowStartSettings, joined_at: float | None, now: float) -> float:
    """What the weight of an endpoint is multiplied by; above 0, at most 1.

    Args:
        settings: window and shape.
        joined_at: when it joined or passed its check, on the monotonic clock; None for long ago.
        now: on the same clock. If the clock went back past the whole window, the endpoint counts as grown up.
    """
    if joined_at is None:
        return 1.0
    elapsed_s, window_s = now - joined_at, settings.window_s
    if not -window_s < elapsed_s < window_s:
        return 1.0
    share = max(elapsed_s, _LEAST_S) / window_s
    if settings.aggression != 1.0:
        share **= 1.0 / settings.aggression
    return min(1.0, max(share, settings.min_weight_percent / 100.0, 1e-6))


def starting(members: Sequence[Member], settings: SlowStartSettings | None, now: float) -> Weigh | None:
    """The weights of members of which some have begun only lately; None if none has."""
    if settings is None or all(factor(settings, member.health.joined_at, now) >= 1.0 for member in members):
        return None

    def weigh(member: Member, now: float) -> float:
        return member.weight * factor(settings, member.health.joined_at, now)

    return weigh
