"""Documents that speak of who may call whom: their shapes are checked, and they are kept for what will enforce them.

The fields are those of Istio's ``api/security``, of Linkerd's ``policy.linkerd.io`` and of Consul's
``service-intentions``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.resources import CONSUL, Resource
from meshlib.config.problems import Path
from meshlib.config.rejection import closest

__all__ = ["SHAPES", "keep"]

NOT_ENFORCED: Final = "is not honoured: who may call whom is not enforced yet"

Shape: TypeAlias = Any
"""The name of a kind of value; a tuple of the words to choose from; a map of fields (``!``: it has to be there); or a
list of one shape for each item. Under ``*`` a map has the shape of the values of any names."""

_SELECTOR: Final = {"matchLabels": {"*": "text"}}
_LABELS: Final = {**_SELECTOR, "matchExpressions": [{"key!": "text", "operator!": "text", "values": ["text"]}]}
_REFERENCE: Final = {"group": "text", "kind!": "text", "name": "text", "namespace": "text"}
_MTLS: Final = {"mode": ("UNSET", "DISABLE", "PERMISSIVE", "STRICT")}
_TARGETS: Final = {"selector": _SELECTOR, "targetRef": _REFERENCE, "targetRefs": [_REFERENCE]}
_NETWORKS: Final = [{"cidr!": "cidr", "except": ["cidr"]}]
_RATE: Final = {"requestsPerSecond!": "count"}


def _negated(*names: str) -> dict[str, Shape]:
    return {each: ["text"] for name in names for each in (name, f"not{name[:1].upper()}{name[1:]}")}


_SOURCES: Final = (
    "principals",
    "requestPrincipals",
    "namespaces",
    "serviceAccounts",
    "ipBlocks",
    "remoteIpBlocks",
    "trustDomains",
)
_JWT_RULE: Final = {
    "issuer!": "text",
    **{name: ["text"] for name in ("audiences", "fromParams", "fromCookies", "spaceDelimitedClaims")},
    **dict.fromkeys(("jwksUri", "jwks", "outputPayloadToHeader", "timeout"), "text"),
    "fromHeaders": [{"name!": "text", "prefix": "text"}],
    "forwardOriginalToken": "flag",
    "outputClaimToHeaders": [{"header!": "text", "claim!": "text"}],
}
_INTENTION_HTTP: Final = {
    **dict.fromkeys(("PathExact", "PathPrefix", "PathRegex"), "text"),
    "Methods": ["text"],
    "Header": [
        {
            "Name!": "text",
            **dict.fromkeys(("Exact", "Prefix", "Suffix", "Contains", "Regex"), "text"),
            **dict.fromkeys(("Present", "Invert", "IgnoreCase"), "flag"),
        }
    ],
}
_ACTION: Final = ("allow", "deny")
_INTENTIONS: Final = {
    "JWT": "map",
    "Sources": [
        {
            "Name!": "text",
            "Action": _ACTION,
            "Permissions": [{"Action!": _ACTION, "HTTP": _INTENTION_HTTP, "JWT": "map"}],
            **dict.fromkeys(("Namespace", "Partition", "Peer", "SamenessGroup", "Description", "Type"), "text"),
            "Precedence": "count",
            **dict.fromkeys(("LegacyID", "LegacyMeta", "LegacyCreateTime", "LegacyUpdateTime"), "any"),
        }
    ],
}
_ENTRY: Final = {
    "Kind": "text",
    "Name!": "text",
    "Namespace": "text",
    "Partition": "text",
    "Meta": "map",
    **dict.fromkeys(("CreateIndex", "ModifyIndex", "Hash"), "any"),
}

SHAPES: Final[dict[tuple[str, str], Mapping[str, Shape]]] = {
    ("security.istio.io", "PeerAuthentication"): {
        "selector": _SELECTOR,
        "mtls": _MTLS,
        "portLevelMtls": {"*": _MTLS},
    },
    ("security.istio.io", "RequestAuthentication"): {**_TARGETS, "jwtRules": [_JWT_RULE]},
    ("security.istio.io", "AuthorizationPolicy"): {
        **_TARGETS,
        "action": ("ALLOW", "DENY", "AUDIT", "CUSTOM"),
        "provider": {"name": "text"},
        "rules": [
            {
                "from": [{"source": _negated(*_SOURCES)}],
                "to": [{"operation": _negated("hosts", "ports", "methods", "paths")}],
                "when": [{"key!": "text", "values": ["text"], "notValues": ["text"]}],
            }
        ],
    },
    ("policy.linkerd.io", "Server"): {
        "podSelector": _LABELS,
        "externalWorkloadSelector": _LABELS,
        "port!": "port",
        "proxyProtocol": ("unknown", "HTTP/1", "HTTP/2", "gRPC", "opaque", "TLS"),
        "accessPolicy": "text",
    },
    ("policy.linkerd.io", "ServerAuthorization"): {
        "server!": {"name": "text", "selector": _LABELS},
        "client!": {
            "networks": _NETWORKS,
            "unauthenticated": "flag",
            "meshTLS": {
                "unauthenticatedTLS": "flag",
                "identities": ["text"],
                "serviceAccounts": [{"name!": "text", "namespace": "text"}],
            },
        },
    },
    ("policy.linkerd.io", "AuthorizationPolicy"): {
        "targetRef!": _REFERENCE,
        "requiredAuthenticationRefs!": [_REFERENCE],
    },
    ("policy.linkerd.io", "MeshTLSAuthentication"): {"identities": ["text"], "identityRefs": [_REFERENCE]},
    ("policy.linkerd.io", "NetworkAuthentication"): {"networks!": _NETWORKS},
    ("policy.linkerd.io", "HTTPLocalRateLimitPolicy"): {
        "targetRef!": _REFERENCE,
        "total": _RATE,
        "identity": _RATE,
        "overrides": [{**_RATE, "clientRefs!": [_REFERENCE]}],
    },
    (CONSUL, "service-intentions"): {**_ENTRY, **_INTENTIONS},
    ("consul.hashicorp.com", "ServiceIntentions"): {
        "destination!": {"Name!": "text", "Namespace": "text", "Partition": "text"},
        **_INTENTIONS,
    },
}
"""Of the documents of each kind the fields: of all of a document for Consul's entries, else of its ``spec``."""


def keep(draft: Draft, resource: Resource) -> None:
    """Keep a document, and tell that it is not enforced; what is wrong in it, and fields that are unknown."""
    draft.security.append(resource)
    draft.note(resource.place(), NOT_ENFORCED, "ignored")
    shape = SHAPES.get((resource.group, resource.kind))
    if shape is None:
        return
    entry = resource.group == CONSUL
    path: Path = () if entry else ("spec",)
    given = resource.data if entry else resource.data.get("spec")
    # Consul has three spellings of a field: PathExact, path_exact and pathExact.
    loose = entry or resource.group == "consul.hashicorp.com"
    for where, text, known in _faults({} if given is None else given, shape, path, loose):
        if known:
            draft.note(resource.place(*where), text, "wrong")
        else:
            draft.note(resource.place(*where), f"is not honoured: {text}", "ignored")


def _faults(value: Any, shape: Shape, path: Path, loose: bool) -> Iterator[tuple[Path, str, bool]]:
    """Where, what is wrong, and whether the field is known."""
    if isinstance(shape, (str, tuple)):
        expected = _expected(value, shape)
        if expected:
            # The value is left out: it may be a key or a token.
            yield path, f"{expected} is expected", True
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield path, "a list is expected", True
            return
        for index, each in enumerate(value):
            yield from _faults(each, shape[0], (*path, index), loose)
    elif not isinstance(value, Mapping):
        yield path, "a map is expected", True
    elif "*" in shape:
        for key, each in value.items():
            yield from _faults(each, shape["*"], (*path, str(key)), loose)
    else:
        yield from _fields(value, shape, path, loose)


def _fields(
    value: Mapping[Any, Any], shape: Mapping[str, Shape], path: Path, loose: bool
) -> Iterator[tuple[Path, str, bool]]:
    fields = {_spelled(name.removesuffix("!"), loose): name for name in shape}
    missing = {name for name in shape if name.endswith("!")}
    for key, each in value.items():
        name = fields.get(_spelled(str(key), loose))
        if name is None:
            nearest = closest(str(key), [each.removesuffix("!") for each in shape])
            hint = f"; did you mean {nearest!r}?" if nearest else ""
            yield (*path, str(key)), f"unknown field{hint}", False
        elif each is not None:
            missing.discard(name)
            yield from _faults(each, shape[name], (*path, str(key)), loose)
    for name in sorted(missing):
        yield path, f"{name.removesuffix('!')} is required", True


def _spelled(name: str, loose: bool) -> str:
    return name.replace("_", "").lower() if loose else name


def _expected(value: Any, shape: str | tuple[str, ...]) -> str | None:
    """What is expected instead; None if the value is right."""
    if isinstance(shape, tuple):
        return None if value in shape else f"one of {', '.join(shape)}"
    number = isinstance(value, int) and not isinstance(value, bool)
    match shape:
        case "text":
            return None if isinstance(value, str) else "text"
        case "flag":
            return None if isinstance(value, bool) else "true or false"
        case "count":
            return None if number and 0 <= value < 2**32 else "a whole number"
        case "port":
            right = 0 < value < 65536 if number else isinstance(value, str) and value
            return None if right else "a port, by its number or name"
        case "cidr":
            return None if isinstance(value, str) and _is_network(value) else "an address or a network"
        case "map":
            return None if isinstance(value, Mapping) else "a map"
        case _:
            return None


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
