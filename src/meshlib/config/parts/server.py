"""The callee's side, as it is written under ``server``."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from meshlib.config.fields import Cidr, Count, Interval, Many, OrFalse, Part, Span
from meshlib.config.parts.serving import Admission, Health
from meshlib.config.server_settings import (
    Accepted,
    Cancel,
    DrainSettings,
    HopelessSettings,
    LoadReports,
    ServerSettings,
)

__all__ = ["Drain", "Hopeless", "Server"]

_SERVER = ServerSettings()
_DRAIN = DrainSettings()
_HOPELESS = HopelessSettings()


class Drain(Part):
    """How this process ends: see `meshlib.server.lifecycle`.

    Attributes:
        notice: how long it goes on serving after it has left the registry, until callers have heard; unless given, as
            long as the registry needs for that, and no time where this process is in none.
        timeout: how long what is in flight then has to finish.
    """

    compiles_to: ClassVar = DrainSettings

    notice: Span | None = None
    timeout: Interval = _DRAIN.timeout_s


class Hopeless(Part):
    """When a request is refused because it cannot finish in time: see `meshlib.server.hopeless`.

    Attributes:
        percentile: of the times that requests of its kind took of late: a request with less time left is refused.
        min_samples: with fewer of them none is.
        probe_interval: so often one is served all the same, of each kind.
    """

    compiles_to: ClassVar = HopelessSettings

    percentile: Annotated[float, Field(gt=0, le=50)] = _HOPELESS.percentile
    min_samples: Annotated[Count, Field(ge=2, le=64)] = _HOPELESS.min_samples
    probe_interval: Interval = _HOPELESS.probe_interval_s


class Server(Part):
    """What this process does with the requests that come in, and how it ends.

    Attributes:
        trusted_peers: networks whose deadline, criticality and baggage are taken in.
        accept: what is taken in of them: ``deadline``, ``criticality``, ``baggage``, ``trace``.
        min_remaining: a request with less time left than this is refused as expired.
        cancel: whose handlers end when the caller goes away or its deadline passes: ``off``, ``safe_methods``, ``all``.
        hopeless: whether a request is refused that cannot finish in time; null or false for not.
        drain: how this process ends.
        admission: how many requests are served at once, and what becomes of the others; null or false for no limit.
        health: endpoints by which others ask how this process is; null or false for none.
        load: which trusted callers are told how loaded this process is: ``asked``, ``always``, ``off``.
    """

    trusted_peers: Many[Cidr] = _SERVER.trusted_peers
    accept: Many[Accepted] = _SERVER.accept
    min_remaining: Span = _SERVER.min_remaining_s
    cancel: Cancel = _SERVER.cancel
    hopeless: OrFalse[Hopeless] | None = None
    drain: Drain = Field(default_factory=Drain)
    admission: OrFalse[Admission] | None = None
    health: OrFalse[Health] | None = None
    load: LoadReports = _SERVER.load
