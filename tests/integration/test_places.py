"""Who is called, by priority, place and metadata: through a mesh as its users have it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

import meshlib
from meshlib import Mesh, NoEndpoint
from meshlib.balance.cluster import Known
from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.testing import MeshFixture
from tests.peers.process import wait_until
from tests.telemetry.conftest import Sdk

ZONES = ("a", "a", "b", "b", "c", "c")


def mesh_of(service: dict[str, Any], **rest: Any) -> MeshFixture:
    mesh = MeshFixture({"services": {"orders": service}, "locality": {"region": "eu", "zone": "a"}, **rest})
    mesh.serve("orders", {"ok": True})
    return mesh


def in_zones(**fields: Any) -> list[dict[str, Any]]:
    return [
        {"address": f"10.0.0.{at}:80", "locality": {"region": "eu", "zone": zone}, **fields}
        for at, zone in enumerate(ZONES)
    ]


def called(mesh: MeshFixture, calls: int = 60, **options: Any) -> Counter[str]:
    client = mesh.client("orders")
    seen: Counter[str] = Counter()
    for _ in range(calls):
        record = meshlib.record(client.get("/", extensions=meshlib.call(**options)))
        assert record is not None
        seen[record.attempts[-1].how or "-"] += 1
    return seen


def test_records_say_from_which_priority_and_place() -> None:
    with mesh_of({"endpoints": in_zones(), "load_balancing": {"failover": True}}) as mesh:
        assert set(called(mesh)) == {"priority 0, locality eu/a"}
        assert [candidate.why_not for candidate in mesh.plan("GET", "http://orders/").candidates] == [
            *[None] * 2,
            *["priority 1 stands by"] * 4,
        ]


def test_metrics_tell_which_attempts_leave_the_zone() -> None:
    sdk = Sdk()
    weights = {"locality_weights": {"eu/a": 3, "eu/b": 1}}
    with mesh_of({"endpoints": in_zones(), "load_balancing": weights}) as mesh:
        observer = mesh._wiring.plane.observer = sdk.observer(mesh._wiring.view)
        called(mesh, 40)
        attempts = sdk.points("http.client.request.duration")
        assert {dict(key)["meshlib.endpoint.zone"]: count for key, count in attempts.items()} == {
            "local": 30,
            "remote": 10,
        }
        places = sdk.points("meshlib.cluster.places")
        assert {dict(key)["meshlib.endpoint.zone"]: count for key, count in places.items()} == {"local": 2, "remote": 4}
        observer.close()


def test_plans_and_the_status_tell_who_drains_and_who_is_degraded() -> None:
    ends = [{"address": f"10.0.0.{at}:80", "health": health.value} for at, health in enumerate(Health)]
    with mesh_of({"endpoints": ends}) as mesh:
        reasons = {each.address: each.why_not for each in mesh.plan("GET", "http://orders/").candidates}
        assert reasons == {
            "10.0.0.0:80": None,
            "10.0.0.1:80": None,
            "10.0.0.2:80": "unhealthy in the registry",
            "10.0.0.3:80": "draining: it finishes what it has",
        }
        called(mesh, 1)
        (service,) = mesh.status().services
        assert [each.state for each in service.clusters[0].endpoints] == [
            "healthy",
            "degraded",
            "unhealthy",
            "draining",
        ]


def test_a_call_fails_in_panic_where_that_is_wanted() -> None:
    ends = [
        {"address": f"10.0.0.{at}:80", "health": health} for at, health in enumerate(["healthy", *["unhealthy"] * 3])
    ]
    for fail in (False, True):
        with mesh_of({"endpoints": ends, "load_balancing": {"fail_on_panic": fail}}) as mesh:
            if fail:
                with pytest.raises(NoEndpoint, match=r"no endpoint in orders may be called \(1 healthy, 3 unhealthy\)"):
                    called(mesh, 1)
                assert "calls fail" in str(mesh.plan("GET", "http://orders/").candidates[0].why_not)
            else:
                assert set(called(mesh)) == {"panic"}


VERSIONS = [{"address": f"10.0.1.{at}:80", "metadata": {"version": version}} for at, version in enumerate("1122")]
SUBSET = {"subset": {"selectors": [{"keys": ["version"]}], "fallback": "any"}}


def test_metadata_of_a_service_a_route_and_a_call_choose_endpoints() -> None:
    service = {
        "endpoints": VERSIONS,
        "load_balancing": SUBSET,
        "metadata_match": {"version": "1"},
        "routes": [{"name": "new", "match": [{"path": {"prefix": "/new"}}], "metadata_match": {"version": "2"}}],
    }
    with mesh_of(service) as mesh:
        assert set(called(mesh)) == {"subset version=1"}
        assert set(called(mesh, metadata_match={"version": "2"})) == {"subset version=2"}
        assert set(called(mesh, metadata_match={"version": "3"})) == {"fallback any"}
        record = meshlib.record(mesh.client("orders").get("/new"))
        assert record is not None
        assert record.attempts[0].how == "subset version=2"
        assert [each.address for each in mesh.plan("GET", "http://orders/new").candidates] == [
            "10.0.1.2:80",
            "10.0.1.3:80",
        ]


def test_a_call_whose_metadata_nobody_has_fails() -> None:
    with mesh_of({"endpoints": VERSIONS, "load_balancing": {"subset": {"selectors": [{"keys": ["version"]}]}}}) as mesh:
        with pytest.raises(NoEndpoint, match="the call's metadata: fallback none"):
            called(mesh, 1, metadata_match={"version": "9"})
        assert set(called(mesh, 5, metadata_match={"version": "1"})) == {"subset version=1"}


@pytest.mark.parametrize(("fallback", "reached"), [("none", ""), ("any", "1122"), ({"version": "1"}, "11")])
def test_a_named_subset_that_has_nobody_falls_back(fallback: Any, reached: str) -> None:
    service = {
        "endpoints": VERSIONS,
        "subsets": {"v3": {"version": "3"}},
        "subset_fallback": {"v3": fallback},
        "routes": [{"backends": [{"subset": "v3"}]}],
    }
    mesh = Mesh({"services": {"orders": service}})
    with mesh:
        plan = mesh.plan("GET", "http://orders/")
        metadata = {f"10.0.1.{at}:80": version for at, version in enumerate("1122")}
        assert "".join(metadata[each.address] for each in plan.candidates) == reached


def test_calls_stay_in_the_zone_once_the_callers_are_known() -> None:
    """The callers are looked up like any other service, and what changes there changes where calls go."""
    zone_aware = {"zone_aware": {"local_service": "checkout"}}
    with mesh_of({"endpoints": in_zones(), "load_balancing": zone_aware}) as mesh:
        snapshots = mesh._wiring.snapshots
        assert len(called(mesh, 90)) == 3
        two = [Endpoint(f"10.9.0.{at}", 80, locality=Locality("eu", zone)) for at, zone in enumerate("abc")]
        snapshots.publish("checkout", two, Known.YES)
        assert set(called(mesh, 90)) == {"locality eu/a"}
        snapshots.publish("checkout", two[:1], Known.YES)
        assert len(called(mesh, 90)) == 3


def test_the_callers_are_watched_as_long_as_they_count() -> None:
    service = {"endpoints": in_zones(), "load_balancing": {"zone_aware": {"local_service": "checkout"}}}
    callers = {"endpoints": [{"address": "10.9.0.1:80", "locality": {"region": "eu", "zone": "a"}}]}
    with Mesh({"services": {"orders": service, "checkout": callers}}) as mesh:
        mesh.wait_ready("orders", timeout="10s")
        wait_until(lambda: "checkout" in {each.name for each in mesh.status().services}, "checkout is watched")
