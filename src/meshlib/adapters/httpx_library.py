"""httpx and httpx2: two libraries of one interface, and of classes that do not know each other's.

What is written for both is written once, in classes that have neither's for a base, and asks its `library` for what
is the library's own. `Library` makes the classes that stand before a library: a stream of httpx is one of ours and an
`httpx.SyncByteStream`, one of httpx2 the same and an `httpx2.SyncByteStream`. So the two differ in one argument, and
neither is imported for the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshlib.adapters.httpx_lean import LeanCall
    from meshlib.adapters.httpx_lean_response import LeanResponse
    from meshlib.adapters.httpx_lean_url import Place

    class Foreign(Any):  # type: ignore[misc]
        """The base of classes that become a library's own by a further base of that library."""
else:
    Foreign = object

__all__ = ["NO_TIMEOUTS", "Foreign", "Library"]

NO_TIMEOUTS: dict[str, float | None] = dict.fromkeys(("connect", "read", "write", "pool"))
"""What either library tells a transport where no timeout is set."""


class Library:
    """One of the two.

    Args:
        module: it.

    Attributes:
        httpx: the module.
        log: where it logs a line for each request.
        unset: what stands for an argument that was not given.
        no_phases: its ``Timeout`` without any.
        lean_call, place, response, async_response, file_stream, ...: our classes, as its own.
    """

    def __init__(self, module: ModuleType) -> None:
        from meshlib.adapters import httpx_clients, httpx_lean, httpx_lean_response, httpx_lean_url, httpx_streams

        self.httpx = module
        self.log = logging.getLogger(module.__name__)
        self.unset = module.USE_CLIENT_DEFAULT
        self.no_phases = module.Timeout(None)
        sync, both = module.SyncByteStream, (module.SyncByteStream, module.AsyncByteStream)
        asynchronous = module.AsyncByteStream

        self.lean_call: type[LeanCall] = self.own(httpx_lean.LeanCall)
        self.place: type[Place] = self.own(httpx_lean_url.Place)
        self.response: type[LeanResponse] = self.own(httpx_lean_response.LeanResponse, module.Response)
        self.async_response: type[LeanResponse] = self.own(httpx_lean_response.AsyncLeanResponse, self.response)
        self.spent: Callable[[bytes], Any] = self.own(httpx_lean_response.Spent, sync)
        self.async_spent: Callable[[bytes], Any] = self.own(httpx_lean_response.AsyncSpent, asynchronous)
        self.replayed: type[httpx_lean_response.Replayed] = self.own(httpx_lean_response.Replayed, *both)
        self.file_stream: type[httpx_streams.FileStream] = self.own(httpx_streams.FileStream, *both)
        self.sync_stream: type[httpx_streams.SyncResponseStream] = self.own(httpx_streams.SyncResponseStream, sync)
        self.async_stream: type[httpx_streams.AsyncResponseStream] = self.own(
            httpx_streams.AsyncResponseStream, asynchronous
        )
        self.cookies: Callable[[Any], Any] = self.own(httpx_clients.Cookies, module.Cookies)
        self.sync_upload: Callable[[Any], Any] = self.own(httpx_streams.SyncUpload, sync)
        self.async_upload: Callable[[Any], Any] = self.own(httpx_streams.AsyncUpload, asynchronous)

    def own(self, cls: type[Any], *bases: type[Any]) -> Any:
        """A class of ours that is one of the library's, too."""
        names = {"library": self, "__slots__": (), "__module__": cls.__module__, "__doc__": cls.__doc__}
        return type(cls.__name__, (cls, *bases), names)

    def __repr__(self) -> str:
        return f"<Library {self.httpx.__name__}>"
