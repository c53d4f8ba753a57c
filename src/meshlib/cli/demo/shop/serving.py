"""Where a service of the shop listens, and how the demo learns of it."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path

__all__ = ["addresses", "announce", "listen"]

_PORTS = range(15_000, 32_000)
"""Below the range from which the kernel takes the ports of outgoing connections: a port that a killed instance leaves
behind is not taken by a connection of somebody else."""


def listen() -> socket.socket:
    """Return a socket that listens on a free port of this machine."""
    for port in random.SystemRandom().sample(_PORTS, 100):
        try:
            return socket.create_server(("127.0.0.1", port), backlog=256)
        except OSError:
            continue
    return socket.create_server(("127.0.0.1", 0), backlog=256)


def announce(port: int) -> None:
    """Tell the demo that this service is up."""
    path = os.environ.get("SHOP_READY_FILE")
    if path:
        part = Path(f"{path}.part")
        part.write_text(str(port))
        part.rename(path)


def addresses(service: str) -> list[str]:
    """The addresses of a service as somebody without a mesh has them: a list, written down when the caller started."""
    return [address for address in os.environ.get(f"SHOP_{service.upper()}", "").split(",") if address]
