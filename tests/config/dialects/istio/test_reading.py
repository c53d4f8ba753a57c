"""Bad documents are told of with file and line, and whatever they hold there is no traceback."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshlib.config.documents import DocumentError
from meshlib.config.settings import ServiceSettings
from meshlib.errors import ConfigError
from tests.config.dialects.istio.support import (
    destination_rule,
    document,
    draft_of,
    effects,
    http,
    load,
    notes,
    virtual_service,
)
from tests.config.dialects.istio.test_fields import MESSAGES, WHERE, placed, sample

BAD = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v9}
    timeout: soon
    retries:
      attempts: many
  - match:
    - uri: {exact: /a, prefix: /b}
    rewrite: {uri: no-slash}
    route:
    - destination: {}
"""


def test_every_error_has_its_file_its_line_and_its_field() -> None:
    with pytest.raises(ConfigError) as caught:
        load(BAD, namespace="shop")
    said = [
        (8, "spec.http[0].route[0].destination: nobody defines the subset 'v9'"),
        (9, "spec.http[0].timeout: a duration such as 500ms, 2s or 1m30s is expected"),
        (11, "spec.http[0].retries.attempts: a whole number is expected"),
        (13, "spec.http[1].match[0].uri: has exact and prefix"),
        (16, "spec.http[1].route[0].destination.host: is required"),
    ]
    for line, text in said:
        assert any(
            problem.startswith(f"istio.yaml:{line}: VirtualService shop/reviews: {text}")
            for problem in caught.value.problems
        ), text


def test_what_the_native_form_refuses_is_said_of_the_document() -> None:
    text = virtual_service(http(rewrite={"uri": "no-slash"}))
    with pytest.raises(ConfigError, match=r"istio.yaml:\d+: VirtualService reviews: .*rewrite.prefix"):
        load(text)


def test_strict_makes_errors_of_what_is_not_honoured() -> None:
    text = virtual_service(http(corsPolicy={"allowMethods": ["GET"]}))
    load(text)
    with pytest.raises(ConfigError, match="corsPolicy: is not honoured"):
        load(text, documents={"strict": True})


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha3"])
def test_all_versions_are_read(version: str) -> None:
    text = virtual_service(http(timeout="1s")).replace("networking.istio.io/v1", f"networking.istio.io/{version}")
    assert load(text).services["reviews"].routes[0].policy.timeout_s == 1.0


def test_others_are_not() -> None:
    found = notes(draft_of(virtual_service(http()).replace("istio.io/v1", "istio.io/v2")), "wrong")
    assert len(found) == 1 and "v1alpha3" in found[0]


def test_documents_about_security_are_kept_and_told_of() -> None:
    text = document("AuthorizationPolicy", "deny", {"action": "DENY"}).replace("networking.", "security.")
    draft = draft_of(text)
    assert [resource.name for resource in draft.security] == ["deny"]
    assert effects(draft) == {("", "ignored")}


@pytest.mark.parametrize("kind", ["EnvoyFilter", "ProxyConfig"])
def test_kinds_that_are_not_read_are_told_of(kind: str) -> None:
    assert "are not read" in notes(draft_of(document(kind, "x", {})), "ignored")[0]


def test_a_kind_that_is_none_is_told_of_with_the_nearest() -> None:
    text = document("VirtualServic", "x", {}).replace("name: x", "labels: {}")
    assert notes(draft_of(text), "ignored") == [
        "istio.yaml:2: VirtualServic: is not honoured: documents of the kind VirtualServic are not read; "
        "did you mean VirtualService?"
    ]


def test_that_no_document_is_in_the_namespace_of_this_workload_is_told() -> None:
    text = destination_rule(metadata={"namespace": "shop"})
    assert "'namespace' says which it is" in notes(draft_of(text), "different")[0]
    assert notes(draft_of(text, namespace="shop")) == notes(draft_of(text + destination_rule("other"))) == []
    assert notes(draft_of(destination_rule(metadata={"namespace": "istio-system"}))) == []


def usual(service: ServiceSettings) -> tuple[Any, ...]:
    policy, cluster = service.routes[-1].policy, service.clusters[None]
    return policy.timeout_s, policy.retry.max_retries, cluster.load_balancing.policy, cluster.outlier, cluster.breaker


def test_what_nobody_says_is_as_in_istio_or_as_here() -> None:
    text = destination_rule()
    assert usual(load(text).services["reviews"]) == (None, 2, "least_request", None, None)
    ours = load(text, documents={"defaults": "ours"}).services["reviews"]
    assert usual(ours) == usual(load("", services={"reviews": {}}).services["reviews"])
    own = load(text, defaults={"timeout": "3s", "load_balancing": {"policy": "random"}}).services["reviews"]
    assert usual(own) == (3.0, 2, "random", None, None)


def test_a_rule_leaves_to_the_users_defaults_what_it_does_not_say() -> None:
    text = destination_rule(trafficPolicy={"outlierDetection": {}})
    found = load(text, defaults={"load_balancing": {"policy": "random"}}).services["reviews"].clusters[None]
    assert (found.load_balancing.policy, found.load_balancing.failover) == ("random", True)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = sorted((message, name) for message, fields in MESSAGES.items() for name in fields)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(FIELDS), JUNK)
def test_whatever_a_field_holds_is_read_or_told_of(field: tuple[str, str], junk: Any) -> None:
    message, name = field
    documents = list(yaml.safe_load_all(sample(message, None)))
    documents[0]["spec"] = placed(documents[0]["spec"], WHERE[message][1], {name: junk})
    text = yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=False)
    # What PyYAML writes without quotes is no text to all of YAML 1.2: `0E0` as a key is refused.
    with contextlib.suppress(ConfigError, DocumentError):
        load(text)
