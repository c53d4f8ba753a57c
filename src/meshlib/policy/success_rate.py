"""Which endpoints of a cluster fail more than the others do, or more than any should: by rates over one interval.

Two rules, both after Envoy's ``outlier_detection_impl.cc`` (gRPC A50 has the same two), applied at each sweep to what
was counted since the sweep before:

* **success rate**: of the endpoints with at least `request_volume` calls, if there are `minimum_hosts` of them, those
  whose success rate is below ``mean - stdev_factor * stdev`` of all their success rates (stdev of the population).
  Rates of 50, 100, 100, 100, 100 have the mean 90 and the stdev 20, so with a factor of 1.9 whoever is below 52 goes.
* **failure percentage**: those that failed in at least `threshold_percent` of their calls, whatever the others did.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt

from meshlib.dataclass import dataclass
from meshlib.policy.settings import FailurePercentageSettings, SuccessRateSettings

__all__ = ["Rate", "failing", "success_threshold", "unlike_others"]


@dataclass(slots=True)
class Rate:
    """How the calls of one endpoint went in one interval.

    Attributes:
        of: the endpoint, opaque here.
        good: calls that went well.
        total: all.
        limit: what a rule has compared the percentage with; set by the rules.
    """

    of: object
    good: int
    total: int
    limit: float = 0.0

    @property
    def success_percent(self) -> float:
        """How many of its calls went well; at least one there was."""
        return self.good * 100.0 / self.total


def success_threshold(percents: Sequence[float], stdev_factor: float) -> tuple[float, float]:
    """The mean of success rates, and the rate below which one is an outlier; there is at least one."""
    mean = sum(percents) / len(percents)
    variance = sum((percent - mean) ** 2 for percent in percents) / len(percents)
    return mean, mean - stdev_factor * sqrt(variance)


def unlike_others(settings: SuccessRateSettings, rates: Iterable[Rate]) -> list[Rate]:
    """Those whose success rate is far below that of the others, the worst first."""
    enough = _with_volume(rates, settings.request_volume)
    if not enough or len(enough) < settings.minimum_hosts:
        return []
    _, threshold = success_threshold([rate.success_percent for rate in enough], settings.stdev_factor)
    return _worst_first([rate for rate in enough if rate.success_percent < threshold], threshold)


def failing(settings: FailurePercentageSettings, rates: Iterable[Rate]) -> list[Rate]:
    """Those that fail in too many of their calls, the worst first."""
    enough = _with_volume(rates, settings.request_volume)
    if len(enough) < settings.minimum_hosts:
        return []
    threshold = settings.threshold_percent
    return _worst_first([rate for rate in enough if 100.0 - rate.success_percent >= threshold], threshold)


def _with_volume(rates: Iterable[Rate], volume: int) -> list[Rate]:
    return [rate for rate in rates if rate.total >= volume and rate.total > 0]


def _worst_first(found: list[Rate], limit: float) -> list[Rate]:
    # Not all of them may go, and Envoy takes them in the order of a hash table.
    found.sort(key=lambda rate: rate.success_percent)
    for rate in found:
        rate.limit = limit
    return found
