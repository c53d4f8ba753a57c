"""``ConnectionPoolSettings``: limits on connections and calls, and how connections are kept.

Envoy has three limits that ours map to as follows, for HTTP/1.1, where a connection carries one call at a time: calls
under way are as many as connections (`maxConnections`) or as `http2MaxRequests` allow, whichever is less; only for want
of a connection do calls wait, `http1MaxPendingRequests` of them. Source: ``applyConnectionPool`` in Istio's
``cluster_traffic_policy.go``: 0 stands for no limit everywhere.
"""

from __future__ import annotations

from typing import Any, Final

from meshlib.config.dialects.durations import written
from meshlib.config.dialects.fields import Reader

__all__ = ["read_connection_pool"]

_NO_LIMIT: Final = 2**32 - 1
_NEVER_IDLE: Final = "365d"
_UPGRADES: Final = ("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE")


def read_connection_pool(reader: Reader) -> dict[str, Any]:
    """``limits``, ``pool``, ``connect_timeout``, ``retry_budget`` and ``http2`` in our words."""
    native: dict[str, Any] = {}
    pool: dict[str, Any] = {}
    tcp, http = reader.map("tcp"), reader.map("http")
    connections = idle_s = None
    if tcp is not None:
        connections, idle_s = _tcp(tcp, native, pool)
    if http is None:
        http = Reader(reader.draft, reader.resource, {}, reader.path)
    pending, requests = http.integer("http1MaxPendingRequests"), http.integer("http2MaxRequests")
    _http(http, native, pool, idle_s)
    limits = _limits(connections, pending, requests, bool(native.get("http2")))
    if limits:
        native["limits"] = limits
    if pending and "max_pending" not in limits:
        text = "calls wait only where maxConnections or http2MaxRequests is a limit"
        http.ignore("http1MaxPendingRequests", text)
    if pool:
        native["pool"] = pool
    reader.rest()
    return native


def _limits(connections: int | None, pending: int | None, requests: int | None, http2: bool) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    if requests and (http2 or not connections or requests < connections):
        limits = {"max_in_flight": requests, "max_pending": 0}
    elif connections and not http2:
        limits = {"max_in_flight": connections, "max_pending": pending or _NO_LIMIT}
    if connections:
        limits["max_connections"] = connections
    return limits


def _tcp(reader: Reader, native: dict[str, Any], pool: dict[str, Any]) -> tuple[int | None, float | None]:
    connections = reader.integer("maxConnections")
    if connect_s := reader.duration("connectTimeout"):
        native["connect_timeout"] = written(connect_s)
    keepalive = reader.map("tcpKeepalive")
    if keepalive is not None:
        probes = keepalive.integer("probes")
        found: dict[str, Any] = {"probes": probes} if probes else {}
        for name in ("time", "interval"):
            if seconds := keepalive.duration(name):
                found[name] = written(seconds)
        keepalive.rest()
        if found:
            pool["tcp_keepalive"] = found
    idle_s = reader.duration("idleTimeout")
    reader.ignore("maxConnectionDuration", "connections are kept while they are used")
    reader.rest()
    return connections, idle_s


def _http(reader: Reader, native: dict[str, Any], pool: dict[str, Any], idle_s: float | None) -> None:
    own_s = reader.duration("idleTimeout")
    idle_s = idle_s if own_s is None else own_s
    if idle_s is not None:
        pool["idle"] = written(idle_s) if idle_s else _NEVER_IDLE
    per_connection = reader.integer("maxRequestsPerConnection") or 0
    if per_connection == 1:
        pool["idle"] = 0
    elif per_connection > 1:
        reader.ignore("maxRequestsPerConnection", "connections are kept while they are used; only 1 is heeded")
    if retries := reader.integer("maxRetries"):
        native["retry_budget"] = {"kind": "concurrency", "max_retries": retries}
    upgrade = reader.text("h2UpgradePolicy")
    if upgrade is not None:
        if upgrade not in _UPGRADES:
            reader.wrong("h2UpgradePolicy", f"is none of {', '.join(_UPGRADES)}")
        if upgrade == "UPGRADE":
            native["http2"] = True
    if reader.flag("useClientProtocol"):
        reader.ignore("useClientProtocol", "there is no connection of a client whose protocol could be taken")
    reader.ignore("maxConcurrentStreams", "the server says how many streams it takes")
    reader.ignore("http2KeepAlive", "HTTP/2 connections are not pinged")
    reader.rest()
