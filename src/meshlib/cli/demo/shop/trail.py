"""What a call did, as plain data: the services hand it back with their answers, and the demo counts it."""

from __future__ import annotations

import time
from itertools import cycle
from typing import Any, TypeAlias

import httpx

import meshlib

__all__ = ["RoundRobin", "Trail", "left_ms", "trail"]

Trail: TypeAlias = dict[str, Any]


def trail(service: str, outcome: httpx.Response | BaseException) -> list[Trail]:
    """The attempts of a call through the mesh, and of the calls that were made for it further on."""
    record = meshlib.record(outcome)
    attempts = [
        {
            "endpoint": attempt.endpoint,
            "ms": attempt.duration_s * 1000,
            "ok": attempt.outcome == "success",
            "result": attempt.error or attempt.status,
        }
        for attempt in (record.attempts if record is not None else ())
    ]
    error = None if isinstance(outcome, httpx.Response) else f"{type(outcome).__name__}: {outcome}"
    if error is None and isinstance(outcome, httpx.Response) and outcome.is_error:
        error = f"{outcome.status_code} {outcome.text[:300]}"
    if error is not None and record is not None:
        error = f"{error} [{record}]"
    return [{"service": service, "error": error, "attempts": attempts}, *_further(outcome)]


def _further(outcome: httpx.Response | BaseException) -> list[Trail]:
    if not isinstance(outcome, httpx.Response) or outcome.is_error:
        return []
    calls: list[Trail] = outcome.json().get("calls", [])
    return calls


def left_ms() -> float | None:
    """How long the caller of the request being served will still wait, in milliseconds."""
    remaining = meshlib.current().remaining
    return None if remaining is None else round(remaining * 1000, 1)


class RoundRobin:
    """Calls without a mesh: httpx, a list of addresses, and one after the other.

    Args:
        service: its name, for the trail.
        addresses: where it is.
        timeout_s: for each phase of a request; httpx's own default is 5 s.
    """

    def __init__(self, service: str, addresses: list[str], timeout_s: float) -> None:
        self._service = service
        self._addresses = cycle(addresses)
        self._client = httpx.AsyncClient(timeout=timeout_s, trust_env=False)

    async def get(self, path: str) -> tuple[httpx.Response | Exception, list[Trail]]:
        """GET `path`; return what came of it, and its trail."""
        address, began = next(self._addresses), time.perf_counter()
        outcome: httpx.Response | Exception
        try:
            outcome = await self._client.get(f"http://{address}{path}")
            result: str | int = outcome.status_code
        except httpx.HTTPError as failure:
            outcome, result = failure, type(failure).__name__
        ok = isinstance(outcome, httpx.Response) and not outcome.is_error
        ms = (time.perf_counter() - began) * 1000
        attempt = {"endpoint": address, "ms": ms, "ok": ok, "result": result}
        own = {"service": self._service, "error": None if ok else str(result), "attempts": [attempt]}
        return outcome, [own, *_further(outcome)]
