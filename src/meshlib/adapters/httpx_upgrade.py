"""Requests that ask for another protocol on their connection: the WebSockets of httpx2, and of httpx-ws.

Which endpoint they go to, and what happens if it cannot be reached, is the mesh's affair, as with any request. The
connection is one of the library's own transport, and the response has the ``network_stream`` that is talked over from
then on. Such a call is in flight until it is closed.
"""

from __future__ import annotations

from meshlib.adapters.httpx_wire import AsyncTransportWire, SyncTransportWire
from meshlib.config.settings import TlsSettings
from meshlib.dataclass import replace
from meshlib.errors import TLSFailed
from meshlib.net.wire import AsyncWireResponse, Progress, SyncWireResponse, Target, WireLimits, WireRequest

__all__ = ["AsyncUpgradeWire", "SyncUpgradeWire"]


class SyncUpgradeWire(SyncTransportWire):
    """The last hop of such requests from threads."""

    def send(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncWireResponse:
        """Send one attempt and return when the response's headers are there."""
        _check(target)
        return super().send(target, request, limits, progress)


class AsyncUpgradeWire(AsyncTransportWire):
    """The last hop of such requests from event loops."""

    async def send(
        self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress
    ) -> AsyncWireResponse:
        """Send one attempt and return when the response's headers are there."""
        _check(target)
        return await super().send(target, request, limits, progress)


def _check(target: Target) -> None:
    """The library's transports know nothing of the mesh's certificates, and are not to be used in their place.

    Raises:
        TLSFailed: if there are any.
    """
    if target.tls is not None and replace(target.tls, server_name=None) != TlsSettings():
        address = target.endpoint.address
        text = f"{address}: an upgrade of the connection (WebSocket) is not possible with the service's own `tls`"
        raise TLSFailed(text, endpoint=address, retryable=False)
