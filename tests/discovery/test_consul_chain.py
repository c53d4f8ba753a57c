"""Discovery chains of a real Consul, followed live: calls go by its entries soon after they are written."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

import httpx
import pytest

from meshlib import Mesh
from meshlib.config.dialects.consul import native
from meshlib.config.dialects.consul.live import LiveChains
from meshlib.config.dialects.draft import Context
from meshlib.discovery.consul_names import ConsulName
from meshlib.discovery.consul_payload import CHECK_KEY
from meshlib.errors import MeshError
from meshlib.telemetry.events import ConfigRefused
from tests.config.dialects.support import draft_of
from tests.discovery.support import until
from tests.peers.consul import Consul
from tests.peers.fixtures import require
from tests.peers.process import free_port

KINDS = ("service-router", "service-splitter", "service-resolver")
WITHIN_S = 5.0
"""Consul answers a blocking query within a second; the rest is for a busy machine."""


class Servers:
    """Servers that answer with their own name and the path they saw, registered with an agent."""

    def __init__(self, consul: Consul) -> None:
        self._consul = consul
        self._running: dict[str, ThreadingHTTPServer] = {}

    def start(self, name: str, service: str, **rest: Any) -> None:
        server = _server(name)
        self._running[name] = server
        body = {"Name": service, "ID": name, "Address": "127.0.0.1", "Port": server.server_address[1]} | rest
        self._consul.put("/v1/agent/service/register", body)

    def stop(self) -> None:
        for server in self._running.values():
            server.shutdown()
            server.server_close()


def _server(name: str) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = json.dumps({"server": name, "path": self.path}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


@pytest.fixture(scope="module")
def consul(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consul]:
    """One agent for all of these tests; each finds it empty."""
    agent = Consul(require("consul"), tmp_path_factory.mktemp("consul"))
    agent.start()
    yield agent
    agent.kill()


@pytest.fixture
def servers(consul: Consul) -> Iterator[Servers]:
    consul.put("/v1/config", {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}})
    running = Servers(consul)
    yield running
    running.stop()
    _forget_all(consul)
    for name in consul.get("/v1/agent/services"):
        consul.put(f"/v1/agent/service/deregister/{name}")


def _forget_all(consul: Consul) -> None:
    while left := [entry for kind in KINDS for entry in consul.get(f"/v1/config/{kind}")]:
        for entry in left:  # one that another needs goes in the next round
            consul.request("DELETE", f"/v1/config/{entry['Kind']}/{entry['Name']}")


@pytest.fixture
def mesh(consul: Consul) -> Iterator[Mesh]:
    source = {"consul": {"address": consul.address, "chain": True}}
    with Mesh.from_dict({"discovery": [source], "domains": ["*.consul"]}) as made:
        yield made


def got(mesh: Mesh, url: str = "http://web/", **headers: str) -> str:
    answer = mesh.client().get(url, headers=headers)
    return f"{answer.json()['server']} {answer.json()['path']}"


def eventually(look: Callable[[], bool]) -> None:
    until(look, timeout_s=WITHIN_S)


def test_entries_that_are_written_and_deleted_change_where_calls_go(
    consul: Consul, servers: Servers, mesh: Mesh
) -> None:
    servers.start("web-1", "web")
    servers.start("admin-1", "admin")
    assert got(mesh) == "web-1 /"
    routes = [
        {
            "Match": {"HTTP": {"PathPrefix": "/admin/", "Header": [{"Name": "x-user", "Exact": "root"}]}},
            "Destination": {"Service": "admin", "PrefixRewrite": "/"},
        }
    ]
    consul.put("/v1/config", {"Kind": "service-router", "Name": "web", "Routes": routes})
    eventually(lambda: got(mesh, "http://web/admin/users", **{"x-user": "root"}) == "admin-1 /users")
    assert got(mesh, "http://web/admin/users") == "web-1 /admin/users"
    assert consul.request("DELETE", "/v1/config/service-router/web")[0] == 200
    eventually(lambda: got(mesh, "http://web/admin/users", **{"x-user": "root"}) == "web-1 /admin/users")


def test_subsets_and_splits_are_followed(consul: Consul, servers: Servers, mesh: Mesh) -> None:
    servers.start("v1", "web", Meta={"version": "1"})
    servers.start("v2", "web", Meta={"version": "2"}, Tags=["canary"])
    subsets = {"old": {"Filter": "Service.Meta.version == 1"}, "new": {"Filter": "canary in Service.Tags"}}
    resolver = {"Kind": "service-resolver", "Name": "web", "Subsets": subsets, "DefaultSubset": "old"}
    consul.put("/v1/config", resolver)
    seen = {got(mesh) for _ in range(20)}
    assert seen == {"v1 /"}, "the first call goes by the chain, too"

    def split(old: int) -> None:
        splits = [{"Weight": old, "ServiceSubset": "old"}, {"Weight": 100 - old, "ServiceSubset": "new"}]
        consul.put("/v1/config", {"Kind": "service-splitter", "Name": "web", "Splits": splits})

    split(0)
    eventually(lambda: got(mesh) == "v2 /")
    assert {got(mesh) for _ in range(20)} == {"v2 /"}
    split(50)
    eventually(lambda: {got(mesh) for _ in range(20)} == {"v1 /", "v2 /"})


def test_a_redirect_leads_the_very_first_call_elsewhere(consul: Consul, servers: Servers, mesh: Mesh) -> None:
    servers.start("web-1", "web")
    redirect = {"Kind": "service-resolver", "Name": "shop", "Redirect": {"Service": "web"}}
    consul.put("/v1/config", redirect)
    assert got(mesh, "http://shop/") == "web-1 /"


def test_a_redirect_leads_the_very_first_call_elsewhere_in_an_event_loop(
    consul: Consul, servers: Servers, mesh: Mesh
) -> None:
    servers.start("web-1", "web")
    redirect = {"Kind": "service-resolver", "Name": "shop", "Redirect": {"Service": "web"}}
    consul.put("/v1/config", redirect)

    async def call() -> list[httpx.Response]:
        async with mesh.async_client("shop") as client:
            return await asyncio.gather(*(client.get("/a") for _ in range(5)))

    assert {answer.json()["server"] for answer in asyncio.run(call())} == {"web-1"}


def test_calls_fail_over_to_another_service_and_come_back(consul: Consul, servers: Servers, mesh: Mesh) -> None:
    servers.start("web-1", "web", Check={"TTL": "600s", "Status": "passing"})
    servers.start("backup-1", "backup")
    failover = {"*": {"Service": "backup"}}
    consul.put("/v1/config", {"Kind": "service-resolver", "Name": "web", "Failover": failover})
    assert got(mesh) == "web-1 /"
    # The other is looked up from the first call on.
    until(lambda: any(each.name == "backup" and each.clusters[0].endpoints for each in mesh.status().services))
    consul.put("/v1/agent/check/fail/service:web-1")
    eventually(lambda: got(mesh) == "backup-1 /")
    consul.put("/v1/agent/check/pass/service:web-1")
    eventually(lambda: got(mesh) == "web-1 /")


def test_only_passing_leaves_out_instances_with_a_warning(consul: Consul, servers: Servers, mesh: Mesh) -> None:
    for name in ("a", "b"):
        servers.start(name, "web", Check={"TTL": "600s", "Status": "passing"})
    subsets = {"well": {"OnlyPassing": True}}
    resolver = {"Kind": "service-resolver", "Name": "web", "Subsets": subsets, "DefaultSubset": "well"}
    consul.put("/v1/config", resolver)
    eventually(lambda: {got(mesh) for _ in range(20)} == {"a /", "b /"})
    consul.put("/v1/agent/check/warn/service:a")
    eventually(lambda: {got(mesh) for _ in range(20)} == {"b /"})
    assert native.CHECK_KEY == CHECK_KEY


def test_what_the_user_writes_holds_over_the_chain(consul: Consul, servers: Servers) -> None:
    servers.start("web-1", "web")
    servers.start("admin-1", "admin")
    routes = [{"Match": {"HTTP": {"PathPrefix": "/"}}, "Destination": {"Service": "admin", "RequestTimeout": "3s"}}]
    consul.put("/v1/config", {"Kind": "service-router", "Name": "web", "Routes": routes})
    source = {"consul": {"address": consul.address, "chain": True}}
    services = {"web": {"timeout": "7s", "routes": [{"name": "mine", "backends": [{"service": "web"}]}]}}
    with Mesh.from_dict({"discovery": [source], "services": services}) as mesh:
        assert got(mesh) == "web-1 /"
        assert mesh.plan("GET", "http://web/").route == "mine"
    with Mesh.from_dict({"discovery": [source], "services": {"web": {"timeout": "7s"}}}) as mesh:
        assert got(mesh) == "admin-1 /"


def test_the_last_chain_holds_while_consul_is_away_and_is_followed_when_it_is_back(
    consul: Consul, servers: Servers, mesh: Mesh
) -> None:
    servers.start("web-1", "web")
    servers.start("admin-1", "admin")

    def lead_to(service: str) -> None:
        routes = [{"Destination": {"Service": service}}]
        consul.put("/v1/config", {"Kind": "service-router", "Name": "web", "Routes": routes})

    lead_to("admin")
    assert got(mesh) == "admin-1 /"
    consul.stop()
    for _ in range(5):
        assert got(mesh) == "admin-1 /"
        time.sleep(0.02)  # for Consul's absence to be noticed
    consul.restart()
    consul.put("/v1/config", {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}})
    for name in ("web", "admin"):
        port = servers._running[f"{name}-1"].server_address[1]
        body = {"Name": name, "ID": f"{name}-1", "Address": "127.0.0.1", "Port": port}
        consul.put("/v1/agent/service/register", body)
    until(lambda: got(mesh) == "web-1 /", timeout_s=10)
    lead_to("admin")
    eventually(lambda: got(mesh) == "admin-1 /")


def test_a_chain_that_cannot_be_followed_is_told_and_the_last_good_one_stays(
    consul: Consul, servers: Servers, mesh: Mesh
) -> None:
    servers.start("web-1", "web", Meta={"version": "1"})
    refused: list[ConfigRefused] = []
    mesh.on_event(lambda event: refused.append(event) if isinstance(event, ConfigRefused) else None)
    assert got(mesh) == "web-1 /"
    resolver = {"Kind": "service-resolver", "Name": "web", "DefaultSubset": "odd"}
    consul.put("/v1/config", {**resolver, "Subsets": {"odd": {"Filter": 'Node.Meta.rack == "7"'}}})
    until(lambda: refused)
    assert refused[0].source == "Consul's discovery chain of web"
    assert "looks at 'Node.Meta.rack'" in refused[0].detail
    assert got(mesh) == "web-1 /"
    consul.put("/v1/config", {**resolver, "Subsets": {"odd": {"Filter": "Service.Meta.version == 2"}}})
    eventually(lambda: _fails(mesh))


def _fails(mesh: Mesh) -> bool:
    try:
        got(mesh)
    except MeshError:
        return True
    return False


def test_without_consul_the_first_call_fails_within_its_time() -> None:
    source = {"consul": {"address": f"http://127.0.0.1:{free_port()}", "chain": True}}
    with Mesh.from_dict({"discovery": [source], "defaults": {"endpoint_wait": "200ms"}}) as mesh:
        with pytest.raises(MeshError, match="Consul at"):
            got(mesh)


def test_names_in_the_form_of_consuls_dns_are_asked_for_as_it_means_them(
    consul: Consul, servers: Servers, mesh: Mesh
) -> None:
    servers.start("v1", "web", Tags=["old"])
    servers.start("v2", "web", Tags=["new"])
    assert {got(mesh, "http://new.web.service.consul/") for _ in range(10)} == {"v2 /"}
    assert {got(mesh, "http://web.service.dc1.consul/") for _ in range(20)} == {"v1 /", "v2 /"}


def test_calls_go_to_another_datacenter_by_redirect_and_by_failover(consul_factory: Callable[..., Consul]) -> None:
    here, there = consul_factory(wan=True), consul_factory(wan=True, datacenter="dc2", node="node-2")
    here.join(there)
    until(lambda: here.request("GET", "/v1/health/service/web?dc=dc2")[0] == 200)
    here.put("/v1/config", {"Kind": "proxy-defaults", "Name": "global", "Config": {"protocol": "http"}})
    near, far = Servers(here), Servers(there)
    try:
        near.start("near", "web", Check={"TTL": "600s", "Status": "passing"})
        far.start("far", "web", Meta={"version": "2"})
        far.start("far-old", "web", Meta={"version": "1"})
        subsets = {"new": {"Filter": "Service.Meta.version == 2"}}
        failover = {"*": {"Datacenters": ["dc2"], "ServiceSubset": "new"}}
        here.put("/v1/config", {"Kind": "service-resolver", "Name": "web", "Subsets": subsets, "Failover": failover})
        redirect = {"Service": "web", "ServiceSubset": "new", "Datacenter": "dc2"}
        here.put("/v1/config", {"Kind": "service-resolver", "Name": "elsewhere", "Redirect": redirect})
        with Mesh.from_dict({"discovery": [{"consul": {"address": here.address, "chain": True}}]}) as mesh:
            assert {got(mesh, "http://elsewhere/") for _ in range(10)} == {"far /"}
            assert {got(mesh) for _ in range(10)} == {"near /"}
            here.put("/v1/agent/check/fail/service:near")
            eventually(lambda: got(mesh) == "far /")
            assert {got(mesh) for _ in range(10)} == {"far /"}
    finally:
        near.stop()
        far.stop()


def test_names_are_taken_apart() -> None:
    assert ConsulName.of("web") == ConsulName("web")
    assert ConsulName.of("web.service.consul") == ConsulName("web", is_dns=True)
    assert ConsulName.of("v1.web.service.dc2.consul") == ConsulName("web", "dc2", "v1", True)
    assert ConsulName.of("web.virtual.consul") == ConsulName("web.virtual.consul")


ONE_OF = ("web", "a", "b", "c")


def _entries(rng: Random) -> list[dict[str, Any]]:
    """Entries of a few services, at random; some of them contradict each other."""
    found: list[dict[str, Any]] = []
    subsets = {name: {"Filter": f"Service.Meta.version == {name}"} for name in ("v1", "v2")}

    def target(**more: Any) -> dict[str, Any]:
        subset = {"ServiceSubset": rng.choice(("v1", "v2"))} if rng.random() < 0.4 else {}
        return {"Service": rng.choice(ONE_OF), **subset, **more}

    for name in ONE_OF:
        if rng.random() < 0.7:
            entry: dict[str, Any] = {"Kind": "service-resolver", "Name": name, "Subsets": subsets}
            if rng.random() < 0.4:
                entry["DefaultSubset"] = rng.choice(("v1", "v2"))
            kind = rng.random()
            if kind < 0.25:
                entry["Redirect"] = target(Datacenter=rng.choice(("", "dc2")))
            elif kind < 0.6:
                datacenters = {"Datacenters": ["dc2", "dc3"]} if rng.random() < 0.5 else target()
                entry["Failover"] = {rng.choice(("*", "v1", "v2")): datacenters}
            if rng.random() < 0.3:
                entry["ConnectTimeout"] = "3s"
            found.append(entry)
        if rng.random() < 0.4:
            weight = rng.choice((10, 33.33, 50, 99.99))
            splits = [{"Weight": weight, **target()}, {"Weight": round(100 - weight, 2), **target()}]
            found.append({"Kind": "service-splitter", "Name": name, "Splits": splits})
        if rng.random() < 0.3:
            routes = [{"Match": {"HTTP": {"PathPrefix": f"/{i}"}}, "Destination": target()} for i in range(2)]
            found.append({"Kind": "service-router", "Name": name, "Routes": routes})
    return found


def test_entries_from_files_come_to_what_consul_compiles_them_to(consul: Consul, servers: Servers) -> None:
    compared = 0
    for seed in range(30):
        rng = Random(seed)
        accepted = [entry for entry in _entries(rng) if consul.request("PUT", "/v1/config", entry)[0] == 200]
        context = Context()
        for name in ONE_OF:
            compiled = consul.get(f"/v1/discovery-chain/{name}")["Chain"]
            live = LiveChains()
            live.take(name, compiled, context)
            theirs = live.services(context).get(name, {})
            ours = draft_of(*accepted).services.get(name)
            mine = {} if ours is None else ours.data
            assert mine.get("routes") == theirs.get("routes"), (seed, name)
            for subset, policy in theirs.get("subset_policies", {}).items():
                assert mine["subset_policies"][subset] == policy, (seed, name, subset)
            assert not theirs or theirs.get("failover_to") == mine.get("failover_to"), (seed, name)
            compared += bool(theirs)
        _forget_all(consul)
    assert compared > 30


def test_many_changes_in_a_row_lose_no_call(consul: Consul, servers: Servers, mesh: Mesh) -> None:
    servers.start("web-1", "web")
    servers.start("admin-1", "admin")
    done, failures, seen = threading.Event(), [], set()

    def call() -> None:
        while not done.is_set():
            try:
                seen.add(got(mesh))
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(30):
        routes = [{"Destination": {"Service": ("web", "admin")[number % 2]}}]
        consul.put("/v1/config", {"Kind": "service-router", "Name": "web", "Routes": routes})
    consul.request("DELETE", "/v1/config/service-router/web")
    eventually(lambda: got(mesh) == "web-1 /")
    until(lambda: "web-1 /" in seen or failures)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
