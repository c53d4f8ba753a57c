"""The mesh's errors as those of requests: each is also the exception that a user of requests already catches.

All are module-level classes, so they can be pickled; the request does not travel with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from requests import PreparedRequest, exceptions

from meshlib import errors
from meshlib.adapters.translated import of_the_same_name, translated

__all__ = ["as_requests", "from_requests"]


class _WithRequest:
    # What `requests.RequestException` has: the request, which does not travel, and no response.
    _request: PreparedRequest | None = None
    response: Any = None

    def __new__(cls, *args: Any, **state: Any) -> Self:
        return OSError.__new__(cls, *args)  # type: ignore[type-var]

    if TYPE_CHECKING:
        request: Any
    else:

        @property
        def request(self) -> PreparedRequest | None:
            return self._request


class AttemptTimeout(_WithRequest, errors.AttemptTimeout, exceptions.ReadTimeout):
    """Also a `requests.exceptions.ReadTimeout`."""


class BodyBroken(_WithRequest, errors.BodyBroken, exceptions.ChunkedEncodingError, exceptions.ConnectionError):
    """Also a `requests.exceptions.ChunkedEncodingError`, as which requests tells it, and a `ConnectionError`."""


class CircuitOpen(_WithRequest, errors.CircuitOpen, exceptions.ConnectionError):
    """Also a `requests.exceptions.ConnectionError`."""


class ConnectFailed(_WithRequest, errors.ConnectFailed, exceptions.ConnectionError):
    """Also a `requests.exceptions.ConnectionError`."""


class ConnectTimeout(_WithRequest, errors.ConnectTimeout, exceptions.ConnectTimeout):
    """Also a `requests.exceptions.ConnectTimeout`."""


class DeadlineExceeded(_WithRequest, errors.DeadlineExceeded, exceptions.ReadTimeout):
    """Also a `requests.exceptions.ReadTimeout`, and so a `requests.exceptions.Timeout`."""


class DiscoveryUnavailable(_WithRequest, errors.DiscoveryUnavailable, exceptions.ConnectionError):
    """Also a `requests.exceptions.ConnectionError`."""


class EgressRefused(_WithRequest, errors.EgressRefused, exceptions.ConnectionError):
    """Also a `requests.exceptions.ConnectionError`."""


class LimitExceeded(_WithRequest, errors.LimitExceeded, exceptions.ConnectionError):
    """Also a `requests.exceptions.ConnectionError`."""


class MeshClosed(_WithRequest, errors.MeshClosed, exceptions.ConnectionError):
    """Also a `requests.exceptions.ConnectionError`, which is what requests raises where its pool was closed."""


class NoEndpoint(_WithRequest, errors.NoEndpoint, exceptions.ConnectionError):
    """Also a `requests.exceptions.ConnectionError`."""


class PoolTimeout(_WithRequest, errors.PoolTimeout, exceptions.ConnectTimeout):
    """Also a `requests.exceptions.ConnectTimeout`: nothing was sent."""


class ProtocolError(_WithRequest, errors.ProtocolError, exceptions.ConnectionError):
    """Also a `requests.exceptions.ConnectionError`."""


class RateLimited(_WithRequest, errors.RateLimited, exceptions.ConnectionError):
    """Also a `requests.exceptions.ConnectionError`, as every `LimitExceeded`."""


class RequestBodyError(_WithRequest, errors.RequestBodyError, exceptions.RequestException):
    """Also a `requests.exceptions.RequestException`."""


class Reset(_WithRequest, errors.Reset, exceptions.ConnectionError):
    """Also a `requests.exceptions.ConnectionError`."""


class TLSFailed(_WithRequest, errors.TLSFailed, exceptions.SSLError):
    """Also a `requests.exceptions.SSLError`."""


class UnknownService(_WithRequest, errors.UnknownService, exceptions.ConnectionError):
    """Also a `requests.exceptions.ConnectionError`, which is what requests raises where a name does not resolve."""


_AS_REQUESTS = of_the_same_name(globals())


def as_requests(error: errors.MeshError, request: PreparedRequest) -> errors.MeshError:
    """The same error, as the exception that a user of requests catches. Its cause is that of `error`."""
    return translated(error, _AS_REQUESTS, _request=request)


def from_requests(error: exceptions.RequestException, endpoint: str) -> errors.MeshError:
    """What an exception of an adapter of requests means to the mesh."""
    text = str(error) or type(error).__name__
    match error:
        case exceptions.ConnectTimeout():
            return errors.ConnectTimeout(text, endpoint=endpoint)
        case exceptions.Timeout():
            return errors.AttemptTimeout(text, endpoint=endpoint, phase="headers")
        case exceptions.SSLError():
            return errors.TLSFailed(text, endpoint=endpoint)
        case exceptions.ConnectionError() if _refused(error):
            return errors.ConnectFailed(text, endpoint=endpoint)
        case exceptions.ConnectionError() | exceptions.ChunkedEncodingError():
            return errors.Reset(text, endpoint=endpoint)
        case _:
            return errors.RequestBodyError(text)


def _refused(error: exceptions.ConnectionError) -> bool:
    """Whether there was no connection at all: what urllib3 says is the first argument, and of some the reason's."""
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    said = error.args[0] if error.args else None
    return isinstance(said.reason if isinstance(said, MaxRetryError) else said, NewConnectionError)
