"""Locality weights: each place gets its share of the calls, less as far as it is unwell.

``effective(L) = weight(L) * min(1, overprovisioning * available(L) / counted(L))``, and the localities take turns by
earliest deadline, each as often as its effective weight says. One without a weight gets nothing. Source: Envoy's
``locality_wrr.cc``. Localities are written ``region/zone/sub_zone``; what is left out, or ``*``, matches any, as in
Istio's ``localityLbSetting``.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import ceil

from meshlib.balance.endpoint import Locality
from meshlib.balance.settings import DistributeRule

__all__ = [
    "LocalityTurns",
    "distribute",
    "effective_weight",
    "locality_text",
    "matches",
    "parse_locality",
    "weight_of",
]


@lru_cache(1000)
def parse_locality(text: str) -> Locality:
    """``region``, ``region/zone`` or ``region/zone/sub_zone``.

    Raises:
        ValueError: if there are more parts, or an empty one stands before another.
    """
    parts = text.split("/")
    if len(parts) > 3 or not parts[0] or any(not part for part in parts[:-1]):
        raise ValueError(f"{text!r} is no locality: write region, region/zone or region/zone/sub_zone")
    return Locality(*parts)


def locality_text(locality: Locality) -> str:
    """``region/zone/sub_zone``, without what is unknown at its end."""
    return "/".join((locality.region, locality.zone, locality.sub_zone)).rstrip("/")


def matches(locality: Locality, pattern: Locality) -> bool:
    """Whether a locality lies in the place that a pattern names."""
    return (
        pattern.region in ("*", locality.region)
        and pattern.zone in ("*", "", locality.zone)
        and pattern.sub_zone in ("*", "", locality.sub_zone)
    )


def effective_weight(weight: float, available: int, counted: int, overprovisioning_percent: float = 140.0) -> float:
    """The weight of a locality, after its health.

    Args:
        weight: as it is configured.
        available: endpoints that may be used.
        counted: all of them, the excluded left aside.
        overprovisioning_percent: what the available can carry, in percent of their share.
    """
    return weight * min(1.0, overprovisioning_percent / 100.0 * available / counted) if counted > 0 else 0.0


class LocalityTurns:
    """Localities in turn, each as often as its weight says. Safe under threads."""

    __slots__ = ("_deadlines", "_lock", "_order", "_periods")

    def __init__(self, weights: Sequence[tuple[int, float]], skip: int = 0) -> None:
        """Begin the turns.

        Args:
            weights: indexes of localities, and their effective weights; one of 0 has no turn.
            skip: turns to begin after, at random, so that many clients do not go in step.
        """
        self._lock = threading.Lock()
        self._periods = {index: 1.0 / weight for index, weight in weights if weight > 0}
        # Of those whose turn comes at the same time, the one that has waited longest is first.
        self._deadlines = {index: (period, order) for order, (index, period) in enumerate(self._periods.items())}
        self._order = len(self._deadlines)
        for _ in range(skip if self._deadlines else 0):
            self.next()

    @property
    def any(self) -> bool:
        """Whether any locality has a turn."""
        return bool(self._deadlines)

    def next(self) -> int | None:
        """The locality whose turn it is; None if none has a weight."""
        deadlines = self._deadlines
        if not deadlines:
            return None
        with self._lock:
            index = min(deadlines, key=deadlines.__getitem__)
            deadlines[index] = (deadlines[index][0] + self._periods[index], self._order)
            self._order += 1
            return index


def weight_of(locality: Locality, weights: Mapping[str, float]) -> float:
    """The weight of the first place that takes a locality in; 0 if there is none."""
    return next((weight for text, weight in weights.items() if matches(locality, parse_locality(text))), 0.0)


def distribute(
    places: Mapping[Locality, float], here: Locality, rules: Iterable[DistributeRule]
) -> dict[Locality, int] | None:
    """The weights of localities, by the first rule for where this process runs.

    A place's share is divided among the localities in it by what they weigh: ``ceil(weight * share / all of them)``.
    One that no place takes in has no weight, and its endpoints are not used at all. Source: Istio's
    ``loadbalancer.go``.

    Args:
        places: the localities of the service, each with the weights of its endpoints together.
        here: where this process runs.
        rules: in order.

    Returns:
        The weight of each that is used; None if there is no rule for here.
    """
    rule = next((rule for rule in rules if matches(here, parse_locality(rule.from_))), None)
    if rule is None:
        return None
    left, shares = dict(places), {}
    for text, percent in rule.to.items():
        pattern = parse_locality(text)
        inside = [locality for locality in left if matches(locality, pattern)]
        whole = sum(left[locality] for locality in inside)
        for locality in inside:
            share = left.pop(locality) * percent / whole if whole > 0 else 0.0
            if share > 0:
                shares[locality] = ceil(share - 1e-9)
    return shares
