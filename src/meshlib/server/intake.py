"""What is taken in of a request, and from whom: the part that ASGI and WSGI have in common.

A deadline, a criticality, baggage and a trace are believed only if the peer is one of `ServerSettings.trusted_peers`;
otherwise anybody on the internet could say that his requests come first. The peer is the address that the server
reports, so where the server itself is told to believe ``X-Forwarded-For``, it is the one named there.

A Unix socket has no address. Whoever can open it is on this machine, so it is trusted where ``127.0.0.1`` is. A request
of which nothing is known is not trusted.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from opentelemetry import baggage as otel_baggage
from opentelemetry import context as otel_context
from opentelemetry import trace

from meshlib import context
from meshlib.config.server_settings import ACCEPTED
from meshlib.config.settings import MeshSettings, ServerSettings
from meshlib.context import Criticality, Override, Scope, ServedRequest
from meshlib.dataclass import dataclass
from meshlib.errors import ConfigError
from meshlib.net.fork import after_fork
from meshlib.propagation import (
    BAGGAGE,
    BODY_DEADLINE_MS,
    LOAD,
    Headers,
    Ignored,
    as_caller,
    extract_trace,
    parse_baggage,
    parse_body_deadline,
    parse_criticality,
    parse_deadline,
)
from meshlib.server.override import OverrideReader

if TYPE_CHECKING:
    from opentelemetry.context import Context

__all__ = [
    "KEY",
    "UNIX",
    "Arrival",
    "HasSettings",
    "Intake",
    "IntakeCounts",
    "ReceivedHeaders",
    "TrustedPeers",
    "expect_mesh",
]

KEY: Final = "meshlib.arrival"
"""Where the `Arrival` stands in an ASGI scope and in a WSGI environ; a request that has one is not taken in again."""

UNIX: Final = "unix"
"""The peer at the other end of a Unix socket."""

_INSTRUMENTATIONS = tuple(
    f"opentelemetry.instrumentation.{name}"
    for name in ("asgi", "django", "falcon", "flask", "pyramid", "tornado", "wsgi")
)
"""Those of OpenTelemetry that make a server span only where no span is current; others go over one of these."""

_NO_BAGGAGE: Final[Mapping[str, str]] = MappingProxyType({})
_LOOPBACK = "127.0.0.1"
_REMEMBERED_PEERS = 4096
_LONGEST_ADDRESS = 64  # a server that believes X-Forwarded-For of anybody has there what anybody writes
_ROUNDING_S = 1e-6  # what adding a timeout to the clock and taking the clock off again may gain


class HasSettings(Protocol):
    """What the callee's side needs of a `Mesh`."""

    @property
    def settings(self) -> MeshSettings:
        """The configuration of now."""


def expect_mesh(given: object) -> None:
    """Tell of what was given in the place of a mesh when it is given, not at the first request.

    Raises:
        TypeError: unless it is a mesh, or None.
    """
    if given is None or (hasattr(given, "settings") and not isinstance(given, type)):
        return
    # Not what it holds: it may be a configuration, with what is secret.
    kind = f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__
    raise TypeError(f"a Mesh is expected, not {kind}")


@runtime_checkable
class Reports(Protocol):
    """A mesh that tells telemetry what its middleware leaves out."""

    def report_ignored(self, counts: Ignored) -> None:
        """Report `counts` from now on."""


class ReceivedHeaders(Protocol):
    """The headers of a request, as its server interface has them."""

    def known(self) -> Headers:
        """Those of `meshlib.propagation.INCOMING` that are there."""

    def values(self, name: str) -> Sequence[str]:
        """The values of the header `name`, in lower case."""

    def names(self) -> Sequence[str]:
        """The names of all headers, in lower case."""


class IntakeCounts(Ignored):
    """How many requests and values were not taken as they came. The numbers only grow.

    Attributes:
        untrusted: requests whose mesh headers were ignored because of where they came from.
        expired: requests refused because their deadline had passed; in mode ``observe`` those that would have been.
    """

    __slots__ = ("expired", "untrusted")

    def __init__(self) -> None:
        super().__init__()
        self.untrusted = self.expired = 0


class TrustedPeers:
    """Whether an address lies in one of the trusted networks; each address is looked at once.

    Raises:
        ConfigError: if a network is not written as CIDR.
    """

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: Sequence[str]) -> None:
        try:
            self._networks = tuple(ip_network(network, strict=False) for network in networks)
        except ValueError as error:
            raise ConfigError(
                f"server.trusted_peers: {error}; write networks like '10.0.0.0/8' or 'fd00::/8'"
            ) from error
        self._known: dict[str, bool] = {}

    def __contains__(self, peer: str) -> bool:
        known = self._known.get(peer)
        if known is None:
            if len(peer) > _LONGEST_ADDRESS:
                return False
            if len(self._known) >= _REMEMBERED_PEERS:
                self._known.clear()
            known = self._known[peer] = self._look_up(_LOOPBACK if peer == UNIX else peer)
        return known

    def _look_up(self, peer: str) -> bool:
        try:
            address = ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # how a dual-stack socket shows an IPv4 peer
        return any(address in network for network in self._networks)


@dataclass(slots=True)  # not frozen, which would take as long to make as all that is in it to read
class Arrival:
    """One request, as it was taken in.

    Attributes:
        request: holds its deadline, until it is closed.
        trusted: whether the peer is.
        criticality: as the caller says.
        baggage: what travels with it.
        override: what replaces services for it.
        trace: the OpenTelemetry context to attach; None where a span is current already, or the caller sent none.
        expired: there is not enough time left to begin.
        kind: of what is timed, see `meshlib.server.hopeless`; empty where nothing is.
        source: the ASGI scope or the WSGI environ, where it is timed.
        template: of the route that it took, where it is timed and the framework has one.
        asks: in which forms a trusted caller reads how loaded this process is; empty if it did not ask.
        late: a middleware further in ended its handler at the deadline.
    """

    request: ServedRequest
    trusted: bool = False
    criticality: Criticality | None = None
    baggage: Mapping[str, str] | None = None
    override: Override | None = None
    trace: Context | None = None
    expired: bool = False
    kind: str = ""
    source: Mapping[str, Any] | None = None
    template: str = ""
    asks: str = ""
    late: bool = False

    def inherited(self) -> Scope:
        """What calls inherit that the application makes."""
        baggage = MappingProxyType(self.baggage) if self.baggage else _NO_BAGGAGE
        return Scope(None, self.request, self.criticality, baggage, self.override)


class Intake:
    """Reads requests for one middleware.

    Attributes:
        counts: what was not taken as it came.
        server: the settings that held for the last request.
        on_change: called with them when the configuration was read anew.
    """

    def __init__(self, mesh: HasSettings | None) -> None:
        expect_mesh(mesh)
        self.counts = IntakeCounts()
        self._overrides = OverrideReader(self.counts)
        self._mesh: HasSettings = _Defaults() if mesh is None else mesh
        self.on_change: Callable[[ServerSettings], object] | None = None
        self._reading = threading.Lock()
        self._go_by(self.settings.server)
        after_fork(self)
        reporting: object = mesh
        if isinstance(reporting, Reports):
            reporting.report_ignored(self.counts)

    @property
    def settings(self) -> MeshSettings:
        """The configuration of now."""
        return self._mesh.settings

    def _go_by(self, server: ServerSettings) -> None:
        self._trusted = TrustedPeers(server.trusted_peers)
        self._deadline, self._criticality, self._baggage, self._traces = (kind in server.accept for kind in ACCEPTED)
        if self.on_change is not None:
            self.on_change(server)
        self.server = server

    def _read_anew(self) -> None:
        """Go by the configuration of now; of threads that see at once that it is another, one does."""
        with self._reading:
            server = self.settings.server
            if server is not self.server:
                self._go_by(server)

    def after_fork_in_child(self) -> None:
        """A lock may be held by a thread that is not there any more."""
        self._reading = threading.Lock()

    def trusts(self, peer: str | None) -> bool:
        """Whether what this peer says is believed."""
        return peer is not None and peer in self._trusted

    def glance(self, peer: str | None, headers: ReceivedHeaders) -> Arrival:
        """What of a request decides whether it would be served, where nothing of it is taken in (mode ``observe``)."""
        request = ServedRequest(None, _address(peer))
        if not self.trusts(peer):
            return Arrival(request)
        known, now = headers.known(), context.monotonic()
        if self._deadline:
            request.deadline = parse_deadline(known, now, Ignored())
        criticality = parse_criticality(known, Ignored()) if self._criticality else None
        return Arrival(
            request, trusted=True, criticality=criticality, expired=self._is_over(request.deadline, now, self.server)
        )

    @staticmethod
    def _is_over(deadline: float | None, now: float, server: ServerSettings) -> bool:
        """Whether there is not enough time left to begin."""
        return deadline is not None and deadline - now <= server.min_remaining_s + _ROUNDING_S

    def take(self, peer: str | None, headers: ReceivedHeaders) -> Arrival | None:
        """What the request brings along; None if it is to pass untouched, by the mode of now.

        Args:
            peer: its address, `UNIX`, or None if not known.
            headers: the request's.
        """
        settings = self._mesh.settings
        if settings.server is not self.server:  # the configuration was read anew
            self._read_anew()
        if settings.mode == "off":
            return None
        known = headers.known()
        if peer is None or peer not in self._trusted:
            if known:
                self.counts.add("untrusted")
            if settings.mode != "on":
                return None
            request = _within_outer(ServedRequest(None, _address(peer)))
            return Arrival(request, override=self._override(settings, headers, False))

        now = context.monotonic()
        deadline = parse_deadline(known, now, self.counts) if known and self._deadline else None
        request = ServedRequest(deadline, _address(peer))
        if BODY_DEADLINE_MS in known and deadline is not None:
            request.body_deadline = parse_body_deadline(known, now, self.counts)
        _within_outer(request)
        expired = request.deadline is not None and self._is_over(request.deadline, now, settings.server)
        if expired:
            self.counts.add("expired")
        if settings.mode != "on":
            return None
        arrival = Arrival(
            request,
            trusted=True,
            criticality=parse_criticality(known, self.counts) if known and self._criticality else None,
            baggage=parse_baggage(known, self.counts) if BAGGAGE in known and self._baggage else None,
            override=None if settings.overrides is None else self._override(settings, headers, True),
            expired=expired,
            asks=known[LOAD][0] if LOAD in known else "",
        )
        current = otel_context.get_current()
        span = trace.get_current_span(current) if current else trace.INVALID_SPAN
        if span is trace.INVALID_SPAN or not span.get_span_context().is_valid:
            arrival.trace = self._trace(headers) if self._traces else None
        else:
            # Started by an instrumentation of the framework, from the same headers: what the handler does belongs
            # beneath it. A second server span is never started.
            _enrich(span, arrival, now)
        return arrival

    def _override(self, settings: MeshSettings, headers: ReceivedHeaders, trusted: bool) -> Override | None:
        if settings.overrides is None:
            return None
        return self._overrides.read(settings.overrides, headers, trusted)

    def _trace(self, headers: ReceivedHeaders) -> Context | None:
        found = extract_trace(headers.values, headers.names, self.counts)
        if found is not None and not self._baggage:
            found = otel_baggage.clear(found)  # which the propagator has read as well, and calls would pass on
        return as_caller(found) if found is not None and _is_instrumented() else found


class _Defaults:
    """What holds without a mesh."""

    settings = MeshSettings()


def _is_instrumented() -> bool:
    """Whether an instrumentation may stand between this middleware and the handler, and start the server span there."""
    return not sys.modules.keys().isdisjoint(_INSTRUMENTATIONS)


def _address(peer: str | None) -> str:
    """That of a peer that has one; all at the other ends of Unix sockets are called alike."""
    return "" if peer is None or peer == UNIX else peer


def _within_outer(request: ServedRequest) -> ServedRequest:
    """Let what is left not grow where an application is mounted in another one, and both read the same headers.

    One of ASGI in one of ASGI is known by `KEY`. Where adapters between ASGI and WSGI stand between the two, they bring
    along the context.
    """
    outer = context.current_scope().request
    if outer is not None and outer.awaited:
        request.stay_within(outer)
    return request


def _enrich(span: trace.Span, arrival: Arrival, now: float) -> None:
    """Say on the framework's span what the request came with."""
    if not span.is_recording():
        return
    if arrival.request.deadline is not None:
        span.set_attribute("meshlib.deadline.remaining_ms", round((arrival.request.deadline - now) * 1000))
    if arrival.criticality is not None:
        span.set_attribute("meshlib.criticality", arrival.criticality.name.lower())
    if arrival.override is not None:
        replaced = [f"{service}={target}" for service, target in arrival.override.pairs]
        span.set_attribute("meshlib.override", replaced)
