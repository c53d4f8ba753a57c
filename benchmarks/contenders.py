"""How each contender makes a call. All make the same one, read the whole body, and look at the status.

Every client has its own defaults and is given an absolute URL; sessions are kept, as each client's documentation asks.
Where a load needs more connections than a default allows, the limit is lifted to just what the load needs, for each
client that this does not harm: the pools of httpx and httpx2 look over all their connections at each request, so they
are left with the 20 idle ones of their default, and httpx2 with its 100 open ones too, which is their best.
"""

from __future__ import annotations

import importlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any, Protocol

from benchmarks.handmade import handmade
from benchmarks.limit import LimitClient
from benchmarks.loads import Load
from benchmarks.rounds import AsyncCall, SyncCall
from benchmarks.servers import Peers, checker
from meshlib import Mesh
from meshlib.adapters.declarative import get

AsyncContender = Callable[[Peers, Load], AbstractAsyncContextManager[AsyncCall]]
SyncContender = Callable[[Peers, Load], AbstractContextManager[SyncCall]]

_KEPT_S = 60
_PATIENCE_S = 30


def make_mesh(peers: Peers, load: Load) -> Mesh:
    """A mesh with all defaults, but for the limits of its pools under a large load, and one service."""
    orders: dict[str, Any] = {"endpoints": peers.endpoints(load)}
    if load.tls:
        orders["tls"] = {"ca_file": peers.ca_file, "server_name": "localhost"}
    if load.is_large:
        orders["pool"] = {"max_connections": max(100, load.in_flight), "idle": _KEPT_S, "idle_unsafe": _KEPT_S}
        orders["connect_timeout"] = _PATIENCE_S
    return Mesh.from_dict({"service": "bench", "services": {"orders": orders}})


def verification(peers: Peers, load: Load) -> ssl.SSLContext | bool:
    """How a client checks the servers' certificate."""
    return ssl.create_default_context(cafile=peers.ca_file) if load.tls else True


def _call(client: Any, urls: Iterator[str], load: Load) -> AsyncCall:
    """With a client of httpx's interface."""
    send = partial(client.post, content=bytes(load.upload)) if load.upload else client.get
    check = checker(load)

    async def call() -> None:
        response = await send(next(urls))
        check(response.status_code, response.content)

    return call


def _call_sync(client: Any, urls: Iterator[str], load: Load) -> SyncCall:
    send = partial(client.post, content=bytes(load.upload)) if load.upload else client.get
    check = checker(load)

    def call() -> None:
        response = send(next(urls))
        check(response.status_code, response.content)

    return call


@asynccontextmanager
async def meshed(peers: Peers, load: Load) -> AsyncIterator[AsyncCall]:
    """`mesh.async_client()`."""
    async with make_mesh(peers, load) as mesh, mesh.async_client("orders") as client:
        yield _call(client, repeat(f"http://orders{load.path}"), load)


@contextmanager
def meshed_sync(peers: Peers, load: Load) -> Iterator[SyncCall]:
    """`mesh.client()`."""
    with make_mesh(peers, load) as mesh, mesh.client("orders") as client:
        yield _call_sync(client, repeat(f"http://orders{load.path}"), load)


def _httpx_options(module: Any, peers: Peers, load: Load) -> dict[str, Any]:
    options: dict[str, Any] = {"verify": verification(peers, load)}
    if load.is_large:
        options["timeout"] = _PATIENCE_S
        if module.__name__ == "httpx":
            most = max(100, load.in_flight)
            options["limits"] = module.Limits(max_connections=most, max_keepalive_connections=20)
    return options


def _bare(name: str, *, sidecar: bool = False) -> AsyncContender:
    """The `AsyncClient` of httpx or httpx2, perhaps with a sidecar before it."""

    @asynccontextmanager
    async def contender(peers: Peers, load: Load) -> AsyncIterator[AsyncCall]:
        module = importlib.import_module(name)
        urls = repeat(peers.envoy_url(load)) if sidecar else peers.urls(load)
        async with module.AsyncClient(**_httpx_options(module, peers, load)) as client:
            yield _call(client, urls, load)

    return contender


def _bare_sync(name: str) -> SyncContender:
    """The `Client` of httpx or httpx2."""

    @contextmanager
    def contender(peers: Peers, load: Load) -> Iterator[SyncCall]:
        module = importlib.import_module(name)
        with module.Client(**_httpx_options(module, peers, load)) as client:
            yield _call_sync(client, peers.urls(load), load)

    return contender


@asynccontextmanager
async def bare_aiohttp(peers: Peers, load: Load) -> AsyncIterator[AsyncCall]:
    """`aiohttp.ClientSession`."""
    import aiohttp

    lifted: dict[str, Any] = {}
    if load.is_large:
        lifted = {"limit": max(100, load.in_flight), "keepalive_timeout": _KEPT_S}
    connector = aiohttp.TCPConnector(ssl=verification(peers, load), **lifted)
    urls, check = peers.urls(load), checker(load)
    async with aiohttp.ClientSession(connector=connector) as session:
        send: Any = partial(session.post, data=bytes(load.upload)) if load.upload else session.get

        async def call() -> None:
            async with send(next(urls)) as response:
                check(response.status, await response.read())

        yield call


@asynccontextmanager
async def meshed_aiohttp(peers: Peers, load: Load) -> AsyncIterator[AsyncCall]:
    """`meshlib.adapters.aiohttp.session()`."""
    from meshlib.adapters.aiohttp import session as make

    url, check = f"http://orders{load.path}", checker(load)
    async with make_mesh(peers, load) as mesh, make(mesh, "orders") as session:
        send: Any = partial(session.post, data=bytes(load.upload)) if load.upload else session.get

        async def call() -> None:
            async with send(url) as response:
                check(response.status, await response.read())

        yield call


@dataclass(frozen=True)
class Item:
    """Of an `Order`."""

    sku: str
    count: int


@dataclass(frozen=True)
class Order:
    """The reply, as a declared call returns it."""

    id: int
    state: str
    items: list[Item]
    total: str


class Orders(Protocol):
    """The service."""

    @get("/orders/{number}")
    async def order(self, number: int) -> Order:
        """One of them."""
        ...


@asynccontextmanager
async def declared(peers: Peers, load: Load) -> AsyncIterator[AsyncCall]:
    """`mesh.bind()`: the reply as a checked dataclass."""
    async with make_mesh(peers, load) as mesh:
        orders = mesh.bind(Orders, "orders")

        async def call() -> None:
            assert (await orders.order(42)).id == 42

        yield call


@asynccontextmanager
async def by_hand(peers: Peers, load: Load) -> AsyncIterator[AsyncCall]:
    """The same with `mesh.async_client()` and pydantic, as one would write it."""
    from pydantic import TypeAdapter

    reads = TypeAdapter(Order)
    async with make_mesh(peers, load) as mesh, mesh.async_client("orders") as client:

        async def call() -> None:
            response = await client.get(f"/orders/{42}", headers={"accept": "application/json"})
            assert reads.validate_json(response.raise_for_status().content).id == 42

        yield call


@contextmanager
def meshed_requests(peers: Peers, load: Load) -> Iterator[SyncCall]:
    """`meshlib.adapters.requests.session()`, one for all threads."""
    from meshlib.adapters.requests import session as make

    url, check = f"http://orders{load.path}", checker(load)
    with make_mesh(peers, load) as mesh, make(mesh, "orders") as session:
        send = partial(session.post, data=bytes(load.upload)) if load.upload else session.get

        def call() -> None:
            response = send(url)
            check(response.status_code, response.content)

        yield call


@contextmanager
def bare_requests(peers: Peers, load: Load) -> Iterator[SyncCall]:
    """One `requests.Session` for all threads; it keeps a connection for each."""
    import requests
    from requests.adapters import HTTPAdapter

    urls, check = peers.urls(load), checker(load)
    adapter = HTTPAdapter(pool_connections=max(10, load.addresses), pool_maxsize=max(10, load.in_flight))
    with requests.Session() as session:
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        session.verify = peers.ca_file if load.tls else True
        send = partial(session.post, data=bytes(load.upload)) if load.upload else session.get

        def call() -> None:
            response = send(next(urls))
            check(response.status_code, response.content)

        yield call


@contextmanager
def bare_urllib3(peers: Peers, load: Load) -> Iterator[SyncCall]:
    """One `urllib3.PoolManager` for all threads; it keeps a connection for each."""
    import urllib3

    urls, check = peers.urls(load), checker(load)
    options: dict[str, Any] = {"ca_certs": peers.ca_file} if load.tls else {}
    with urllib3.PoolManager(max(10, load.addresses), maxsize=max(10, load.in_flight), **options) as pool:
        send = partial(pool.request, "POST", body=bytes(load.upload)) if load.upload else partial(pool.request, "GET")

        def call() -> None:
            response = send(next(urls))
            check(response.status, response.data)

        yield call


@asynccontextmanager
async def limit(peers: Peers, load: Load) -> AsyncIterator[AsyncCall]:
    """See `benchmarks.limit`."""
    client, check = LimitClient(peers.ports[0], load.path), checker(load)

    async def call() -> None:
        check(*await client.get())

    try:
        yield call
    finally:
        client.close()


ASYNC: dict[str, AsyncContender] = {
    "mesh": meshed,
    "mesh by aiohttp": meshed_aiohttp,
    "mesh declared": declared,
    "mesh by hand": by_hand,
    "httpx": _bare("httpx"),
    "httpx2": _bare("httpx2"),
    "aiohttp": bare_aiohttp,
    "envoy": _bare("httpx", sidecar=True),
    "limit": limit,
    "handmade": handmade,
}
SYNC: dict[str, SyncContender] = {
    "mesh": meshed_sync,
    "mesh by requests": meshed_requests,
    "httpx": _bare_sync("httpx"),
    "httpx2": _bare_sync("httpx2"),
    "requests": bare_requests,
    "urllib3": bare_urllib3,
}
