"""What the API of Kubernetes says of the services of a namespace."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from meshlib.cli.first_file import Found, FoundService, name_for
from meshlib.dataclass import dataclass, field
from meshlib.errors import DiscoveryUnavailable

__all__ = ["ACCOUNT", "Cluster", "cluster_here", "found_in_kubernetes"]

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the token and the certificates of its service account."""

_TIMEOUT_S: Final = 10.0
_PAGE: Final = 500
_MOST: Final = 5000


@dataclass(frozen=True, slots=True)
class Cluster:
    """How the API is reached.

    Attributes:
        address: its URL.
        token: of the service account; empty for none.
        ca_file: a PEM bundle of trusted roots; None for the system's.
        namespace: that is looked at.
    """

    address: str
    token: str = field(default="", repr=False)
    ca_file: Path | None = None
    namespace: str = "default"


def cluster_here(
    api: str | None, namespace: str | None, environ: Mapping[str, str] | None = None, account: Path = ACCOUNT
) -> Cluster:
    """The API that is given, such as ``kubectl proxy``'s; else, in a pod, that of its cluster.

    Raises:
        DiscoveryUnavailable: if there is neither.
    """
    environ = os.environ if environ is None else environ
    if api is not None:
        return Cluster(api.rstrip("/"), namespace=namespace or "default")
    host, port = environ.get("KUBERNETES_SERVICE_HOST"), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise DiscoveryUnavailable(
            "this is no pod of Kubernetes ($KUBERNETES_SERVICE_HOST is not set): run `kubectl proxy`, "
            "and give --api http://127.0.0.1:8001"
        )
    try:
        token = (account / "token").read_text().strip()
        own = (account / "namespace").read_text().strip()
    except OSError as error:
        raise DiscoveryUnavailable(f"the service account of this pod cannot be read: {error}") from None
    shown = f"[{host}]" if ":" in host else host
    return Cluster(f"https://{shown}:{port}", token, account / "ca.crt", namespace or own or "default")


def found_in_kubernetes(cluster: Cluster) -> Found:
    """The services of the namespace, each by the name that the cluster's DNS has for it.

    Raises:
        DiscoveryUnavailable: if the API does not answer, or may not be asked.
    """
    import httpx

    try:
        verify = ssl.create_default_context(cafile=cluster.ca_file) if cluster.address.startswith("https") else False
        headers = {"authorization": f"Bearer {cluster.token}"} if cluster.token else {}
        with httpx.Client(
            base_url=cluster.address, headers=headers, verify=verify, trust_env=False, timeout=_TIMEOUT_S
        ) as client:
            path = f"/api/v1/namespaces/{cluster.namespace}/services"
            items = list(_listed(client, path, cluster))
            ready = _ready(client, cluster)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        text = str(error) or type(error).__name__
        raise DiscoveryUnavailable(f"Kubernetes at {cluster.address}: {text}") from None
    services: dict[str, FoundService] = {}
    for item in items:
        # Those of first ports come first: a further port of one may have the name of another.
        for index, each in enumerate(_services(item, cluster.namespace, ready)):
            if index == 0 or each.name not in services:
                services[each.name] = each
    notes = (
        "Each endpoint is the name of a Service: the cluster chooses the pod. Discovery or EndpointSlice documents let",
        "the mesh choose it.",
    )
    return Found(
        f"the namespace {cluster.namespace} of Kubernetes", [services[name] for name in sorted(services)], notes=notes
    )


def _listed(client: Any, path: str, cluster: Cluster) -> Iterator[Mapping[str, Any]]:
    params = {"limit": str(_PAGE)}
    for _ in range(_MOST // _PAGE):
        response = client.get(path, params=params)
        if response.status_code != 200:
            needs = f"its role needs `list` on {path.rpartition('/')[2]} in {cluster.namespace}"
            hint = f"; {needs}" if response.status_code in (401, 403) else ""
            raise DiscoveryUnavailable(f"Kubernetes at {cluster.address} answered {response.status_code}{hint}")
        page = response.json()
        yield from (item for item in page.get("items") or () if isinstance(item, Mapping))
        more = (page.get("metadata") or {}).get("continue")
        if not more:
            return
        params["continue"] = more


def _ready(client: Any, cluster: Cluster) -> dict[str, int]:
    """How many endpoints each service has that are ready; empty where that may not be asked."""
    ready: dict[str, int] = {}
    path = f"/apis/discovery.k8s.io/v1/namespaces/{cluster.namespace}/endpointslices"
    try:
        for item in _listed(client, path, cluster):
            labels = (item.get("metadata") or {}).get("labels") or {}
            service = labels.get("kubernetes.io/service-name", "")
            for endpoint in item.get("endpoints") or ():
                good = (endpoint.get("conditions") or {}).get("ready", True) is not False
                ready[service] = ready.get(service, 0) + good
    except DiscoveryUnavailable:
        return {}
    return ready


def _services(item: Mapping[str, Any], namespace: str, ready: Mapping[str, int]) -> Iterator[FoundService]:
    spec = item.get("spec") or {}
    own = str((item.get("metadata") or {}).get("name", ""))
    name = name_for(own)
    given = [each for each in spec.get("ports") or () if isinstance(each.get("port"), int)]
    ports = [each for each in given if each.get("protocol", "TCP") == "TCP"]
    if not name or not ports or own == "kubernetes":
        return
    full = f"{own}.{namespace}.svc.cluster.local"
    names = (f"{own}.{namespace}", f"{own}.{namespace}.svc", full)
    told = [f"{ready[own]} endpoints ready"] if own in ready else []
    if spec.get("clusterIP") == "None":
        told.append("headless: its name stands for all its pods")
    target = str(spec.get("externalName") or full)
    for index, port in enumerate(ports):
        number = port.get("port")
        label = name_for(str(port.get("name") or number))
        comments = [*told, f"port {label}"] if port.get("name") else told
        protocol = str(port.get("appProtocol") or port.get("name") or "").lower()
        if protocol and not protocol.startswith(("http", "grpc", "web", "kubernetes.io/")):
            comments = [*comments, "perhaps not HTTP"]
        yield FoundService(
            name if index == 0 else f"{name}-{label}",
            ("; ".join(comments),) if comments else (),
            names if index == 0 else tuple(f"{each}:{number}" for each in (own, *names)),
            (f"{target}:{number}",),
        )
