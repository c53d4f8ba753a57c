"""What the health and readiness endpoints of this process go by."""

from __future__ import annotations

from meshlib.dataclass import dataclass

__all__ = ["HealthSettings"]


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """See `meshlib.server.health`.

    Attributes:
        live, ready: the paths; None for no such endpoint.
        services: that discovery must know, each with a healthy endpoint, for this process to be ready.
        stuck_for_s: all places of `admission` are taken, and no request has ended for so long: not ready; None for
            never.
        overloaded_for_s: critical requests are refused for so long: not ready; None for never.
        check_timeout_s: how long a check of the user's may take.
    """

    live: str | None = "/livez"
    ready: str | None = "/readyz"
    services: tuple[str, ...] = ()
    stuck_for_s: float | None = 30.0
    overloaded_for_s: float | None = None
    check_timeout_s: float = 1.0
