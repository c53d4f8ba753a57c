"""A forked child calls through the mesh that its parent made, and neither disturbs the other."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import Mesh
from tests.adapters.support import mesh_of, origins
from tests.integration.processes import servers
from tests.integration.test_discovery import local_config
from tests.integration.test_sharing import held
from tests.net.wire_servers import OK, Peer, serving
from tests.server.conftest import serve_gunicorn  # noqa: F401 - a fixture

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def in_a_child(work: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    """What `work` returns in a forked child."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(int(timeout_s))
        try:
            os.close(read)
            os.write(write, json.dumps(work()).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return json.loads(text)


def test_a_child_calls_draws_its_own_numbers_and_leaves_the_parents_connections_alone() -> None:
    with origins(None) as ([origin], [server]), mesh_of(server) as mesh:
        client = mesh.client("orders")
        assert client.get("/parent").status_code == 200
        rng = mesh._wiring.plane.rng
        accepted = server.accepted

        def work() -> dict[str, Any]:
            async def call() -> int:
                async with mesh.async_client("orders") as async_client:
                    return (await async_client.get("/child")).status_code

            statuses = [client.get("/child").status_code, asyncio.run(call())]
            return {"statuses": statuses, "draws": [rng.random() for _ in range(3)], "held": held(mesh)}

        one, two = in_a_child(work), in_a_child(work)
        mine = [rng.random() for _ in range(3)]
        for child in (one, two):
            assert child["statuses"] == [200, 200]
            assert child["held"] == []
        assert len({json.dumps(draws) for draws in (one["draws"], two["draws"], mine)}) == 3
        assert server.accepted == accepted + 4, "each child opens connections of its own"
        assert client.get("/parent").status_code == 200
        assert server.accepted == accepted + 4, "and the parent goes on with the one that it has"
        assert [seen.line.split()[1] for seen in origin.seen].count("/child") == 4


def test_a_child_of_a_busy_parent_begins_with_nothing_in_flight() -> None:
    """Forked while threads of the parent are in the middle of calls, in line for a limit, and hold locks."""
    come, go = threading.Semaphore(0), threading.Event()

    def script(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            if b"/parent" in request:
                come.release()
                go.wait(20)
            peer.send(OK)

    limits = {"max_in_flight": 2, "max_pending": 10}
    with serving(script) as server, mesh_of(server, limits=limits) as mesh, ThreadPoolExecutor(4) as pool:
        client = mesh.client("orders")
        running = [pool.submit(client.get, "/parent") for _ in range(4)]
        try:
            for _ in range(2):
                assert come.acquire(timeout=5)
            answer = in_a_child(
                lambda: {"held": held(mesh), "status": client.get("/child").status_code, "after": held(mesh)}
            )
            assert answer == {"held": [], "status": 200, "after": []}
        finally:
            go.set()
        assert [future.result(10).status_code for future in running] == [200] * 4
        assert held(mesh) == []
        client.close()


def test_a_child_discovers_for_itself(tmp_path: Path) -> None:
    config = local_config(tmp_path / "registry")
    # In turns: the default would give a newcomer its share only bit by bit.
    turns = {"defaults": {"load_balancing": {"policy": "round_robin"}}}
    with servers(config, "a"), Mesh({**config, **turns}) as mesh:
        client = mesh.client("orders")
        assert client.get("/x").text == "a"

        def work() -> list[str]:
            inherited = client.get("/x").text
            with servers(config, "b") as [b]:
                deadline = time.monotonic() + 10
                while b.address not in str(mesh.status()):
                    assert time.monotonic() < deadline
                    client.get("/x")
                    time.sleep(0.02)
                return [inherited, *sorted({client.get("/x").text for _ in range(30)})]

        assert in_a_child(work) == ["a", "a", "b"]
        assert client.get("/x").text == "a"


def test_what_lies_outside_the_mesh_is_not_shared_with_a_child_either() -> None:
    with origins(None) as (_, [server]), Mesh({"discovery": []}) as mesh:
        client = mesh.client()
        url = f"http://127.0.0.1:{server.port}/"
        assert client.get(url).status_code == 200
        assert in_a_child(lambda: client.get(url).status_code) == 200
        assert server.accepted == 2
        assert client.get(url).status_code == 200
        assert server.accepted == 2
        client.close()


_mesh: Mesh | None = None


def _called(path: str) -> int:
    assert _mesh is not None
    with _mesh.client("orders") as client:
        return client.get(path).status_code


def test_multiprocessing_workers_that_are_forked_call() -> None:
    global _mesh
    with origins(None) as (_, [server]), mesh_of(server) as mesh:
        _mesh = mesh
        assert _called("/parent") == 200
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map(_called, [f"/{n}" for n in range(10)]) == [200] * 10
        assert _called("/parent") == 200
        _mesh = None


@pytest.mark.parametrize("registry", ["static", "local"])
def test_workers_of_gunicorn_with_preload_call(
    registry: str,
    serve_gunicorn: Callable[..., str],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = local_config(tmp_path / "registry")
    with servers(config, "a") as [a]:
        services = {"orders": {"endpoints": [a.address]}} if registry == "static" else {}
        shop = {"discovery": []} if registry == "static" else {"discovery": config["discovery"]}
        monkeypatch.setenv("SHOP_MESH", json.dumps({**shop, "services": services}))
        url = serve_gunicorn("tests.integration.preloaded:app", "--preload", "--workers=2", "--threads=2")
        answers: dict[int, list[dict[str, Any]]] = {}
        with httpx.Client(timeout=20) as client:
            for _ in range(200):
                answer = client.get(url, headers={"connection": "close"}).json()
                answers.setdefault(answer["pid"], []).append(answer)
                if len(answers) == 2 and min(map(len, answers.values())) >= 3:
                    break
        assert len(answers) == 2, "both workers answered"
        every = [answer for each in answers.values() for answer in each]
        assert {(answer["text"], answer["attempts"], answer["master"]) for answer in every} == {("a", 1, "a")}
        draws = [answer["draw"] for answer in every]
        assert len(set(draws)) == len(draws), "the workers draw numbers of their own"


def test_a_closed_mesh_stays_closed_in_a_child() -> None:
    mesh = Mesh({"discovery": []})
    client = mesh.client("orders")
    mesh.close()

    def work() -> str:
        try:
            client.get("/x")
        except meshlib.MeshClosed as error:
            return type(error).__name__
        return ""

    assert in_a_child(work) == "MeshClosed"
