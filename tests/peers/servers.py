"""A real nginx, Envoy and Redis, each with a directory and ports of its own."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.peers.process import Process, accepts, free_port

_NGINX_CONF = """\
daemon off;
worker_processes {workers};
{user}
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    {body}
}}
"""


class Nginx(Process):
    """A running nginx.

    Args:
        binary: the program.
        directory: its prefix.
        body: what stands in the `http` block; `@port@` is its first port, `@port2@` the second, and so on.
        ports: how many ports it listens on.
        workers: how many worker processes it has.
        connections: how many each of them can have open.
    """

    def __init__(
        self,
        binary: Path,
        directory: Path,
        body: str,
        *,
        ports: int = 1,
        workers: int = 1,
        connections: int = 4096,
    ) -> None:
        self.ports = tuple(free_port() for _ in range(ports))
        for number, port in enumerate(self.ports, start=1):
            body = body.replace("@port@" if number == 1 else f"@port{number}@", str(port))
        # Started by root, its workers would become `nobody`, who may not read a test's directory.
        user = "user root;" if os.geteuid() == 0 else ""
        file = directory / "nginx.conf"
        text = _NGINX_CONF.format(directory=directory, body=body, workers=workers, user=user, connections=connections)
        file.write_text(text)
        super().__init__(
            [str(binary), "-p", str(directory), "-c", str(file), "-e", "stderr"],
            ready=lambda: all(accepts(port) for port in self.ports),
            log=directory / "nginx.log",
        )

    @property
    def port(self) -> int:
        """The first port."""
        return self.ports[0]

    @property
    def address(self) -> str:
        """The URL of the first port."""
        return f"http://127.0.0.1:{self.port}"


class Envoy(Process):
    """A running Envoy with one worker thread.

    Args:
        binary: the program.
        directory: where its files go.
        bootstrap: its bootstrap configuration; an admin listener is added if it has none.
    """

    def __init__(self, binary: Path, directory: Path, bootstrap: Mapping[str, Any]) -> None:
        config = dict(bootstrap)
        if "admin" not in config:
            socket_address = {"address": "127.0.0.1", "port_value": free_port()}
            config["admin"] = {"address": {"socket_address": socket_address}}
        self.admin_port: int = config["admin"]["address"]["socket_address"]["port_value"]
        file = directory / "envoy.json"
        file.write_text(json.dumps(config, indent=2))
        super().__init__(
            # Hot restart is what would make two of them on one machine share memory.
            [str(binary), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"],
            ready=self._is_ready,
            log=directory / "envoy.log",
            timeout=30,
        )

    def admin(self, path: str, method: str = "GET") -> tuple[int, str]:
        """One call of the admin API: status and text."""
        connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=5)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def _is_ready(self) -> bool:
        try:
            return self.admin("/ready")[0] == 200
        except OSError:
            return False


class Redis(Process):
    """A running Redis that keeps nothing on disk."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.port = free_port()
        super().__init__(
            [
                str(binary),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(directory)),
                *("--save", "", "--appendonly", "no"),
            ],
            ready=self._pongs,
            log=directory / "redis.log",
        )

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _pongs(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16) == b"+PONG\r\n"
        except OSError:
            return False
