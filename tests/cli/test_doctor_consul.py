"""`doctor` and a real Consul."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from meshlib.cli.doctor import examine
from tests.peers.consul import Consul


def test_doctor_reaches_consul(
    consul_factory: Callable[..., Consul], tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    consul = consul_factory()
    monkeypatch.chdir(str(tmp_path))
    with open("mesh.yaml", "w") as file:
        file.write(f'discovery: [{{consul: {{address: "{consul.address}"}}}}]\n')
    monkeypatch.delenv("MESHLIB_CONFIG", raising=False)

    (registry,) = [finding for finding in examine() if finding.about == "registry"]

    assert registry.level == "ok"
    assert registry.text == f"Consul at {consul.address}: reachable, and has a leader"
