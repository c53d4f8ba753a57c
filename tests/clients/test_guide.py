"""The guide from httpx, tenacity and pybreaker does what it says: before and after run against the same servers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pybreaker
import pytest
import tenacity

import meshlib
from tests.adapters.support import Origin, Seen, address, ok, origins

GUIDE = (Path(__file__).parents[2] / "docs/clients/from-httpx-tenacity-pybreaker.md").read_text()
SECTIONS = {
    title: re.findall(r"```python\n# (before|after)\n(.*?)```", text, re.DOTALL)
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", GUIDE, re.DOTALL | re.MULTILINE)
}
YAML = re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)


class Side:
    """The code of a section, before or after, and the servers that it calls."""

    def __init__(self, names: dict[str, Any], servers: list[Origin]) -> None:
        self.names = names
        self.servers = servers

    def __getattr__(self, name: str) -> Any:
        return self.names[name]

    @property
    def requests(self) -> list[Seen]:
        return [seen for server in self.servers for seen in server.seen]


def block(title: str, when: str) -> str:
    (found,) = [text for each, text in SECTIONS[title] if each == when]
    return found


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    @contextmanager
    def run(title: str, when: str, answer: Callable[[Seen, int], bytes | None]) -> Iterator[Side]:
        count = [0]

        def in_all(seen: Seen, number: int) -> bytes | None:
            count[0] += 1
            return answer(seen, count[0])

        with origins(in_all, in_all) as (servers, (one, two)):

            def with_addresses(text: str) -> str:
                text = text.replace("10.0.0.1:8080", address(one)).replace("10.0.0.2:8080", address(two))
                return text if "endpoints" in text else text.replace("orders.internal:8080", address(one))

            (tmp_path / "mesh.yaml").write_text("discovery: []\n" + with_addresses(YAML[0]))
            monkeypatch.chdir(tmp_path)
            names: dict[str, Any] = {"httpx": httpx, "tenacity": tenacity, "pybreaker": pybreaker, "meshlib": meshlib}
            for each in dict.fromkeys(("All of it at once", title)):
                code = compile(with_addresses(block(each, when)), each, "exec")
                exec(code, names)
            try:
                yield Side(names, servers)
            finally:
                names["client"].close()
                if "mesh" in names:
                    names["mesh"].close()

    return run


def order(seen: Seen, number: int) -> bytes:
    return ok(json.dumps({"id": 42, "total": 9, "path": seen.line.split()[1]}).encode())


def failing_first(seen: Seen, number: int) -> bytes:
    return ok(status="503 Service Unavailable") if number == 1 else order(seen, number)


def breaking(seen: Seen, number: int) -> None:
    return None


def failing(seen: Seen, number: int) -> bytes:
    return ok(status="503 Service Unavailable")


BOTH = pytest.mark.parametrize("when", ["before", "after"])


@BOTH
def test_a_failure_is_made_up_for(run: Any, when: str) -> None:
    with run("All of it at once", when, failing_first) as side:
        assert side.order(42)["id"] == 42
        assert [len(server.seen) for server in side.servers] == ([2, 0] if when == "before" else [1, 1])


@BOTH
def test_what_must_not_happen_twice(run: Any, when: str) -> None:
    with run("Retries of what must not happen twice", when, breaking) as side:
        with pytest.raises(httpx.ReadError if when == "after" else httpx.TransportError):
            side.pay(42)
        assert len(side.requests) == {"before": 3, "after": 1}[when]
        if when == "after":
            with pytest.raises(meshlib.Reset):
                side.pay_by_key(42, "k")
            assert len(side.requests) > 2


@BOTH
def test_time(run: Any, when: str) -> None:
    with run("Time", when, order) as side:
        assert side.stock(7)["path"] == "/stock/7"
        left_ms = side.requests[0].header("x-meshlib-deadline-ms")
        assert (left_ms is None) is (when == "before")
        assert left_ms is None or int(left_ms) <= 2000


@BOTH
def test_strategies_of_tenacitys(run: Any, when: str) -> None:
    def conflict_twice(seen: Seen, number: int) -> bytes:
        return ok(status="409 Conflict") if number <= 2 else order(seen, number)

    with run("Strategies of tenacity's that you want to keep", when, conflict_twice) as side:
        assert side.reserve(7).json()["path"] == "/reserved/7"
        assert len(side.requests) == 3
    with run(
        "Strategies of tenacity's that you want to keep", when, lambda seen, number: ok(status="409 Conflict")
    ) as side:
        if when == "before":
            with pytest.raises(tenacity.RetryError):
                side.reserve(7)
        else:
            assert side.reserve(7).status_code == 409
        assert len(side.requests) == 4


@BOTH
def test_the_breaker(run: Any, when: str) -> None:
    with run("The breaker", when, failing) as side:
        for _ in range(2):
            with pytest.raises((httpx.HTTPStatusError, pybreaker.CircuitBreakerError)):
                side.prices()
        before = len(side.requests)
        with pytest.raises((pybreaker.CircuitBreakerError, meshlib.CircuitOpen)) as caught:
            side.prices()
        assert len(side.requests) == before
        assert side.changes == ["open"]
        if when == "after":
            assert isinstance(caught.value, httpx.ConnectError)
            assert isinstance(caught.value, meshlib.CircuitOpen)
            assert isinstance(caught.value.__cause__, pybreaker.CircuitBreakerError)
            assert caught.value.retry_after_s


@BOTH
@pytest.mark.parametrize("answer", [failing, breaking])
def test_errors(run: Any, when: str, answer: Any) -> None:
    with run("Errors", when, answer) as side:
        assert side.total(42) is None
    with run("Errors", when, order) as side:
        assert side.total(42) == 9


@BOTH
def test_a_lesser_answer(run: Any, when: str) -> None:
    with run("A lesser answer", when, breaking) as side:
        assert side.recommendations("ada") == []


@BOTH
def test_async(run: Any, when: str) -> None:
    async def main() -> Any:
        try:
            return await side.all_orders(range(20))
        finally:
            await side.async_client.aclose()

    with run("Async", when, order) as side:
        answers = asyncio.run(main())
        assert [answer["path"] for answer in answers] == [f"/orders/{number}" for number in range(20)]


@BOTH
def test_what_happened(run: Any, when: str) -> None:
    def once(seen: Seen, number: int) -> bytes:
        return ok(status="503 Service Unavailable") if number == 1 else order(seen, number)

    with run("What happened", when, once) as side:
        response = side.page()
        assert response.status_code == 200
        if when == "after":
            assert [status for _, status in side.attempts(response)] == [503, 200]


def test_each_section_with_code_has_both_sides_and_a_test() -> None:
    tested = set(re.findall(r"run\(\s*\"(.*?)\"", Path(__file__).read_text()))
    for title, blocks in SECTIONS.items():
        if blocks:
            assert [when for when, _ in blocks] == ["before", "after"], title
            assert title in tested


def test_what_is_written_beside_the_code_loads() -> None:
    import yaml

    for text in YAML[1:]:
        meshlib.Mesh({"discovery": [], "services": {"orders": yaml.safe_load(text)}}).close()
