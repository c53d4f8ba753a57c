"""The public names: what they are, where they come from, and that each is written down."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import meshlib
from meshlib.config.fields import Part

ROOT = Path(__file__).parent.parent
PUBLIC = [
    "Accrual",
    "Adaptive",
    "Admission",
    "AdmissionShares",
    "Aperture",
    "AttemptRecord",
    "AttemptTimeout",
    "Backend",
    "Backoff",
    "BodyBroken",
    "Bulkhead",
    "Caller",
    "CircuitBreaker",
    "CircuitOpen",
    "ConfigError",
    "ConnectFailed",
    "ConnectTimeout",
    "Consul",
    "ContextExecutor",
    "Criticality",
    "DeadlineExceeded",
    "Defaults",
    "DirectResponse",
    "DiscoveryUnavailable",
    "Distribute",
    "Documents",
    "Drain",
    "EgressRefused",
    "Endpoint",
    "FailoverRegion",
    "FailoverTarget",
    "FailurePercentage",
    "Fault",
    "FaultAbort",
    "FaultDelay",
    "Fleet",
    "FleetBreaker",
    "FleetRateLimit",
    "HashCookie",
    "HashOn",
    "HeaderCondition",
    "HeaderEdit",
    "HeaderEdits",
    "Health",
    "HealthCheck",
    "Hedge",
    "HighLimits",
    "Hopeless",
    "HttpCheck",
    "LeastRequest",
    "LimitExceeded",
    "Limits",
    "LoadBalancing",
    "Local",
    "Locality",
    "Match",
    "Mesh",
    "MeshClosed",
    "MeshConfig",
    "MeshError",
    "MeshStatus",
    "MetadataSubsets",
    "Mirror",
    "NoEndpoint",
    "OutlierDetection",
    "OverrideAllowed",
    "Overrides",
    "PathMatch",
    "Plan",
    "Pool",
    "PoolTimeout",
    "Prequal",
    "ProtocolError",
    "Rate",
    "RateLimit",
    "RateLimited",
    "RateLimitedBackoff",
    "Record",
    "Redirect",
    "Redis",
    "RegexRewrite",
    "Register",
    "Registration",
    "RegistrationFailed",
    "RequestBodyError",
    "Reset",
    "ResetHeader",
    "Retry",
    "RetryBudget",
    "Rewrite",
    "Ring",
    "Route",
    "Server",
    "ServerWeights",
    "Service",
    "SessionAffinity",
    "Shadow",
    "SlowStart",
    "Sticky",
    "SubsetSelector",
    "Subsetting",
    "SuccessRate",
    "TLSFailed",
    "TcpCheck",
    "TcpKeepalive",
    "Throttle",
    "Tls",
    "UnknownService",
    "ValueMatch",
    "Wait",
    "Watch",
    "WireError",
    "ZoneAware",
    "__version__",
    "call",
    "carry",
    "criticality",
    "current",
    "detached",
    "errors",
    "fallback",
    "record",
    "telemetry",
    "testing",
    "timeout",
]


def test_the_public_names_are_these() -> None:
    assert sorted(meshlib.__all__) == sorted(PUBLIC)
    assert dir(meshlib) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_can_be_had(name: str) -> None:
    assert getattr(meshlib, name) is not None


def test_type_checkers_and_python_find_the_same_things() -> None:
    tree = ast.parse((ROOT / "src/meshlib/__init__.py").read_text())
    block = next(item for item in tree.body if isinstance(item, ast.If))
    typed = {
        alias.name: item.module
        for item in block.body
        if isinstance(item, ast.ImportFrom)
        for alias in item.names
        if item.module is not None
    }
    assert set(typed) == set(PUBLIC) - {"__version__"}
    for name, module in typed.items():
        if module != "meshlib":
            assert getattr(importlib.import_module(module), name) is getattr(meshlib, name), name


def test_what_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = meshlib.nonsense


def test_every_error_is_described() -> None:
    described = (ROOT / "docs/errors.md").read_text()
    for name in meshlib.errors.__all__:
        assert f"`{name}`" in described or f"`meshlib.{name}`" in described, name


def test_the_api_page_lists_every_class_of_the_configuration() -> None:
    page = (ROOT / "docs/api.md").read_text()
    public = [getattr(meshlib, name) for name in meshlib.__all__]
    parts = [each.__name__ for each in public if isinstance(each, type) and issubclass(each, Part)]
    assert len(parts) > 50
    assert [name for name in parts if f"`{name}`" not in page] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("mypy")
def test_a_type_checker_agrees_with_what_users_write(mypy: list[str]) -> None:
    done = subprocess.run([*mypy, str(ROOT / "tests/typing")], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_beside_the_geometry_library_of_the_same_name_is_refused(tmp_path: Path) -> None:
    package = tmp_path / "meshlib"
    package.mkdir()
    for name in ("__init__.py", "_version.py"):
        (package / name).write_text((ROOT / "src/meshlib" / name).read_text())
    (package / "mrmeshpy.so").touch()
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import meshlib"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "ImportError: two distributions share the import name 'meshlib'" in done.stderr
    assert 'pip install "meshlib-http"' in done.stderr
