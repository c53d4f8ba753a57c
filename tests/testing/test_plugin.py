"""The pytest plugin, in suites as users have them."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

# Imported here, so that they are not imported anew, in part, in each of the runs inside this process.
import meshlib.config.compile
import meshlib.config.load
import meshlib.testing.fixture  # noqa: F401

pytest_plugins = ["pytester"]

# From a checkout that is not installed, the plugin has to be named.
INSTALLED = any(entry.value == "meshlib.testing.plugin" for entry in entry_points(group="pytest11"))
OPTIONS = ("-q", "-W", "error", "-p", "no:cacheprovider", *(() if INSTALLED else ("-p", "meshlib.testing.plugin")))


def passes(pytester: pytest.Pytester, count: int, *options: str) -> None:
    pytester.runpytest_inprocess(*OPTIONS, *options).assert_outcomes(passed=count)


def test_each_test_has_a_mesh_of_its_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        seen = []

        def test_one(mesh):
            seen.append(mesh)
            mesh.serve("orders", {"id": 42})
            assert mesh.client("orders").get("/").json() == {"id": 42}
            mesh.clock.advance("1h")

        def test_two(mesh):
            assert mesh is not seen[0]
            assert mesh.calls() == []
            assert mesh.clock.elapsed == 0
            assert "closed" in repr(seen[0])
        """
    )
    passes(pytester, 2)


def test_a_file_in_the_directory_counts_only_where_it_is_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makefile(".yaml", mesh="services: {orders: {timeout: 3s}}")
    pytester.makepyfile("def test_it(mesh):\n    assert not mesh.settings.services")
    passes(pytester, 1)
    pytester.makeini("[pytest]\nmeshlib_config = mesh.yaml")
    pytester.makepyfile("def test_it(mesh):\n    assert list(mesh.settings.services) == ['orders']")
    passes(pytester, 1)


def test_the_configuration_is_a_fixture_to_override(pytester: pytest.Pytester) -> None:
    pytester.makefile(".yaml", mesh="services: {orders: {timeout: 3s}}")
    pytester.makeini("[pytest]\nmeshlib_config = missing.yaml")
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def mesh_config():
            return "mesh.yaml"
        """
    )
    pytester.mkdir("elsewhere")
    pytester.makepyfile(
        """
        import os, pytest

        @pytest.fixture(autouse=True)
        def in_another_directory(monkeypatch):
            monkeypatch.chdir("elsewhere")

        def test_it(mesh):
            assert list(mesh.settings.services) == ["orders"]

        class TestMore:
            @pytest.fixture
            def mesh_config(self):
                return {"services": {"users": {}}}

            def test_it(self, mesh):
                assert list(mesh.settings.services) == ["users"]
        """
    )
    passes(pytester, 2)


def test_the_marker_configures_one_test(pytester: pytest.Pytester) -> None:
    pytester.makefile(".yaml", mesh="services: {orders: {timeout: 3s}}")
    pytester.makeini("[pytest]\nmeshlib_config = mesh.yaml")
    pytester.makepyfile(
        """
        import pytest
        from meshlib import Service

        @pytest.mark.mesh({"services": {"users": {}}})
        def test_mapping(mesh):
            assert list(mesh.settings.services) == ["users"]

        @pytest.mark.mesh("mesh.yaml", seed=3)
        def test_file(mesh):
            assert list(mesh.settings.services) == ["orders"]

        @pytest.mark.mesh(seed=3)
        def test_seed_alone(mesh):
            assert list(mesh.settings.services) == ["orders"]

        @pytest.mark.mesh(services={"stock": Service(timeout="1s")}, mode="observe")
        def test_fields(mesh):
            assert list(mesh.settings.services) == ["stock"]
            assert mesh.mode == "observe"
        """
    )
    passes(pytester, 4, "--strict-markers")


def test_a_suite_s_own_fixture_and_marker_of_the_name_stay_its_own(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers =\n    mesh: tests of triangle meshes")
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture(scope="session")
        def mesh():
            return "triangles"
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.mesh
        def test_it(mesh):
            assert mesh == "triangles"
        """
    )
    passes(pytester, 1, "--strict-markers")


def test_a_suite_that_does_not_use_it_does_not_pay_for_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_it():
            heavy = {"meshlib.mesh", "meshlib.testing.fixture", "pydantic", "yaml", "tenacity", "opentelemetry"}
            assert "meshlib.testing.plugin" in sys.modules
            assert not heavy & set(sys.modules)
        """
    )
    # Plugins of others may import httpx; that is not the doing of this one.
    pytester.runpytest_subprocess(*OPTIONS).assert_outcomes(passed=1)


def test_a_wrong_configuration_is_an_error_of_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.mesh({"services": {"users": {"timeouts": "1s"}}})
        def test_it(mesh):
            pass
        """
    )
    result = pytester.runpytest_inprocess(*OPTIONS)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*ConfigError*"])


def test_it_is_described_where_pytest_lists_fixtures_and_markers(pytester: pytest.Pytester) -> None:
    pytester.runpytest_inprocess(*OPTIONS, "--fixtures").stdout.fnmatch_lines(["*mesh_config*", "mesh *"])
    pytester.runpytest_inprocess(*OPTIONS, "--markers").stdout.fnmatch_lines(["@pytest.mark.mesh(config=None*"])


def test_async_tests_use_it_as_well(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        @pytest.mark.anyio
        async def test_it(mesh):
            mesh.serve("orders", {"id": 42})
            mesh.fail_next("orders")
            async with mesh.async_client("orders") as orders:
                assert (await orders.get("/")).json() == {"id": 42}
            assert mesh.client("orders").get("/").json() == {"id": 42}
            assert len(mesh.calls("orders")) == 3
        """
    )
    passes(pytester, 1)
