"""The record of a call, from what the call gave: a response of any client, or an error."""

from __future__ import annotations

from typing import Any

from meshlib.adapters.options import EXTENSION
from meshlib.errors import MeshError
from meshlib.policy.record import Record

__all__ = ["record"]


def record(outcome: Any) -> Record | None:
    """What happened to a call: its route, attempts, waits, and the limit that cut it.

    Args:
        outcome: the response that the call returned, or the error that it raised.

    Returns:
        The record; None if the call did not go through the mesh.
    """
    if isinstance(outcome, MeshError):
        return outcome.record
    extensions = getattr(outcome, "extensions", None)
    exchange = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
    made = getattr(exchange, "record", None)
    if not callable(made):
        return None
    result = made()
    return result if isinstance(result, Record) else None
