"""``HTTPRetry``: how often, on what, and how long an attempt may take.

Whole numbers among the conditions are statuses. Without conditions those of Istio hold; ``attempts: 0`` switches
retries off. Source: Istio's ``route/retry/retry.go``. Back-off is Envoy's: full jitter from `backoff`, doubling to ten
times that.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from meshlib.config.dialects.draft import Context
from meshlib.config.dialects.durations import written
from meshlib.config.dialects.fields import Reader
from meshlib.policy.retry_on import CONDITIONS

__all__ = ["DEFAULT_CONDITIONS", "DEFAULT_RETRIES", "parse_retry_on", "read_retries", "usual_retry"]

DEFAULT_RETRIES: Final = 2
DEFAULT_CONDITIONS: Final = ("connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes")

_STATUSES: Final = frozenset(status.value for status in HTTPStatus)
_HTTP3: Final = "http3-post-connect-failure"


def usual_retry(context: Context) -> dict[str, Any]:
    """What Istio does unless told otherwise."""
    retry: dict[str, Any] = {"max_retries": DEFAULT_RETRIES, "on": list(DEFAULT_CONDITIONS)}
    return {**retry, "unsafe": True} if context.settings.retry_unsafe else retry


def parse_retry_on(text: str) -> tuple[list[str], list[int]]:
    """The conditions and the statuses in a list with commas. A number that is no status is a condition, as in Istio."""
    conditions: list[str] = []
    statuses: list[int] = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        if part.isascii() and part.isdigit() and len(part) < 6 and int(part) in _STATUSES:
            statuses.append(int(part))
        else:
            conditions.append(part)
    if statuses and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    return conditions, statuses


def read_retries(reader: Reader) -> dict[str, Any]:
    """``retry`` in our words and, if it is there, ``per_try_timeout`` in seconds."""
    context = reader.draft.context
    attempts = reader.integer("attempts") or 0
    per_try_s = reader.duration("perTryTimeout")
    retry: dict[str, Any] = {"max_retries": max(0, attempts)}
    if attempts < 0:
        reader.wrong("attempts", "is below 0")
    if text := reader.text("retryOn"):
        conditions, statuses = parse_retry_on(text)
        retry["on"] = [each for each in conditions if _known(reader, each)]
        if statuses:
            retry["retriable_status_codes"] = statuses
    elif context.settings.defaults == "theirs":
        retry["on"] = list(DEFAULT_CONDITIONS)
    if base_s := reader.duration("backoff"):
        retry["backoff"] = {"base": written(base_s), "max": written(10 * base_s)}
    if context.settings.retry_unsafe:
        retry["unsafe"] = True
    elif attempts:
        text = "requests that are not safe to repeat are retried only if nothing of them was sent"
        reader.different(None, f"{text} (documents: {{retry_unsafe: true}} lifts that)")
    if reader.flag("retryIgnorePreviousHosts") is False:
        reader.ignore("retryIgnorePreviousHosts", "a retry goes to an endpoint that was not tried, if there is one")
    if reader.flag("retryRemoteLocalities"):
        reader.ignore("retryRemoteLocalities", "a retry keeps to the priorities that hold for all attempts")
    reader.rest()
    if not attempts:
        retry = {"max_retries": 0}
    return {"retry": retry, **({"per_try_timeout": per_try_s} if per_try_s else {})}


def _known(reader: Reader, condition: str) -> bool:
    if condition in CONDITIONS:
        return True
    if condition == _HTTP3:
        reader.draft.note(reader.place("retryOn"), f"{_HTTP3} is not honoured: HTTP/3 is not spoken", "ignored")
    else:
        reader.wrong("retryOn", f"{condition!r} is no condition to retry on")
    return False
