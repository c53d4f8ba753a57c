"""Consul's configuration entries, field by field."""

from __future__ import annotations

from typing import Final

from meshlib.config.dialects.consul.schema import Field, Table

__all__ = ["DESTINATION", "ENTRIES", "KINDS", "LOAD_BALANCER", "MATCH", "OTHER_KINDS", "SPLIT"]


def _ignored(why: str, kind: Field | None = None) -> Field:
    spec = Field("any") if kind is None else kind
    return Field(spec.kind, spec.many, "ignored", why)


def _different(kind: Field, why: str) -> Field:
    return Field(kind.kind, kind.many, "different", why)


_TEXT: Final = Field("text")
_NUMBER: Final = Field("number")
_FLAG: Final = Field("flag")
_DURATION: Final = Field("duration")
_ANY: Final = Field("any")

_NAMESPACE: Final = _ignored("namespaces are Consul Enterprise's; the service is looked for in the agent's own", _TEXT)
_PARTITION: Final = _ignored("partitions are Consul Enterprise's; the service is looked for in the agent's own", _TEXT)
_PEER: Final = _ignored("services of cluster peers are not looked up; this is left out", _TEXT)
_SAMENESS: Final = _ignored("sameness groups are Consul Enterprise's; this is left out", _TEXT)
_GATEWAY: Final = _ignored("calls go straight to the instances, through no mesh gateway")
_SERVERS: Final = "is for the servers of this service, and changes nothing for those who call it"
_PROXY: Final = "is for a proxy, and there is none"

_COMMON: Final[Table] = {
    "Kind": _TEXT,
    "Name": _TEXT,
    "Namespace": _NAMESPACE,
    "Partition": _PARTITION,
    "Meta": _ANY,
    "CreateIndex": _ANY,
    "ModifyIndex": _ANY,
    "Hash": _ANY,
}

_HEADER_EDITS: Final[Table] = {"Add": Field("names"), "Set": Field("names"), "Remove": Field("texts")}

_HTTP_MATCH: Final[Table] = {
    "PathExact": _TEXT,
    "PathPrefix": _TEXT,
    "PathRegex": _TEXT,
    "CaseInsensitive": _FLAG,
    "Header": Field(
        {
            "Name": _TEXT,
            "Present": _FLAG,
            "Exact": _TEXT,
            "Prefix": _TEXT,
            "Suffix": _TEXT,
            "Regex": _TEXT,
            "Invert": _FLAG,
        },
        "list",
    ),
    "QueryParam": Field({"Name": _TEXT, "Present": _FLAG, "Exact": _TEXT, "Regex": _TEXT}, "list"),
    "Methods": Field("texts"),
}

MATCH: Final = Field({"HTTP": Field(_HTTP_MATCH)}, narrows=True)

DESTINATION: Final[Table] = {
    "Service": _TEXT,
    "ServiceSubset": _TEXT,
    "Namespace": _NAMESPACE,
    "Partition": _PARTITION,
    "PrefixRewrite": _TEXT,
    "RequestTimeout": _DURATION,
    "IdleTimeout": _different(_DURATION, "counts while the response's body is read, not while the request is sent"),
    "NumRetries": _NUMBER,
    "RetryOnConnectFailure": _FLAG,
    "RetryOn": Field("texts"),
    "RetryOnStatusCodes": Field("numbers"),
    "RequestHeaders": Field(_HEADER_EDITS),
    "ResponseHeaders": Field(_HEADER_EDITS),
}

_ROUTER: Final[Table] = {
    **_COMMON,
    "Routes": Field({"Match": MATCH, "Destination": Field(DESTINATION)}, "list"),
}

SPLIT: Final[Table] = {
    "Weight": _NUMBER,
    "Service": _TEXT,
    "ServiceSubset": _TEXT,
    "Namespace": _NAMESPACE,
    "Partition": _PARTITION,
    "RequestHeaders": Field(_HEADER_EDITS),
    "ResponseHeaders": Field(_HEADER_EDITS),
}

_SPLITTER: Final[Table] = {**_COMMON, "Splits": Field(SPLIT, "list")}

_TARGET: Final[Table] = {
    "Service": _TEXT,
    "ServiceSubset": _TEXT,
    "Namespace": _NAMESPACE,
    "Partition": _PARTITION,
    "Datacenter": _TEXT,
    "Peer": _PEER,
    "SamenessGroup": _SAMENESS,
}

_FAILOVER_POLICY: Final = _ignored(
    "targets are tried in their order, not in that of their places",
    Field({"Mode": _TEXT, "Regions": Field("texts")}),
)
_BY_LOCALITY: Final = _ignored(
    "calls do not prefer instances nearby; 'load_balancing: {failover: true}' makes them", Field({"Mode": _TEXT})
)

LOAD_BALANCER: Final[Table] = {
    "Policy": _TEXT,
    "RingHashConfig": Field({"MinimumRingSize": _NUMBER, "MaximumRingSize": _NUMBER}),
    "LeastRequestConfig": Field({"ChoiceCount": _NUMBER}),
    "HashPolicies": Field(
        {
            "Field": _TEXT,
            "FieldValue": _TEXT,
            "CookieConfig": Field({"Session": _FLAG, "TTL": _DURATION, "Path": _TEXT}),
            "SourceIP": _different(_FLAG, "is the peer of the request that is being served, else this host"),
            "Terminal": _FLAG,
        },
        "list",
    ),
}

_SUBSET: Final[Table] = {
    "Filter": _TEXT,
    "OnlyPassing": _FLAG,
}

_RESOLVER: Final[Table] = {
    **_COMMON,
    "DefaultSubset": _TEXT,
    "Subsets": Field(_SUBSET, "map"),
    "Redirect": Field(_TARGET),
    "Failover": Field(
        {
            "Service": _TEXT,
            "ServiceSubset": _TEXT,
            "Namespace": _NAMESPACE,
            "SamenessGroup": _SAMENESS,
            "Datacenters": Field("texts"),
            "Targets": Field(_TARGET, "list"),
            "Policy": _FAILOVER_POLICY,
        },
        "map",
    ),
    "ConnectTimeout": _DURATION,
    "RequestTimeout": _DURATION,
    "LoadBalancer": Field(LOAD_BALANCER),
    "PrioritizeByLocality": _BY_LOCALITY,
}

_UPSTREAM: Final[Table] = {
    "Name": _TEXT,
    "Namespace": _NAMESPACE,
    "Partition": _PARTITION,
    "Peer": _PEER,
    "EnvoyListenerJSON": _ignored(_PROXY, _TEXT),
    "EnvoyClusterJSON": _ignored(_PROXY, _TEXT),
    "Protocol": _TEXT,
    "ConnectTimeoutMs": _NUMBER,
    "Limits": Field(
        {
            "MaxConnections": _different(_NUMBER, "bounds calls in flight, which have a connection each over HTTP/1.1"),
            "MaxPendingRequests": _NUMBER,
            "MaxConcurrentRequests": _NUMBER,
        }
    ),
    "PassiveHealthCheck": Field(
        {
            "Interval": _DURATION,
            "MaxFailures": _NUMBER,
            "EnforcingConsecutive5xx": _NUMBER,
            "MaxEjectionPercent": _NUMBER,
            "BaseEjectionTime": _DURATION,
        }
    ),
    "MeshGateway": _GATEWAY,
    "BalanceOutboundConnections": _ignored(_PROXY, _TEXT),
}

_SERVICE_DEFAULTS: Final[Table] = {
    **_COMMON,
    "Protocol": _TEXT,
    "Mode": _ignored(_PROXY, _TEXT),
    "TransparentProxy": _ignored(_PROXY),
    "MutualTLSMode": _ignored(_SERVERS, _TEXT),
    "MeshGateway": _GATEWAY,
    "Expose": _ignored(_SERVERS),
    "ExternalSNI": _ignored("no TLS comes of it; 'tls: {server_name: ...}' of the service does that", _TEXT),
    "UpstreamConfig": Field({"Overrides": Field(_UPSTREAM, "list"), "Defaults": Field(_UPSTREAM)}),
    "Destination": _different(
        Field({"Addresses": Field("texts"), "Port": _NUMBER}), "is called straight, through no terminating gateway"
    ),
    "MaxInboundConnections": _ignored(_SERVERS, _NUMBER),
    "MaxRequestHeadersKB": _ignored(_SERVERS, _NUMBER),
    "LocalConnectTimeoutMs": _ignored(_SERVERS, _NUMBER),
    "LocalRequestTimeoutMs": _ignored(_SERVERS, _NUMBER),
    "BalanceInboundConnections": _ignored(_SERVERS, _TEXT),
    "RateLimits": _ignored(_SERVERS),
    "EnvoyExtensions": _ignored(_PROXY),
}

_PROXY_DEFAULTS: Final[Table] = {
    **_COMMON,
    "Config": _ANY,
    "Mode": _ignored(_PROXY, _TEXT),
    "TransparentProxy": _ignored(_PROXY),
    "MutualTLSMode": _ignored(_SERVERS, _TEXT),
    "MeshGateway": _GATEWAY,
    "Expose": _ignored(_SERVERS),
    "AccessLogs": _ignored(_PROXY),
    "EnvoyExtensions": _ignored(_PROXY),
    "FailoverPolicy": _FAILOVER_POLICY,
    "PrioritizeByLocality": _BY_LOCALITY,
}

ENTRIES: Final[dict[str, Table]] = {
    "service-router": _ROUTER,
    "service-splitter": _SPLITTER,
    "service-resolver": _RESOLVER,
    "service-defaults": _SERVICE_DEFAULTS,
    "proxy-defaults": _PROXY_DEFAULTS,
}
"""The entries that are read, by ``Kind``."""

KINDS: Final[dict[str, str]] = {
    "ServiceRouter": "service-router",
    "ServiceSplitter": "service-splitter",
    "ServiceResolver": "service-resolver",
    "ServiceDefaults": "service-defaults",
    "ProxyDefaults": "proxy-defaults",
    "ServiceIntentions": "service-intentions",
}
"""The same as custom resources of Kubernetes, group ``consul.hashicorp.com``."""

OTHER_KINDS: Final[dict[str, str]] = {
    "ingress-gateway": "describes a gateway",
    "terminating-gateway": "describes a gateway",
    "api-gateway": "describes a gateway",
    "http-route": "is for an API gateway",
    "tcp-route": "is for an API gateway",
    "inline-certificate": "is for an API gateway",
    "file-system-certificate": "is for an API gateway",
    "mesh": "configures proxies",
    "exported-services": "is for peers and partitions",
    "sameness-group": "is for Consul Enterprise",
    "jwt-provider": "is for the servers of a service",
    "control-plane-request-limit": "is for Consul's servers",
}
"""Entries that say nothing of how a service calls another, and why."""
