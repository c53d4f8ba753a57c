"""Documents in the shape in which users write them: they load, and requests go where they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshlib.config.load import load_file
from meshlib.routing.actions import Redirect
from tests.config.dialects.istio.support import draft_of, load, notes, route_of

SAMPLES = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "samples").glob("*.yaml"))}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_honoured_in_full(name: str) -> None:
    assert notes(draft_of(SAMPLES[name]), "wrong", "ignored") == []
    load(SAMPLES[name], documents={"strict": True})


def test_all_samples_that_are_not_about_the_same_host_make_one_configuration(tmp_path: Path) -> None:
    for name in ("request_routing", "fault_injection", "mirroring", "delegation", "egress"):
        (tmp_path / f"{name}.yaml").write_text(SAMPLES[name])
    config = load_file(tmp_path, environ={})
    assert set(config.services) >= {"reviews", "ratings", "httpbin", "shop", "httpbin.example.com"}
    assert config.egress == "refuse"


def test_requests_are_routed_by_user() -> None:
    settings = load(SAMPLES["request_routing"])
    found = [route_of(settings, "http://reviews/1", end_user=user) for user in ("jason", "anna")]
    assert [route.backends[0].subset for route in found if route] == ["v2", "v1"]


def test_faults_are_for_those_that_they_are_for() -> None:
    settings = load(SAMPLES["fault_injection"])
    found = [route_of(settings, "http://ratings/1", end_user=user) for user in ("jason", "tester-7", "anna")]
    faults = [route.policy.fault for route in found if route]
    assert faults[0] is not None and faults[0].delay is not None and faults[0].delay.fixed_s == 0.2
    assert faults[1] is not None and faults[1].abort is not None and faults[1].abort.status == 500
    assert faults[2] is None


def test_a_delegate_routes_below_its_path() -> None:
    settings = load(SAMPLES["delegation"])
    found = [route_of(settings, f"http://shop{path}") for path in ("/reviews/v2/x", "/reviews/x", "/x")]
    assert [route.backends[0].service for route in found[:2] if route] == [
        "reviews-v2.team-reviews",
        "reviews.team-reviews",
    ]
    assert [route.policy.timeout_s for route in found[:2] if route] == [2.0, 2.0]
    assert found[2] is not None and found[2].reply == Redirect(path="/reviews", status=302)
