"""Names of hosts, some with a wildcard in front: which of them a name is meant by, the most specific first.

As in Istio (``pkg/config/host/name.go``) ``*.example.com`` is every name below ``example.com``, at any depth, and not
``example.com`` itself; ``*`` is every name. Unlike there letters have no case, and a dot at the end says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["HostTable", "hosts_meet", "is_part_of"]

T = TypeVar("T")


class HostTable(Generic[T]):
    """What is known of hosts, each ``name``, ``name:port``, ``*.name``, ``*.name:port``, ``*`` or ``*:port``."""

    __slots__ = ("_below", "_exact")

    def __init__(self, entries: Iterable[tuple[str, T]]) -> None:
        self._exact: dict[str, T] = {}
        self._below: dict[str, T] = {}  # by what follows the asterisk
        for pattern, value in entries:
            name, colon, port = pattern.lower().partition(":") if pattern[:1] != "[" else (pattern.lower(), "", "")
            key = name.removesuffix(".") + colon + port
            if key[:1] == "*":
                self._below[key[1:]] = value
            else:
                self._exact[key] = value

    def find(self, name: str, port: int | None) -> T | None:
        """What is known of a host: as such rather than through a wildcard, with its port rather than without.

        Args:
            name: in lower case.
            port: None where there is none to go by.
        """
        found = None if port is None else self._exact.get(f"{name}:{port}")
        if found is None:
            found = self._exact.get(name)
        if found is None and name[-1:] == ".":
            return self.find(name[:-1], port)
        return self._under_wildcard(name, port) if found is None and self._below else found

    def _under_wildcard(self, name: str, port: int | None) -> T | None:
        dot = name.find(".")
        while True:
            rest = name[dot:] if dot >= 0 else ""
            found = None if port is None else self._below.get(f"{rest}:{port}")
            if found is None:
                found = self._below.get(rest)
            if found is not None or dot < 0:
                return found
            dot = name.find(".", dot + 1)


def hosts_meet(one: str, other: str) -> bool:
    """Whether some name is meant by both (Istio's ``Name.Matches``). In one case, and without ports."""
    if one[:1] == "*" and other[:1] == "*":
        longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
        return longer.endswith(shorter[1:])
    if one[:1] == "*":
        return other.endswith(one[1:])
    return one.endswith(other[1:]) if other[:1] == "*" else one == other


def is_part_of(one: str, other: str) -> bool:
    """Whether every name that `one` means is meant by `other` (Istio's ``Name.SubsetOf``)."""
    if other[:1] != "*":
        return one == other
    return one.removeprefix("*").endswith(other[1:]) and (one[:1] != "*" or len(one) >= len(other))
