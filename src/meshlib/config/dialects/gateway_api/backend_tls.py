"""BackendTLSPolicy: how calls to a Service are encrypted.

Of several for one port the oldest holds, then the one whose namespace and name come first in the alphabet; one that
names a port goes before one for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.resources import Resource

__all__ = ["read_backend_tls"]

_KEY: Final = "ca.crt"


def read_backend_tls(draft: Draft, resources: Sequence[Resource]) -> None:
    """Read all BackendTLSPolicies, and write the encryption of the services that they are for."""
    bundles = {(draft.namespace_of(each), each.name): _bundle(each) for each in resources if each.kind == "ConfigMap"}
    policies = [each for each in resources if each.kind == "BackendTLSPolicy"]
    policies.sort(key=lambda each: (not each.created, each.created, draft.namespace_of(each), each.name))
    taken: dict[str, str] = {}
    found: list[tuple[bool, Reader, str, int | None, dict[str, Any]]] = []
    for resource in policies:
        found += _read(draft, resource, bundles)
    for _, target, name, port, tls in sorted(found, key=lambda each: each[0]):
        namespace = draft.namespace_of(target.resource)
        service = draft.port_service(name, namespace, port, target.place())
        if service.name in taken:
            if taken[service.name] != target.resource.subject:
                target.different(None, f"gives way to {taken[service.name]} for {service.name}")
            continue
        taken[service.name] = target.resource.subject
        service.put("tls", tls, target.place())


def _read(
    draft: Draft, resource: Resource, bundles: Mapping[tuple[str, str], str]
) -> list[tuple[bool, Reader, str, int | None, dict[str, Any]]]:
    """For each port that a policy is for: whether it is for all ports, where that is said, the port, the encryption."""
    reader = Reader(draft, resource)
    reader.skip("apiVersion", "kind", "metadata", "status")
    spec = reader.map("spec") or Reader(draft, resource, {}, ("spec",))
    reader.rest()
    targets = spec.maps("targetRefs")
    validation = spec.map("validation")
    spec.ignore("options", "these are another implementation's own")
    spec.rest()
    namespace = draft.namespace_of(resource)
    if validation is None:
        spec.wrong("validation", "is required")
        return []
    tls = _tls(validation, namespace, bundles)
    found: list[tuple[bool, Reader, str, int | None, dict[str, Any]]] = []
    for target in targets:
        group, kind, name = target.text("group") or "", target.text("kind") or "", target.text("name") or ""
        section = target.text("sectionName")
        target.rest()
        if (group, kind) != ("", "Service"):
            text = f"is not honoured: {group or 'core'}/{kind} is no kind of backend that is known"
            draft.note(target.place(), text, "ignored")
            continue
        entry = draft.inventory.services.get(draft.host_of(name, namespace))
        ports = [] if entry is None else [port for port in entry.ports if section in (None, port.name)]
        if section is not None and not ports:
            text = f"is not honoured: the Service {namespace}/{name} has no port of this name"
            draft.note(target.place("sectionName"), text, "ignored")
            continue
        numbers: list[int | None] = [port.number for port in ports]
        found += [(section is None, target, name, number, tls) for number in numbers or [None]]
    return found


def _tls(reader: Reader, namespace: str, bundles: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    host, known = reader.text("hostname"), reader.text("wellKnownCACertificates")
    names = reader.maps("subjectAltNames")
    authorities, missing = _authorities(reader.maps("caCertificateRefs"), namespace, bundles)
    reader.rest()
    tls: dict[str, Any] = {"mode": "simple"}
    if not host:
        reader.wrong("hostname", "is required")
    else:
        tls["server_name"] = host
    if known not in (None, "", "System"):
        text = f"is not honoured: {known!r} is no set of certificates that is known; calls fail"
        reader.draft.note(reader.place("wellKnownCACertificates"), text, "ignored")
        missing = [*missing, f"wellKnownCACertificates {known}"]
    elif not known and not authorities and not missing:
        reader.wrong(None, "has neither caCertificateRefs nor wellKnownCACertificates; one of them is required")
    if authorities:
        tls["ca"] = authorities
    elif missing:
        # Roots that are not there are no reason to trust others: a file of that name, which is none, fails the calls.
        tls["ca_file"] = missing[0]
    given = []
    for each in names:
        given.append(each.text("hostname") if each.text("type") == "Hostname" else None)
        each.skip("hostname", "uri")
        each.rest()
    if given and given != [host]:
        text = "is not honoured: the server's certificate has to be one for 'hostname'"
        reader.draft.note(reader.place("subjectAltNames"), text, "ignored")
    return tls


def _authorities(
    readers: Sequence[Reader], namespace: str, bundles: Mapping[tuple[str, str], str]
) -> tuple[str, list[str]]:
    """The certificates of all references together, and what was not found."""
    texts: list[str] = []
    missing: list[tuple[Reader, str]] = []
    for reader in readers:
        group, kind, name = reader.text("group") or "", reader.text("kind") or "", reader.text("name") or ""
        reader.rest()
        bundle = bundles.get((namespace, name), "") if (group, kind) == ("", "ConfigMap") else ""
        if bundle:
            texts.append(bundle if bundle.endswith("\n") else f"{bundle}\n")
        else:
            missing.append((reader, f"{kind} {namespace}/{name} with {_KEY}"))
    then = "the other certificates are trusted alone" if texts else "calls fail"
    for reader, what in missing:
        text = f"is not honoured: there is no {what} among the documents; {then}"
        reader.draft.note(reader.place(), text, "ignored")
    return "".join(texts), [what for _, what in missing]


def _bundle(resource: Resource) -> str:
    data = resource.data.get("data")
    text = data.get(_KEY) if isinstance(data, Mapping) else None
    return text if isinstance(text, str) else ""
