from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.calling import Caller


@pytest.fixture(params=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Iterator[Caller]:
    made = Caller(request.param)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "MESHLIB_MODE",
        "MESHLIB_WIRE",
        "MESHLIB_CONFIG",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
