"""The mesh's errors as httpx's: each is also the exception that a user of httpx already catches, with ``.request`` set.

All are module-level classes, so they can be pickled; the request does not travel with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import httpx

from meshlib import errors

__all__ = ["as_httpx", "from_httpx"]


class _WithRequest:
    # What `httpx.RequestError.request` reads; the class's value serves errors that were unpickled.
    _request: httpx.Request | None = None


class AttemptTimeout(_WithRequest, errors.AttemptTimeout, httpx.ReadTimeout):
    """Also an `httpx.ReadTimeout`."""


class BodyBroken(_WithRequest, errors.BodyBroken, httpx.RemoteProtocolError):
    """Also an `httpx.RemoteProtocolError`."""


class CircuitOpen(_WithRequest, errors.CircuitOpen, httpx.ConnectError):
    """Also an `httpx.ConnectError`."""


class ConnectFailed(_WithRequest, errors.ConnectFailed, httpx.ConnectError):
    """Also an `httpx.ConnectError`."""


class ConnectTimeout(_WithRequest, errors.ConnectTimeout, httpx.ConnectTimeout):
    """Also an `httpx.ConnectTimeout`."""


class DeadlineExceeded(_WithRequest, errors.DeadlineExceeded, httpx.ReadTimeout):
    """Also an `httpx.ReadTimeout`, and so an `httpx.TimeoutException`."""


class DiscoveryUnavailable(_WithRequest, errors.DiscoveryUnavailable, httpx.ConnectError):
    """Also an `httpx.ConnectError`."""


class EgressRefused(_WithRequest, errors.EgressRefused, httpx.ConnectError):
    """Also an `httpx.ConnectError`."""


class LimitExceeded(_WithRequest, errors.LimitExceeded, httpx.PoolTimeout):
    """Also an `httpx.PoolTimeout`, which is what httpx raises where too many calls wait."""


class MeshClosed(_WithRequest, errors.MeshClosed, httpx.TransportError):
    """Also an `httpx.TransportError`."""


class NoEndpoint(_WithRequest, errors.NoEndpoint, httpx.ConnectError):
    """Also an `httpx.ConnectError`."""


class PoolTimeout(_WithRequest, errors.PoolTimeout, httpx.PoolTimeout):
    """Also an `httpx.PoolTimeout`."""


class ProtocolError(_WithRequest, errors.ProtocolError, httpx.RemoteProtocolError):
    """Also an `httpx.RemoteProtocolError`."""


class RateLimited(_WithRequest, errors.RateLimited, httpx.PoolTimeout):
    """Also an `httpx.PoolTimeout`, as every `LimitExceeded`."""


class RequestBodyError(_WithRequest, errors.RequestBodyError, httpx.LocalProtocolError, httpx.WriteError):
    """Also an `httpx.LocalProtocolError`, as which httpx refuses such requests, and an `httpx.WriteError`."""


class Reset(_WithRequest, errors.Reset, httpx.ReadError):
    """Also an `httpx.ReadError`."""


class TLSFailed(_WithRequest, errors.TLSFailed, httpx.ConnectError):
    """Also an `httpx.ConnectError`."""


class UnknownService(_WithRequest, errors.UnknownService, httpx.ConnectError):
    """Also an `httpx.ConnectError`, which is what httpx raises where a name does not resolve."""


_AS_HTTPX: Mapping[type[errors.MeshError], type[errors.MeshError]] = MappingProxyType(
    {
        errors.AttemptTimeout: AttemptTimeout,
        errors.BodyBroken: BodyBroken,
        errors.CircuitOpen: CircuitOpen,
        errors.ConnectFailed: ConnectFailed,
        errors.ConnectTimeout: ConnectTimeout,
        errors.DeadlineExceeded: DeadlineExceeded,
        errors.DiscoveryUnavailable: DiscoveryUnavailable,
        errors.EgressRefused: EgressRefused,
        errors.LimitExceeded: LimitExceeded,
        errors.MeshClosed: MeshClosed,
        errors.NoEndpoint: NoEndpoint,
        errors.PoolTimeout: PoolTimeout,
        errors.ProtocolError: ProtocolError,
        errors.RateLimited: RateLimited,
        errors.RequestBodyError: RequestBodyError,
        errors.Reset: Reset,
        errors.TLSFailed: TLSFailed,
        errors.UnknownService: UnknownService,
    }
)


def as_httpx(error: errors.MeshError, request: httpx.Request) -> errors.MeshError:
    """The same error, as the exception that a user of httpx catches. Its cause is that of `error`."""
    cls = _AS_HTTPX.get(type(error))
    if cls is None:
        return error
    translated = cls.__new__(cls, *error.args)
    translated.args = error.args
    state: dict[str, Any] = {**error.__dict__, "_request": request}
    translated.__dict__.update(state)
    translated.__cause__ = error.__cause__
    translated.__suppress_context__ = True
    return translated


def from_httpx(error: httpx.HTTPError, endpoint: str) -> errors.MeshError:
    """What an exception of an httpx transport means to the mesh."""
    text = str(error) or type(error).__name__
    match error:
        case httpx.ConnectTimeout():
            return errors.ConnectTimeout(text, endpoint=endpoint)
        case httpx.PoolTimeout():
            return errors.PoolTimeout(text, endpoint=endpoint)
        case httpx.TimeoutException():
            phase = "write" if isinstance(error, httpx.WriteTimeout) else "headers"
            return errors.AttemptTimeout(text, endpoint=endpoint, phase=phase)
        case httpx.ConnectError() | httpx.ProxyError():
            return errors.ConnectFailed(text, endpoint=endpoint)
        case httpx.LocalProtocolError() | httpx.UnsupportedProtocol():
            return errors.RequestBodyError(text)
        case httpx.RemoteProtocolError() if "without sending a response" not in text:
            return errors.ProtocolError(text, endpoint=endpoint)
        case _:
            return errors.Reset(text, endpoint=endpoint)
