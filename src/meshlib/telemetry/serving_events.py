"""Events of a process that serves: what it refuses."""

from __future__ import annotations

import logging
from typing import ClassVar

from meshlib.dataclass import dataclass
from meshlib.telemetry.event import Event

__all__ = ["SheddingBegan", "SheddingEnded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SheddingBegan(Event):
    """This process refuses requests, since more come than it can serve."""

    kind: ClassVar[str] = "shedding_began"
    family: ClassVar[str] = "shedding"
    level: ClassVar[int] = logging.WARNING
    says: ClassVar[str] = (
        "this process refuses requests: {event.in_flight} are being served (limit {event.limit}), {event.pending} wait"
    )

    limit: int
    in_flight: int
    pending: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SheddingEnded(Event):
    """For 5 s no request was refused; `refused` of them since the process began."""

    kind: ClassVar[str] = "shedding_ended"
    family: ClassVar[str] = "shedding"
    says: ClassVar[str] = "this process refuses no requests any more; it refused {event.refused} in all"

    refused: int
