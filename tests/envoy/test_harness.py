"""What the comparison itself rests on: Envoy reaches the endpoints, and they do as they are asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.envoy.harness import Case, Place, ask, start
from tests.envoy.upstream import Upstream
from tests.peers.servers import Envoy


def test_a_case_reaches_its_endpoints_and_scripts_are_followed(
    envoy_factory: Callable[[dict[str, Any]], Envoy],
) -> None:
    with Upstream(2) as upstream:
        places = [Place(port) for port in upstream.ports]
        retry = {"retry_policy": {"retry_on": "5xx", "num_retries": 2, "retry_back_off": {"base_interval": "0.001s"}}}
        _, port = start(envoy_factory, [Case("plain", places), Case("retry", places, route=retry)])
        answers = ask(port, [{"x-case": "plain"}] * 20, connections=1)
        assert Counter(answer.port for answer in answers) == dict.fromkeys(upstream.ports, 10)
        (last,) = ask(port, [{"x-case": "retry", "x-script": "503,reset,200", "x-id": "a"}], connections=1)
        assert (last.status, upstream.seen["a"]) == (200, 3)
        (last,) = ask(port, [{"x-case": "plain", "x-script": "reset"}], connections=1)
        assert (last.status, last.port) == (503, None)
