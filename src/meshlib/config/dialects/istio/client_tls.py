"""``ClientTLSSettings``: whether and how connections to a service are encrypted."""

from __future__ import annotations

from typing import Any, Final

from meshlib.config.dialects.fields import Reader

__all__ = ["read_tls"]

_MODES: Final = ("DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL")


def read_tls(reader: Reader) -> dict[str, Any]:
    """``tls`` in our words; empty where it says nothing that can be done."""
    mode = reader.text("mode") or "DISABLE"
    certificate, key = reader.text("clientCertificate"), reader.text("privateKey")
    roots, name = reader.text("caCertificates"), reader.text("sni")
    names, unverified = reader.texts("subjectAltNames"), reader.flag("insecureSkipVerify")
    reader.ignore("credentialName", "secrets of Kubernetes are not read; name files")
    reader.ignore("caCrl", "certificates that were revoked are not looked up")
    reader.rest()
    if mode not in _MODES:
        reader.wrong("mode", f"is none of {', '.join(_MODES)}")
    if mode == "DISABLE":
        return {"mode": "off"}
    if mode == "ISTIO_MUTUAL":
        reader.ignore("mode", "this process has no certificate of the mesh; connections are as the URL says")
        return {}
    native: dict[str, Any] = {"mode": "simple"}
    if unverified:
        native["verify"] = False
    elif roots:
        native["ca_file"] = roots
    if mode == "MUTUAL":
        if certificate and key:
            native |= {"cert_file": certificate, "key_file": key}
        elif "credentialName" not in reader:
            reader.wrong(None, "MUTUAL needs a clientCertificate and its privateKey")
    if name:
        native["server_name"] = name
    if names and names != [name]:
        if not name and len(names) == 1:
            native["server_name"] = names[0]
            reader.different("subjectAltNames", "is the name that is asked for as well (SNI)")
        else:
            reader.ignore("subjectAltNames", "one name is verified: sni, else that of the service")
    return native
