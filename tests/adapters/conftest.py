from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adapters.support import AsyncCaller, SyncCaller


@pytest.fixture(params=[SyncCaller, AsyncCaller], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Iterator[SyncCaller | AsyncCaller]:
    return request.param()
