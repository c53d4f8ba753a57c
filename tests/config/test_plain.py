"""Plain configurations are compiled without pydantic, and to the same settings as with it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from meshlib.config.compile import compile_config
from meshlib.config.load import load_mapping
from meshlib.config.plain import plain_settings
from meshlib.config.settings import MeshSettings, default_service
from meshlib.dataclass import replace
from meshlib.errors import ConfigError

PLAIN: list[dict[str, Any]] = [
    {},
    {"service": ""},
    {"service": "checkout"},
    {"services": {}},
    {"services": {"orders": {}}},
    {"services": {"orders": {"endpoints": []}}},
    {"service": "a-b", "services": {"orders": {"endpoints": ["10.0.0.1:8080", "orders.internal:65535"]}, "c": {}}},
    {"services": {"orders": {"timeout": "2s", "per_try_timeout": 0.5, "retry": {"max_retries": 0}}}},
    {"services": {"orders": {"timeout": 1, "retry": {}, "endpoints": ("localhost:1",)}}},
]


@pytest.mark.parametrize("index", range(len(PLAIN)))
def test_what_is_plain_is_taken(index: int) -> None:
    assert plain_settings(PLAIN[index]) is not None


class Text(str):
    """Text to whoever asks `isinstance`, with who knows what methods."""


class Map(dict[str, Any]):
    """A map likewise."""


# Near what is plain, and on both sides of it.
_names = st.sampled_from(
    ["orders", "a", "a-b", "-a", "a-", "A", "a.b", "a_b", "", "x" * 63, "x" * 64, "\udc80", "\u0663"]
)
_names |= st.builds(Text, st.just("orders")) | st.text(max_size=4)
_durations = st.sampled_from(
    ["2s", "500ms", "30s", "31s", "0s", "0", " 1s ", "1m30s", "${T:-1s}", "x", "", "-1s", "1e3"]
)
_durations |= st.sampled_from([1, 0, -1, 2.5, 40, True, None, 10**400, float("inf"), float("nan")])
_addresses = st.sampled_from(
    ["10.0.0.1:8080", "h:1", "H:1", "h:01", "h:0", "h:65535", "h:65536", "h", "h:", ":1", "[::1]:80", "::1:80", "h.:80"]
)
_addresses |= st.sampled_from(
    ["unix:8080", "unix:/run/a.sock", "http://h:80", "h:1/", "${H}:80", "h_1:80", "a b:1", "h:\u0661"]
)
_endpoints = st.lists(_addresses | st.builds(Text, _addresses) | st.just({"address": "h:1"}) | st.none(), max_size=3)
_retries = st.dictionaries(
    st.sampled_from(["max_retries", "max_retry", "on"]), st.sampled_from([0, 2, 100, 101, -1, 1.0, True, "1", None, []])
)
_service = st.fixed_dictionaries(
    {},
    optional={
        "endpoints": _endpoints | st.builds(tuple, _endpoints) | st.sampled_from([None, "h:1", {"h:1": 1}]),
        "timeout": _durations,
        "per_try_timeout": _durations,
        "retry": _retries | st.none(),
        "hosts": st.just(["x"]),
        "timeot": _durations,
    },
)
_configs = st.fixed_dictionaries(
    {},
    optional={
        "service": _names | st.none() | st.integers(),
        "services": st.dictionaries(_names, _service | st.builds(Map, _service) | st.none() | st.just([]), max_size=3)
        | st.none()
        | st.just([]),
        "mode": st.just("on"),
        1: st.none(),
    },
)


def by_models(data: Any, *, variables: bool) -> MeshSettings | None:
    """What the models make of `data`; None if they refuse it."""
    try:
        return compile_config(load_mapping(data, variables=variables))
    except ConfigError:
        return None


def comparable(made: MeshSettings | None) -> object:
    """All of the settings, with the types of numbers; of what makes other services' settings, what it makes."""
    return None if made is None else (repr(made), made.fallback("x"), replace(made, fallback=default_service))


@given(data=_configs, variables=st.booleans())
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@example(data=PLAIN[6], variables=True)
@example(data=PLAIN[7], variables=True)
@example(data=PLAIN[8], variables=False)
@example(data={"services": {"orders": {"timeout": "1s", "per_try_timeout": "1s"}}}, variables=True)
@example(data={"services": {"orders": {"per_try_timeout": "31s"}}}, variables=True)
@example(data={"services": {"orders": {"endpoints": ["unix:8080"]}}}, variables=True)
@example(data={"services": {"orders": {"endpoints": ["h:1", "h:1"]}}}, variables=True)
def test_what_is_taken_is_compiled_as_the_models_compile_it(data: Any, variables: bool) -> None:
    plain = plain_settings(data)

    assert plain is None or comparable(plain) == comparable(by_models(data, variables=variables))


@pytest.mark.parametrize("data", [None, "mesh.yaml", [], Map(), {"services": {f"s{n}": {} for n in range(101)}}])
def test_what_is_no_small_plain_map_is_left_to_the_models(data: Any) -> None:
    assert plain_settings(data) is None


def test_what_was_given_may_be_changed_afterwards() -> None:
    endpoints = ["h:1"]
    data = {"services": {"orders": {"endpoints": endpoints}}}
    made = plain_settings(data)
    before = repr(made)

    endpoints.append("h:2")
    data["services"]["carts"] = {}

    assert repr(made) == before
