"""The header of an override, as it comes in: whether it is believed, and who is told if not."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from meshlib import context
from meshlib.context import Override
from meshlib.propagation import Ignored
from meshlib.routing.override import read_override
from meshlib.routing.override_settings import OverrideSettings

if TYPE_CHECKING:
    from meshlib.server.intake import ReceivedHeaders

__all__ = ["LOG_INTERVAL_S", "OverrideReader"]

_log = logging.getLogger("meshlib.server")

LOG_INTERVAL_S: Final = 60.0
"""Each reason is logged this often at most: who sends what is refused decides how often."""

wall: Callable[[], float] = time.time


class OverrideReader:
    """Reads the header for one middleware."""

    def __init__(self, counts: Ignored) -> None:
        self._counts = counts
        self._logged: dict[str, float] = {}

    def read(self, settings: OverrideSettings, headers: ReceivedHeaders, trusted: bool) -> Override | None:
        """The override that a request bears; None if there is none to be believed.

        Args:
            settings: which are believed.
            headers: of the request.
            trusted: whether the peer is.
        """
        values = headers.values(settings.header)
        if not values:
            return None
        if not trusted and (settings.peers != "any" or not settings.key):
            self._refuse("from a peer that is not trusted")
            return None
        override = read_override(values, settings, wall())
        if isinstance(override, Override):
            return override
        self._refuse(override)
        return None

    def _refuse(self, why: str) -> None:
        self._counts.add("override")
        now = context.monotonic()
        last = self._logged.get(why)
        if last is None or not 0.0 <= now - last < LOG_INTERVAL_S:
            self._logged[why] = now
            # Not its value, which is for whoever can use it; nor who sent it, which they choose.
            _log.warning(
                "an override of a request was ignored: %s; further ones are counted, and logged once in %g s",
                why,
                LOG_INTERVAL_S,
            )
