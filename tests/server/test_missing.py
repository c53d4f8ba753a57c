"""A framework that is not installed is missed by name, with what to install."""

from __future__ import annotations

import importlib
import sys

import pytest


@pytest.mark.parametrize(("name", "first"), [("flask", "flask"), ("django", "django.conf")])
def test_a_framework_that_is_not_installed(name: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, first, None)
    monkeypatch.delitem(sys.modules, f"meshlib.server.{name}", raising=False)
    with pytest.raises(ImportError, match=rf'pip install "meshlib-http\[{name}\]"') as caught:
        importlib.import_module(f"meshlib.server.{name}")
    assert caught.value.name == name
