"""The table of sources, and the source that needs no more than it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from meshlib.config.settings import ConsulSettings, LocalSettings, StaticSettings
from meshlib.discovery.build import make_source
from meshlib.discovery.source import UNKNOWN, Answer, Registrar, Source, Written
from meshlib.errors import ConfigError
from tests.discovery.support import endpoint


@pytest.mark.parametrize(
    ("settings", "name"), [(StaticSettings(), "static"), (LocalSettings(), "local"), (ConsulSettings(), "consul")]
)
def test_every_settings_type_has_its_source(settings: StaticSettings | LocalSettings, name: str) -> None:
    assert make_source(settings).name == name


def test_the_registries_take_registrations_and_the_table_does_not() -> None:
    assert isinstance(make_source(LocalSettings()), Registrar)
    assert isinstance(make_source(ConsulSettings()), Registrar)
    assert not isinstance(make_source(StaticSettings()), Registrar)


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(TypeError, match="no discovery source for str"):
        make_source("consul")  # type: ignore[arg-type]


@pytest.mark.parametrize("address", ["ftp://consul", "http://", "http://consul:port", "http://me:secret@consul"])
def test_a_consul_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="consul: the address") as caught:
        make_source(ConsulSettings(address=address))
    assert "secret" not in str(caught.value)


def test_static_says_what_is_written_and_nothing_more() -> None:
    source = make_source(StaticSettings({"orders": (endpoint(1), endpoint(2)), "nobody": ()}))
    assert first_answer(source, "orders") == (endpoint(1), endpoint(2))
    assert first_answer(source, "nobody") == ()
    assert first_answer(source, "other") is UNKNOWN


def test_static_need_not_be_asked() -> None:
    source = make_source(StaticSettings({"orders": (endpoint(1), endpoint(2)), "nobody": ()}))
    assert isinstance(source, Written)
    assert source.written("orders") == (endpoint(1), endpoint(2))
    assert source.written("nobody") == ()
    assert source.written("other") is UNKNOWN


def first_answer(source: Source, service: str) -> Answer:
    async def ask() -> Answer:
        async with aclosing(source.watch(service)) as answers:
            return await anext(answers)

    return asyncio.run(ask())


def test_making_sources_imports_neither_httpx_nor_consul() -> None:
    script = (
        "import sys; from meshlib.discovery import watch, registration\n"
        "from meshlib.discovery.build import make_source\n"
        "from meshlib.config.settings import *\n"
        "make_source(ConsulSettings()); make_source(LocalSettings())\n"
        "print([m for m in ('httpx', 'consul', 'requests', 'gevent') if m in sys.modules])"
    )
    source = Path(__file__).resolve().parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(source)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
