"""Outlier detection and active checks as they are written."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib import ConfigError, HealthCheck, HttpCheck, Mesh, OutlierDetection, Service, SuccessRate
from meshlib.config.settings import ClusterSettings
from meshlib.policy.health_check import HealthCheckSettings, TcpCheck
from meshlib.policy.settings import AccrualSettings, OutlierSettings, SuccessRateSettings


def cluster(service: dict[str, Any], defaults: dict[str, Any] | None = None) -> ClusterSettings:
    mesh = Mesh({"services": {"orders": service}, "defaults": defaults or {}})
    settings = mesh.settings.services["orders"].clusters[None]
    mesh.close()
    return settings


def test_what_is_ours_stays_ours() -> None:
    written = {"consecutive_errors": 3, "max_ejection_jitter": "5s"}
    assert cluster({"outlier_detection": written}).outlier == OutlierSettings(
        consecutive_errors=3, max_ejection_jitter_s=5
    )
    assert cluster({}).outlier == OutlierSettings()
    assert cluster({"outlier_detection": False}).outlier is None


def test_in_envoys_words_it_is_envoys_with_envoys_defaults() -> None:
    expected = OutlierSettings(
        consecutive_errors=0,
        consecutive_5xx=7,
        consecutive_local_origin_failure=5,
        success_rate=SuccessRateSettings(),
        max_ejection_percent=10,
        always_eject_one_of=0,
        return_by="sweep",
    )
    assert cluster({"outlier_detection": {"consecutive_5xx": 7}}).outlier == expected


def test_what_is_written_holds_also_beside_envoys_words() -> None:
    outlier = cluster(
        {"outlier_detection": {"failure_percentage": {}, "success_rate": False, "consecutive_errors": 4}},
        {"outlier_detection": {"max_ejection_percent": 30}},
    ).outlier
    assert outlier is not None
    assert (outlier.consecutive_errors, outlier.max_ejection_percent, outlier.success_rate) == (4, 30, None)


def test_a_service_goes_on_from_the_defaults() -> None:
    outlier = cluster(
        {"outlier_detection": {"base_ejection": "5s"}},
        {"outlier_detection": {"success_rate": {"stdev_factor": 2.5}}},
    ).outlier
    assert outlier is not None
    assert (outlier.base_ejection_s, outlier.success_rate, outlier.return_by) == (
        5,
        SuccessRateSettings(stdev_factor=2.5),
        "sweep",
    )


def test_checks_are_off_until_they_are_written() -> None:
    assert cluster({}).health_check is None
    assert cluster({"health_check": False}, {"health_check": {"http": {}}}).health_check is None


def test_statuses_are_written_as_numbers_and_ranges() -> None:
    written = {"path": "/health", "expected_statuses": ["200-299", 404], "retriable_statuses": [429]}
    check = cluster({"health_check": {"http": written}}).health_check
    assert check is not None
    assert check.http is not None
    assert check.http.expected_statuses == ((200, 299), (404, 404))
    assert check.http.retriable_statuses == ((429, 429),)


def test_bytes_are_written_as_text_or_in_hexadecimal() -> None:
    check = cluster({"health_check": {"tcp": {"send": "hex:0001", "receive": "PONG\r\n"}}}).health_check
    assert check is not None
    assert check.tcp == TcpCheck(send=b"\x00\x01", receive=(b"PONG\r\n",))


def test_who_asks_in_one_way_does_not_ask_in_an_inherited_other() -> None:
    defaults = {"health_check": {"http": {"path": "/health"}, "interval": "9s"}}
    assert cluster({"health_check": {"tcp": {}}}, defaults).health_check == HealthCheckSettings(
        tcp=TcpCheck(), interval_s=9
    )


def test_the_same_is_written_in_code() -> None:
    service = Service(
        outlier_detection=OutlierDetection(success_rate=SuccessRate(minimum_hosts=3)),
        health_check=HealthCheck(http=HttpCheck(path="/health"), interval="2s"),
    )
    mesh = Mesh(services={"orders": service})
    settings = mesh.settings.services["orders"].clusters[None]
    mesh.close()
    assert settings.outlier is not None
    assert settings.outlier.success_rate == SuccessRateSettings(minimum_hosts=3)
    assert settings.health_check is not None
    assert settings.health_check.interval_s == 2


def test_checks_are_refused_where_the_clients_own_transport_finds_the_endpoints() -> None:
    with pytest.raises(ConfigError, match="is not possible with 'wire: stock'"):
        Mesh({"wire": "stock", "services": {"orders": {"health_check": {"http": {}}}}})


@pytest.mark.parametrize(
    ("written", "defaults", "expected"),
    [
        ({}, {}, None),
        ({"accrual": {}}, {}, AccrualSettings()),
        ({"accrual": {"kind": "window"}}, {}, AccrualSettings("window", window_s=10.0)),
        (
            {"accrual": {"requests": 100}},
            {"accrual": {"success_rate_percent": 50}},
            AccrualSettings("ema", 50.0, 30.0, 100),
        ),
        ({"accrual": {"window": "1m"}}, {"accrual": {"requests": 100}}, AccrualSettings(window_s=60.0)),
        ({"accrual": {"kind": "window"}}, {"accrual": {"requests": 100}}, AccrualSettings("window", window_s=10.0)),
        ({"accrual": {"kind": "ema"}}, {"accrual": {"kind": "window"}}, AccrualSettings()),
        ({"accrual": False}, {"accrual": {}}, None),
    ],
)
def test_failure_accrual(written: dict[str, Any], defaults: dict[str, Any], expected: AccrualSettings | None) -> None:
    outlier = cluster({"outlier_detection": written}, {"outlier_detection": defaults}).outlier
    assert outlier is not None
    assert outlier == OutlierSettings(accrual=expected)


@pytest.mark.parametrize(
    ("service", "field"),
    [
        ({"outlier_detection": {"consecutive_local_origin_failure": 3}}, "consecutive_local_origin_failure"),
        ({"outlier_detection": {"enforcing_consecutive_gateway_failure_percent": 3}}, "enforcing_consecutive_gateway"),
        ({"outlier_detection": {"base_ejection": "10m"}}, "base_ejection"),
        ({"outlier_detection": {"max_ejection_jitter": "10m"}}, "max_ejection_jitter"),
        ({"outlier_detection": {"max_ejection_percent": 101}}, "max_ejection_percent"),
        ({"outlier_detection": {"interval": "50ms"}}, "interval"),
        ({"outlier_detection": {"return_by": "prob"}}, "return_by"),
        ({"outlier_detection": {"accrual": {"success_rate_percent": 0}}}, "accrual.success_rate_percent"),
        ({"outlier_detection": {"accrual": {"window": "1ms"}}}, "accrual.window"),
        ({"outlier_detection": {"accrual": {"requests": 0}}}, "accrual.requests"),
        ({"outlier_detection": {"accrual": {"kind": "window", "requests": 9}}}, "belongs to the kind ema"),
        ({"outlier_detection": {"accrual": {"window": "9s", "requests": 9}}}, "stands beside 'window'"),
        ({"outlier_detection": {"accrual": {"min_requests": 9, "requests": 9}}}, "accrual.min_requests"),
        ({"health_check": {}}, "'http' or 'tcp' is needed"),
        ({"health_check": {"http": {}, "tcp": {}}}, "stands beside 'http'"),
        ({"health_check": {"tcp": {"receive": [""]}}}, "has an empty piece"),
        ({"health_check": {"tcp": {"send": "hex:0"}}}, "is not hexadecimal"),
        ({"health_check": {"http": {"expected_statuses": ["299-200"]}}}, "expected_statuses[0]"),
        ({"health_check": {"http": {"expected_statuses": []}}}, "at least one is expected"),
        ({"health_check": {"http": {"path": "health"}}}, "is not a path such as /health"),
        ({"health_check": {"http": {"path": "/a b"}}}, "is not a path such as /health"),
        ({"health_check": {"http": {}, "healthy_threshold": 0}}, "healthy_threshold"),
        ({"health_check": True}, "a map, or false, is expected"),
    ],
)
def test_what_is_wrong_is_refused_with_its_name(service: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Mesh({"services": {"orders": service}})
    assert field in str(refused.value)
