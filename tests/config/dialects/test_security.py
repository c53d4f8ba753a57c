"""Documents that speak of who may call whom are kept, told of, and checked for their shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from meshlib.config.compile import compile_config
from meshlib.config.dialects.security import SHAPES
from meshlib.config.load import load_file
from meshlib.errors import ConfigError
from tests.config.dialects.support import draft_of, notes

TARGET = {"group": "policy.linkerd.io", "kind": "Server", "name": "web-http"}
ENDS = "who may call whom is not enforced yet"


def kubernetes(api: str, kind: str, spec: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": "some", "namespace": "shop"}, "spec": spec}


def istio(kind: str, **spec: Any) -> dict[str, Any]:
    return kubernetes("security.istio.io/v1", kind, spec)


def linkerd(kind: str, **spec: Any) -> dict[str, Any]:
    return kubernetes("policy.linkerd.io/v1beta3", kind, spec)


RIGHT: list[dict[str, Any]] = [
    istio(
        "PeerAuthentication",
        selector={"matchLabels": {"app": "web"}},
        mtls={"mode": "STRICT"},
        portLevelMtls={8080: {"mode": "DISABLE"}},
    ),
    istio(
        "RequestAuthentication",
        jwtRules=[
            {
                "issuer": "https://issuer.example",
                "audiences": ["web"],
                "jwksUri": "https://issuer.example/keys",
                "fromHeaders": [{"name": "x-token", "prefix": "Bearer "}],
                "forwardOriginalToken": True,
                "outputClaimToHeaders": [{"header": "x-user", "claim": "sub"}],
            }
        ],
    ),
    istio(
        "AuthorizationPolicy",
        action="DENY",
        rules=[
            {
                "from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"], "notIpBlocks": ["10.0.0.0/8"]}}],
                "to": [{"operation": {"methods": ["GET"], "notPaths": ["/admin*"], "ports": ["80"]}}],
                "when": [{"key": "request.headers[x-user]", "values": ["a"]}],
            }
        ],
    ),
    linkerd("Server", podSelector={"matchLabels": {"app": "web"}}, port="http", proxyProtocol="HTTP/2"),
    linkerd(
        "ServerAuthorization",
        server={"name": "web-http"},
        client={"meshTLS": {"serviceAccounts": [{"name": "web"}]}, "networks": [{"cidr": "10.0.0.0/8"}]},
    ),
    linkerd("AuthorizationPolicy", targetRef=TARGET, requiredAuthenticationRefs=[{"kind": "ServiceAccount"}]),
    linkerd("MeshTLSAuthentication", identities=["*.shop.serviceaccount.identity.linkerd.cluster.local"]),
    linkerd("NetworkAuthentication", networks=[{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}]),
    linkerd(
        "HTTPLocalRateLimitPolicy",
        targetRef=TARGET,
        total={"requestsPerSecond": 100},
        overrides=[{"requestsPerSecond": 10, "clientRefs": [{"kind": "ServiceAccount", "name": "web"}]}],
    ),
    {
        "Kind": "service-intentions",
        "Name": "web",
        "Sources": [
            {"Name": "api", "Action": "allow"},
            {"Name": "*", "Permissions": [{"Action": "deny", "HTTP": {"PathPrefix": "/admin", "Methods": ["POST"]}}]},
        ],
    },
    kubernetes(
        "consul.hashicorp.com/v1alpha1",
        "ServiceIntentions",
        {
            "destination": {"name": "web"},
            "sources": [{"name": "api", "permissions": [{"action": "allow", "http": {"pathExact": "/"}}]}],
        },
    ),
]
IDS = [f"{each.get('apiVersion', 'consul')} {each.get('kind') or each['Kind']}" for each in RIGHT]


def test_every_kind_is_here() -> None:
    assert len(RIGHT) == len(SHAPES)


@pytest.mark.parametrize("document", RIGHT, ids=IDS)
def test_a_document_is_kept_and_it_is_told_that_nothing_enforces_it(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump(document))
    settings = compile_config(load_file(path))
    assert [each.data for each in settings.security_documents] == [
        yaml.safe_load(yaml.safe_dump(document).replace("8080", "'8080'"))
    ]
    assert [str(note).endswith(ENDS) for note in settings.notes] == [True]
    (tmp_path / "mesh.yaml").write_text("documents: {strict: true}\ninclude: [some.yaml]\n")
    with pytest.raises(ConfigError, match=r"some\.yaml:1: .*: is not honoured: " + ENDS):
        load_file(tmp_path / "mesh.yaml")


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (istio("PeerAuthentication", mtls={"mode": "STRIKT"}), "one of UNSET, DISABLE, PERMISSIVE, STRICT is expected"),
        (istio("PeerAuthentication", mtls="STRICT"), "spec.mtls: a map is expected"),
        (istio("RequestAuthentication", jwtRules=[{"audiences": ["a"]}]), "spec.jwtRules[0]: issuer is required"),
        (istio("AuthorizationPolicy", action="DENIED"), "spec.action: one of ALLOW, DENY, AUDIT, CUSTOM is expected"),
        (
            istio("AuthorizationPolicy", rules=[{"to": [{"operation": {"paths": "/a"}}]}]),
            "spec.rules[0].to[0].operation.paths: a list is expected",
        ),
        (istio("AuthorizationPolicy", rules=[{"when": [{"values": ["a"]}]}]), "rules[0].when[0]: key is required"),
        (linkerd("Server", podSelector={}), "spec: port is required"),
        (linkerd("Server", port=0), "spec.port: a port, by its number or name is expected"),
        (linkerd("ServerAuthorization", server={}, client={"networks": [{}]}), "networks[0]: cidr is required"),
        (linkerd("AuthorizationPolicy", targetRef=TARGET), "spec: requiredAuthenticationRefs is required"),
        (linkerd("MeshTLSAuthentication", identities="*"), "spec.identities: a list is expected"),
        (
            linkerd("NetworkAuthentication", networks=[{"cidr": "10.0.0/8"}]),
            "spec.networks[0].cidr: an address or a network is expected",
        ),
        (
            linkerd("HTTPLocalRateLimitPolicy", targetRef=TARGET, total={"requestsPerSecond": -1}),
            "spec.total.requestsPerSecond: a whole number is expected",
        ),
        ({"Kind": "service-intentions", "Sources": []}, "Name is required"),
        (
            {"Kind": "service-intentions", "Name": "web", "Sources": [{"Name": "a", "Action": "permit"}]},
            "Sources[0].Action: one of allow, deny is expected",
        ),
        (kubernetes("consul.hashicorp.com/v1alpha1", "ServiceIntentions", {}), "spec: destination is required"),
        (istio("PeerAuthentication") | {"spec": "none"}, "spec: a map is expected"),
    ],
)
def test_one_of_a_wrong_shape_is_an_error(document: dict[str, Any], problem: str) -> None:
    told = notes(draft_of(document), "wrong")
    assert len(told) == 1
    assert problem in told[0]


def test_a_field_that_is_unknown_is_told_of() -> None:
    (_, told) = notes(draft_of(istio("AuthorizationPolicy", actoin="DENY")), "ignored")
    assert told.endswith("spec.actoin: is not honoured: unknown field; did you mean 'action'?")


def test_what_a_token_is_checked_with_is_not_told() -> None:
    document = istio(
        "RequestAuthentication", jwtRules=[{"issuer": "a", "jwks": {"k": "hunter2"}, "timeout": ["hunter2"]}]
    )
    draft = draft_of(document)
    assert len(notes(draft, "wrong")) == 2
    assert "hunter2" not in f"{draft.notes}{draft.security}"
