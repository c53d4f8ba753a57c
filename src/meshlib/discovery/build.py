"""From settings to sources: a new source is one new file, and one line in this table."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from meshlib.config.settings import ConsulSettings, DiscoverySettings, LocalSettings, StaticSettings
from meshlib.discovery.source import Source

__all__ = ["make_source"]

# Modules are named, not imported: nobody pays for a source that is not configured.
_SOURCES: dict[type, tuple[str, str]] = {
    StaticSettings: ("static", "StaticSource"),
    LocalSettings: ("local", "LocalRegistry"),
    ConsulSettings: ("consul", "ConsulSource"),
}


def make_source(settings: DiscoverySettings) -> Source:
    """Return the source that `settings` describe. Does no I/O.

    Raises:
        ConfigError: if the source refuses them.
        TypeError: if there is no source for them.
    """
    try:
        module, name = _SOURCES[type(settings)]
    except KeyError:
        raise TypeError(f"there is no discovery source for {type(settings).__name__}") from None
    make: Callable[[Any], Source] = getattr(import_module(f"meshlib.discovery.{module}"), name)
    return make(settings)
