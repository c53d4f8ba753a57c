"""The decorators: what a method of a class says of a call besides its signature.

They look at what they are given at once, and leave the signature to `bind`: a class has to be complete before the names
in its annotations can be looked up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar, Unpack

from meshlib.adapters.declarative.encoding import checked_header
from meshlib.adapters.declarative.errors import StatusError
from meshlib.adapters.declarative.template import Template, parse_template
from meshlib.dataclass import dataclass
from meshlib.durations import Duration, parse_duration

__all__ = ["OPERATION", "PAGES", "Operation", "delete", "get", "head", "options", "patch", "post", "put", "request"]

F = TypeVar("F", bound=Callable[..., Any])

Errors = Mapping[int | str, Any]

OPERATION = "__meshlib_operation__"
PAGES = "__meshlib_pages__"
"""The attributes of a function that have what it declares."""

_STATUS_CLASS = re.compile(r"[1-5][xX][xX]")
_METHOD = re.compile(r"[A-Z][A-Z0-9-]*")


@dataclass(frozen=True, slots=True)
class Operation:
    """What a decorator says.

    Attributes:
        method: of HTTP.
        template: of the path.
        errors: by status, by class of statuses (``"4xx"``), or ``"default"``: what the body of such an answer is, the
            exception to raise, or None for an answer that means None.
        headers: that every call has.
        timeout_s: for each call as a whole; None for the configuration's.
        idempotent: whether a call may be repeated; None for what the method says.
    """

    method: str
    template: Template
    errors: Errors
    headers: tuple[tuple[str, str], ...]
    timeout_s: float | None
    idempotent: bool | None


class Said(TypedDict, total=False):
    """What each of the decorators takes besides the path; see `request`."""

    errors: Errors | None
    headers: Mapping[str, str] | None
    timeout: Duration | None
    idempotent: bool | None


def request(
    method: str,
    path: str,
    *,
    errors: Errors | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: Duration | None = None,
    idempotent: bool | None = None,
) -> Callable[[F], F]:
    """Declare a method of a class as a call.

    Args:
        method: of HTTP: ``"GET"``.
        path: a template: ``/orders/{order_id}``; ``/files/{name:path}`` for a value with slashes.
        errors: what to raise for which status: by number, class (``"4xx"``) or ``"default"``, which is for all others
            that are no success. A type is what the body of a `StatusError` is read as; a class derived from
            `StatusError` is raised; None has the method return None.
        headers: that every call has.
        timeout: for each call as a whole; None for the configuration's.
        idempotent: whether a call may be repeated although it may have been processed; None for what the method says.

    Raises:
        ValueError, TypeError: if one of these is wrong.
    """
    if not _METHOD.fullmatch(method):
        raise ValueError(f"{method!r} is no method of HTTP; it is written in upper case")
    made = Operation(
        method,
        parse_template(path),
        _errors_of(errors or {}),
        tuple((name, checked_header(name, value)) for name, value in (headers or {}).items()),
        None if timeout is None else parse_duration(timeout),
        idempotent,
    )

    def declare(function: F) -> F:
        if not hasattr(function, "__code__"):
            raise TypeError(f"@{method.lower()}({path!r}) is for a method, not for {type(function).__name__}")
        if hasattr(function, OPERATION):
            raise TypeError(f"{function.__qualname__} is declared twice")
        setattr(function, OPERATION, made)
        return function

    return declare


def _errors_of(given: Errors) -> Errors:
    made: dict[int | str, Any] = {}
    for key, value in given.items():
        if isinstance(key, str) and (key == "default" or _STATUS_CLASS.fullmatch(key)):
            made[key if key == "default" else int(key[0])] = value
        elif isinstance(key, int) and 100 <= key <= 599:
            made[key] = value
        else:
            raise ValueError(f"errors: {key!r} is no status; it can be 404, '4xx' or 'default'")
        if isinstance(value, type) and issubclass(value, BaseException) and not issubclass(value, StatusError):
            raise TypeError(f"errors: {value.__name__}, for {key}, has to derive from meshlib's StatusError")
    return made


def get(path: str, **said: Unpack[Said]) -> Callable[[F], F]:
    """Declare a method of a class as a GET; for the parameters see `request`."""
    return request("GET", path, **said)


def head(path: str, **said: Unpack[Said]) -> Callable[[F], F]:
    """Declare a method of a class as a HEAD; for the parameters see `request`."""
    return request("HEAD", path, **said)


def post(path: str, **said: Unpack[Said]) -> Callable[[F], F]:
    """Declare a method of a class as a POST; for the parameters see `request`."""
    return request("POST", path, **said)


def put(path: str, **said: Unpack[Said]) -> Callable[[F], F]:
    """Declare a method of a class as a PUT; for the parameters see `request`."""
    return request("PUT", path, **said)


def patch(path: str, **said: Unpack[Said]) -> Callable[[F], F]:
    """Declare a method of a class as a PATCH; for the parameters see `request`."""
    return request("PATCH", path, **said)


def delete(path: str, **said: Unpack[Said]) -> Callable[[F], F]:
    """Declare a method of a class as a DELETE; for the parameters see `request`."""
    return request("DELETE", path, **said)


def options(path: str, **said: Unpack[Said]) -> Callable[[F], F]:
    """Declare a method of a class as an OPTIONS; for the parameters see `request`."""
    return request("OPTIONS", path, **said)
