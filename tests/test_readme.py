"""What the README shows works as shown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

import meshlib
from meshlib import Mesh
from tests.adapters.support import address, ok, origins

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = {language: re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) for language in ("python", "yaml")}


def block(language: str, containing: str) -> str:
    return next(text for text in BLOCKS[language] if containing in text)


def test_the_two_commands_stand_in_the_readme() -> None:
    assert "```\npython3 dev.py demo\npython3 dev.py test\n```" in README


def test_attach_observe_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with origins(None, None) as ([caller_own, mesh_own], [legacy, meshed]):
        text = block("yaml", "mode: observe")
        text = re.sub(r'hosts: \["[^"]+"\]', f'hosts: ["{address(legacy)}"]', text)
        text = re.sub(r"endpoints: \[.*?\]", f'endpoints: ["{address(meshed)}"]', text)
        (tmp_path / "mesh.yaml").write_text(text)
        monkeypatch.chdir(tmp_path)
        names: dict[str, Any] = {"meshlib": meshlib}
        exec(block("python", "mesh.attach"), names)
        said: list[Any] = []
        names["print"] = said.append
        exec(block("python", "meshlib.record(response).why").replace("orders.internal:8080", address(legacy)), names)
        assert said[0][0] == f"would go to {address(meshed)} (orders)"
        assert (len(caller_own.seen), len(mesh_own.seen)) == (1, 0)
        assert caller_own.seen[0].header("x-meshlib-deadline-ms") is None
        exec(block("python", "mesh.set_mode"), names)
        names["client"].get(f"http://{address(legacy)}/orders/42")
        assert (len(caller_own.seen), len(mesh_own.seen)) == (1, 1)
        names["client"].close()
        names["mesh"].close()


def test_what_calls_look_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with origins(lambda seen, number: ok(b'{"id": 42}')) as ([origin], [server]):
        (tmp_path / "mesh.yaml").write_text(f'services: {{orders: {{endpoints: ["{address(server)}"]}}}}')
        monkeypatch.chdir(tmp_path)
        names: dict[str, Any] = {}
        exec(block("python", "idempotent=True"), names)
        assert names["order"] == {"id": 42}
        assert len(origin.seen) == 4
        names["mesh"].close()


def test_the_middlewares_can_be_added() -> None:
    from fastapi import FastAPI
    from flask import Flask

    text = block("python", "MeshMiddleware")
    asgi, flask = text.split("\n\n")
    with Mesh({"discovery": []}) as mesh:
        exec(asgi, {"app": FastAPI(), "mesh": mesh})
        exec(flask, {"app": Flask("x"), "mesh": mesh})


def test_the_clients_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    with origins(lambda seen, number: ok(b'{"id": 42}')) as ([origin], [server]):
        with Mesh({"discovery": [], "services": {"orders": {"endpoints": [address(server)]}}}) as mesh:
            names: dict[str, Any] = {"mesh": mesh, "requests": requests}
            exec(block("python", "requests.Session"), names)
            assert names["session"].get("/orders/42").json() == {"id": 42}
            exec(block("python", "mesh.bind"), names)
            assert names["order"] == {"id": 42}
        assert [seen.header("x-envoy-attempt-count") for seen in origin.seen] == ["1", "1"]


@pytest.mark.anyio
async def test_the_callee_is_configured_as_shown(tmp_path: Path) -> None:
    from starlette.applications import Starlette

    path = tmp_path / "mesh.yaml"
    path.write_text(block("yaml", "admission:"))
    async with Mesh.from_file(path) as mesh:
        app = Starlette()
        exec(block("python", "MeshMiddleware").split("\n\n")[0], {"app": app, "mesh": mesh})
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://orders") as client:
            assert [(await client.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 200]
        assert mesh.serving.admission is not None
        assert mesh.serving.admission.queue.limit == 40


def test_the_unit_test_passes() -> None:
    from meshlib.testing import MeshFixture

    names: dict[str, Any] = {}
    exec(block("python", "def test_checkout"), names)
    with MeshFixture() as mesh:
        names["test_checkout_survives_a_bad_instance"](mesh)


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (root / target).exists(), target


def test_httpx_is_what_the_readme_names() -> None:
    assert httpx.__name__ in README
