"""Reads the fields of a document, so that none is dropped in silence: what nobody took is noted at the end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.resources import Place, Resource
from meshlib.config.problems import Path
from meshlib.config.rejection import closest

__all__ = ["NARROWING", "WIDER", "Reader", "go_duration"]

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|ms|s|m|h)")
NARROWING: Final = frozenset({"match", "matches", "condition", "hostnames", "gateways", "exportTo", "workloadSelector"})
"""Fields without which a document would speak of more calls than its author meant."""

WIDER: Final = "unknown field here, where one that is left out would let it take more calls than is meant"

_UNITS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def go_duration(text: str) -> float | None:
    """The seconds of a duration as Go writes it (``1h30m``, ``100ms``), without a sign; None if it is none."""
    if text == "0":
        return 0.0
    parts = _DURATION.findall(text)
    if not parts or "".join(parts) != text or len(text) > 64:
        return None
    total = 0.0
    for part in parts:
        unit = part.lstrip("0123456789.")
        total += float(part[: -len(unit)]) * _UNITS[unit]
    return total


class Reader:
    """The fields of one map of a document. Each method takes a field: it counts as looked at.

    Attributes:
        draft: where notes go.
        resource: the document.
        path: of the map in it.
        data: the map.
        narrows: whether it says which calls are meant; so do all maps in it then.
    """

    def __init__(
        self, draft: Draft, resource: Resource, data: Any = None, path: Path = (), narrows: bool = False
    ) -> None:
        """Read a map; all of the document unless given. What is no map reads as an empty one, and is noted."""
        self.draft = draft
        self.resource = resource
        self.path = path
        self.narrows = narrows
        self._taken: list[str] = []
        given = resource.data if data is None and not path else data
        if not isinstance(given, Mapping):
            if given is not None:
                self.wrong(None, "a map is expected")
            given = {}
        self.data: Mapping[str, Any] = given

    def __contains__(self, name: str) -> bool:
        return self.data.get(name) is not None

    def place(self, name: str | int | None = None) -> Place:
        """Where a field stands, or the map itself."""
        return self.resource.place(*self.path, *(() if name is None else (name,)))

    def raw(self, name: str) -> Any:
        """A field as it is; None if it is not there."""
        self._take(name)
        return self.data.get(name)

    def text(self, name: str) -> str | None:
        """A field that is text."""
        value = self.raw(name)
        if value is None or isinstance(value, str):
            return value
        self._expected(name, "text")
        return None

    def flag(self, name: str) -> bool | None:
        """A field that is true or false."""
        value = self.raw(name)
        if value is None or isinstance(value, bool):
            return value
        self._expected(name, "true or false")
        return None

    def integer(self, name: str) -> int | None:
        """A field that is a whole number."""
        value = self.raw(name)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        self._expected(name, "a whole number")
        return None

    def number(self, name: str) -> float | None:
        """A field that is a number."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300:
            return float(value)
        self._expected(name, "a number")
        return None

    def duration(self, name: str) -> float | None:
        """A field that is a duration as Go writes it, in seconds."""
        value = self.raw(name)
        seconds = go_duration(value) if isinstance(value, str) else None
        if value is None or seconds is not None:
            return seconds
        self._expected(name, "a duration such as 500ms, 2s or 1m30s")
        return None

    def map(self, name: str) -> Reader | None:
        """A field that is a map; None if it is not there."""
        value = self.raw(name)
        return None if value is None else self._inside(value, name)

    def maps(self, name: str) -> list[Reader]:
        """A field that is a list of maps; empty if it is not there."""
        return [self._inside(each, name, index) for index, each in self._items(name)]

    def texts(self, name: str) -> list[str]:
        """A field that is a list of texts; empty if it is not there."""
        found = []
        for index, value in self._items(name):
            if isinstance(value, str):
                found.append(value)
            else:
                self.draft.note(self.resource.place(*self.path, name, index), "text is expected", "wrong")
        return found

    def entries(self, name: str) -> dict[str, str]:
        """A field that is a map of texts; empty if it is not there."""
        reader = self.map(name)
        if reader is None:
            return {}
        found = {}
        for key in reader.data:
            value = reader.text(key)
            if value is not None:
                found[key] = value
        return found

    def _inside(self, value: Any, *path: str | int) -> Reader:
        return Reader(self.draft, self.resource, value, (*self.path, *path), self.narrows)

    def narrowing(self) -> Reader:
        """The same map, as one that says which calls are meant: what is unknown in it is an error."""
        self.narrows = True
        return self

    def _items(self, name: str) -> list[tuple[int, Any]]:
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self._expected(name, "a list")
            return []
        return list(enumerate(value))

    def wrong(self, name: str | int | None, text: str) -> None:
        """Note an error."""
        self.draft.note(self.place(name), text, "wrong")

    def different(self, name: str | None, text: str) -> None:
        """Note that a field is honoured, but not to the letter."""
        self.draft.note(self.place(name), text, "different")

    def ignore(self, name: str, text: str) -> None:
        """Take a field that is not honoured; if it is there, note what differs."""
        if self.raw(name) is not None:
            self.draft.note(self.place(name), f"is not honoured: {text}", "ignored")

    def skip(self, *names: str) -> None:
        """Take fields that say nothing of how calls are made."""
        for name in names:
            self._take(name)

    def rest(self) -> None:
        """Note all fields that nobody took: they are none of this kind of document, or new in it.

        That is an error for a condition, and for what seems to be a slip for one: without it more calls are meant.
        """
        for name, value in self.data.items():
            if name not in self._taken:
                nearest = closest(str(name), self._taken)
                hint = f"; did you mean {nearest!r}?" if nearest else ""
                if value is not None and (self.narrows or nearest in NARROWING):
                    self.wrong(str(name), f"{WIDER}{hint}")
                else:
                    self.draft.note(self.place(str(name)), f"is not honoured: unknown field{hint}", "ignored")

    def _take(self, name: str) -> None:
        self._taken.append(name)
        steps = ["[]" if isinstance(step, int) else step for step in (*self.path, name)]
        self.draft.taken.add((self.resource.kind, ".".join(steps).replace(".[]", "[]")))

    def _expected(self, name: str, what: str) -> None:
        self.wrong(name, f"{what} is expected")
