"""A Service: its names, its ports, and which of its endpoints callers are to prefer.

Source: Kubernetes' ``core/v1`` Service (``staging/src/k8s.io/api/core/v1/types.go``).
"""

from __future__ import annotations

from typing import Final

from meshlib.config.dialects.draft import CLUSTER_DOMAIN, Draft, Port, ServiceEntry
from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.resources import Place, Resource
from meshlib.dataclass import dataclass

__all__ = ["H2C", "KubernetesService", "read_service"]

H2C: Final = "kubernetes.io/h2c"

_ELSEWHERE: Final = (
    "selector",
    "clusterIPs",
    "ipFamilyPolicy",
    "externalIPs",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "loadBalancerIP",
    "loadBalancerClass",
    "loadBalancerSourceRanges",
    "allocateLoadBalancerNodePorts",
    "publishNotReadyAddresses",  # whoever writes the endpoints has heeded it
)
"""Fields that are for those who call from outside of the cluster, or for those who write endpoints."""

_NEAR: Final = {"PreferClose", "PreferSameZone", "PreferSameNode"}


@dataclass(frozen=True, slots=True)
class KubernetesService:
    """A Service.

    Attributes:
        entry: as it stands in the inventory.
        name: its own.
        cluster_ip: its virtual address; empty if it is not written, or the Service is headless.
        headless: whether its name stands for its endpoints.
        external_name: the name that it stands for; empty if it is no ``ExternalName``.
        family: the addresses to prefer: ``IPv4`` or ``IPv6``; empty if it does not say.
        near: whether endpoints of the caller's own zone are to be preferred.
        for_calls: whether calls can go to it: not where all of its ports are of other protocols than TCP.
        place: of the document.
    """

    entry: ServiceEntry
    name: str
    cluster_ip: str
    headless: bool
    external_name: str
    family: str
    near: bool
    for_calls: bool
    place: Place

    @property
    def namespace(self) -> str:
        return self.entry.namespace

    @property
    def host(self) -> str:
        """Its name in full."""
        return self.entry.host


def read_service(draft: Draft, resource: Resource) -> KubernetesService | None:
    """Read a Service; None if it has no name."""
    reader = Reader(draft, resource)
    reader.skip("apiVersion", "kind", "metadata", "status")
    if not resource.name:
        reader.wrong("metadata", "has no name")
        return None
    spec = reader.map("spec") or Reader(draft, resource, {}, ("spec",))
    reader.rest()
    namespace = draft.namespace_of(resource)
    given = spec.maps("ports")
    ports = [port for each in given if (port := _port(each)) is not None]
    # Port 80 is what a URL without a port means, so it is that of the service itself.
    ports.sort(key=lambda port: port.number != 80)
    address, kind = spec.text("clusterIP") or "", spec.text("type") or "ClusterIP"
    families, external = spec.texts("ipFamilies"), spec.text("externalName") or ""
    near = _near(spec)
    if spec.raw("sessionAffinity") not in (None, "None"):
        spec.ignore("sessionAffinity", "calls of one client go to all endpoints; 'session_affinity' can bind them")
    spec.skip("sessionAffinityConfig", *_ELSEWHERE)
    spec.rest()
    host = f"{resource.name.lower()}.{namespace}.{CLUSTER_DOMAIN}"
    place = resource.place()
    entry = ServiceEntry(host, namespace, tuple(ports), resource.labels, place, resource.annotations)
    return KubernetesService(
        entry,
        resource.name.lower(),
        "" if address == "None" else address,
        address == "None",
        external.rstrip(".") if kind == "ExternalName" else "",
        families[0] if families else "",
        near,
        bool(ports) or not given,
        place,
    )


def _port(reader: Reader) -> Port | None:
    """A port over which calls can go; None for those of other protocols."""
    number, name = reader.integer("port"), reader.text("name") or ""
    target, protocol = reader.raw("targetPort"), reader.text("protocol") or "TCP"
    application = reader.text("appProtocol") or ""
    reader.skip("nodePort")
    reader.rest()
    if number is None or not 1 <= number <= 65535:
        reader.wrong("port", "is needed: a number from 1 to 65535")
        return None
    if target is not None and (isinstance(target, bool) or not isinstance(target, (int, str))):
        reader.wrong("targetPort", "a number, or the name of a port, is expected")
        target = None
    return Port(number, name, target or number, application) if protocol == "TCP" else None


def _near(spec: Reader) -> bool:
    distribution = spec.text("trafficDistribution")
    if distribution is not None and distribution not in _NEAR:
        text = f"is not honoured: {distribution!r} is none of {', '.join(sorted(_NEAR))}"
        spec.draft.note(spec.place("trafficDistribution"), text, "ignored")
    elif distribution == "PreferSameNode":
        spec.different("trafficDistribution", "endpoints of the same zone are preferred: the node is not known here")
    elif distribution is not None and not spec.draft.context.zone:
        spec.different(
            "trafficDistribution", "prefers nobody, since the zone of this workload is not given: 'locality'"
        )
    if spec.raw("internalTrafficPolicy") == "Local":
        spec.ignore("internalTrafficPolicy", "calls go to endpoints of all nodes: the own one is not known here")
    return distribution in _NEAR
