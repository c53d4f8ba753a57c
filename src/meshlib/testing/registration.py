"""Registering where there is no registry: noted, and nothing else."""

from __future__ import annotations

import os

from meshlib.discovery.registration import Registration
from meshlib.discovery.source import Instance

__all__ = ["InertRegistration"]


class InertRegistration(Registration):
    """What `MeshFixture.register` returns: it says of itself whether it holds, and enters nothing anywhere."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._entry = None
        self._pid: int | None = None

    @property
    def held(self) -> bool:
        """Whether it holds."""
        return self.active

    @property
    def notice_s(self) -> float:
        """Nobody has to hear of it."""
        return 0.0

    @property
    def known(self) -> bool:
        """Whether it holds."""
        return self.active

    async def withdraw(self) -> None:
        """Hold no more."""
        self._pid = None

    def begin(self) -> InertRegistration:
        """Hold."""
        return self.start()

    def start(self, timeout_s: float | None = None) -> InertRegistration:
        """Hold."""
        self._pid = os.getpid()
        return self

    async def astart(self, timeout_s: float | None = None) -> InertRegistration:
        """Hold."""
        return self.start()

    def close(self, timeout_s: float = 5.0) -> None:
        """Hold no more."""
        self._pid = None

    async def aclose(self, timeout_s: float = 5.0) -> None:
        """Hold no more."""
        self._pid = None
