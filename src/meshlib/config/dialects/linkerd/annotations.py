"""Linkerd's annotations on Services and routes: ``retry.``, ``timeout.`` and ``balancer.linkerd.io``.

Source: ``policy-controller/k8s/index/src/outbound/index.rs`` and ``index/http.rs`` of linkerd2, whose grammar this is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, TypeVar

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.durations import written
from meshlib.config.dialects.fields import go_duration
from meshlib.config.dialects.resources import Place
from meshlib.config.rejection import closest

__all__ = ["ACCRUAL", "ANNOTATIONS", "ROUTE", "Annotations", "conditions_of", "duration", "fit_times"]

T = TypeVar("T")

ROUTE: Final = {
    "timeout.linkerd.io/request": "honoured",
    "timeout.linkerd.io/response": "different",
    "timeout.linkerd.io/idle": "different",
    "retry.linkerd.io/http": "honoured",
    "retry.linkerd.io/grpc": "different",
    "retry.linkerd.io/limit": "honoured",
    "retry.linkerd.io/timeout": "different",
}
"""Those of routes, and of Services for all their routes, and how they are honoured."""

_CONSECUTIVE: Final = "balancer.linkerd.io/failure-accrual-consecutive"
_RATE: Final = "balancer.alpha.linkerd.io/failure-accrual-success-rate"

ACCRUAL: Final = {
    "balancer.linkerd.io/failure-accrual": "honoured",
    f"{_CONSECUTIVE}-max-failures": "honoured",
    f"{_CONSECUTIVE}-min-penalty": "honoured",
    f"{_CONSECUTIVE}-max-penalty": "different",
    f"{_CONSECUTIVE}-jitter-ratio": "different",
    f"{_RATE}-threshold": "honoured",
    f"{_RATE}-window": "honoured",
    f"{_RATE}-min-requests": "honoured",
    "balancer.alpha.linkerd.io/penalize-failures": "different",
    "balancer.alpha.linkerd.io/load-biaser-penalty": "different",
    "balancer.alpha.linkerd.io/load-biaser-max-retry-after": "different",
}
"""Those of Services alone."""

ANNOTATIONS: Final = {**ROUTE, **ACCRUAL}
_OURS = re.compile(r"(?:retry|timeout|balancer|balancer\.alpha)\.linkerd\.io/")
_DURATION = re.compile(r"([0-9]+)(ms|s|m|h|d)")
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_GRPC: Final = ("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable")
_FIVES: Final = frozenset(range(500, 600))
_GATEWAY: Final = frozenset({502, 503, 504})


class Annotations:
    """The annotations of one document."""

    def __init__(self, draft: Draft, annotations: Mapping[str, str], place: Callable[[str], Place]) -> None:
        """Read them.

        Args:
            draft: where notes go.
            annotations: all of them.
            place: gives where one of them stands.
        """
        self._draft = draft
        self._given = {key: value for key, value in annotations.items() if _OURS.match(key)}
        self._place = place

    def __bool__(self) -> bool:
        return bool(self._given)

    def unknown(self, known: Collection[str], elsewhere: str) -> None:
        """Note those that do not belong here: `elsewhere` says where the others do."""
        for key in self._given:
            if key in known:
                continue
            if key in ANNOTATIONS:
                text = elsewhere
            else:
                nearest = closest(key, known)
                text = f"unknown annotation; did you mean {nearest!r}?" if nearest else "unknown annotation"
            self._draft.note(self._place(key), f"is not honoured: {text}", "ignored")

    def route_fields(self) -> dict[str, Any]:
        """What they say of calls, as fields of a route or of a service. Timeouts hold all together, or not at all."""
        fields = {**self._timeouts(), **self._retry()}
        fit_times(fields)
        return fields

    def _timeouts(self) -> dict[str, Any]:
        request = self._read("timeout.linkerd.io/request", duration)
        response = self._read("timeout.linkerd.io/response", duration)
        idle = self._read("timeout.linkerd.io/idle", duration)
        if request is None and response is None and idle is None:
            return {}
        if response is not None:
            text = "is a limit for each attempt from its beginning to the headers of its response"
            self._note("timeout.linkerd.io/response", text, "different")
        if idle is not None:
            text = "counts while the response's body is read, not while the request is sent"
            self._note("timeout.linkerd.io/idle", text, "different")
        found = {"timeout": request, "per_try_timeout": response, "body_idle_timeout": idle}
        # Nought is no limit, and a request's length is bounded by that of the response.
        fields: dict[str, Any] = {name: written(value) if value else None for name, value in found.items()}
        if idle is None:
            del fields["body_idle_timeout"]
        return fields

    def _retry(self) -> dict[str, Any]:
        limit = self._read("retry.linkerd.io/limit", _count) or None
        timeout = self._read("retry.linkerd.io/timeout", duration) or None
        statuses = self._read("retry.linkerd.io/http", _statuses)
        grpc = self._read("retry.linkerd.io/grpc", _grpc)
        if limit is None and timeout is None and statuses is None and grpc is None:
            return {}
        retry: dict[str, Any] = {"max_retries": min(limit or 1, 100), **conditions_of(statuses or ())}
        retry["on"] = [*retry["on"], *(grpc or ()), *(() if "5xx" in retry["on"] else ("refused-stream",))]
        if grpc:
            text = "a status is seen in the headers of a response, not in its trailers"
            self._note("retry.linkerd.io/grpc", text, "different")
        fields: dict[str, Any] = {"retry": retry}
        if timeout is not None:
            fields["per_try_timeout"] = written(timeout)
            text = "holds for the last attempt as well"
            if not {"5xx", "gateway-error"} & set(retry["on"]):
                retry["on"].append("reset")
                text += "; attempts that it cuts are retried, and with them those that have no response at all"
            self._note("retry.linkerd.io/timeout", text, "different")
        retry["backoff"] = {"base": "25ms", "max": "250ms", "jitter": "additive"}
        if self._draft.context.settings.retry_unsafe:
            retry["unsafe"] = True
        retry["on"] = list(dict.fromkeys(retry["on"]))
        return fields

    def service_fields(self) -> dict[str, Any]:
        """What they say of the endpoints of a Service."""
        for key in ("penalize-failures", "load-biaser-penalty", "load-biaser-max-retry-after"):
            name = f"balancer.alpha.linkerd.io/{key}"
            if name in self._given:
                text = "peak_ewma weighs failures always: at least three times the median cost, for two seconds"
                self._note(name, text, "different")
        mode = self._given.get("balancer.linkerd.io/failure-accrual")
        if mode is None:
            return {}
        if mode not in ("consecutive", "unified"):
            self._wrong("balancer.linkerd.io/failure-accrual", f"{mode!r} is neither 'consecutive' nor 'unified'")
            return {}
        return {"outlier_detection": self._accrual(mode)}

    def _accrual(self, mode: str) -> dict[str, Any] | bool:
        failures = self._read(f"{_CONSECUTIVE}-max-failures", _count)
        least = self._read(f"{_CONSECUTIVE}-min-penalty", duration)
        most = self._read(f"{_CONSECUTIVE}-max-penalty", duration)
        jitter = self._read(f"{_CONSECUTIVE}-jitter-ratio", _ratio)
        least_s, most_s = 1.0 if least is None else least, 60.0 if most is None else most
        if most_s == 0 or least_s > most_s:
            self._wrong(f"{_CONSECUTIVE}-max-penalty", "is nought, or below the min-penalty")
            return False
        failures = 7 if failures is None else failures
        found: dict[str, Any] = {
            "consecutive_errors": failures,
            "base_ejection": written(max(least_s, 0.001)),
            "max_ejection": written(most_s),
            "max_ejection_jitter": written(least_s * (0.5 if jitter is None else jitter)),
            "max_ejection_percent": 100,
            "return_by": "probe",
        }
        if most is not None:
            self._note(
                f"{_CONSECUTIVE}-max-penalty", "is reached by steps of the min-penalty, not by doubling", "different"
            )
        if jitter is not None:
            self._note(f"{_CONSECUTIVE}-jitter-ratio", "is of the min-penalty, however long the time out", "different")
        rate = self._success_rate() if mode == "unified" else {}
        if rate:
            found["accrual"] = rate
        return found if failures or rate else False

    def _success_rate(self) -> dict[str, Any]:
        threshold = self._read(f"{_RATE}-threshold", _ratio)
        window = self._read(f"{_RATE}-window", duration)
        requests = self._read(f"{_RATE}-min-requests", _count)
        threshold = 0.8 if threshold is None else threshold
        if threshold > 1:
            self._wrong(f"{_RATE}-threshold", "is above 1")
        if not 0 < threshold <= 1:
            return {}
        return {
            "kind": "window",
            "success_rate_percent": float(f"{threshold * 100:.10g}"),
            "window": written(10.0 if window is None else window),
            "min_requests": 5 if requests is None else max(1, requests),
        }

    def _read(self, key: str, read: Callable[[str], T]) -> T | None:
        text = self._given.get(key)
        if text is None:
            return None
        try:
            return read(text.strip())
        except ValueError as error:
            self._wrong(key, str(error))
            return None

    def _wrong(self, key: str, text: str) -> None:
        self._draft.note(self._place(key), text, "wrong")

    def _note(self, key: str, text: str, effect: Any) -> None:
        self._draft.note(self._place(key), text, effect)


def fit_times(fields: dict[str, Any]) -> None:
    """Leave out a limit of attempts that is above that of the call, as nothing comes of it."""
    whole, each = (go_duration(fields.get(name) or "") for name in ("timeout", "per_try_timeout"))
    if whole is not None and each is not None and each > whole:
        fields["per_try_timeout"] = None


def conditions_of(statuses: Iterable[int]) -> dict[str, Any]:
    """What to retry on for these statuses. What never got a response counts as a 502 or 504, as in Linkerd's proxy."""
    rest, on = set(statuses), []
    for name, each in (("5xx", _FIVES), ("gateway-error", _GATEWAY)):
        if each <= rest:
            on.append(name)
            rest -= each
    if not on and rest & {502, 504}:
        on.append("reset" if 504 in rest else "connect-failure")
    if not rest:
        return {"on": on}
    return {"on": [*on, "retriable-status-codes"], "retriable_status_codes": sorted(rest)}


def duration(text: str) -> float:
    """A duration of Linkerd's annotations in seconds: a whole number and ``ms``, ``s``, ``m``, ``h`` or ``d``; or 0.

    Raises:
        ValueError: if it is none.
    """
    found = _DURATION.fullmatch(text)
    if found is not None and len(text) < 20:
        return int(found[1]) * _UNIT_S[found[2]]
    if text and set(text) == {"0"}:
        return 0.0
    raise ValueError(f"{text!r} is no duration of Linkerd's, such as 500ms, 2s or 1m, without fractions")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > 4_294_967_295:
        raise ValueError(f"{text!r} is no whole number")
    return int(text)


def _ratio(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 100:
        raise ValueError(f"{text!r} is not from 0 to 100")
    return value


def _statuses(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        if part.lower() == "5xx":
            found |= _FIVES
        elif part.lower() == "gateway-error":
            found |= _GATEWAY
        else:
            first, dash, last = part.partition("-")
            low, high = _status(first), _status(last if dash else first)
            if low is None or high is None or low > high:
                raise ValueError(f"{part!r} is none of 5xx, gateway-error, a status, or a range such as 500-504")
            found |= set(range(low, high + 1))
    return frozenset(found)


def _status(text: str) -> int | None:
    return int(text) if len(text) == 3 and text.isascii() and text.isdigit() and 100 <= int(text) <= 599 else None


def _grpc(text: str) -> list[str]:
    found = [part.strip().lower() for part in text.split(",")]
    for part in found:
        if part not in _GRPC:
            raise ValueError(f"{part!r} is none of {', '.join(_GRPC)}")
    return found
