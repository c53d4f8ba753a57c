"""Endpoints of the mesh itself, answered by the middleware in the place of the application.

They come ahead of deadlines and admission, are answered in every mode, and are no traffic: never counted, never shed.
An application behind the same path is not asked; other methods than GET and HEAD go on to it.

To anybody they say how things are; why, only to trusted peers.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from meshlib.server.health import find_faults
from meshlib.server.refusal import Refusal

if TYPE_CHECKING:
    from meshlib.config.health_settings import HealthSettings
    from meshlib.server.serving import Serving

__all__ = ["Endpoints"]

_METHODS = frozenset({"GET", "HEAD"})


class Endpoints:
    """Those of one process.

    Args:
        serving: the process.
        settings: where they are, and what they look at.
    """

    def __init__(self, serving: Serving, settings: HealthSettings) -> None:
        self._serving = serving
        self._settings = settings
        self._paths = {path for path in (settings.live, settings.ready) if path is not None}

    def asked_for(self, method: str, mount: str, path: str) -> str | None:
        """Which of them a request is for, by the path below `mount`, where the application is; None for none."""
        below = path.removeprefix(mount.rstrip("/")) or "/"
        return below if below in self._paths and method in _METHODS else None

    async def answer(self, path: str, trusted: bool) -> Refusal:
        """The response, in an event loop.

        Args:
            path: one that it has.
            trusted: whether whoever asks may know why.
        """
        if path == self._settings.live:
            return _LIVE
        return self._ready(await self._serving.checks.run(self._settings.check_timeout_s), trusted)

    def answer_blocking(self, path: str, trusted: bool) -> Refusal:
        """The response, in a thread."""
        if path == self._settings.live:
            return _LIVE
        return self._ready(self._serving.checks.run_blocking(self._settings.check_timeout_s), trusted)

    def _ready(self, failed: list[str], trusted: bool) -> Refusal:
        serving, admission, settings = self._serving, self._serving.admission, self._serving.settings
        reasons = find_faults(
            self._settings,
            now=serving.clock(),
            draining=serving.draining,
            admission=admission,
            services=serving.mesh,
            calls=settings.mode == "on" and bool(settings.services),
        )
        reasons += failed
        body: dict[str, Any] = {"status": "unready" if reasons else "ready"}
        if trusted:
            if reasons:
                body["reasons"] = reasons
            body["in_flight"] = serving.in_flight
            if admission is not None:
                queue = admission.queue
                body |= {"limit": queue.limit, "waiting": queue.pending, "shedding": queue.shedding_since is not None}
        return _reply(HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK, body)


def _reply(status: HTTPStatus, content: dict[str, Any]) -> Refusal:
    body = json.dumps(content).encode() + b"\n"
    headers = (
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    )
    return Refusal(status, headers, body)


_LIVE = _reply(HTTPStatus.OK, {"status": "live"})
