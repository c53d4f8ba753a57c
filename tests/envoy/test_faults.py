"""Injected faults: the same shares as Envoy's fault filter, and what a request asks for by header to the letter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import Any

import pytest

from meshlib.policy.fault import AbortSettings, DelaySettings, FaultSettings, Injected, draw_fault, reply_to
from tests.envoy.harness import ROUNDS, TYPES, Case, Place, ask, start
from tests.envoy.test_shares import REQUESTS, agree
from tests.envoy.upstream import Upstream
from tests.peers.servers import Envoy

NAME = "envoy.filters.http.fault"
KIND = {"@type": f"{TYPES}.filters.http.fault.v3.HTTPFault"}


def end_of(fault: Injected | None, headers: Mapping[str, str]) -> tuple[int, bool]:
    """The status, and whether it was delayed, of a request whose endpoint answers 200."""
    if fault is None:
        return 200, False
    return (reply_to(fault, headers)[0] if fault.abort else 200), fault.delay_s > 0


def delays(envoy: Envoy) -> int:
    """Those that Envoy has injected so far."""
    _, text = envoy.admin("/stats?filter=^http.in.fault.delays_injected$")
    return int(re.findall(r": (\d+)", text)[0])


def generated(seed: int, count: int) -> Iterator[tuple[dict[str, Any], FaultSettings]]:
    rng = Random(seed)
    for _ in range(count):
        abort, delay = rng.choice((0.5, 10, 33, 80)), rng.choice((0, 5, 50))
        status = rng.choice((400, 418, 503))
        theirs = {
            "abort": {
                "http_status": status,
                "percentage": {"numerator": int(abort * 100), "denominator": "TEN_THOUSAND"},
            },
            "delay": {"fixed_delay": "0.001s", "percentage": {"numerator": delay, "denominator": "HUNDRED"}},
        }
        yield theirs, FaultSettings(DelaySettings(0.001, delay), AbortSettings(status, percent=abort))


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_as_many_calls_are_delayed_and_aborted(envoy_factory: Callable[[dict[str, Any]], Envoy], seed: int) -> None:
    rng = Random(seed)
    with Upstream(1) as upstream:
        given = list(generated(seed, 4))
        places = [Place(port) for port in upstream.ports]
        cases = [Case(f"f{at}", places, filters={NAME: {**KIND, **theirs}}) for at, (theirs, _) in enumerate(given)]
        envoy, port = start(envoy_factory, cases, http_filters=[{"name": NAME, "typed_config": KIND}])
        for case, (_, settings) in zip(cases, given, strict=True):
            before = delays(envoy)
            answers = ask(port, [{"x-case": case.name}] * REQUESTS)
            late = delays(envoy) - before
            mine = [end_of(draw_fault(settings, {}, rng), {}) for _ in range(8 * REQUESTS)]
            agree(Counter(answer.status for answer in answers), Counter(status for status, _ in mine), case)
            agree(Counter({0: REQUESTS - late, 1: late}), Counter(int(delayed) for _, delayed in mine), case)


def asked(rng: Random) -> dict[str, str]:
    """Headers of a request that asks for faults, some of them in vain."""
    choices = {
        "x-envoy-fault-abort-request": ("200", "404", "429", "503", "599", "199", "600", "junk", ""),
        "x-envoy-fault-abort-grpc-request": ("0", "1", "3", "5", "7", "8", "10", "12", "14", "16", "99", "x"),
        "x-envoy-fault-abort-request-percentage": ("0", "100", "150", "x"),
        "x-envoy-fault-delay-request": ("1", "2", "0", "x"),
        "x-envoy-fault-delay-request-percentage": ("0", "100", "101"),
        "content-type": ("application/grpc",),
    }
    return {name: rng.choice(values) for name, values in choices.items() if rng.random() < 0.45}


def test_requests_get_the_faults_that_they_ask_for(envoy_factory: Callable[[dict[str, Any]], Envoy]) -> None:
    rng = Random(3)
    whole = {"percentage": {"numerator": 100}}
    written: dict[str, tuple[dict[str, Any], FaultSettings]] = {
        "by header": (
            {"abort": {"header_abort": {}, **whole}, "delay": {"header_delay": {}, **whole}},
            FaultSettings(DelaySettings(percent=100), AbortSettings(percent=100), headers=True),
        ),
        "nobody": (
            {"abort": {"header_abort": {}}, "delay": {"header_delay": {}}},
            FaultSettings(DelaySettings(), AbortSettings(), headers=True),
        ),
        "fixed": (
            {"abort": {"http_status": 418, **whole}, "delay": {"fixed_delay": "0.001s", **whole}},
            FaultSettings(DelaySettings(0.001, 100), AbortSettings(418, percent=100)),
        ),
    }
    with Upstream(1) as upstream:
        places = [Place(port) for port in upstream.ports]
        cases = [Case(name, places, filters={NAME: {**KIND, **theirs}}) for name, (theirs, _) in written.items()]
        envoy, port = start(envoy_factory, cases, http_filters=[{"name": NAME, "typed_config": KIND}])
        for name, (_, settings) in written.items():
            for _ in range(80 if name == "by header" else 10):
                headers = asked(rng)
                before = delays(envoy)
                (answer,) = ask(port, [{"x-case": name, **headers}], connections=1)
                late = delays(envoy) > before
                fault = draw_fault(settings, headers, rng)
                status, delayed = end_of(fault, headers)
                aborted = fault is not None and fault.abort
                assert (answer.port is None, late) == (aborted, delayed), (name, headers)
                if fault is None or not aborted:
                    continue
                code = dict(reply_to(fault, headers)[1]).get(b"grpc-status")
                assert answer.headers.get("grpc-status") == (None if code is None else code.decode()), headers
                # Whoever does not speak gRPC is told 200 by Envoy; here, what the gRPC status stands for.
                plain = fault.grpc_status is not None and code is None
                assert answer.status == (200 if plain else status), headers
