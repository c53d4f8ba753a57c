"""BackendTLSPolicy: whom calls trust, and that nothing else is trusted where the roots are not there."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.config.settings import TlsSettings
from meshlib.errors import TLSFailed
from meshlib.security.tls import client_context

from .documents import GROUP, drafted, notes_of, service

_PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def policy(**validation: Any) -> dict[str, Any]:
    target = {"group": "", "kind": "Service", "name": "orders"}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "BackendTLSPolicy",
        "metadata": {"name": "orders", "namespace": "shop"},
        "spec": {"targetRefs": [target], "validation": {"hostname": "orders.example", **validation}},
    }


def refers(*names: str) -> list[dict[str, Any]]:
    return [{"group": "", "kind": "ConfigMap", "name": name} for name in names]


def bundle(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": _PEM}}


@pytest.mark.parametrize(
    ("validation", "named"),
    [
        ({"caCertificateRefs": refers("gone")}, "ConfigMap shop/gone with ca.crt"),
        ({"wellKnownCACertificates": "Mozilla"}, "wellKnownCACertificates Mozilla"),
    ],
)
def test_where_the_roots_are_not_there_calls_fail_and_say_so(validation: dict[str, Any], named: str) -> None:
    draft = drafted(service("orders"), policy(**validation))
    tls = draft.services["orders"].data["tls"]
    assert tls == {"mode": "simple", "server_name": "orders.example", "ca_file": named}
    (note,) = notes_of(draft, "ignored")
    assert note.endswith("calls fail")
    with pytest.raises(TLSFailed, match=f"the roots in '{named}' cannot be used"):
        client_context(TlsSettings(server_name="orders.example", ca_file=tls["ca_file"]))


def test_of_several_bundles_those_that_are_there_are_trusted_and_no_others() -> None:
    draft = drafted(service("orders"), bundle("here"), policy(caCertificateRefs=refers("here", "gone")))
    assert draft.services["orders"].data["tls"]["ca"] == _PEM
    (note,) = notes_of(draft, "ignored")
    assert note.endswith(
        "there is no ConfigMap shop/gone with ca.crt among the documents; the other certificates are trusted alone"
    )


def test_the_systems_roots_are_trusted_only_where_that_is_said() -> None:
    said = drafted(service("orders"), policy(wellKnownCACertificates="System"))
    assert said.services["orders"].data["tls"] == {"mode": "simple", "server_name": "orders.example"}
    assert not notes_of(said, "wrong")
    assert notes_of(drafted(service("orders"), policy()), "wrong")
