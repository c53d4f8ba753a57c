"""What a type checker sees of the adapters for other clients."""

from typing import assert_type

import aiohttp
import requests
import requests.adapters

import meshlib
from meshlib import Mesh
from meshlib.adapters import aiohttp as meshed_aiohttp
from meshlib.adapters import requests as meshed_requests


def requests_has_sessions_and_adapters(mesh: Mesh) -> None:
    session: requests.Session = meshed_requests.session(mesh, "orders")
    session.mount("http://", meshed_requests.adapter(mesh, fallback=requests.adapters.HTTPAdapter()))
    assert_type(mesh.attach(requests.Session()), requests.Session)
    try:
        assert_type(session.get("/", timeout=(1, 2)), requests.Response)
    except meshlib.ConnectFailed as error:
        assert_type(error.endpoint, str)


async def aiohttp_has_sessions_and_middlewares(mesh: Mesh) -> None:
    async with meshed_aiohttp.session(mesh, "orders", timeout=aiohttp.ClientTimeout(total=1)) as session:
        assert_type(session, aiohttp.ClientSession)
    async with aiohttp.ClientSession(middlewares=[meshed_aiohttp.middleware(mesh)]) as own:
        assert_type(mesh.attach(own), aiohttp.ClientSession)


def options_hold_in_a_block_and_for_a_function(session: requests.Session) -> None:
    with meshlib.call(idempotent=True, timeout="800ms"):
        session.post("/pay")

    @meshlib.call(route="/orders/{id}")
    async def order(number: int) -> str:
        return str(number)

    @meshlib.call(explain=True)
    def plain(number: int) -> str:
        return str(number)

    assert_type(plain(1), str)
