"""Priorities: who is called while the first choice is not well, and how much of the load moves there.

Endpoints of priority 0 are the first choice, those of 1 stand by, and so on. The load moves gently, as far as health
falls, and not at all as long as what is left can carry everything, which is what overprovisioning says::

    health(P)  = min(100, floor(overprovisioning_percent * healthy(P) / counted(P)))     counted = total - excluded
    norm       = min(100, sum of health(P), healthy and degraded)
    load(P)    = min(what is left of 100, floor(health(P) * 100 / norm))     leftovers go to the first with health
    panic(P)   = norm < 100 and percent of (healthy + degraded) in counted(P) < panic_percent
    all in panic: load(P) = floor(100 * total(P) / total); leftovers go to the first that is not empty

Healthy endpoints of all priorities come before degraded ones of any. Source: Envoy's ``load_balancer_impl.cc``
(``LoadBalancerBase``), whose integer arithmetic this is.
"""

from __future__ import annotations

from collections.abc import Sequence

from meshlib.dataclass import dataclass

__all__ = ["Level", "Loads", "choose_priority", "loads"]


@dataclass(frozen=True, slots=True)
class Level:
    """What one priority has: numbers of endpoints, and their weights where health is by weight.

    Attributes:
        total, healthy, degraded, excluded: endpoints. The excluded do not count for or against its health.
        weights: of the same four, in this order; None to reckon by number.
    """

    total: int
    healthy: int
    degraded: int = 0
    excluded: int = 0
    weights: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Loads:
    """What each priority gets, in percent of all calls.

    Attributes:
        healthy, degraded: for its healthy and its degraded endpoints; together they are 100.
        panic: whether all its endpoints are used alike, whatever their health.
        total_panic: whether that is so of all priorities, and loads follow their sizes.
    """

    healthy: tuple[int, ...]
    degraded: tuple[int, ...]
    panic: tuple[bool, ...]
    total_panic: bool = False


def loads(levels: Sequence[Level], overprovisioning_percent: float = 140.0, panic_percent: float = 50.0) -> Loads:
    """Share 100 percent among priorities, of which there is at least one.

    Args:
        levels: in order, the first choice first.
        overprovisioning_percent: what the healthy can carry, in percent of their share of the load.
        panic_percent: with fewer than this left, health is not believed; 0 never happens.
    """
    healthy = [_health(level, 1, overprovisioning_percent) for level in levels]
    degraded = [_health(level, 2, overprovisioning_percent) for level in levels]
    norm = min(100, sum(healthy) + sum(degraded))
    nobody = (False,) * len(levels)
    panic = nobody if norm == 100 else tuple(_percent_left(level) < panic_percent for level in levels)
    if all(panic):
        return Loads(_by_size(levels), (0,) * len(levels), panic, total_panic=True)
    if norm == 0:  # so few are left among so many that their percentage is none
        return _to_whoever(levels, panic)
    for_healthy, left = _share(healthy, 100, norm)
    for_degraded, left = _share(degraded, left, norm)
    if left:  # of rounding
        shares, of = (for_healthy, healthy) if any(healthy) else (for_degraded, degraded)
        shares[next(index for index, health in enumerate(of) if health)] += left
    return Loads(tuple(for_healthy), tuple(for_degraded), panic)


def choose_priority(shares: Loads, drawn: int) -> tuple[int, bool]:
    """The priority for a call, and whether its degraded endpoints are meant.

    Args:
        shares: of each priority.
        drawn: a random number or the call's hash, at least 0; ``drawn % 100`` decides.
    """
    point = drawn % 100
    for degraded, percents in enumerate((shares.healthy, shares.degraded)):
        for priority, percent in enumerate(percents):
            point -= percent
            if point < 0:
                return priority, degraded == 1
    return 0, False


def _health(level: Level, which: int, overprovisioning_percent: float) -> int:
    count = (level.total, level.healthy, level.degraded, level.excluded)
    of = level.weights or count
    whole = of[0] - of[3]
    # The epsilon is for factors and weights that are no whole numbers: 1.1 * 100 must not fall short of 110.
    return min(100, int(overprovisioning_percent * of[which] / whole + 1e-9)) if whole > 0 else 0


def _percent_left(level: Level) -> float:
    counted = level.total - level.excluded
    return 100.0 * (level.healthy + level.degraded) / counted if counted > 0 else 0.0


def _share(health: Sequence[int], left: int, norm: int) -> tuple[list[int], int]:
    shares = []
    for each in health:
        share = min(left, each * 100 // norm)
        shares.append(share)
        left -= share
    return shares, left


def _to_whoever(levels: Sequence[Level], panic: tuple[bool, ...]) -> Loads:
    """All to the first that has anyone; to the first of all, if none has."""
    shares: tuple[list[int], list[int]] = ([0] * len(levels), [0] * len(levels))
    index = next((index for index, level in enumerate(levels) if level.healthy), None)
    degraded = next((index for index, level in enumerate(levels) if level.degraded), None)
    if index is None and degraded is not None:
        shares[1][degraded] = 100
    else:
        shares[0][index or 0] = 100
    return Loads(tuple(shares[0]), tuple(shares[1]), panic)


def _by_size(levels: Sequence[Level]) -> tuple[int, ...]:
    whole = sum(level.total for level in levels)
    if whole == 0:
        return (100,) + (0,) * (len(levels) - 1)
    shares = [100 * level.total // whole for level in levels]
    shares[next(index for index, level in enumerate(levels) if level.total)] += 100 - sum(shares)
    return tuple(shares)
