"""What fault a call has, as Envoy's fault filter draws it."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy.fault import (
    AbortSettings,
    ActiveFaults,
    DelaySettings,
    FaultSettings,
    Injected,
    draw_fault,
    reply_to,
)


class Draws(Random):
    """These numbers, one after the other."""

    def __init__(self, *values: float) -> None:
        super().__init__(0)
        self.values = list(values)

    def random(self) -> float:
        return self.values.pop(0)


BOTH = FaultSettings(DelaySettings(2.0, 10), AbortSettings(503, percent=1))


@pytest.mark.parametrize(
    ("draws", "fault"),
    [
        ((0.099999, 0.009999), Injected(2.0, True, 503)),
        ((0.099999, 0.01), Injected(2.0)),
        ((0.1, 0.009999), Injected(0.0, True, 503)),
        ((0.1, 0.01), None),
    ],
)
def test_delay_and_abort_are_drawn_one_after_the_other_and_apart(
    draws: tuple[float, float], fault: Injected | None
) -> None:
    rng = Draws(*draws)
    assert draw_fault(BOTH, {}, rng) == fault
    assert rng.values == []


def test_a_percentage_that_is_not_given_is_none() -> None:
    settings = FaultSettings(DelaySettings(1.0), AbortSettings(500))
    assert draw_fault(settings, {}, Draws(0.0, 0.0)) is None


def test_a_hundred_percent_is_every_call_and_the_step_is_one_in_a_million() -> None:
    assert draw_fault(FaultSettings(DelaySettings(1.0, 100)), {}, Draws(1 - 1e-12)) == Injected(1.0)
    rare = FaultSettings(DelaySettings(1.0, 0.0001))
    assert draw_fault(rare, {}, Draws(0.0000009)) == Injected(1.0)
    assert draw_fault(rare, {}, Draws(0.0000011)) is None


def test_shares_come_out() -> None:
    rng = Random(7)
    faults = [
        draw_fault(FaultSettings(DelaySettings(1, 30), AbortSettings(500, percent=20)), {}, rng) for _ in range(20_000)
    ]
    delayed = sum(fault is not None and fault.delay_s > 0 for fault in faults) / len(faults)
    aborted = sum(fault is not None and fault.abort for fault in faults) / len(faults)
    both = sum(fault is not None and fault.abort and fault.delay_s > 0 for fault in faults) / len(faults)
    assert delayed == pytest.approx(0.3, abs=0.02)
    assert aborted == pytest.approx(0.2, abs=0.02)
    assert both == pytest.approx(0.06, abs=0.01)


DELAY_SHARE = "x-envoy-fault-delay-request-percentage"
ASKED = FaultSettings(DelaySettings(percent=100), AbortSettings(percent=50), headers=True)


@pytest.mark.parametrize(
    ("headers", "draws", "fault"),
    [
        ({}, (0.0, 0.0), None),
        ({"x-envoy-fault-delay-request": "1500"}, (0.9, 0.9), Injected(1.5)),
        ({"x-envoy-fault-delay-request": "soon"}, (0.0, 0.9), None),
        ({"x-envoy-fault-delay-request": "-5"}, (0.0, 0.9), None),
        ({"x-envoy-fault-delay-request": "10", DELAY_SHARE: "20"}, (0.19, 0.9), Injected(0.01)),
        ({"x-envoy-fault-delay-request": "10", DELAY_SHARE: "20"}, (0.2, 0.9), None),
        ({"x-envoy-fault-abort-request": "418"}, (0.0, 0.49), Injected(0, True, 418)),
        ({"x-envoy-fault-abort-request": "418"}, (0.0, 0.5), None),
        ({"x-envoy-fault-abort-request": "418", "x-envoy-fault-abort-request-percentage": "100"}, (0.0, 0.5), None),
        ({"x-envoy-fault-abort-request": "418", "x-envoy-fault-abort-request-percentage": "1"}, (0.0, 0.01), None),
        ({"x-envoy-fault-abort-request": "99"}, (0.0, 0.0), None),
        ({"x-envoy-fault-abort-request": "600"}, (0.0, 0.0), None),
        ({"x-envoy-fault-abort-grpc-request": "14"}, (0.0, 0.0), Injected(0, True, None, 14)),
        (
            {"x-envoy-fault-abort-request": "500", "x-envoy-fault-abort-grpc-request": "14"},
            (0.0, 0.0),
            Injected(0, True, 500),
        ),
    ],
)
def test_a_request_may_ask_for_faults_within_what_is_configured(
    headers: dict[str, str], draws: tuple[float, float], fault: Injected | None
) -> None:
    assert draw_fault(ASKED, headers, Draws(*draws)) == fault


def test_requests_are_not_asked_unless_that_is_configured() -> None:
    settings = FaultSettings(DelaySettings(1.0, 100))
    assert draw_fault(settings, {"x-envoy-fault-delay-request": "9000"}, Draws(0.0)) == Injected(1.0)


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "x-envoy-fault-delay-request",
                "x-envoy-fault-delay-request-percentage",
                "x-envoy-fault-abort-request",
                "x-envoy-fault-abort-grpc-request",
                "x-envoy-fault-abort-request-percentage",
            ]
        ),
        st.one_of(st.text(), st.integers().map(str)),
    ),
    st.integers(),
)
def test_whatever_a_request_asks_for_nothing_breaks(headers: dict[str, str], seed: int) -> None:
    fault = draw_fault(ASKED, headers, Random(seed))
    if fault is not None:
        assert fault.delay_s >= 0
        assert fault.status is None or 200 <= fault.status <= 599


@pytest.mark.parametrize(
    ("fault", "headers", "status", "grpc"),
    [
        (Injected(abort=True, status=503), {}, 503, None),
        (Injected(abort=True, grpc_status=14), {}, 503, None),
        (Injected(abort=True, grpc_status=8), {}, 429, None),
        (Injected(abort=True, grpc_status=13), {}, 500, None),
        (Injected(abort=True, grpc_status=99), {}, 500, None),
        (Injected(abort=True, grpc_status=14), {"content-type": "application/grpc+proto"}, 200, b"14"),
        (Injected(abort=True, status=404), {"content-type": "application/grpc"}, 200, b"12"),
        (Injected(abort=True, status=418), {"content-type": "application/grpc"}, 200, b"2"),
    ],
)
def test_an_abort_is_a_whole_response(
    fault: Injected, headers: dict[str, str], status: int, grpc: bytes | None
) -> None:
    got, sent, body = reply_to(fault, headers)
    assert got == status
    assert dict(sent).get(b"grpc-status") == grpc
    assert int(dict(sent)[b"content-length"]) == len(body)


def test_a_reset_is_no_response() -> None:
    settings = FaultSettings(abort=AbortSettings(reset=True, percent=100))
    fault = draw_fault(settings, {}, Draws(0.0))
    assert fault is not None
    assert fault.is_reset
    assert not Injected(abort=True, status=500).is_reset
    assert not Injected(1.0).is_reset


def test_no_more_calls_have_a_fault_at_once_than_are_allowed() -> None:
    active, fault = ActiveFaults(), Injected(1.0)
    assert [active.enter(fault, 2) for _ in range(3)] == [True, True, False]
    active.exit()
    assert active.enter(Injected(1.0, True, 503), 2)
    assert (active.count, active.overflowed, active.delays, active.aborts) == (2, 1, 3, 1)
    active.renew_lock()
    active.exit()
    assert active.count == 0
    assert all(active.enter(fault, None) for _ in range(10))
