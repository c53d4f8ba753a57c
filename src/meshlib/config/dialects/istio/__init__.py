"""Istio's documents: VirtualService, DestinationRule, ServiceEntry, WorkloadEntry and Sidecar.

Each document is read once, field by field (a module for each kind, by its name); then it is known which of them hold
for this workload, and what they come to is written into the draft:

1. the hosts of ServiceEntries are declared, beside those of Kubernetes;
2. the Sidecar says which hosts and rules this workload sees;
3. VirtualServices become routes of their hosts, `routes`;
4. DestinationRules become the policies of all hosts that are known by then, and of their subsets;
5. where nobody says anything, it is as in Istio: no timeouts, two retries on its own conditions, least requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.istio.destination_rule import read_destination_rule
from meshlib.config.dialects.istio.hosts import ROOT_NAMESPACE
from meshlib.config.dialects.istio.service_entry import declare, read_service_entry
from meshlib.config.dialects.istio.sidecar import read_sidecar, sidecar_for
from meshlib.config.dialects.istio.virtual_service import read_virtual_service
from meshlib.config.dialects.istio.workload_entry import read_workload_entry, read_workload_group
from meshlib.config.dialects.istio.writing import Writing
from meshlib.config.dialects.resources import Resource
from meshlib.config.dialects.security import keep

__all__ = ["KINDS", "SECURITY", "VERSIONS", "translate"]

VERSIONS: Final = ("v1", "v1beta1", "v1alpha3")
"""Of the API; the fields are the same in all."""

SECURITY: Final = "security.istio.io"
"""The group of the documents that speak of identity and authorization."""

KINDS: Final = (
    "DestinationRule",
    "Gateway",
    "ServiceEntry",
    "Sidecar",
    "VirtualService",
    "WorkloadEntry",
    "WorkloadGroup",
)
"""Of documents about traffic."""


def translate(draft: Draft, resources: Sequence[Resource]) -> None:
    """Write what Istio's documents say into the draft."""
    own = [resource for resource in resources if resource.group != SECURITY]
    of = {kind: [resource for resource in own if resource.kind == kind] for kind in KINDS}
    for resource in resources:
        if resource.group == SECURITY:
            keep(draft, resource)
            continue
        if resource.version not in VERSIONS:
            text = f"{resource.version} is no version of its API that is known: {', '.join(VERSIONS)} are"
            draft.note(resource.place("apiVersion"), text, "wrong")
        _top(draft, resource)
    _namespaces(draft, own)
    for resource in of["Gateway"]:
        draft.note(resource.place(), "is for gateways, and this workload is none", "passed")
    for resource in of["WorkloadGroup"]:
        read_workload_group(draft, resource)
    workloads = [
        (draft.namespace_of(resource), entry)
        for resource in of["WorkloadEntry"]
        if (entry := read_workload_entry(draft, resource)) is not None
    ]
    entries = [read for each in of["ServiceEntry"] if (read := read_service_entry(draft, each)) is not None]
    # Of several entries for a host that of this namespace holds.
    for declared in sorted(entries, key=lambda entry: entry.namespace != draft.context.namespace):
        declare(draft, declared, workloads)
    rules = [rule for each in of["DestinationRule"] if (rule := read_destination_rule(draft, each)) is not None]
    services = [read_virtual_service(draft, resource) for resource in of["VirtualService"]]
    sidecars = [read_sidecar(draft, resource) for resource in of["Sidecar"]]
    context = draft.context
    sidecar = sidecar_for(sidecars, context.namespace, context.labels)
    # What nobody dated comes after what somebody did, in the order in which it was read.
    rules.sort(key=lambda rule: (not rule.created, rule.created))
    Writing(draft, rules, sidecar).write(services)


def _namespaces(draft: Draft, resources: Sequence[Resource]) -> None:
    """Point out that this workload may be taken to be where it is not."""
    client = draft.context.namespace
    far = [each for each in resources if draft.namespace_of(each) != ROOT_NAMESPACE]
    if far and all(draft.namespace_of(each) != client for each in far):
        text = f"none is in {client!r}, which is taken for the namespace of this workload: 'namespace' says which it is"
        draft.note(far[0].place("metadata", "namespace"), text, "different")


def _top(draft: Draft, resource: Resource) -> None:
    for name in resource.data:
        if name not in ("apiVersion", "kind", "metadata", "spec", "status"):
            draft.note(resource.place(str(name)), "is not honoured: unknown field", "ignored")
