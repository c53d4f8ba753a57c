"""Side by side with a real Envoy: after the same answers to its active checks an endpoint is in the same state.

Each case is a cluster of one endpoint with thresholds and a sequence of answers, drawn at random. The server answers
the checks of Envoy one by one, and leaves the one after the last without an answer, so that the state stays.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from meshlib.policy.health_check import Checkup, Finding, HealthCheckSettings, HttpCheck, judge_response
from tests.net.wire_servers import Peer, RawServer
from tests.peers.servers import Envoy

pytestmark = pytest.mark.slow

ANSWERS = ("200", "200", "200", "degraded", "503", "429", "429", "reset", "reset")
CASES = {
    f"case-{number}": (
        Random(f"healthy {number}").randint(1, 3),
        Random(f"unhealthy {number}").randint(1, 3),
        [Random(f"{number} {at}").choice(ANSWERS) for at in range(1 + number % 12)],
    )
    for number in range(60)
}
CHECK = HttpCheck(retriable_statuses=((429, 429),))


class Script:
    """Answers the checks of each case in their order; the path names the case."""

    def __init__(self) -> None:
        self.asked = dict.fromkeys(CASES, 0)
        self._lock = threading.Lock()

    def __call__(self, peer: Peer) -> None:
        while (request := peer.request()) is not None:
            name = request.split(b" ", 2)[1].decode()[1:]
            with self._lock:
                at = self.asked[name]
                self.asked[name] += 1
            answers = CASES[name][2]
            if at >= len(answers):
                peer.wait_until_gone()
                return
            answer = answers[at]
            if answer == "reset":
                peer.reset()
                return
            extra = b"x-envoy-degraded: 1\r\n" if answer == "degraded" else b""
            status = b"200" if answer == "degraded" else answer.encode()
            peer.send(b"HTTP/1.1 %s X\r\n%sContent-Length: 0\r\n\r\n" % (status, extra))

    def is_through(self) -> bool:
        return all(self.asked[name] > len(answers) for name, (_, _, answers) in CASES.items())


@pytest.fixture
def script() -> Iterator[tuple[Script, int]]:
    script = Script()
    server = RawServer(script)
    yield script, server.port
    server.close()


def bootstrap(port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    often = "0.02s"
    clusters = [
        {
            "name": name,
            "connect_timeout": "5s",
            "health_checks": [
                {
                    "timeout": "60s",
                    "interval": often,
                    "no_traffic_interval": often,
                    "healthy_threshold": healthy,
                    "unhealthy_threshold": unhealthy,
                    "http_health_check": {"path": f"/{name}", "retriable_statuses": [{"start": 429, "end": 430}]},
                }
            ],
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }
        for name, (healthy, unhealthy, _) in CASES.items()
    ]
    return {"static_resources": {"clusters": clusters}}


def ours(healthy: int, unhealthy: int, answers: list[str]) -> str:
    checkup = Checkup(HealthCheckSettings(http=CHECK, healthy_threshold=healthy, unhealthy_threshold=unhealthy))
    for answer in answers:
        if answer == "reset":
            checkup.found(Finding.NO_ANSWER)
        elif answer == "degraded":
            checkup.found(judge_response(CHECK, 200, {b"x-envoy-degraded": b"1"}))
        else:
            checkup.found(judge_response(CHECK, int(answer), {}))
    return "failed" if checkup.failed else "degraded" if checkup.degraded else "well"


def envoys(envoy: Envoy) -> dict[str, str]:
    states = {}
    for cluster in json.loads(envoy.admin("/clusters?format=json")[1])["cluster_statuses"]:
        (host,) = cluster["host_statuses"]
        health = host["health_status"]
        degraded = health.get("failed_active_degraded_check")
        states[cluster["name"]] = (
            "failed" if health.get("failed_active_health_check") else "degraded" if degraded else "well"
        )
    return states


def test_an_endpoint_is_in_the_same_state_after_the_same_answers(
    script: tuple[Script, int], envoy_factory: Callable[[dict[str, Any]], Envoy]
) -> None:
    answers, port = script
    envoy = envoy_factory(bootstrap(port))
    until = time.monotonic() + 20
    while not answers.is_through():
        assert time.monotonic() < until, answers.asked
        time.sleep(0.02)
    expected = {name: ours(*case) for name, case in CASES.items()}
    assert envoys(envoy) == expected
    assert set(expected.values()) == {"well", "degraded", "failed"}
