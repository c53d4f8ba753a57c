"""The Gateway API's own conformance tests for HTTPRoute and for meshes, against its documents as published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.config.dialects.gateway_api import suite
from tests.config.dialects.gateway_api.suite import Setup


@pytest.fixture(scope="module")
def setups(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Any, Setup]]:
    made: dict[Any, Setup] = {}
    yield made
    for setup in made.values():
        setup.client.close()
        setup.mesh.close()


def _setup(made: dict[Any, Setup], directory: Path, name: str, namespace: str, without: str | None = None) -> Setup:
    manifests = tuple(suite.SUITE["tests"][name]["manifests"])
    key = manifests, namespace, without
    if key not in made:
        made[key] = Setup(suite.documents(name, without), directory, namespace)
    made[key].mesh.reset()
    return made[key]


@pytest.mark.parametrize(("name", "index"), list(suite.cases()))
def test_a_case_of_the_suite(name: str, index: int, setups: dict[Any, Setup], tmp_path: Path) -> None:
    case = suite.SUITE["tests"][name]["cases"][index]
    setup = _setup(setups, tmp_path, name, suite.namespace_of(name, case), case.get("without"))
    if case["request"].get("host", "").startswith("{pod}"):
        assert setup.mesh.plan("GET", "http://10.0.0.2:8080/").service is None
        return
    to = suite.target_of(name, case)
    scheme = "https" if to.endswith(":443") else "http"
    backends = setup.of(case["backend"], case["namespace"]) if {"backend", "namespace"} <= case.keys() else []
    delay = suite.delay_in(case["request"]["path"])
    if "simulate" in case:
        suite.simulate(setup, backends, case["simulate"])
    elif delay is not None:
        for service in setup.known:
            setup.mesh.slow(service, delay)
    error = suite.error_of(case)
    if error is not None:
        with pytest.raises(error):
            setup.ask(case, to, scheme)
        return
    response = setup.ask(case, to, scheme)
    suite.compare(case, response, str(response.request.url))


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("HTTPRouteWeight", {"infra-backend-v1": 70, "infra-backend-v2": 30}),
        ("MeshHTTPRouteWeight", {"echo-v1": 70, "echo-v2": 30}),
    ],
)
def test_backends_get_the_shares_of_their_weights(
    name: str, shares: dict[str, int], setups: dict[Any, Setup], tmp_path: Path
) -> None:
    case = suite.SUITE["tests"][name]["cases"][0]
    setup = _setup(setups, tmp_path, name, suite.namespace_of(name, case))
    to = suite.target_of(name, case)
    found = Counter(setup.ask(case, to).json()["backend"] for _ in range(500))
    assert found.keys() == shares.keys()
    for backend, share in shares.items():
        assert found[backend] / 5 == pytest.approx(share, abs=5)  # the suite's own tolerance


def test_each_backend_gets_its_own_headers(setups: dict[Any, Setup], tmp_path: Path) -> None:
    name = "HTTPRouteRequestHeaderModifierBackendWeights"
    case = suite.SUITE["tests"][name]["cases"][0]
    setup = _setup(setups, tmp_path, name, suite.namespace_of(name, case))
    answers = [setup.ask(case, suite.target_of(name, case)).json() for _ in range(100)]
    assert all(answer["headers"]["backend"] == answer["backend"] for answer in answers)
    assert {answer["backend"] for answer in answers} == {"infra-backend-v1", "infra-backend-v2"}


@pytest.mark.parametrize(
    ("name", "index"),
    [each for each in suite.cases() if "mirrored_to" in suite.SUITE["tests"][each[0]]["cases"][each[1]]],
)
def test_copies_go_where_and_as_often_as_the_suite_expects(
    name: str, index: int, setups: dict[Any, Setup], tmp_path: Path
) -> None:
    case = suite.SUITE["tests"][name]["cases"][index]
    setup = _setup(setups, tmp_path, name, suite.namespace_of(name, case))
    plan = setup.mesh.plan("GET", f"http://same-namespace{case['request']['path']}")
    routes = setup.mesh._wiring.settings.services["same-namespace"].routes
    (route,) = [route for route in routes if route.name == plan.route]
    assert [(setup.known[each.service][0], each.percent) for each in route.mirrors] == [
        (mirror["backend"], mirror["percent"]) for mirror in case["mirrored_to"]
    ]


def test_the_cases_that_are_left_out_are_few_and_each_has_its_reason() -> None:
    tests = suite.SUITE["tests"]
    left_out = [case for test in tests.values() for case in test["cases"] if "not_here" in case]
    assert len(left_out) == 2
    assert len(tests) == 67
    assert len(suite.SUITE["not_here"]) == 12
