"""The steps of a request that may have to wait, each in an event loop or in a thread.

They come between being taken in and being begun: see `meshlib.server.serving.Serving.enter`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from meshlib.policy.serving_lane import Waiter
    from meshlib.server.admission import Admission
    from meshlib.server.departure import Departure
    from meshlib.server.endpoints import Endpoints
    from meshlib.server.intake import Arrival
    from meshlib.server.refusal import Refusal
    from meshlib.server.served import Served
    from meshlib.server.serving import Serving

__all__ = ["ForAnswer", "ForPlace", "Waiting"]


class ForAnswer:
    """For an endpoint of the mesh itself, which may look at checks of the user's."""

    __slots__ = ("_endpoints", "_path", "_trusted")

    def __init__(self, endpoints: Endpoints, path: str, trusted: bool) -> None:
        self._endpoints = endpoints
        self._path = path
        self._trusted = trusted

    async def wait(self, departure: Departure | None = None) -> Refusal:
        """The answer, in an event loop."""
        return await self._endpoints.answer(self._path, self._trusted)

    def wait_blocking(self) -> Refusal:
        """The answer, in a thread or greenlet."""
        return self._endpoints.answer_blocking(self._path, self._trusted)


class ForPlace:
    """In the queue of admission."""

    __slots__ = ("_admission", "_arrival", "_serving", "_waiter")

    def __init__(self, serving: Serving, admission: Admission, arrival: Arrival, waiter: Waiter) -> None:
        self._serving = serving
        self._admission = admission
        self._arrival = arrival
        self._waiter = waiter

    async def wait(self, departure: Departure | None = None) -> Served | Refusal:
        """The request, begun, or why it is not; in an event loop.

        Args:
            departure: tells whether its client goes away meanwhile.
        """
        return self._serving.admitted(self._arrival, await self._admission.wait(self._waiter, departure))

    def wait_blocking(self) -> Served | Refusal:
        """The request, begun, or why it is not; in a thread or greenlet."""
        return self._serving.admitted(self._arrival, self._admission.wait_blocking(self._waiter))


Waiting: TypeAlias = ForAnswer | ForPlace
