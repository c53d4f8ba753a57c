"""A client that is not installed is missed by name, with what to install."""

from __future__ import annotations

import importlib
import sys

import pytest

from meshlib import Mesh


@pytest.mark.parametrize("name", ["httpx2", "requests", "aiohttp"])
def test_a_client_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, f"meshlib.adapters.{name}", raising=False)
    with pytest.raises(ImportError, match=rf'pip install "meshlib-http\[{name}\]"') as caught:
        importlib.import_module(f"meshlib.adapters.{name}")
    assert caught.value.name == name


def test_what_is_no_client_is_not_attached() -> None:
    with Mesh({"discovery": []}) as mesh:
        for client in (object(), importlib.import_module("requests").get, 42):
            with pytest.raises(TypeError, match=r"a client such as an httpx\.Client is expected"):
                mesh.attach(client)
        for client in (importlib.import_module("requests").Request(), importlib.import_module("aiohttp").FormData()):
            with pytest.raises(TypeError, match="is expected, not"):
                mesh.attach(client)
