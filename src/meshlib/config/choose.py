"""Which configuration holds: what the program gives, a file, or none; and what the environment says over it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Final

from meshlib.config.find import find_file
from meshlib.config.plain import plain_settings
from meshlib.config.settings import MeshSettings, RegisterSettings
from meshlib.dataclass import replace
from meshlib.errors import ConfigError

__all__ = ["MODES", "choose_settings", "read_settings", "reader_of", "register_settings"]

MODES = ("off", "observe", "on")
_log = logging.getLogger("meshlib")
_MOST_NOTES: Final = 20
"""Of what is not honoured so many lines are logged."""


def choose_settings(config: Any, fields: dict[str, Any], seen: set[str] | None = None) -> MeshSettings:
    """The compiled configuration.

    Args:
        config: a path, a mapping, a `MeshConfig`, or None.
        fields: of the configuration, if it is given as such.
        seen: filled with the files and directories that are looked at for it, whatever comes of it.

    Raises:
        ConfigError: if it is wrong.
    """
    settings = _with_environment(read_settings(config, fields, seen))
    _check_extras(settings)
    _tell(settings.notes)
    return settings


def _tell(notes: Sequence[Any]) -> None:
    """Log what documents of other meshes say that is not done, a line each, and what is not done to the letter."""
    ignored = [note for note in notes if note.effect == "ignored"]
    for note in ignored[:_MOST_NOTES]:
        _log.warning("%s", note)
    if len(ignored) > _MOST_NOTES:
        _log.warning("and %d more that are not honoured: `meshlib check` names all", len(ignored) - _MOST_NOTES)
    for note in notes:
        if note.effect == "different":
            _log.info("%s", note)


def reader_of(config: Any, fields: dict[str, Any]) -> Callable[[set[str]], MeshSettings]:
    """What reads the configuration, now and again: see `choose_settings`. The set that it is given is its `seen`.

    A relative path is one of the working directory of now, wherever the process goes later.
    """
    here = _directory()

    def read(seen: set[str]) -> MeshSettings:
        there = config
        if isinstance(config, (str, os.PathLike)) and _directory() != here:
            there = os.path.join(here, config)
        return choose_settings(there, fields, seen)

    return read


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it is no longer there
        return ""


def read_settings(config: Any, fields: dict[str, Any], seen: set[str] | None = None) -> MeshSettings:
    """The compiled configuration as it is written, without what the environment says over it; see `choose_settings`."""
    if config is not None and fields:
        raise ConfigError("give a configuration or its fields, not both")
    if config is None and not fields:
        config = find_file()
        if config is None:
            _log.info("no configuration found ($MESHLIB_CONFIG, ./mesh.yaml): using defaults")
            return MeshSettings()
    return plain_settings(fields or config) or _read_by_model(config, fields, seen)


def _read_by_model(config: Any, fields: dict[str, Any], seen: set[str] | None) -> MeshSettings:
    # Imported only here: pydantic and the models take longer to load than all the rest of the mesh.
    from meshlib.config.compile import compile_config
    from meshlib.config.load import load_file, load_mapping
    from meshlib.config.model import MeshConfig

    if isinstance(config, MeshConfig):
        return compile_config(config)
    if isinstance(config, Mapping):
        return compile_config(load_mapping(config, seen=seen))
    if config is not None:
        return compile_config(load_file(config, seen=seen))
    return compile_config(load_mapping(fields, origin="Mesh(...)", variables=False, seen=seen))


def _check_extras(settings: MeshSettings) -> None:
    """Refuse at once what would fail at the first call, for want of an optional package.

    Raises:
        ConfigError: if one is missing.
    """
    services = [*settings.services.values(), settings.fallback("any")]
    wanting = [service.name for service in services if any(each.http2 for each in service.clusters.values())]
    if wanting and settings.wire != "stock" and find_spec("h2") is None:
        whom = "the defaults" if wanting == ["any"] else ", ".join(name for name in wanting if name != "any")
        raise ConfigError(f'`http2: true` of {whom} needs h2: pip install "meshlib-http[http2]"')


def register_settings(**fields: Any) -> RegisterSettings:
    """What ``register:`` would be compiled to, were it written with these fields.

    Raises:
        ConfigError: if one of them is wrong.
    """
    from meshlib.config.compile import compile_config
    from meshlib.config.load import load_mapping

    compiled = compile_config(load_mapping({"register": fields}, origin="mesh.register(...)", variables=False)).register
    assert compiled is not None
    return compiled


def _with_environment(settings: MeshSettings) -> MeshSettings:
    """The settings, with ``$MESHLIB_MODE`` and ``$MESHLIB_WIRE`` over them.

    Raises:
        ConfigError: if one of them has a value that does not exist.
    """
    mode, wire = os.environ.get("MESHLIB_MODE"), os.environ.get("MESHLIB_WIRE")
    if mode:
        if mode not in MODES:
            raise ConfigError(f"$MESHLIB_MODE is {mode!r}; it can be {', '.join(MODES)}")
        settings = replace(settings, mode=mode)  # type: ignore[arg-type]
    if wire:
        if wire not in ("native", "h11", "stock"):
            raise ConfigError(f"$MESHLIB_WIRE is {wire!r}; it can be native, h11, stock")
        settings = replace(settings, wire=wire)  # type: ignore[arg-type]
    return settings
