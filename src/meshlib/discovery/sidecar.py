"""Whether a proxy of another mesh stands beside this process, which would retry, balance and encrypt once more.

Nothing tells an application that it has a sidecar: neither Istio's injection nor Linkerd's adds a variable or a file to
its container. But the containers of a pod share loopback, and each proxy answers there, where its own traffic rules let
connections pass: Istio's Envoy on its health port (15021) and its admin port (15000), Linkerd's proxy on its admin port
(4191). Headers of responses are no sign: they tell of the callee's proxy.

Sidecars are injected into pods, so nothing is asked where this is none; and asyncio is imported where something is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final

from meshlib.dataclass import dataclass

__all__ = ["SIGNS", "Sidecar", "Sign", "find_sidecar", "in_a_pod", "until", "wait_for_sidecar"]

LOOKS_AFTER_S: Final = (0.0, 10.0, 60.0)
"""A proxy may start later than the application, where nobody told Kubernetes to wait for it."""

_LOOKS_EVERY_S = 5.0
_TIMEOUT_S = 1.0
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Sign:
    """How one proxy shows itself.

    Attributes:
        proxy: whose it is.
        port: on loopback.
        path: to ask for.
        tells: what its answer has and hardly any other: within its headers, or as its body, in lower case.
    """

    proxy: str
    port: int
    path: str
    tells: bytes


SIGNS: Final = (
    Sign("Istio", 15021, "/healthz/ready", b"\r\nserver: envoy"),
    Sign("Istio", 15000, "/ready", b"\r\nserver: envoy"),
    Sign("Linkerd", 4191, "/live", b"\r\n\r\nlive"),
)
"""By Istio's list of the ports of its sidecar, and linkerd2-proxy's ``app/admin/src/server.rs``."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A proxy that was found.

    Attributes:
        proxy: ``Istio`` or ``Linkerd``.
        evidence: what answered.
    """

    proxy: str
    evidence: str


def in_a_pod(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether this process runs in a pod: Kubernetes tells every container where its API server is."""
    return bool(environ.get("KUBERNETES_SERVICE_HOST"))


async def find_sidecar(signs: tuple[Sign, ...] = SIGNS) -> Sidecar | None:
    """Look once; it takes a second at most, and mostly much less: a port that nobody listens on refuses at once."""
    import asyncio

    answers = await asyncio.gather(*(_answers(sign) for sign in signs))
    for sign, answered in zip(signs, answers, strict=True):
        if answered:
            return Sidecar(sign.proxy, f"127.0.0.1:{sign.port}{sign.path} answers as its proxy does")
    return None


async def wait_for_sidecar(signs: tuple[Sign, ...] = SIGNS) -> Sidecar | None:
    """Look, and again a little later, until one is found; None if none is by then."""
    import asyncio

    for delay_s in LOOKS_AFTER_S:
        await asyncio.sleep(delay_s)
        found = await find_sidecar(signs)
        if found is not None:
            return found
    return None


async def until(condition: Callable[[], bool]) -> None:
    """Return when `condition` holds; it is looked at now and then."""
    import asyncio

    while not condition():  # noqa: ASYNC110 - what it asks of tells nobody
        await asyncio.sleep(_LOOKS_EVERY_S)


async def _answers(sign: Sign) -> bool:
    import asyncio

    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return sign.tells in (await _ask(sign)).lower()
    except (OSError, TimeoutError):
        return False


async def _ask(sign: Sign) -> bytes:
    """The beginning of the answer: all of a short one, since the connection is closed behind it."""
    import asyncio

    reader, writer = await asyncio.open_connection("127.0.0.1", sign.port)
    try:
        writer.write(f"GET {sign.path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < _LONGEST and (more := await reader.read(_LONGEST)):
            answer += more
        return answer
    finally:
        writer.close()
