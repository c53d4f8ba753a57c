"""The connection of a response that switched to another protocol, with the errors that the library's WebSockets expect:
those of httpcore, or httpcore2, beneath it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.adapters.httpx_library import Library

__all__ = ["AsyncNetworkStream", "NetworkStream"]

_BROKEN = (OSError, ValueError)  # the latter where it was closed by another thread


class NetworkStream:
    """That of a call from a thread.

    Args:
        library: whose errors are raised.
        stream: of the wire.
    """

    def __init__(self, library: Library, stream: Any) -> None:
        self._core: Any = import_module(library.httpx.__name__.replace("httpx", "httpcore"))
        self._stream = stream

    def get_extra_info(self, info: str) -> Any:
        """As the wire's."""
        return self._stream.get_extra_info(info)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Read; `timeout` in seconds."""
        try:
            data: bytes = self._stream.read(max_bytes, timeout)
            return data
        except TimeoutError as error:
            raise self._core.ReadTimeout(str(error)) from error
        except _BROKEN as error:
            raise self._core.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write; `timeout` in seconds."""
        try:
            self._stream.write(buffer, timeout)
        except TimeoutError as error:
            raise self._core.WriteTimeout(str(error)) from error
        except _BROKEN as error:
            raise self._core.WriteError(str(error)) from error

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()


class AsyncNetworkStream(NetworkStream):
    """That of a call from an event loop."""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # type: ignore[override]
        """Read; `timeout` in seconds."""
        try:
            data: bytes = await self._stream.read(max_bytes, timeout)
            return data
        except TimeoutError as error:
            raise self._core.ReadTimeout(str(error)) from error
        except _BROKEN as error:
            raise self._core.ReadError(str(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # type: ignore[override]
        """Write; `timeout` in seconds."""
        try:
            await self._stream.write(buffer, timeout)
        except TimeoutError as error:
            raise self._core.WriteTimeout(str(error)) from error
        except _BROKEN as error:
            raise self._core.WriteError(str(error)) from error

    async def aclose(self) -> None:
        """Close the connection."""
        await self._stream.aclose()
