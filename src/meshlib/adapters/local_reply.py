"""Responses made in this process, in the form in which a wire gives those that came from elsewhere."""

from __future__ import annotations

from typing import Any, Final

from meshlib.net.body import ReadyBody
from meshlib.net.wire import AsyncWireResponse, SyncWireResponse
from meshlib.policy.actions import Reply
from meshlib.policy.call import Call

__all__ = ["FAULT_EXTENSION", "REPLY_EXTENSION", "async_reply", "sync_reply"]

FAULT_EXTENSION: Final = "meshlib.fault"
"""The extension of a response that an injected fault made: which, in words."""

REPLY_EXTENSION: Final = "meshlib.reply"
"""The extension of a response that a route gave itself: what it is, in words."""


def sync_reply(reply: Reply, call: Call) -> SyncWireResponse:
    """`reply`, with which the `call` ended, for a thread."""
    body, extensions = ReadyBody([reply.body]), _extensions(call)
    return SyncWireResponse(reply.status, reply.headers, body, body.close, extensions=extensions, content=reply.body)


def async_reply(reply: Reply, call: Call) -> AsyncWireResponse:
    """`reply`, with which the `call` ended, for an event loop."""
    body, extensions = ReadyBody([reply.body]), _extensions(call)
    return AsyncWireResponse(reply.status, reply.headers, body, body.aclose, extensions=extensions, content=reply.body)


def _extensions(call: Call) -> dict[str, Any]:
    traits = call.traits
    if traits is not None and traits.answer is not None and traits.replied:
        return {REPLY_EXTENSION: traits.answer.text}
    return {FAULT_EXTENSION: call.journal.fault}
