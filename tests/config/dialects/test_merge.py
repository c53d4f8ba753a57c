"""What documents say beside what a user wrote: whose word holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from meshlib.config.compile import compile_config
from meshlib.config.gather import gather
from meshlib.config.load import load_file, load_mapping
from meshlib.config.model import Defaults, MeshConfig, Service
from meshlib.config.settings import MeshSettings

ISTIO = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
    - name: first
      retries: {attempts: 3, perTryTimeout: 5s}
      route: [{destination: {host: reviews}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec: {host: reviews, trafficPolicy: {connectionPool: {tcp: {connectTimeout: 7s}}}}
"""


@pytest.fixture
def document(tmp_path: Path) -> str:
    (tmp_path / "istio.yaml").write_text(ISTIO)
    return str(tmp_path / "istio.yaml")


def settings(document: str, **native: Any) -> MeshSettings:
    return compile_config(load_mapping({**native, "include": [document]}))


@pytest.mark.parametrize(
    ("native", "limit_s"),
    [
        ({"defaults": {"timeout": "2s"}}, 2.0),
        ({"defaults": Defaults(timeout="2s")}, 2.0),
        ({"services": {"reviews": {"timeout": "3s"}}, "defaults": {"timeout": "2s"}}, 3.0),
        ({"services": {"reviews": Service(timeout="3s")}}, 3.0),
        ({"defaults": {"timeout": "6s"}}, None),
    ],
)
def test_times_of_documents_are_cut_to_the_timeout_that_a_user_wrote(
    document: str, native: dict[str, Any], limit_s: float | None
) -> None:
    service = settings(document, **native).services["reviews"]
    policy = service.routes[0].policy
    assert policy.timeout_s == (limit_s or 6.0)
    assert policy.per_try_timeout_s == (limit_s or 5.0)
    assert service.clusters[None].pool.connect_timeout_s == (limit_s or 6.0)


def test_a_service_written_in_code_has_what_documents_say_as_one_in_a_file_has(document: str) -> None:
    in_code = settings(document, services={"reviews": Service(hosts=["reviews.example"])})
    in_a_file = settings(document, services={"reviews": {"hosts": ["reviews.example"]}})
    assert in_code.services == in_a_file.services
    assert in_code.services["reviews"].routes[0].name == "first"


def test_a_service_of_which_nothing_is_written_has_what_documents_say(document: str) -> None:
    assert settings(document, services={"reviews": None}).services["reviews"].routes[0].name == "first"


def test_what_is_converted_is_cut_by_the_variable_that_cut_it(tmp_path: Path, document: str) -> None:
    (tmp_path / "mesh.yaml").write_text(f"defaults: {{timeout: '${{LIMIT}}'}}\ninclude: [{document}]\n")
    found = gather([tmp_path / "mesh.yaml"], environ={"LIMIT": "2s"})
    assert not found.problems
    reviews = found.native["services"]["reviews"]
    assert reviews["connect_timeout"] == reviews["routes"][0]["per_try_timeout"] == "${LIMIT}"
    (tmp_path / "native.yaml").write_text(yaml.safe_dump(found.native))

    def compiled(config: MeshConfig) -> Any:
        return compile_config(config).services

    once = compiled(load_file(tmp_path / "native.yaml", environ={"LIMIT": "1s"}))
    assert once == compiled(load_file(tmp_path / "mesh.yaml", environ={"LIMIT": "1s"}))


def test_routes_of_two_dialects_for_one_service_are_an_error_that_names_both(tmp_path: Path, document: str) -> None:
    (tmp_path / "gateway.yaml").write_text("""
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: default}
spec: {parentRefs: [{group: "", kind: Service, name: reviews}], rules: [{backendRefs: [{name: reviews, port: 80}]}]}
""")
    (problem,) = gather([document, tmp_path / "gateway.yaml"]).problems
    assert "HTTPRoute default/reviews" in str(problem)
    assert "says where calls to the service 'reviews' go, and so does" in str(problem)
    assert f"{document}:8: VirtualService default/reviews" in str(problem)


def test_a_kustomization_needs_no_kind_and_says_nothing_of_calls(document: str, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [istio.yaml]\n")
    gathered = gather([tmp_path], environ={})
    assert gathered.problems == ()
    assert [note.place.subject.strip() for note in gathered.notes if note.effect == "passed"] == ["Kustomization"]
