"""``WorkloadEntry``: one endpoint, in a ServiceEntry or by itself; and ``WorkloadGroup``, a template of such.

Source: Istio's ``workload_entry.proto``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.balance.failover import NETWORK
from meshlib.config.dialects.draft import Draft, Port
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.resources import Place, Resource
from meshlib.dataclass import dataclass

__all__ = ["WorkloadEntry", "read_workload", "read_workload_entry", "read_workload_group"]


@dataclass(frozen=True, slots=True)
class WorkloadEntry:
    """One endpoint.

    Attributes:
        address: an IP address, a name, or ``unix:///path``.
        ports: numbers by name.
        labels: its own.
        native: what of it is the same at each port.
        place: of it.
    """

    address: str
    ports: Mapping[str, int]
    labels: Mapping[str, str]
    native: Mapping[str, Any]
    place: Place

    def endpoint(self, port: Port) -> dict[str, Any]:
        """The endpoint that it is for a port of a service, in our words."""
        number = self.ports.get(port.name) or port.target or port.number
        if self.address.startswith("unix:"):
            address = f"unix:{self.address.removeprefix('unix:').removeprefix('//')}"
        else:
            address = f"[{self.address}]:{number}" if ":" in self.address else f"{self.address}:{number}"
        return {"address": address, **self.native}


def read_workload_entry(draft: Draft, resource: Resource) -> WorkloadEntry | None:
    """Read a document; None if it has no address."""
    return read_workload(Reader(draft, resource, resource.data.get("spec"), ("spec",)))


def read_workload_group(draft: Draft, resource: Resource) -> None:
    """Read a WorkloadGroup, which says nothing of how calls are made."""
    reader = Reader(draft, resource, resource.data.get("spec"), ("spec",))
    reader.skip("metadata", "template", "probe")
    reader.rest()
    draft.note(resource.place(), "says what workloads are to register as; nobody is called by it", "passed")


def read_workload(reader: Reader) -> WorkloadEntry | None:
    """Read an endpoint; None if it has no address."""
    address, given = reader.text("address"), reader.map("ports")
    ports: dict[str, int] = {}
    if given is not None:
        ports = {name: number for name in map(str, given.data) if (number := given.integer(name)) is not None}
    labels, network = reader.entries("labels"), reader.text("network")
    locality, weight = reader.text("locality"), reader.integer("weight")
    reader.ignore("serviceAccount", "who answers is not verified by its identity in the mesh")
    reader.rest()
    native: dict[str, Any] = {}
    if weight:
        native["weight"] = weight
    metadata = {**labels, **({NETWORK: network} if network else {})}
    if metadata:
        native["metadata"] = metadata
    if locality:
        names = ("region", "zone", "sub_zone")
        native["locality"] = {name: part for name, part in zip(names, locality.split("/"), strict=False) if part}
    if not address:
        reader.wrong("address", "is needed: endpoints are called, not the gateway of their network")
        return None
    return WorkloadEntry(address, ports, labels, native, reader.place())
