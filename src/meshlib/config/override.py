"""A policy for the calls inside a block: what `mesh.policy(...)` lays over a route's policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshlib.dataclass import replace
from meshlib.durations import LONGEST_S, SHORTEST_S, Duration, parse_duration
from meshlib.errors import ConfigError
from meshlib.policy.settings import CallPolicy, RetryPolicy

if TYPE_CHECKING:
    from meshlib.config.parts import Retry

__all__ = ["override_policy", "overriding_policy"]


def overriding_policy(
    *,
    timeout: Duration | None = None,
    per_try_timeout: Duration | None = None,
    retry: Retry | RetryPolicy | None = None,
) -> Callable[[CallPolicy], CallPolicy]:
    """What does as `override_policy` does, and so to any policy. What is wrong whatever the policy is told at once.

    Raises:
        ConfigError, TypeError: see `override_policy`.
    """
    total_s, per_try_s = _limits(timeout, per_try_timeout)
    if retry is not None and not isinstance(retry, RetryPolicy):
        _check_kind(retry)
    return lambda base: _overridden(base, total_s, per_try_s, retry)


def override_policy(
    base: CallPolicy,
    *,
    timeout: Duration | None = None,
    per_try_timeout: Duration | None = None,
    retry: Retry | RetryPolicy | None = None,
) -> CallPolicy:
    """Return `base` with what is given in place of its own.

    Args:
        base: the policy of the route.
        timeout: for the whole call; None leaves it.
        per_try_timeout: for one attempt; None leaves it.
        retry: a `Retry` replaces the fields that were written in it, a `RetryPolicy` everything; None leaves it.

    Raises:
        ConfigError: if a duration is none, is below 1us or above 100 years, or a per-try timeout is above a timeout
            given with it.
        TypeError: if `retry` is something else.
    """
    return _overridden(base, *_limits(timeout, per_try_timeout), retry)


def _limits(timeout: Duration | None, per_try_timeout: Duration | None) -> tuple[float | None, float | None]:
    total_s = _seconds("timeout", timeout)
    per_try_s = _seconds("per_try_timeout", per_try_timeout)
    if total_s is not None and per_try_s is not None and per_try_s > total_s:
        raise ConfigError(f"per_try_timeout ({per_try_timeout}) is above timeout ({timeout}), so it is never reached")
    return total_s, per_try_s


def _overridden(
    base: CallPolicy, total_s: float | None, per_try_s: float | None, retry: Retry | RetryPolicy | None
) -> CallPolicy:
    return replace(
        base,
        timeout_s=base.timeout_s if total_s is None else total_s,
        per_try_timeout_s=base.per_try_timeout_s if per_try_s is None else per_try_s,
        retry=_retry(base.retry, retry),
    )


def _seconds(name: str, value: Duration | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = parse_duration(value)
    except (ValueError, TypeError, OverflowError):
        raise ConfigError(
            f"{name}: {value!r} is not a duration; write it like '500ms', '2s' or 2.0 (seconds)"
        ) from None
    if seconds == 0:
        raise ConfigError(f"{name}: a duration above 0 is expected")
    if not SHORTEST_S <= seconds <= LONGEST_S:
        raise ConfigError(f"{name}: {value!r} is out of range: 1us is the shortest time, 100 years the longest")
    return seconds


def _retry(base: RetryPolicy, retry: Retry | RetryPolicy | None) -> RetryPolicy:
    if retry is None:
        return base
    if isinstance(retry, RetryPolicy):
        return retry
    _check_kind(retry)
    from meshlib.config.checks_retry import retry_faults
    from meshlib.config.lay import lay_over

    policy = lay_over(base, retry)
    if policy.backoff_base_s > policy.backoff_max_s:
        raise ConfigError("retry.backoff: base is above max; write both")
    for path, text, _ in retry_faults(("retry",), retry, policy):
        raise ConfigError(f"{'.'.join(map(str, path))} {text}")
    return policy


def _check_kind(retry: Retry) -> None:
    # Whoever has a `Retry` has loaded pydantic already; for a bare timeout it stays unloaded.
    from meshlib.config.parts import Retry as RetryPart

    if not isinstance(retry, RetryPart):
        raise TypeError(f"retry: a Retry is expected, as in Retry(max_retries=1), not {type(retry).__name__}")
