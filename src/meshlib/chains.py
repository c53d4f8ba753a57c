"""Consul's discovery chains, applied to a mesh that runs: what each says is laid under what the user writes.

`meshlib.discovery.consul_chain` watches them, `meshlib.config.dialects.consul.live` puts them into the native form, and
`meshlib.reloading` swaps the settings. A chain that cannot be followed changes nothing: the last good one holds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from meshlib.config.settings import MeshSettings, ServiceSettings
from meshlib.errors import ConfigError, MeshClosed
from meshlib.telemetry import events

if TYPE_CHECKING:
    from meshlib.config.dialects.consul.live import LiveChains
    from meshlib.reloading import Laid
    from meshlib.wiring import Wiring

__all__ = ["Chains"]

_log = logging.getLogger("meshlib")


class Chains:
    """The chains that one mesh goes by. On the control thread."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring
        self._live: LiveChains | None = None
        self._applied: dict[str, Mapping[str, Any]] = {}
        self._told: dict[str, tuple[str, ...]] = {}

    def take(self, service: str, chain: Mapping[str, Any]) -> None:
        """Go by what Consul says of a service from now on."""
        overlay = self._wiring.settings.overlay
        if overlay is None:
            return
        if self._live is None:
            from meshlib.config.dialects.consul.live import LiveChains

            self._live = LiveChains()
        try:
            notes = self._live.take(service, chain, overlay.context)
        except ConfigError as error:
            self._refuse(service, error)
            return
        try:
            self._apply(self._live.services(overlay.context))
        except MeshClosed:
            return
        except ConfigError as error:
            self._live.undo()
            self._refuse(service, error)
            return
        if notes != self._told.get(service, ()):
            self._told[service] = notes
            for note in notes:
                _log.warning("%s", note)

    def _refuse(self, service: str, error: ConfigError) -> None:
        source = f"Consul's discovery chain of {service}"
        self._wiring.bus.emit(events.ConfigRefused(source=source, detail=str(error)))

    def _apply(self, services: Mapping[str, Mapping[str, Any]]) -> None:
        changes: dict[str, Laid | None] = {
            name: partial(self._laid, name) for name, data in services.items() if self._applied.get(name) != data
        }
        changes |= dict.fromkeys(self._applied.keys() - services.keys())
        if changes:
            self._wiring.reloading.configure_services(changes)
            self._applied = dict(services)

    def _laid(self, name: str, settings: MeshSettings) -> ServiceSettings:
        live, overlay = self._live, settings.overlay
        data = {} if live is None or overlay is None else live.services(overlay.context).get(name, {})
        if overlay is None:  # chains are followed no more
            return settings.services.get(name) or settings.fallback(name)
        return overlay(name, data)
