"""What all events have in common; see `meshlib.telemetry.events`."""

from __future__ import annotations

import logging
import time
from typing import ClassVar

from meshlib.dataclass import dataclass, field

__all__ = ["Event"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something changed.

    Attributes:
        kind: a word for what it is; one per class.
        family: a word for what changed; of the events of one family about one subject, the last one says how things
            are.
        level: of the log line.
        says: the sentence, with the event's fields to be filled in.
        about: the fields that name the subject.
        service: that it is about; empty for the mesh as a whole.
        time: when, in seconds since the epoch.
    """

    kind: ClassVar[str] = "event"
    family: ClassVar[str] = ""
    level: ClassVar[int] = logging.INFO
    says: ClassVar[str] = ""
    about: ClassVar[tuple[str, ...]] = ("service",)

    service: str = ""
    time: float = field(default_factory=time.time)

    @property
    def subject(self) -> str:
        """What the event is about, as narrowly as it goes: its service, a cluster of it, or one endpoint."""
        return " ".join(getattr(self, name) for name in self.about)

    @property
    def text(self) -> str:
        """What happened, in a sentence."""
        return self.says.format(event=self).strip()

    def __str__(self) -> str:
        where = getattr(self, "cluster", self.service)
        return f"{where}: {self.text}" if where else self.text
