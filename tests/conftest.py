"""What every test may use."""

from __future__ import annotations

import gc
import random
import sys

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.peers.fixtures"]

# A busy machine takes its time.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
# For all Pythons but the primary one, which tries the rest: what holds for any value does not depend on the Python.
settings.register_profile("few", max_examples=20)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """The garbage collector sees what tests make, and not the tests.

    Hundreds have it look for leaks; what thousands of tests are would cost each of them more than all the rest.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def _collector_sees_what_a_module_makes(request: pytest.FixtureRequest) -> None:
    """Where it is called by tests: nor does it see what was left by those of other modules."""
    if hasattr(request.module, "gc"):
        gc.collect()
        gc.freeze()


@pytest.fixture
def anyio_backend() -> str:
    """What async tests run on: the mesh is for asyncio alone."""
    return "asyncio"


@pytest.fixture(scope="session")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command. Tests that share it are of one `xdist_group`, so that one reads what another had it work out."""
    return [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path_factory.mktemp("mypy"))]


@pytest.fixture(autouse=True)
def _same_chances_in_any_order(request: pytest.FixtureRequest) -> None:
    """A module's own `RNG` begins anew with each test, whichever tests ran before it in this process."""
    rng = getattr(getattr(request, "module", None), "RNG", None)
    if isinstance(rng, random.Random):
        rng.seed(1)
