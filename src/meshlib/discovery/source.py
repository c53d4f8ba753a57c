"""The protocol of a discovery source: one file per source, nothing else to touch.

A source is asked for one service at a time and answers with a stream of whole sets of endpoints. Three answers mean
three things, and only the first two are answers:

- a tuple of endpoints: the source knows the service (an empty tuple: it knows it, and nobody serves it now);
- `UNKNOWN`: the source does not know the service, so the next source in the configuration is asked;
- an exception: the source is unwell. Nobody else is asked (another registry's answer would be a guess), the last good
  set stays in use, and the watch is started again after a jittered back-off.
"""

from __future__ import annotations

import enum
import re
from collections.abc import AsyncGenerator, Callable
from typing import Final, Protocol, TypeAlias, runtime_checkable

from meshlib.balance.endpoint import Endpoint
from meshlib.dataclass import dataclass, field

__all__ = [
    "UNKNOWN",
    "Answer",
    "Instance",
    "Registrar",
    "SharedRegistrar",
    "Source",
    "Standing",
    "TellingRegistrar",
    "Unknown",
    "Written",
    "is_host",
]

_HOST = re.compile(r"[0-9A-Za-z_.:%-]{1,253}")


class Unknown(enum.Enum):
    """The type of `UNKNOWN`."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""This source does not know the service."""

Answer: TypeAlias = tuple[Endpoint, ...] | Unknown


def is_host(text: str) -> bool:
    """Whether `text` can be a host's name or address. Others may write to a registry, and what they write as a host
    comes into logs, ``Host`` headers and URLs.
    """
    return _HOST.fullmatch(text) is not None


class Source(Protocol):
    """Where endpoints come from."""

    name: str
    """For logs and `Mesh.status()`: ``consul``, ``local``, ..."""

    def watch(self, service: str) -> AsyncGenerator[Answer, None]:
        """Yield the set of endpoints of `service` now, and again whenever it changes, for ever.

        Runs on the control plane's event loop. It must hold no resource once it is closed (``aclose``), must not
        swallow cancellation, and raises any exception when the source cannot be asked. It need not retry, nor remember.
        """
        ...

    async def aclose(self) -> None:
        """Release what the source holds (an HTTP client, a file). Called once, on the control plane's loop."""
        ...


@runtime_checkable
class Written(Protocol):
    """A source that need not be asked: what it says of a service is known, and never changes. It is not watched."""

    def written(self, service: str) -> Answer:
        """What its watch would yield."""
        ...


@dataclass(frozen=True, slots=True)
class Instance:
    """This process, as it is entered into a registry.

    Attributes:
        service: the logical name under which callers find it.
        host, port: where callers reach it.
        instance_id: unique in the registry.
        weight: its share of calls relative to the others.
        metadata: what subsets select by.
        check_path: an HTTP path that the registry (or the process itself) checks; None for a TCP or process check.
        check_interval_s: seconds between checks.
    """

    service: str
    host: str
    port: int
    instance_id: str
    weight: float = 1.0
    metadata: dict[str, str] = field(default_factory=dict)
    check_path: str | None = None
    check_interval_s: float = 5.0


@runtime_checkable
class Registrar(Protocol):
    """A source into which a process can also enter itself."""

    async def register(self, instance: Instance) -> None:
        """Enter `instance` and keep it entered (heartbeats, re-entry after the registry lost it) until `deregister`.

        Raises:
            RegistrationFailed: if the first entry fails.
        """
        ...

    async def deregister(self, instance: Instance) -> None:
        """Remove `instance`. Does nothing if it is not there."""
        ...


class Standing:
    """Whether an entry that a registrar keeps up is in its registry, as far as it knows.

    Attributes:
        changed: called with why the registry has lost it, and with an empty text when it is there again.
    """

    __slots__ = ("_lost", "changed")

    def __init__(self) -> None:
        self.changed: Callable[[str], object] | None = None
        self._lost = False

    def lost(self, why: str) -> None:
        """It is gone, against the will of the one that entered it."""
        if not self._lost:
            self._lost = True
            if self.changed is not None:
                self.changed(why)

    def there(self) -> None:
        """It is there."""
        if self._lost:
            self._lost = False
            if self.changed is not None:
                self.changed("")


@runtime_checkable
class TellingRegistrar(Registrar, Protocol):
    """A registrar that says when the registry has lost an entry, and when it is there again."""

    def standing(self, instance: Instance) -> Standing | None:
        """Return that of an instance that it keeps up; None of another."""
        ...


@runtime_checkable
class SharedRegistrar(Registrar, Protocol):
    """A registrar whose entries the processes that serve one port hold one after another, under one id."""

    place: str
    """Which registry it is: two of one place are the same."""

    notice_s: float
    """How long it takes, with a margin, until callers have heard that an instance has gone."""

    async def hand_over(self, instance: Instance) -> None:
        """Look after `instance` no more, but leave it there: another process has entered it, under the same id."""
        ...

    async def clear(self, instance: Instance) -> None:
        """Remove what a process that was killed has left behind. Does nothing if it cannot."""
        ...
