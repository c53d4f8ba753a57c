"""What a declared call raises for an answer: one that is no success, and one that does not fit its type.

Failures without an answer are the mesh's own errors. Answers are not: a 404 is the service's word, so neither
`meshlib.fallback` nor a middleware takes these for a failure of the mesh.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

if TYPE_CHECKING:
    import httpx

    from meshlib.policy.record import Record

__all__ = ["B", "InvalidResponse", "ResponseError", "StatusError", "status_text"]

B = TypeVar("B", default=Any)


class ResponseError(Exception):
    """The root of what is raised for an answer.

    Attributes:
        operation: the class and the method: ``Orders.order``.
        service: that was called.
        method, route: of the request, as declared: ``GET``, ``/orders/{order_id}``.
        status: of the answer.
        headers: of the answer.
        record: what happened to the call; None if it did not go through the mesh.
        response: the answer, as httpx has it; None in a process that the error was sent to.
    """

    def __init__(
        self,
        message: str = "",
        *,
        operation: str = "",
        service: str = "",
        method: str = "",
        route: str = "",
        status: int = 0,
        headers: httpx.Headers | None = None,
        record: Record | None = None,
        response: httpx.Response | None = None,
    ) -> None:
        import httpx

        super().__init__(message)
        self.operation = operation
        self.service = service
        self.method = method
        self.route = route
        self.status = status
        self.headers = httpx.Headers() if headers is None else headers
        self.record = record
        self._response = response

    @property
    def response(self) -> httpx.Response | None:
        """The answer, as httpx has it."""
        return self.__dict__.get("_response")

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in self.__dict__.items() if name != "_response"}
        return _rebuild, (type(self), self.args, state, self.__cause__)


def _rebuild(
    cls: type[ResponseError], args: tuple[Any, ...], state: dict[str, Any], cause: BaseException | None
) -> ResponseError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    error.__cause__ = cause
    return error


class StatusError(ResponseError, Generic[B]):
    """The answer's status is none of success (2xx).

    Derive from it for an error of your own, with the type of its body: ``class NotFound(StatusError[Problem])``.

    Attributes:
        body: the answer's body, of the type that was declared; without one, what its JSON says, else its text. None if
            it does not fit; the cause says why.
    """

    def __init__(self, message: str = "", *, body: B | None = None, **state: Any) -> None:
        super().__init__(message, **state)
        self.body = body


class InvalidResponse(ResponseError):
    """The answer does not fit the declared type.

    Attributes:
        problems: of each field that does not: its path in the answer, and what is wrong. Values are not told.
    """

    def __init__(self, message: str = "", *, problems: tuple[tuple[str, str], ...] = (), **state: Any) -> None:
        super().__init__(message, **state)
        self.problems = problems


def status_text(status: int) -> str:
    """``404 Not Found``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
