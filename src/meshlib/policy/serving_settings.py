"""What admission at the callee's side is set to: frozen, plain, validated before. Off unless configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from meshlib.dataclass import dataclass

if TYPE_CHECKING:
    from meshlib.policy.admission_settings import AdaptiveSettings, KeySource

__all__ = ["AdmissionSettings", "SharesSettings"]


@dataclass(frozen=True, slots=True)
class SharesSettings:
    """How much of the limit may be in use for a request to get in, while more critical ones come.

    What is critical-plus may use all of it.
    """

    critical_percent: float = 95.0
    sheddable_plus_percent: float = 90.0
    sheddable_percent: float = 80.0


@dataclass(frozen=True, slots=True)
class AdmissionSettings:
    """How many requests are served at once, and what becomes of the others; see `meshlib.policy.serving_queue`.

    Attributes:
        max_in_flight: requests that are served at once; with `adaptive`, the most that it may find; None for no bound.
        adaptive: how that limit finds itself; None for not at all.
        max_pending: requests that wait in the queue before it; 0 for none.
        order: who gets a place that falls free: ``fifo``, ``lifo``, or ``adaptive``, which is the last that came
            while the queue stands, else the first.
        interval_s: a queue that was not empty for so long stands; and how long a request may wait while it does not.
        target_s: how long a request may wait while it does.
        shares: what is kept free for the more critical.
        fair_by: what names the caller; None where callers are not told apart.
        retries_percent: with such a share of retries among the requests, those refused are not to be repeated.
    """

    max_in_flight: int | None = None
    adaptive: AdaptiveSettings | None = None
    max_pending: int = 100
    order: Literal["adaptive", "fifo", "lifo"] = "adaptive"
    interval_s: float = 0.1
    target_s: float = 0.005
    shares: SharesSettings = SharesSettings()
    fair_by: KeySource | None = None
    retries_percent: float = 10.0
