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

__all__ = ["override_policy"]


def override_policy(
    *,
    timeout: Duration | None = None,
    per_try_timeout: Duration | None = None,
    retry: Retry | RetryPolicy | None = None,
) -> Callable[[CallPolicy], CallPolicy]:
    """What makes of the policy of a route one with what is given in place of its own.

    Args:
        timeout: for the whole call; None leaves it.
        per_try_timeout: for one attempt; None leaves it.
        retry: a `Retry` replaces the fields that were written in it, a `RetryPolicy` everything; None leaves it.

    Raises:
        ConfigError: if a duration is none, is below 1us or above 100 years, or a per-try timeout is above a timeout
            given with it. What it returns, too: if the fields of `retry` do not fit those of the policy.
        TypeError: if `retry` is something else.
    """
    total_s = _seconds("timeout", timeout)
    per_try_s = _seconds("per_try_timeout", per_try_timeout)
    if total_s is not None and per_try_s is not None and per_try_s > total_s:
        raise ConfigError(f"per_try_timeout ({per_try_timeout}) is above timeout ({timeout}), so it is never reached")
    if retry is not None and not isinstance(retry, RetryPolicy):
        _check_kind(retry)
    return lambda base: replace(
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
