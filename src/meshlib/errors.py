"""Why a call failed: one root, one class per reason.

Every error names the service, says what was tried and what to change, keeps its cause, can be pickled, and knows
whether the same call may simply be made again (`MeshError.retryable`). In an adapter each is also the exception that
users of that client already catch: see `meshlib.adapters.httpx`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from meshlib.policy.record import Record

__all__ = [
    "AttemptTimeout",
    "BodyBroken",
    "CircuitOpen",
    "ConfigError",
    "ConnectFailed",
    "ConnectTimeout",
    "DeadlineExceeded",
    "DiscoveryUnavailable",
    "EgressRefused",
    "LimitExceeded",
    "MeshClosed",
    "MeshError",
    "NoEndpoint",
    "PoolTimeout",
    "ProtocolError",
    "RateLimited",
    "RegistrationFailed",
    "RequestBodyError",
    "Reset",
    "TLSFailed",
    "UnknownService",
    "WireError",
]


class MeshError(Exception):
    """The root of all errors that a meshed call raises.

    Attributes:
        message: what failed and what to change, without the service's name.
        service: the logical name of the service that was called, if any.
        record: what happened to the call, or None if it never began.
        retryable: whether the same call may be made again with a chance of success and without harm; None if unknown.
    """

    retryable: bool | None = None
    """The class's default; an instance may know better."""

    def __init__(
        self,
        message: str = "",
        *,
        service: str = "",
        record: Record | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(f"{service}: {message}" if service else message)
        self.message = message
        self.service = service
        self.record = record
        if retryable is not None:
            self.retryable = retryable

    def name_service(self, service: str) -> None:
        """Say which service was called, where the one that raised the error did not know."""
        if not self.service and service:
            self.service = service
            self.args = (f"{service}: {self.message}", *self.args[1:])

    def without_frames(self) -> Self:
        """A copy that says the same, without traceback and cause."""
        copy = type(self).__new__(type(self), *self.args)
        copy.args = self.args
        copy.__dict__.update(self.__dict__)
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        # `args` holds the composed text, not the arguments; and a request or a stream that an adapter attached
        # need not be picklable, so only plain state travels.
        state = {key: value for key, value in self.__dict__.items() if not key.startswith("_")}
        if notes := getattr(self, "__notes__", None):
            state["__notes__"] = list(notes)
        return _rebuild, (type(self), self.args, state, _portable(self.__cause__))


def _rebuild(
    cls: type[MeshError], args: tuple[Any, ...], state: dict[str, Any], cause: BaseException | None
) -> MeshError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    error.__cause__ = cause
    return error


def _portable(cause: BaseException | None) -> BaseException | None:
    """`cause` if it survives pickling; else its text, for whoever reads the traceback elsewhere."""
    if cause is None or isinstance(cause, MeshError):
        return cause
    import pickle

    try:
        pickle.loads(pickle.dumps(cause))
    except Exception:
        return RuntimeError(f"{type(cause).__name__}: {cause}")
    return cause


class ConfigError(MeshError, ValueError):
    """The configuration is wrong; `problems` has each fault found, with file, path and the nearest valid thing."""

    retryable = False

    def __init__(self, message: str = "", *, problems: tuple[str, ...] = (), **state: Any) -> None:
        text = "\n".join([message, *(f"  - {problem}" for problem in problems)]) if problems else message
        super().__init__(text, **state)
        self.problems = problems


class MeshClosed(MeshError, RuntimeError):
    """The mesh was closed, or the event loop that this client's connections belong to has ended."""

    retryable = False


class RegistrationFailed(MeshError):
    """This process could not be entered into the registry."""

    retryable = True


# Where to send it


class UnknownService(MeshError, LookupError):
    """No discovery source knows this name."""

    retryable = False


class EgressRefused(MeshError, PermissionError):
    """The host is outside the mesh and the configuration says ``egress: refuse``."""

    retryable = False


class DiscoveryUnavailable(MeshError, ConnectionError):
    """The registry cannot be asked and there is no last good set of endpoints to fall back on."""

    retryable = True


class NoEndpoint(MeshError, ConnectionError):
    """The service is known, but it has no endpoint that could be tried."""

    retryable = True


# Whether to send it


class CircuitOpen(MeshError, ConnectionError):
    """The circuit of every cluster that the route leads to is open; `retry_after_s` says for how long at most."""

    retryable = True

    def __init__(self, message: str = "", *, retry_after_s: float = 0.0, **state: Any) -> None:
        super().__init__(message, **state)
        self.retry_after_s = retry_after_s


class LimitExceeded(MeshError):
    """Nothing was sent, because of what this process may send: a limit was reached, or a throttle spares the service.

    Attributes:
        gate: what refused: ``limit``, ``bulkhead``, ``throttle``, ``rate-limit``, ``fleet-rate-limit``.
        retry_after_s: when to come back; None if that is not known.
    """

    retryable = True

    def __init__(
        self, message: str = "", *, gate: str = "limit", retry_after_s: float | None = None, **state: Any
    ) -> None:
        super().__init__(message, **state)
        self.gate = gate
        self.retry_after_s = retry_after_s


class RateLimited(LimitExceeded):
    """A rate limit was reached: so many calls were made in this time; `retry_after_s` says when the next one may be."""


# How it went on the wire


class DeadlineExceeded(MeshError, TimeoutError):
    """The call's time was up: its own timeout, or the deadline it inherited. `limit` names which."""

    retryable = False

    def __init__(self, message: str = "", *, limit: str = "timeout", phase: str = "", **state: Any) -> None:
        super().__init__(message, **state)
        self.limit = limit
        self.phase = phase


class WireError(MeshError, ConnectionError):
    """An attempt failed between this process and the endpoint; `endpoint` is its address."""

    retryable = True

    def __init__(self, message: str = "", *, endpoint: str = "", **state: Any) -> None:
        super().__init__(message, **state)
        self.endpoint = endpoint


class ConnectFailed(WireError):
    """No connection could be made: refused, unreachable, or the name of the host did not resolve."""


class ConnectTimeout(ConnectFailed, TimeoutError):
    """No connection was made within the connect timeout."""


class TLSFailed(ConnectFailed):
    """The TLS handshake failed, or the peer's certificate is not that of the service."""


class PoolTimeout(WireError, TimeoutError):
    """All connections to the endpoint stayed busy for too long, or too many calls already wait for one."""


class AttemptTimeout(WireError, TimeoutError):
    """One attempt took longer than the per-try timeout, or than a phase timeout given through the client."""

    def __init__(self, message: str = "", *, phase: str = "", **state: Any) -> None:
        super().__init__(message, **state)
        self.phase = phase


class Reset(WireError):
    """The endpoint closed or reset the connection before its response had come.

    `refused` says that it vouches not to have looked at the request (HTTP/2: REFUSED_STREAM, or past its GOAWAY).
    """

    refused = False


class ProtocolError(WireError):
    """The endpoint answered with something that is not HTTP, or broke its rules."""


class BodyBroken(WireError):
    """The response's headers came, but its body broke off."""


class RequestBodyError(MeshError):
    """The request is not valid HTTP, or its own body could not be read or sent; the endpoint is not to blame."""

    retryable = False
