"""The mesh's errors as those of aiohttp: each is also the exception that a user of aiohttp already catches.

All are module-level classes, so they can be pickled; the request does not travel with them.
"""

from __future__ import annotations

from typing import Any, Self

import aiohttp
from aiohttp import client_exceptions as exceptions
from aiohttp.client_reqrep import ConnectionKey

from meshlib import errors
from meshlib.adapters.translated import of_the_same_name, translated

__all__ = ["as_aiohttp", "from_aiohttp"]

_NO_KEY = ConnectionKey("", None, False, True, None, None, None)


class _AsText:
    # Of several exceptions of aiohttp the text is made of parts that an error of the mesh has otherwise, or has not.
    __str__ = Exception.__str__
    __reduce__: Any = errors.MeshError.__reduce__
    message: Any


class _OfConnector(_AsText):
    # What `aiohttp.ClientConnectorError` tells besides: host, port and TLS as the caller wrote them.
    _conn_key: Any = _NO_KEY
    _os_error: Any = OSError()

    def __new__(cls, *args: Any, **state: Any) -> Self:
        return OSError.__new__(cls, *args)  # type: ignore[type-var]


class AttemptTimeout(_AsText, errors.AttemptTimeout, exceptions.SocketTimeoutError):
    """Also an `aiohttp.SocketTimeoutError`, and so an `aiohttp.ServerTimeoutError`."""


class BodyBroken(_AsText, errors.BodyBroken, exceptions.ClientPayloadError):
    """Also an `aiohttp.ClientPayloadError`."""


class CircuitOpen(_OfConnector, errors.CircuitOpen, exceptions.ClientConnectorError):
    """Also an `aiohttp.ClientConnectorError`."""


class ConnectFailed(_OfConnector, errors.ConnectFailed, exceptions.ClientConnectorError):
    """Also an `aiohttp.ClientConnectorError`."""


class ConnectTimeout(_AsText, errors.ConnectTimeout, exceptions.ConnectionTimeoutError):
    """Also an `aiohttp.ConnectionTimeoutError`, and so an `aiohttp.ServerTimeoutError`."""


class DeadlineExceeded(_AsText, errors.DeadlineExceeded, exceptions.ServerTimeoutError):
    """Also an `aiohttp.ServerTimeoutError`, and so a `TimeoutError`."""


class DiscoveryUnavailable(_OfConnector, errors.DiscoveryUnavailable, exceptions.ClientConnectorError):
    """Also an `aiohttp.ClientConnectorError`."""


class EgressRefused(_OfConnector, errors.EgressRefused, exceptions.ClientConnectorError):
    """Also an `aiohttp.ClientConnectorError`."""


class LimitExceeded(_AsText, errors.LimitExceeded, exceptions.ConnectionTimeoutError):
    """Also an `aiohttp.ConnectionTimeoutError`, which is what aiohttp raises where too many calls wait."""


class MeshClosed(_AsText, errors.MeshClosed, exceptions.ClientConnectionError):
    """Also an `aiohttp.ClientConnectionError`."""


class NoEndpoint(_OfConnector, errors.NoEndpoint, exceptions.ClientConnectorError):
    """Also an `aiohttp.ClientConnectorError`."""


class PoolTimeout(_AsText, errors.PoolTimeout, exceptions.ConnectionTimeoutError):
    """Also an `aiohttp.ConnectionTimeoutError`."""


class ProtocolError(_AsText, errors.ProtocolError, exceptions.ServerConnectionError):
    """Also an `aiohttp.ServerConnectionError`."""


class RateLimited(_AsText, errors.RateLimited, exceptions.ConnectionTimeoutError):
    """Also an `aiohttp.ConnectionTimeoutError`, as every `LimitExceeded`."""


class RequestBodyError(_AsText, errors.RequestBodyError, exceptions.ClientConnectionError):
    """Also an `aiohttp.ClientConnectionError`, as which aiohttp tells that a body could not be sent."""


class Reset(_AsText, errors.Reset, exceptions.ServerDisconnectedError):
    """Also an `aiohttp.ServerDisconnectedError`."""


class TLSFailed(_OfConnector, errors.TLSFailed, exceptions.ClientConnectorSSLError):
    """Also an `aiohttp.ClientConnectorSSLError`."""


class UnknownService(_OfConnector, errors.UnknownService, exceptions.ClientConnectorDNSError):
    """Also an `aiohttp.ClientConnectorDNSError`."""


_AS_AIOHTTP = of_the_same_name(globals())


def as_aiohttp(error: errors.MeshError, request: aiohttp.ClientRequest) -> errors.MeshError:
    """The same error, as the exception that a user of aiohttp catches. Its cause is that of `error`."""
    cause = error.__cause__
    os_error = cause if isinstance(cause, OSError) else OSError(None, error.message)
    return translated(error, _AS_AIOHTTP, _conn_key=request.connection_key, _os_error=os_error)


def from_aiohttp(error: aiohttp.ClientError, endpoint: str) -> errors.MeshError:
    """What an exception of aiohttp means to the mesh."""
    text = str(error) or type(error).__name__
    match error:
        case exceptions.ConnectionTimeoutError():
            return errors.ConnectTimeout(text, endpoint=endpoint)
        case exceptions.ServerTimeoutError():
            return errors.AttemptTimeout(text, endpoint=endpoint, phase="headers")
        case exceptions.ClientSSLError():
            return errors.TLSFailed(text, endpoint=endpoint)
        case exceptions.ClientConnectorError():
            return errors.ConnectFailed(text, endpoint=endpoint)
        case exceptions.ClientConnectionError():
            return errors.Reset(text, endpoint=endpoint)
        case exceptions.ClientResponseError():
            return errors.ProtocolError(text, endpoint=endpoint)
        case _:
            return errors.RequestBodyError(text)
