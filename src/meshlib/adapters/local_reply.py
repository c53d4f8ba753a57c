"""Responses made in this process, in the form in which a wire gives those that came from elsewhere."""

from __future__ import annotations

from typing import Final

from meshlib.net.body import ReadyBody
from meshlib.net.wire import AsyncWireResponse, SyncWireResponse
from meshlib.policy.actions import Reply

__all__ = ["FAULT_EXTENSION", "async_reply", "sync_reply"]

FAULT_EXTENSION: Final = "meshlib.fault"
"""The extension of a response that an injected fault made: which, in words."""


def sync_reply(reply: Reply, fault: str | None) -> SyncWireResponse:
    """`reply`, which the `fault` made, for a thread."""
    body, extensions = ReadyBody([reply.body]), {FAULT_EXTENSION: fault}
    return SyncWireResponse(reply.status, reply.headers, body, body.close, extensions=extensions, content=reply.body)


def async_reply(reply: Reply, fault: str | None) -> AsyncWireResponse:
    """`reply`, which the `fault` made, for an event loop."""
    body, extensions = ReadyBody([reply.body]), {FAULT_EXTENSION: fault}
    return AsyncWireResponse(reply.status, reply.headers, body, body.aclose, extensions=extensions, content=reply.body)
