"""Who serves a host: ServiceEntry and WorkloadEntry."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.balance.endpoint import Locality
from meshlib.config.settings import MeshSettings, StaticSettings
from tests.config.dialects.istio.support import document, draft_of, load, notes


def entry(*hosts: str, name: str = "own", **spec: Any) -> str:
    ports = spec.pop("ports", [{"number": 80, "name": "http", "protocol": "HTTP"}])
    metadata = spec.pop("metadata", {})
    return document("ServiceEntry", name, {"hosts": list(hosts), "ports": ports, **spec}, **metadata)


def addresses(settings: MeshSettings, service: str) -> list[tuple[str, int]]:
    static = settings.discovery[0]
    assert isinstance(static, StaticSettings)
    return [(each.host, each.port) for each in static.services[service]]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"resolution": "STATIC", "endpoints": [{"address": "10.0.0.1"}, {"address": "::1"}]}, ["10.0.0.1", "::1"]),
        ({"resolution": "STATIC"}, []),
        ({"resolution": "DNS"}, ["api.example.com"]),
        ({"resolution": "DNS", "endpoints": [{"address": "a.example.com"}]}, ["a.example.com"]),
        ({"resolution": "DNS_ROUND_ROBIN"}, ["api.example.com"]),
        ({"resolution": "NONE"}, ["api.example.com"]),
        ({}, ["api.example.com"]),
        ({"resolution": "STATIC", "endpoints": [{"address": "unix:///run/api.sock"}]}, ["unix:/run/api.sock"]),
    ],
)
def test_where_endpoints_come_from(spec: dict[str, Any], expected: list[str]) -> None:
    settings = load(entry("api.example.com", **spec))
    assert [host for host, _ in addresses(settings, "api.example.com")] == expected


@pytest.mark.parametrize(
    ("port", "endpoint", "number"),
    [
        ({"number": 80, "name": "http"}, {}, 80),
        ({"number": 80, "name": "http", "targetPort": 8080}, {}, 8080),
        ({"number": 80, "name": "http", "targetPort": 8080}, {"ports": {"http": 9090}}, 9090),
        ({"number": 80, "name": "http"}, {"ports": {"other": 9090}}, 80),
    ],
)
def test_the_port_of_an_endpoint(port: dict[str, Any], endpoint: dict[str, Any], number: int) -> None:
    endpoints = [{"address": "10.0.0.1", **endpoint}]
    settings = load(entry("api.example.com", ports=[port], resolution="STATIC", endpoints=endpoints))
    assert addresses(settings, "api.example.com") == [("10.0.0.1", number)]


def test_an_endpoint_has_its_weight_its_labels_its_network_and_its_locality() -> None:
    one = {"address": "10.0.0.1", "weight": 3, "labels": {"v": "1"}, "network": "n", "locality": "eu/eu-1/r1"}
    static = load(entry("api.example.com", resolution="STATIC", endpoints=[one])).discovery[0]
    assert isinstance(static, StaticSettings)
    (found,) = static.services["api.example.com"]
    assert (found.weight, found.locality) == (3.0, Locality("eu", "eu-1", "r1"))
    assert found.metadata == {"v": "1", "topology.istio.io/network": "n"}


@pytest.mark.parametrize("resolution", ["NONE", "DYNAMIC_DNS"])
def test_a_wildcard_is_every_host_that_callers_name(resolution: str) -> None:
    ports = [{"number": 443, "name": "https", "protocol": "TLS"}]
    settings = load(entry("*.wikipedia.org", ports=ports, resolution=resolution))
    assert settings.services["any.wikipedia.org"].hosts == ("*.wikipedia.org",)


def test_workloads_are_selected_by_label_in_the_own_namespace() -> None:
    workloads = [
        document("WorkloadEntry", name, {"address": address, "labels": {"app": app}}, namespace=namespace)
        for name, address, app, namespace in (
            ("one", "10.0.0.1", "api", "default"),
            ("two", "10.0.0.2", "other", "default"),
            ("three", "10.0.0.3", "api", "far"),
        )
    ]
    text = entry("api.example.com", workloadSelector={"labels": {"app": "api"}}) + "".join(workloads)
    assert addresses(load(text), "api.example.com") == [("10.0.0.1", 80)]


def test_several_hosts_and_ports_are_several_services() -> None:
    ports = [{"number": 80, "name": "http"}, {"number": 443, "name": "https"}]
    settings = load(entry("a.example.com", "b.example.com", ports=ports, resolution="DNS"))
    assert set(settings.services) == {f"{host}.example.com{port}" for host in "ab" for port in ("", "-https")}
    assert settings.services["a.example.com-https"].hosts == ("a.example.com:443",)
    assert addresses(settings, "b.example.com-https") == [("b.example.com", 443)]


def test_a_port_with_tls_speaks_it_in_the_name_of_the_host() -> None:
    ports = [{"number": 80, "name": "http"}, {"number": 443, "name": "https", "protocol": "HTTPS"}]
    services = load(entry("api.example.com", ports=ports, resolution="DNS")).services
    plain, secure = services["api.example.com"].clusters[None].tls, services["api.example.com-https"].clusters[None].tls
    assert plain is None and secure is not None and secure.server_name == "api.example.com"


def test_tls_can_begin_here() -> None:
    # As in Istio's task about TLS origination for egress traffic: callers write http, port 443 of the server is called.
    ports = [{"number": 80, "name": "http", "targetPort": 443}, {"number": 443, "name": "https", "protocol": "HTTPS"}]
    origin = {"portLevelSettings": [{"port": {"number": 80}, "tls": {"mode": "SIMPLE"}}]}
    rule = document("DestinationRule", "api", {"host": "api.example.com", "trafficPolicy": origin})
    settings = load(entry("api.example.com", ports=ports, resolution="DNS") + rule)
    tls = settings.services["api.example.com"].clusters[None].tls
    assert tls is not None and tls.server_name is None  # the service's own name
    assert addresses(settings, "api.example.com") == [("api.example.com", 443)]


def test_an_entry_is_called_by_its_addresses_too() -> None:
    text = entry("api", addresses=["240.0.0.1", "240.0.0.2/32"], resolution="STATIC")
    assert set(load(text, documents={"strict": True}).services["api"].hosts) >= {"240.0.0.1", "240.0.0.2"}


@pytest.mark.parametrize(
    ("address", "said"),
    [("10.0.0.0/8", "10.0.0.0/8 is not"), ("fd00::1", "fd00::1 is not"), ("240.0.0.1", "which of several hosts")],
)
def test_addresses_that_calls_do_not_go_by_are_reported(address: str, said: str) -> None:
    text = entry("a.example.com", "b.example.com", addresses=[address], resolution="STATIC")
    assert [said in note for note in notes(draft_of(text), "ignored")] == [True]


def test_the_first_entry_of_a_host_says_who_serves_it() -> None:
    first = entry("api", resolution="STATIC", endpoints=[{"address": "10.0.0.1"}])
    second = entry("api", name="second", resolution="STATIC", endpoints=[{"address": "10.0.0.2"}])
    assert addresses(load(first + second), "api") == [("10.0.0.1", 80)]
    assert len(notes(draft_of(first + second), "different")) == 1
    host = "api.default.svc.cluster.local"
    far = entry(host, name="far", resolution="STATIC", metadata={"namespace": "far"})
    assert addresses(load(far + second), "api") == [("10.0.0.2", 80)]


def test_an_entry_that_is_not_exported_is_passed_over() -> None:
    draft = draft_of(entry("api", exportTo=["."], metadata={"namespace": "far"}))
    assert draft.services == {}
    assert "passed" in [note.effect for note in draft.notes]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"hosts": []}, "hosts: is required"),
        ({"ports": []}, "ports: is required"),
        ({"ports": [{"name": "x"}]}, "a port from 1 to 65535"),
        ({"resolution": "dns"}, "is none of NONE"),
        ({"hosts": ["*.a.b"], "resolution": "DNS"}, "no address of its own"),
        ({"endpoints": [{"labels": {}}]}, "address: is needed"),
        ({"endpoints": [{"address": "10.0.0.1"}], "workloadSelector": {}}, "one of them is expected"),
    ],
)
def test_what_is_wrong_is_told_of(spec: dict[str, Any], said: str) -> None:
    hosts = spec.pop("hosts", ["api.example.com"])
    assert any(said in note for note in notes(draft_of(entry(*hosts, **spec)), "wrong"))
