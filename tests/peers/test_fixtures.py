"""What a test learns when its server is missing, and which tests are marked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.peers import fixtures


@pytest.fixture
def no_consul(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fixtures._look_up.cache_clear()
    monkeypatch.setenv("MESHLIB_CONSUL", "/nowhere/consul")
    yield
    fixtures._look_up.cache_clear()


@pytest.mark.usefixtures("no_consul")
def test_a_missing_server_skips_the_test_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)

    with pytest.raises(pytest.skip.Exception, match=r"no consul here: .*/nowhere/consul"):
        fixtures.require("consul")


@pytest.mark.usefixtures("no_consul")
def test_a_missing_server_fails_the_test_in_a_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")

    with pytest.raises(pytest.fail.Exception, match=r"consul is needed, and CI=true: .*/nowhere/consul"):
        fixtures.require("consul")


def test_a_test_without_a_server_has_no_marker(request: pytest.FixtureRequest) -> None:
    assert request.node.get_closest_marker("peer") is None


def test_a_test_with_a_server_is_marked(request: pytest.FixtureRequest, redis_server: object) -> None:
    assert request.node.get_closest_marker("peer") is not None


@pytest.mark.xdist_group("told")
def test_tests_of_one_group_are_known_to_who_hands_them_out(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("loadgroup", False):
        pytest.skip("nobody hands them out")
    assert request.node.nodeid.endswith("@told"), "this pytest-xdist does not know this pytest"
