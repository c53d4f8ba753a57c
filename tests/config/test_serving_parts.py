"""Admission and health as they are written under `server`."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib import Admission, AdmissionShares, ConfigError, Health, Mesh, Server
from meshlib.config.health_settings import HealthSettings
from meshlib.config.server_settings import ServerSettings
from meshlib.policy.admission_settings import Gradient2Settings, KeySource, VegasSettings
from meshlib.policy.serving_settings import AdmissionSettings, SharesSettings


def _server(**written: Any) -> ServerSettings:
    mesh = Mesh(server=written)
    mesh.close()
    return mesh.settings.server


def test_both_are_off_unless_written() -> None:
    for written in ({}, {"admission": False, "health": False}, {"admission": None, "health": None}):
        server = _server(**written)
        assert (server.admission, server.health) == (None, None)


def test_what_is_written_is_laid_over_the_defaults() -> None:
    admission = _server(
        admission={
            "max_in_flight": 50,
            "adaptive": {"algorithm": "gradient2", "max_limit": 80},
            "interval": "200ms",
            "shares": {"sheddable_percent": 60},
            "fair_by": "header:X-Client",
        }
    ).admission
    assert admission == AdmissionSettings(
        max_in_flight=50,
        adaptive=Gradient2Settings(max_limit=80),
        interval_s=0.2,
        shares=SharesSettings(sheddable_percent=60),
        fair_by=KeySource("header", "x-client"),
    )
    assert _server(health={}).health == HealthSettings()
    assert _server(health={"ready": None, "stuck_for": None}).health == HealthSettings(ready=None, stuck_for_s=None)


def test_in_code_it_is_the_same() -> None:
    part = Server(
        admission=Admission(
            adaptive={"algorithm": "vegas"}, fair_by="peer", shares=AdmissionShares(critical_percent=90)
        ),
        health=Health(services=["orders"]),
    )
    with Mesh(server=part) as mesh:
        server = mesh.settings.server
    assert server.admission == AdmissionSettings(
        adaptive=VegasSettings(), fair_by=KeySource("peer"), shares=SharesSettings(critical_percent=90)
    )
    assert server.health == HealthSettings(services=("orders",))


@pytest.mark.parametrize(
    ("written", "field", "text"),
    [
        ({"admission": {}}, "admission", "limits nothing"),
        ({"admission": {"adaptive": False}}, "admission", "limits nothing"),
        ({"admission": {"max_in_flight": 0}}, "admission.max_in_flight", ""),
        ({"admission": {"max_in_flight": 1, "target": "1s"}}, "admission.target", "above interval"),
        ({"admission": {"max_in_flight": 1, "interval": "1ms"}}, "admission.interval", "above interval"),
        ({"admission": {"max_in_flight": 1, "fair_by": "pear"}}, "admission.fair_by", "did you mean 'peer'"),
        ({"admission": {"max_in_flight": 1, "fair_by": "route"}}, "admission.fair_by", "does not name a caller"),
        ({"admission": {"max_in_flight": 1, "fair_by": "peer", "max_pending": 0}}, "admission.fair_by", "max_pending"),
        (
            {"admission": {"max_in_flight": 1, "shares": {"sheddable_percent": 99}}},
            "admission.shares.sheddable_percent",
            "above sheddable_plus_percent",
        ),
        (
            {"admission": {"max_in_flight": 5, "adaptive": {"algorithm": "gradient2", "min_limit": 9}}},
            "admission.adaptive.min_limit",
            "above max_in_flight",
        ),
        ({"admission": {"max_inflight": 1}}, "admission.max_inflight", "max_in_flight"),
        ({"health": {"live": None, "ready": None}}, "health", "neither"),
        ({"health": {"live": "/readyz"}}, "health.ready", "live as well"),
        ({"health": {"live": "livez"}}, "health.live", "does not begin with '/'"),
        ({"health": {"overloaded_for": "10s"}}, "health.overloaded_for", "server.admission"),
    ],
)
def test_what_is_wrong_is_refused_with_the_field_named(written: dict[str, Any], field: str, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Mesh(server=written)
    assert f"server.{field}" in str(refused.value)
    assert text in str(refused.value)
