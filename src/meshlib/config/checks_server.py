"""Contradictions of what is written for the callee's side: admission, health."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from meshlib.config.checks_admission import adaptive_faults
from meshlib.config.fields import Part
from meshlib.config.lay import compiled
from meshlib.config.problems import Found, Path
from meshlib.durations import format_duration

if TYPE_CHECKING:
    from meshlib.config import model as written
    from meshlib.config.health_settings import HealthSettings
    from meshlib.policy.serving_settings import AdmissionSettings

__all__ = ["server_faults"]

_PATH: Path = ("server",)


def server_faults(config: written.MeshConfig) -> Found:
    """Those of ``server``."""
    server = config.server
    if isinstance(server.admission, Part):
        yield from _admission((*_PATH, "admission"), server.admission, compiled(server.admission))
    if isinstance(server.health, Part):
        yield from _health((*_PATH, "health"), server.health, compiled(server.health), bool(server.admission))


def _admission(path: Path, part: written.Admission, settings: AdmissionSettings) -> Found:
    needs = frozenset({"max_in_flight", "adaptive"})
    if settings.max_in_flight is None and settings.adaptive is None:
        yield path, "limits nothing: max_in_flight or adaptive is needed", needs
    if isinstance(part.adaptive, Part) and settings.adaptive is not None:
        yield from adaptive_faults((*path, "adaptive"), part.adaptive, settings.adaptive, settings.max_in_flight)
    if settings.target_s > settings.interval_s:
        field = "target" if "target" in part.model_fields_set else "interval"
        low, high = format_duration(settings.target_s), format_duration(settings.interval_s)
        text = f"target ({low}) is above interval ({high})"
        yield (*path, field), text, frozenset({"target", "interval"})
    if settings.fair_by is not None and not settings.max_pending:
        text = "does nothing: callers are treated fairly in the queue, and max_pending is 0"
        yield (*path, "fair_by"), text, frozenset({"fair_by", "max_pending"})
    fields = ("sheddable_percent", "sheddable_plus_percent", "critical_percent")
    for field, higher in pairwise(fields):
        below, above = getattr(settings.shares, field), getattr(settings.shares, higher)
        if below > above:
            text = f"{field} ({below:g}) is above {higher} ({above:g}), which is of more critical requests"
            wrong = field if field in part.shares.model_fields_set else higher
            yield (*path, "shares", wrong), text, frozenset({field, higher})


def _health(path: Path, part: written.Health, settings: HealthSettings, admission: bool) -> Found:
    both = frozenset({"live", "ready"})
    if settings.live is None and settings.ready is None:
        yield path, "has neither live nor ready, and so answers nothing", both
    if settings.live is not None and settings.live == settings.ready:
        yield (*path, "ready"), f"is the path of live as well ({settings.ready})", both
    for field in ("stuck_for", "overloaded_for"):
        if field in part.model_fields_set and getattr(part, field) is not None and not admission:
            text = "does nothing: it is a matter of server.admission, which is not there"
            yield (*path, field), text, frozenset({field, "admission"})
