"""The mesh's errors as httpx's or httpx2's: each is also the exception that a user of the library already catches,
with ``.request`` set.

The classes are made when they are first raised, and are found by name in the library's adapter: so they can be pickled.
The request does not travel with them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from meshlib import errors
from meshlib.adapters.translated import translated

if TYPE_CHECKING:
    import httpx

__all__ = ["as_httpx", "from_httpx", "raised_class"]

LIBRARIES = ("httpx", "httpx2")

_ALSO: Mapping[type[errors.MeshError], tuple[str, ...]] = MappingProxyType(
    {
        errors.AttemptTimeout: ("ReadTimeout",),
        # Of a connection that ends the library says now this and now that, by how its peer ends it.
        errors.BodyBroken: ("RemoteProtocolError", "ReadError"),
        errors.CircuitOpen: ("ConnectError",),
        errors.ConnectFailed: ("ConnectError",),
        errors.ConnectTimeout: ("ConnectTimeout",),
        errors.DeadlineExceeded: ("ReadTimeout",),
        errors.DiscoveryUnavailable: ("ConnectError",),
        errors.EgressRefused: ("ConnectError",),
        errors.LimitExceeded: ("PoolTimeout",),  # which the library raises where too many calls wait
        errors.MeshClosed: ("TransportError",),
        errors.NoEndpoint: ("ConnectError",),
        errors.PoolTimeout: ("PoolTimeout",),
        errors.ProtocolError: ("RemoteProtocolError",),
        errors.RateLimited: ("PoolTimeout",),
        # The first is what the library refuses such requests with.
        errors.RequestBodyError: ("LocalProtocolError", "WriteError"),
        errors.Reset: ("ReadError", "RemoteProtocolError"),
        errors.TLSFailed: ("ConnectError",),
        errors.UnknownService: ("ConnectError",),  # which the library raises where a name does not resolve
    }
)
"""Which of the library's exceptions each error is, too."""

_BY_NAME: Mapping[str, type[errors.MeshError]] = MappingProxyType({cls.__name__: cls for cls in _ALSO})

_raised: dict[tuple[str, str], type[errors.MeshError]] = {}


def raised_class(library: str, name: str) -> type[errors.MeshError]:
    """The class that is an error of the mesh and one of a library.

    Args:
        library: ``httpx`` or ``httpx2``.
        name: of the mesh's error.

    Raises:
        AttributeError: if there is none of that name.
    """
    key = library, name
    made = _raised.get(key)
    if made is None:
        home = f"{__package__}.{library}"
        cls = _BY_NAME.get(name)
        if cls is None:
            raise AttributeError(f"module {home!r} has no attribute {name!r}")
        theirs = [getattr(sys.modules[library], each) for each in _ALSO[cls]]
        doc = "Also an " + " and an ".join(f"`{library}.{each}`" for each in _ALSO[cls]) + "."
        # The class's own request serves errors that were unpickled.
        names = {"__module__": home, "__doc__": doc, "_request": None}
        made = _raised.setdefault(key, type(name, (cls, *theirs), names))  # of two threads, both get the same
    return made


def as_httpx(error: errors.MeshError, request: httpx.Request) -> errors.MeshError:
    """The same error, as the exception that a user of the request's library catches. Its cause is that of `error`."""
    kind = type(error)
    if kind not in _ALSO:
        return error
    cls = raised_class(_library_of(request), kind.__name__)
    return translated(error, {kind: cls}, _request=request)


def from_httpx(error: httpx.HTTPError, endpoint: str) -> errors.MeshError:
    """What an exception of a library's transport means to the mesh."""
    text = str(error) or type(error).__name__
    httpx: Any = sys.modules[_library_of(error)]
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
        case httpx.ReadError():
            return errors.Reset(text, endpoint=endpoint)
        case httpx.RemoteProtocolError() if "without sending a response" not in text:
            return errors.ProtocolError(text, endpoint=endpoint)
        case _:
            return errors.Reset(text, endpoint=endpoint)


def _library_of(thing: object) -> str:
    """The library that a request or an exception is of, which may be of a subclass of one's own."""
    for cls in type(thing).__mro__:
        package = cls.__module__.partition(".")[0]
        if package in LIBRARIES:
            return package
    raise TypeError(f"{type(thing).__name__} is of neither {' nor '.join(LIBRARIES)}")
