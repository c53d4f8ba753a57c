from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.adapters import httpx2 as meshed
from tests.adapters import support
from tests.adapters.support import AsyncCaller, SyncCaller

OF_BOTH = ("test_handed_over", "test_httpx", "test_lean", "test_lean_same", "test_lean_url", "test_memory")
"""The modules whose tests hold for httpx and for httpx2. They are written with httpx's names."""

LONG = ("test_an_event_stream_outlives_the_timeouts_of_its_call",)
"""Tests that take seconds for what no library has a part in."""


@pytest.fixture(params=[SyncCaller, AsyncCaller], ids=["sync", "async"])
def caller(request: pytest.FixtureRequest) -> Iterator[SyncCaller | AsyncCaller]:
    return request.param()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in OF_BOTH and metafunc.function.__name__ not in LONG:
        metafunc.fixturenames.append("library")
        # On one Python alone: what could differ between them, httpx's tests find.
        both = ["httpx", pytest.param("httpx2", marks=pytest.mark.slow)]
        metafunc.parametrize("library", both, indirect=True)


@pytest.fixture
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that a test is of: the names of its module mean what belongs to that one."""
    name: str = request.param
    if name != "httpx":
        adapter = import_module(f"meshlib.adapters.{name}")
        known = {
            "httpx": import_module(name),
            "Mesh": Httpx2Mesh,
            **{each: getattr(adapter, each) for each in ("LIBRARY", "MeshClient", "AsyncMeshClient", "MeshTransport")},
        }
        monkeypatch.setattr(support, "Mesh", Httpx2Mesh)
        for each in vars(request.module).keys() & known.keys():
            monkeypatch.setattr(request.module, each, known[each])
    return name


class Httpx2Mesh(Mesh):
    """A mesh whose own clients are httpx2's."""

    def client(self, service: str | None = None, **options: Any) -> Any:
        return meshed.client(self, service, **options)

    def async_client(self, service: str | None = None, **options: Any) -> Any:
        return meshed.async_client(self, service, **options)

    def transport(self, *, fallback: Any = None) -> Any:
        return meshed.transport(self, fallback=fallback)

    def async_transport(self, *, fallback: Any = None) -> Any:
        return meshed.async_transport(self, fallback=fallback)
