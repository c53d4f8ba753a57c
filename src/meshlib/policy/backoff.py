"""How long to wait before a retry.

With ``v = min(max, base * 2**(retry - 1))``, retries counted from 1, and U a uniform draw:

    jitter          wait                                        source
    full            U[0, v)                                     Brooker; Envoy (25 ms, 250 ms). The default
    equal           v / 2 + U[0, v / 2)                         Brooker
    decorrelated    min(max, U[base, 3 * the wait before))      Brooker, Finagle; the first after a wait of `base`
    additive        v + min(U[0, 1) * v, max - v)               Linkerd (25 ms, 250 ms, jitter 1.0)
    none            v

Brooker is "Exponential Backoff And Jitter" (AWS, 2015): of 100 clients that contend, full jitter needs fewest calls.

What a server asks for is another matter: with an interval I, U[I, 1.5 * I), so that callers do not come back together
and none comes early (Envoy's ``JitteredLowerBoundBackOffStrategy``).
"""

from __future__ import annotations

from random import Random
from typing import Literal, TypeAlias

__all__ = ["Jitter", "backoff_s", "lower_bound_s"]

Jitter: TypeAlias = Literal["full", "equal", "decorrelated", "additive", "none"]

_MOST_DOUBLINGS = 30


def backoff_s(jitter: Jitter, base_s: float, max_s: float, retries: int, before_s: float, rng: Random) -> float:
    """The wait before a retry.

    Args:
        jitter: the kind.
        base_s, max_s: see the top of this module.
        retries: made so far.
        before_s: the wait before the last one; 0 for the first.
        rng: for the draw.
    """
    full_s = min(max_s, base_s * 2.0 ** min(retries, _MOST_DOUBLINGS))
    match jitter:
        case "full":
            return rng.random() * full_s
        case "equal":
            return full_s / 2 + rng.random() * full_s / 2
        case "decorrelated":
            return min(max_s, base_s + rng.random() * max(0.0, 3 * max(before_s, base_s) - base_s))
        case "additive":
            return full_s + min(rng.random() * full_s, max_s - full_s)
        case _:
            return full_s


def lower_bound_s(interval_s: float, rng: Random) -> float:
    """The wait where the server asked for `interval_s`."""
    return interval_s * (1.0 + rng.random() / 2)
