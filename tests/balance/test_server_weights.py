"""Weights by what servers report: reports as Envoy reads them, weights as gRPC works them out, picks as it strides."""

from __future__ import annotations

import base64
import json
from collections import Counter
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.balance.balancer import Member
from meshlib.balance.load_report import LoadReport, parse_binary, parse_report
from meshlib.balance.reported import Reported
from meshlib.balance.server_weights import ReportedWeight, ServerWeights, weight_of
from meshlib.balance.settings import ServerWeightSettings
from meshlib.balance.static_stride import StaticStride
from tests.balance.test_schedules import members
from tests.core import NOW

GOLDEN: Any = json.loads((Path(__file__).parents[1] / "data" / "orca_reports.json").read_text())
SETTINGS = ServerWeightSettings()
RNG = Random(1)


def report(written: Any) -> LoadReport:
    figures: Any = {key: value if isinstance(value, dict) else float(value) for key, value in written.items()}
    return LoadReport(**figures)


@pytest.mark.parametrize("value", GOLDEN["good"], ids=lambda value: value[:24])
def test_reports_in_text_and_json_are_read(value: str) -> None:
    assert parse_report(value) == report(GOLDEN["whole"])


@pytest.mark.parametrize("value", GOLDEN["bad"])
def test_a_report_that_is_not_whole_is_none(value: str) -> None:
    assert parse_report(value) is None


def test_binary_reports_are_read_with_and_without_padding() -> None:
    expected = report(GOLDEN["binary_of_grpc_go"]["report"])
    for value in GOLDEN["binary_of_grpc_go"]["values"]:
        assert parse_binary(value) == expected
        assert parse_report(f"BIN {value}") == expected
        assert parse_binary(value[:20]) is None


@pytest.mark.parametrize(
    "value",
    [
        "TEXT cpu_utilization=" + "9" * 5000,
        "TEXT eps=" + "9" * 400,
        "TEXT " + ",".join(f"named_metrics.m{n}=1" for n in range(100_000)),
        "JSON " + "[" * 4000,
        "JSON " + '{"named_metrics": ' * 200,
        'JSON {"cpu_utilization": NaN}',
        'JSON {"cpu_utilization": 1e999}',
        'JSON {"cpu_utilization": -1}',
        'JSON {"cpu_utilization": true}',
        'JSON {"cpu_utilization": null}',
        'JSON {"named_metrics": {"": 1}}',
        'JSON {"named_metrics": 3}',
        "JSON 3",
        "TEXT cpu_utilization=1_000",
        "TEXT cpu_utilization=\u0663",
        "BIN " + "A" * 1_000_000,
        "BIN //",
        "BIN " + base64.b64encode(b"\x09\x00\x00\x00\x00\x00\x00\xf8\x7f").decode(),  # NaN
        "BIN " + base64.b64encode(b"\x42\xff\xff\xff\xff\xff\xff\xff\xff\x7f").decode(),
        "BIN " + base64.b64encode(b"\xff" * 64).decode(),
        "BIN " + base64.b64encode(b"\x0b").decode(),
        "BIN " + base64.b64encode(b"\x42\x02\x0a\x09").decode(),
        "BIN " + base64.b64encode(b"\x42\x01\x18").decode(),
        "BIN \u0663",
    ],
    ids=lambda value: f"{len(value)} {value[:32]}",
)
def test_what_is_hostile_is_no_report(value: str) -> None:
    assert parse_report(value) is None


def test_fields_that_are_not_used_are_passed_over() -> None:
    assert parse_report('JSON {"cpuUtilization": 0.5, "rps": 7, "requestCost": {"x": 1}}') == LoadReport(
        cpu_utilization=0.5
    )
    written = b"\x18\x07" + b"\x22\x0c\x0a\x01x\x11" + bytes(8)[:7] + b"\x00" + b"\x09" + b"\x00" * 6 + b"\xe0\x3f"
    assert parse_report("BIN " + base64.b64encode(written).decode()) == LoadReport(cpu_utilization=0.5)


@settings(max_examples=120, deadline=None)
@given(
    st.one_of(
        st.text(max_size=80),
        st.sampled_from(["TEXT ", "JSON ", "BIN "]).flatmap(lambda f: st.text(max_size=60).map(lambda t: f + t)),
    )
)
def test_nothing_that_a_server_sends_raises(value: str) -> None:
    found = parse_report(value)
    assert found is None or weight_of(found, SETTINGS) >= 0.0
    parse_binary(value)


@settings(max_examples=100, deadline=None)
@given(
    st.builds(
        LoadReport,
        *[st.floats(0, 1e9).map(lambda value: float(f"{value:.6g}"))] * 5,
        named_metrics=st.dictionaries(st.from_regex(r"[a-z_.]{1,8}", fullmatch=True), st.just(0.5), max_size=3),
    )
)
def test_what_is_written_is_read(written: LoadReport) -> None:
    text = written.text()
    assert parse_report(text) == (written if "=" in text else None)


def test_a_report_is_written_without_what_would_not_be_believed() -> None:
    odd = LoadReport(
        cpu_utilization=float("nan"), eps=-1.0, named_metrics={"a\r\nb": 1.0, "ok": 2.0, "x": float("inf")}
    )
    assert odd.text() == "TEXT named_metrics.ok=2"


@pytest.mark.parametrize(
    ("figures", "weight"),
    [
        ({"cpu_utilization": 0.5, "rps_fractional": 100.0}, 200.0),
        ({"cpu_utilization": 0.5, "application_utilization": 0.25, "rps_fractional": 100.0}, 400.0),
        ({"cpu_utilization": 0.5, "rps_fractional": 100.0, "eps": 50.0}, 100.0),
        ({"cpu_utilization": 0.5}, 0.0),
        ({"rps_fractional": 100.0}, 0.0),
        ({"rps_fractional": 100.0, "eps": 10.0}, 0.0),
        ({"cpu_utilization": 5e-324, "rps_fractional": 1e300}, 2.0**32 - 1),
        ({"cpu_utilization": 1.5, "rps_fractional": 3.0}, 2.0),
    ],
    ids=str,
)
def test_the_weight_is_the_rate_at_full_use(figures: dict[str, float], weight: float) -> None:
    assert weight_of(LoadReport(**figures), SETTINGS) == weight  # type: ignore[arg-type]


def test_a_clock_that_goes_back_makes_for_one_blackout_more_and_not_for_an_hour() -> None:
    reported, told = ReportedWeight(ServerWeightSettings(blackout_s=10.0)), LoadReport(0.5, rps_fractional=100.0)
    reported.report(told, NOW + 3600)
    reported.report(told, NOW)
    reported.report(told, NOW + 10)
    assert reported.value(NOW + 10) == 200.0


def test_the_utilization_may_be_any_metric_the_largest_of_several() -> None:
    found = LoadReport(0.9, 0.1, 0.2, 100.0, named_metrics={"queue": 0.5}, utilization={"disk": 0.4})
    for metrics, used in [
        (("named_metrics.queue", "utilization.disk"), 0.5),
        (("mem_utilization",), 0.2),
        (("named_metrics.other", "nonsense", "request_cost.x"), 0.9),
    ]:
        own = ServerWeightSettings(metrics=metrics)
        assert weight_of(found, own) == pytest.approx(100 / used)


def test_a_weight_counts_after_the_blackout_and_until_it_expires() -> None:
    found, good = ReportedWeight(SETTINGS), LoadReport(cpu_utilization=0.5, rps_fractional=100.0)
    assert found.value(NOW) == 0.0
    found.report(good, NOW)
    assert found.value(NOW + 9.9) == 0.0
    found.report(LoadReport(cpu_utilization=0.5), NOW + 9.9)  # says too little, and changes nothing
    assert found.value(NOW + 10) == 200.0
    assert found.value(NOW + 179.9) == 200.0
    assert found.value(NOW + 180) == 0.0
    found.report(good, NOW + 181)
    assert found.value(NOW + 182) == 0.0  # the blackout holds again
    assert found.value(NOW + 191) == 200.0
    assert found.value(NOW - 1e6) == 0.0  # the clock went back: as at the beginning


def picks(weights: list[float], number: int, start: int = 0) -> Counter[int]:
    stride = StaticStride(weights, count(start).__next__)
    return Counter(stride.pick() for _ in range(number))


@pytest.mark.parametrize("case", GOLDEN["strides"], ids=lambda case: case["name"])
def test_strides_are_grpcs(case: Any) -> None:
    found = picks(case["weights"], case["picks"])
    assert [found[index] for index in range(len(case["weights"]))] == case["counts"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 2.0**32)), min_size=1, max_size=12), st.integers(0, 2**24))
def test_whatever_the_weights_each_has_its_turn(weights: list[float], start: int) -> None:
    assert set(picks(weights, 400 * len(weights), start)) == set(range(len(weights)))


def weighed() -> tuple[Reported, ReportedWeight]:
    found, weight = Reported(), ReportedWeight(SETTINGS)
    found.weigh(weight)
    return found, weight


def tell(member: Member, qps: float, now: float) -> None:
    assert member.load.reported is not None
    member.load.reported.report(LoadReport(cpu_utilization=0.5, rps_fractional=qps), now)


@pytest.mark.parametrize("load", ["least_request", "peak_ewma"])
def test_of_two_that_have_their_turn_the_one_with_less_load_per_weight_is_called(load: Any) -> None:
    some = members([1.0, 1.0])
    balancer = ServerWeights(some, ServerWeightSettings(blackout_s=0.0, load=load), NOW, Random(1))
    for member, qps in zip(some, (300.0, 100.0), strict=True):
        tell(member, qps, NOW)
    assert shares(balancer, some, NOW + 1) == pytest.approx([450, 150], abs=40)  # alike, so by their weights
    some[1].node.enter()
    assert shares(balancer, some, NOW + 1)[0] > 580
    for _ in range(9):
        some[0].node.enter()
    assert shares(balancer, some, NOW + 1)[0] == pytest.approx(300, abs=40)  # where the other has no turn
    assert balancer.pick(NOW + 1, RNG, lambda member: member is some[1]) is some[1]
    assert balancer.pick(NOW + 1, RNG, lambda member: False) is None


def shares(balancer: ServerWeights, some: list[Member], now: float) -> list[int]:
    found = Counter(id(balancer.pick(now, RNG, None)) for _ in range(600))
    return [found[id(member)] for member in some]


def test_shares_follow_reports_and_go_back_when_they_end() -> None:
    some = members([5.0, 1.0, 1.0])  # what discovery says is not looked at
    balancer = ServerWeights(some, SETTINGS, NOW, RNG)
    assert shares(balancer, some, NOW) == pytest.approx([200, 200, 200], abs=2)
    for second in range(12):
        for member, qps in zip(some, [100.0, 200.0], strict=False):
            tell(member, qps, NOW + second)
    assert shares(balancer, some, NOW + 12) == pytest.approx([133, 267, 200], abs=3)  # the third counts as the mean
    assert shares(balancer, some, NOW + 12.5) == pytest.approx([133, 267, 200], abs=3)
    assert shares(balancer, some, NOW + 300) == pytest.approx([200, 200, 200], abs=2)


def test_one_weight_alone_changes_nothing() -> None:
    some = members([1.0] * 3)
    balancer = ServerWeights(some, SETTINGS, NOW, RNG)
    for second in range(12):
        tell(some[0], 900.0, NOW + second)
    assert shares(balancer, some, NOW + 12) == pytest.approx([200, 200, 200], abs=2)


def test_reports_outlast_a_change_of_endpoints_and_clock_jumps_do_no_harm() -> None:
    some = members([1.0] * 3)
    before = ServerWeights(some, SETTINGS, NOW, RNG)
    for second in range(12):
        for member, qps in zip(some, [100.0, 200.0, 300.0], strict=True):
            tell(member, qps, NOW + second)
    after = ServerWeights(some[1:], SETTINGS, NOW + 12, RNG)
    assert shares(after, some[1:], NOW + 12) == pytest.approx([240, 360], abs=3)
    for now in (NOW - 1e6, NOW + 12, NOW + 1e9, NOW):
        assert before.pick(now, RNG, None) in some


def test_one_that_cannot_be_used_is_passed_over() -> None:
    some = members([1.0] * 30)
    balancer = ServerWeights(some, SETTINGS, NOW, RNG)
    assert {balancer.pick(NOW, RNG, lambda member: member is some[29]) for _ in range(20)} == {some[29]}
    assert balancer.pick(NOW, RNG, lambda member: False) is None


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Endpoint-Load-Metrics", b"TEXT cpu_utilization=0.5, rps_fractional=100")],
        [
            (b"endpoint-load-metrics-other", b"x"),
            (b"endpoint-load-metrics", b'JSON {"cpu_utilization":1,"rps_fractional":200}'),
        ],
        [(b"endpoint-load-metrics-bin", b"CQAAAAAAAOA/MQAAAAAAAFlA")],
    ],
    ids=["text", "json", "binary"],
)
def test_reports_come_with_the_headers_of_responses(headers: list[tuple[bytes, bytes]]) -> None:
    found, weight = weighed()
    for second in range(11):
        found.read([(b"server", b"x"), *headers], NOW + second)
    assert weight.value(NOW + 11) == 200.0


@pytest.mark.parametrize(
    "value",
    [b"TEXT " + b"\xff" * 90, b"", b"BIN x", b"TEXT cpu_utilization=" + b"9" * 10**6],
    ids=["bytes", "none", "bin", "1 MB"],
)
def test_headers_that_are_no_reports_change_nothing(value: bytes) -> None:
    found, weight = weighed()
    for second in range(11):
        found.read([(b"endpoint-load-metrics", b"TEXT cpu_utilization=0.5,rps_fractional=100")], NOW + second)
    for name in (b"endpoint-load-metrics", b"endpoint-load-metrics-bin", b"endpoint"):
        found.read([(name, value)], NOW + 11)
    assert weight.value(NOW + 12) == 200.0
