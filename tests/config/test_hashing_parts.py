"""Hash balancers, hash policies and session affinity as they are written: what they compile to, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib import HashCookie, HashOn, LoadBalancing, Ring, Service, SessionAffinity
from meshlib.balance import settings
from meshlib.config.choose import read_settings
from meshlib.config.settings import ServiceSettings
from meshlib.errors import ConfigError


def compiled(service: dict[str, Any], **fields: Any) -> ServiceSettings:
    return read_settings({"services": {"orders": service}, **fields}, {}).services["orders"]


def test_what_is_written_is_what_is_used() -> None:
    found = compiled(
        {
            "load_balancing": {
                "policy": "ring_hash",
                "ring": {"min_size": 12, "max_size": 100, "hash": "murmur2"},
                "hash_key": "hostname",
                "hash_balance_percent": 150,
                "session_affinity": {"cookie": "at", "path": "/shop", "ttl": "2m", "statuses": ["draining"]},
            },
            "hash_on": [
                {"header": "X-User", "terminal": True},
                {"cookie": {"name": "route", "ttl": "1h", "path": "/x"}},
                {"cookie": {"name": "plain"}},
                {"query": "user"},
                {"source": True},
            ],
            "routes": [{"name": "images", "match": [{"method": "GET"}], "hash_on": [{"query": "id"}]}],
        }
    )
    balancing = found.clusters[None].load_balancing
    assert balancing.ring == settings.RingSettings(12, 100, "murmur2")
    assert (balancing.hash_key, balancing.hash_balance_percent) == ("hostname", 150)
    assert balancing.session_affinity == settings.SessionAffinity("at", "/shop", 120.0, ("draining",))
    images, default = (route.policy.hash_on for route in found.routes)
    assert images == (settings.HashOn(query="id"),)
    assert default == (
        settings.HashOn(header="x-user", terminal=True),
        settings.HashOn(cookie=settings.HashCookie("route", 3600.0, "/x")),
        settings.HashOn(cookie=settings.HashCookie("plain")),
        settings.HashOn(query="user"),
        settings.HashOn(source=True),
    )


def test_code_and_files_mean_the_same() -> None:
    typed = Service(
        load_balancing=LoadBalancing(policy="maglev", table_size=251, session_affinity=SessionAffinity()),
        hash_on=[HashOn(cookie=HashCookie(name="route", ttl=60))],
    )
    in_code = read_settings(None, {"services": {"orders": typed}}).services["orders"]
    assert in_code == compiled(
        {
            "load_balancing": {"policy": "maglev", "table_size": 251, "session_affinity": {}},
            "hash_on": [{"cookie": {"name": "route", "ttl": "1m"}}],
        }
    )
    assert Ring() == Ring(min_size=1024, max_size=8_388_608, hash="xxhash")


def test_a_service_inherits_and_switches_off() -> None:
    defaults = {"load_balancing": {"ring": {"min_size": 64}, "session_affinity": {"cookie": "at"}}}
    inherits = compiled({"load_balancing": {"policy": "ring_hash"}}, defaults=defaults)
    assert inherits.clusters[None].load_balancing.ring.min_size == 64
    assert inherits.clusters[None].load_balancing.session_affinity is not None
    off = compiled({"load_balancing": {"session_affinity": False}}, defaults=defaults)
    assert off.clusters[None].load_balancing.session_affinity is None


MAGLEV = {"policy": "maglev"}


@pytest.mark.parametrize(
    ("service", "path", "text"),
    [
        ({"hash_on": [{"header": "x"}]}, "hash_on", "has no effect with the policy 'peak_ewma'"),
        (
            {"routes": [{"match": [{"method": "GET"}], "hash_on": [{"header": "x"}]}]},
            "routes[0].hash_on",
            "has no effect with the policy 'peak_ewma'",
        ),
        ({"load_balancing": MAGLEV, "hash_on": [{}]}, "hash_on[0]", "has nothing to hash"),
        (
            {"load_balancing": MAGLEV, "hash_on": [{"header": "x", "query": "y"}]},
            "hash_on[0]",
            "has header and query",
        ),
        ({"load_balancing": MAGLEV, "hash_on": [{"cookie": {}}]}, "hash_on[0].cookie.name", "is required"),
        (
            {"load_balancing": MAGLEV, "hash_on": [{"cookie": {"name": "a;b"}}]},
            "cookie.name",
            "not the name of a cookie",
        ),
        (
            {"load_balancing": MAGLEV, "hash_on": [{"cookie": {"name": "a", "path": "x"}}]},
            "cookie.path",
            "begin with '/'",
        ),
        (
            {"load_balancing": MAGLEV, "hash_on": [{"cookie": {"name": "a", "path": "/\n"}}]},
            "cookie.path",
            "cannot hold",
        ),
        ({"load_balancing": {**MAGLEV, "table_size": 100}}, "table_size", "did you mean '101'?"),
        ({"load_balancing": {**MAGLEV, "table_size": 5000012}}, "table_size", "less than or equal to 5000011"),
        ({"load_balancing": {"table_size": 7}}, "table_size", "is for the policy 'maglev'"),
        ({"load_balancing": {"hash_key": "hostname"}}, "hash_key", "is for the policy 'ring_hash' or 'maglev'"),
        ({"load_balancing": {**MAGLEV, "ring": {}}}, "ring", "is for the policy 'ring_hash'"),
        ({"load_balancing": {**MAGLEV, "hash_balance_percent": 99}}, "hash_balance_percent", "equal to 100"),
        (
            {"load_balancing": {"policy": "ring_hash", "ring": {"max_size": 10}}},
            "ring.max_size",
            "leaves no size for the ring",
        ),
        (
            {"load_balancing": {"session_affinity": {"path": "/a;b"}}},
            "session_affinity.path",
            "is not the path of a cookie",
        ),
        ({"load_balancing": {"session_affinity": {"statuses": []}}}, "session_affinity.statuses", ""),
        ({"load_balancing": {"session_affinity": {"statuses": ["dead"]}}}, "session_affinity.statuses", ""),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused_by_name(service: dict[str, Any], path: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compiled(service)
    (problem,) = caught.value.problems
    assert path in problem
    assert text in problem


def test_a_route_to_another_service_may_hash() -> None:
    routes = [{"match": [{"method": "GET"}], "backends": [{"service": "cache"}], "hash_on": [{"header": "x"}]}]
    assert compiled({"routes": routes}).routes[0].policy.hash_on
