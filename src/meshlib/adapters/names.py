"""Looking for a few names among headers of which most calls have none."""

from __future__ import annotations

from operator import itemgetter

from meshlib.net.wire import Headers

__all__ = ["Lookout"]

_NAME = itemgetter(0)
_MAX_KNOWN = 1024
_MAX_KNOWN_BYTES = 64


class Lookout:
    """Tells whether any of some names is among headers. It remembers, within bounds, how other names are written, since
    the headers of most calls are those of the calls before.

    Args:
        names: to look for, in lower case.
    """

    __slots__ = ("_others", "names")

    def __init__(self, *names: bytes) -> None:
        self.names = frozenset(names)
        self._others: set[bytes] = set()

    def sees_any(self, headers: Headers) -> bool:
        """Whether any of the names is there, however it is written."""
        others = self._others
        if others.issuperset(map(_NAME, headers)):
            return False
        for name, _ in headers:
            if name.lower() in self.names:
                return True
            if len(others) < _MAX_KNOWN and len(name) <= _MAX_KNOWN_BYTES:
                others.add(name)
        return False
