"""A real Consul agent in development mode: one server, nothing on disk, ports of its own."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.peers import fetch
from tests.peers.process import Process, free_port


class Consul(Process):
    """A running agent.

    After `restart()` it has the same ports and has forgotten everything, as an agent in development mode does.

    Args:
        binary: the program.
        directory: where its log goes.
        token: switches access control on, with everything denied by default and this as the token that may do all.
        node_meta: metadata of the agent's node, from which clients read locality.
        node: the node's name.
        datacenter: the data centre's name.
        wan: whether it can be joined to agents of other data centres, see `join`.
        settings: anything else, as the agent's configuration file would have it.
    """

    def __init__(
        self,
        binary: Path,
        directory: Path,
        *,
        token: str | None = None,
        node_meta: Mapping[str, str] | None = None,
        node: str = "test-node",
        datacenter: str = "dc1",
        wan: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.token = token
        self.node_meta = dict(node_meta or {})
        self.http_port = free_port()
        self.wan_port = free_port() if wan else -1
        config: dict[str, Any] = {
            "node_name": node,
            "datacenter": datacenter,
            "node_meta": self.node_meta,
            "disable_update_check": True,
            "ports": {
                "http": self.http_port,
                "server": free_port(),
                "serf_lan": free_port(),
                "serf_wan": self.wan_port,
                "dns": -1,
                "grpc": -1,
            },
        }
        release = fetch.version("consul", binary) or "0"
        recent = tuple(int(part) for part in release.split(".")[:2]) >= (1, 14)
        if recent:
            config["ports"]["grpc_tls"] = -1
        if token is not None:
            manager = "initial_management" if recent else "master"
            config["acl"] = {"enabled": True, "default_policy": "deny", "tokens": {manager: token, "agent": token}}
        config.update(settings or {})
        file = directory / "consul.json"
        file.write_text(json.dumps(config, indent=2))
        super().__init__(
            [
                str(binary),
                *("agent", "-dev", "-bind", "127.0.0.1", "-client", "127.0.0.1"),
                *("-log-level", "warn", "-config-file", str(file)),
            ],
            ready=self._is_ready,
            log=directory / "consul.log",
            timeout=30,
        )

    @property
    def address(self) -> str:
        """The URL of its HTTP API."""
        return f"http://127.0.0.1:{self.http_port}"

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One call of the HTTP API as its manager: status and decoded reply (text if it is not JSON)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=10)
        try:
            headers = {"X-Consul-Token": self.token} if self.token else {}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, text

    def get(self, path: str) -> Any:
        """GET, decoded.

        Raises:
            RuntimeError: the agent replied with another status than 200.
        """
        return self._checked("GET", path)

    def put(self, path: str, body: Any = None) -> Any:
        """PUT, decoded.

        Raises:
            RuntimeError: the agent replied with another status than 200.
        """
        return self._checked("PUT", path, body)

    def _checked(self, method: str, path: str, body: Any = None) -> Any:
        status, reply = self.request(method, path, body)
        if status != 200:
            raise RuntimeError(f"{method} {path}: {status} {reply}")
        return reply

    def join(self, other: Consul) -> None:
        """Have the two data centres know each other."""
        self.put(f"/v1/agent/join/127.0.0.1:{other.wan_port}?wan=1")

    def _is_ready(self) -> bool:
        try:
            leader = self.request("GET", "/v1/status/leader")
            nodes = self.request("GET", "/v1/catalog/nodes")
        except OSError:
            return False
        if leader[0] != 200 or not leader[1] or nodes[0] != 200 or not nodes[1]:
            return False
        # The leader lists the node first, and its metadata a moment later, once the agent has synchronized.
        node = nodes[1][0]
        return bool(node["TaggedAddresses"]) and (node["Meta"] or {}).items() >= self.node_meta.items()
