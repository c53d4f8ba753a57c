"""Static: endpoints written in the configuration. They never change; a new configuration makes a new source."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from meshlib.config.settings import StaticSettings
from meshlib.discovery.source import UNKNOWN, Answer

__all__ = ["StaticSource"]


class StaticSource:
    """A `Source` over a fixed table. A service that is not in the table is unknown; one with no endpoint is empty."""

    name = "static"

    def __init__(self, settings: StaticSettings) -> None:
        self._services = settings.services

    def written(self, service: str) -> Answer:
        """The endpoints in the table."""
        return self._services.get(service, UNKNOWN)

    async def watch(self, service: str) -> AsyncGenerator[Answer, None]:
        """Yield once, then wait for ever."""
        import asyncio

        yield self.written(service)
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Do nothing: it holds nothing."""
