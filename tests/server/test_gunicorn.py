"""Real gunicorn: workers that it replaces, and clients that go away."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from meshlib import Mesh
from tests.integration.rolling import Instance, Load, entered, fleet, until
from tests.integration.test_rolling_restart import CALLER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


def test_a_worker_that_is_replaced_after_so_many_requests_loses_no_call(tmp_path: Path) -> None:
    registry = {"discovery": [{"local": {"directory": str(tmp_path / "registry")}}]}
    every = "--max-requests 10 --max-requests-jitter 20"
    instance = Instance("gunicorn-uvicorn", registry, tmp_path, GUNICORN_CMD_ARGS=every)
    with fleet(instance):
        until(lambda: bool(entered(tmp_path / "registry")), lambda: instance.log)
        # uvicorn closes the connections that it keeps without a word, and may do so just as a request comes. What may
        # be sent again then is, on a new connection.
        with Mesh({**CALLER, **registry}) as mesh, Load(mesh, threads=3, method="GET") as load:
            until(lambda: len(load.since(0.0)) >= 3, lambda: (load.lost, instance.log))
        assert load.lost == []
        instance.term()
        assert instance.wait() < 10.0
    assert entered(tmp_path / "registry") == {}


@pytest.mark.parametrize("worker", ["uvicorn.workers.UvicornWorker", "asgi"])
def test_a_client_that_goes_away_ends_a_get_and_not_a_post(serve_gunicorn: Callable[..., str], worker: str) -> None:
    url = serve_gunicorn("tests.server.gunicorn_asgi_app:application", f"--worker-class={worker}")
    host, _, port = url.removeprefix("http://").partition(":")
    with httpx.Client(base_url=url, timeout=10) as http:

        def happens(what: str) -> None:
            ends_at = time.monotonic() + 10
            while what not in (happened := http.get("/happened").json()):
                assert time.monotonic() < ends_at, happened

        for method, end in (("GET", "cancelled"), ("POST", "finished")):
            with socket.create_connection((host, int(port))) as caller:
                caller.sendall(f"{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n".encode())
                happens(f"{method} began")
            happens(f"{method} {end}")
        assert http.get("/happened").json() == ["GET began", "GET cancelled", "POST began", "POST finished"]
