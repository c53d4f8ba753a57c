"""Pods on loopback, and the Kubernetes documents that tell of them: the shop of Istio's documentation, in small."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

import yaml

from meshlib import Mesh
from tests.adapters.support import Origin, Seen, ok
from tests.net.wire_servers import RawServer, serving

DOCUMENTS = Path(__file__).parents[1] / "data" / "istio_tasks"
PORT = 9080
"""Of all Services; their pods listen wherever there is room."""

Answer = Callable[[Seen, int], bytes | None]


@dataclass
class Pod:
    """A server that answers with the name of its version, unless told otherwise."""

    app: str
    version: str
    node: str
    origin: Origin
    server: RawServer
    running: ExitStack

    @property
    def name(self) -> str:
        return f"{self.app}-{self.version}"

    @property
    def calls(self) -> int:
        return len(self.origin.seen)

    def kill(self) -> None:
        """Refuse connections, and break those that there are."""
        self.running.close()


class Shop:
    """A namespace: its pods, and a directory with the documents of all that is in it."""

    def __init__(self, directory: Path, stack: ExitStack, namespace: str) -> None:
        self.directory = directory
        self.namespace = namespace
        self.pods: list[Pod] = []
        self._stack = stack

    def run(
        self, app: str, version: str, answer: Answer | None = None, *, node: str = "", tls: ssl.SSLContext | None = None
    ) -> Pod:
        """Start a pod."""
        origin = Origin(answer or (lambda seen, number: ok(version.encode())))
        running = self._stack.enter_context(ExitStack())
        server = running.enter_context(serving(origin, tls))
        self.pods.append(Pod(app, version, node, origin, server, running))
        return self.pods[-1]

    def apply(self, name: str, **values: object) -> None:
        """Put a file of Istio's documents in; in the place of one that begins with the same document."""
        text = Template((DOCUMENTS / f"{name}.yaml").read_text()).substitute(values)
        first = next(yaml.safe_load_all(text))
        (self.directory / f"{first['kind']}-{first['metadata']['name']}.yaml").write_text(text)

    def publish(self) -> None:
        """Write the documents of the pods."""
        text = yaml.safe_dump_all([*self._nodes(), *self._services(), *self._pods()])
        (self.directory / f"kubernetes-{self.namespace}.yaml").write_text(text)

    def mesh(self, **native: Any) -> Mesh:
        """The mesh of a workload in this namespace, for which every field of every document has to be honoured."""
        self.publish()
        documents = {"strict": True}
        config = {"namespace": self.namespace, "documents": documents, "include": [str(self.directory)], **native}
        return self._stack.enter_context(Mesh(config))

    def _nodes(self) -> Iterator[dict[str, Any]]:
        for node in sorted({pod.node for pod in self.pods if pod.node}):
            region, zone = node.split(".")
            labels = {"topology.kubernetes.io/region": region, "topology.kubernetes.io/zone": zone}
            yield {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node, "labels": labels}}

    def _services(self) -> Iterator[dict[str, Any]]:
        for app in sorted({pod.app for pod in self.pods}):
            spec = {"selector": {"app": app}, "ports": [{"name": "http", "port": PORT, "targetPort": "http"}]}
            yield {**self._head("v1", "Service", app, {"app": app}), "spec": spec}

    def _pods(self) -> Iterator[dict[str, Any]]:
        for pod in self.pods:
            yield self._head("v1", "Pod", pod.name, {"app": pod.app, "version": pod.version})
            endpoint: dict[str, Any] = {"addresses": ["127.0.0.1"], "conditions": {"ready": True}}
            endpoint["targetRef"] = {"kind": "Pod", "name": pod.name, "namespace": self.namespace}
            if pod.node:
                endpoint["nodeName"] = pod.node
            head = self._head("discovery.k8s.io/v1", "EndpointSlice", pod.name, {"kubernetes.io/service-name": pod.app})
            ports = [{"name": "http", "port": pod.server.port, "protocol": "TCP"}]
            yield {**head, "addressType": "IPv4", "ports": ports, "endpoints": [endpoint]}

    def _head(self, version: str, kind: str, name: str, labels: Mapping[str, str]) -> dict[str, Any]:
        metadata = {"name": name, "namespace": self.namespace, "labels": dict(labels)}
        return {"apiVersion": version, "kind": kind, "metadata": metadata}


@contextmanager
def shop(directory: Path, namespace: str = "default") -> Iterator[Shop]:
    """A namespace without anything in it yet; its pods and meshes end with it."""
    with ExitStack() as stack:
        yield Shop(directory, stack, namespace)
