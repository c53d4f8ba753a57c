"""OpenTelemetry's stable semantic conventions for HTTP clients: names, and the rules for values.

Written out here rather than imported: the package that holds them is pinned to one exact beta by every instrumentation,
and the stable names do not change. Source: ``docs/http/http-spans.md`` and ``http-metrics.md`` of
open-telemetry/semantic-conventions.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Final

from meshlib.balance.endpoint import Endpoint, Locality
from meshlib.errors import MeshError

__all__ = [
    "DURATION_BUCKETS_S",
    "OTHER",
    "default_port",
    "error_type",
    "known_method",
    "peer_attributes",
    "redact_query",
    "zone_of",
]

METHOD: Final = "http.request.method"
METHOD_ORIGINAL: Final = "http.request.method_original"
RESEND_COUNT: Final = "http.request.resend_count"
STATUS: Final = "http.response.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
URL_FULL: Final = "url.full"
URL_TEMPLATE: Final = "url.template"
PEER_ADDRESS: Final = "network.peer.address"
PEER_PORT: Final = "network.peer.port"
TRANSPORT: Final = "network.transport"
PROTOCOL_VERSION: Final = "network.protocol.version"
ERROR_TYPE: Final = "error.type"
CONNECTION_STATE: Final = "http.connection.state"

# What the conventions have no name for.
ROUTE: Final = "meshlib.route"
CLUSTER: Final = "meshlib.cluster"
HEDGE: Final = "meshlib.hedge"
REPLY: Final = "meshlib.reply"
SENT_PATH: Final = "meshlib.path.sent"
OVERRIDE: Final = "meshlib.override"
ZONE: Final = "meshlib.endpoint.zone"
OUTLIER_RULE: Final = "meshlib.outlier.rule"

OTHER: Final = "_OTHER"
DURATION_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_SECRETS = frozenset({"AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature"})
_REDACTED = "REDACTED"


@cache
def _known_methods() -> frozenset[str]:
    given = os.environ.get("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "")
    return frozenset(name.strip() for name in given.split(",") if name.strip()) or _METHODS


def known_method(method: str) -> str:
    """The method, or `OTHER`: a method that anybody can make up must not become a new time series."""
    return method if method in _known_methods() else OTHER


def peer_attributes(endpoint: Endpoint) -> tuple[tuple[str, str | int], ...]:
    """Whom an attempt is sent to. Only a Unix socket needs to say what it is: all else is TCP, as HTTP has it."""
    path = endpoint.socket_path
    if path is not None:
        return (PEER_ADDRESS, path), (TRANSPORT, "unix")
    return (PEER_ADDRESS, endpoint.host), (PEER_PORT, endpoint.port)


def zone_of(here: Locality, there: Locality) -> str:
    """``local``, ``remote``, or ``unknown`` where that cannot be told, as seen from `here`."""
    if here.region and there.region and here.region != there.region:
        return "remote"
    if not here.zone or not there.zone:
        return "unknown"
    return "local" if here.zone == there.zone else "remote"


def default_port(scheme: str) -> int:
    """The port that a URL means which names none."""
    return 443 if scheme == "https" else 80


def redact_query(query: str) -> str:
    """The query without the values of parameters that are known to be signatures or keys; the rest as it was."""
    if not query or not any(secret in query for secret in _SECRETS):
        return query
    pairs = []
    for pair in query.split("&"):
        name, equals, _ = pair.partition("=")
        pairs.append(f"{name}={_REDACTED}" if equals and name in _SECRETS else pair)
    return "&".join(pairs)


def error_type(error: BaseException) -> str:
    """A name of low cardinality for how something failed: the one that stands in the call's record."""
    if isinstance(error, MeshError):
        return type(error).__name__
    return type(error).__qualname__
