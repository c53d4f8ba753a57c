"""What the mesh of a service says of itself, kept for whoever asks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from meshlib.mesh import Mesh
from meshlib.telemetry.events import Event

__all__ = ["Journal"]


class Journal:
    """The events of a mesh since it was made, and its state."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._events: list[Event] = []
        mesh.on_event(self._events.append)

    def told(self, since: int) -> dict[str, Any]:
        """The state of now, and the events from number `since` on."""
        events = [
            {"kind": event.kind, "text": str(event), "service": event.service, "time": event.time}
            for event in self._events[since:]
        ]
        return {"status": asdict(self._mesh.status()), "events": events, "next": since + len(events)}
