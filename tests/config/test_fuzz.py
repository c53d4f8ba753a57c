"""Whatever is given, the answer is a configuration or a ConfigError, soon."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshlib.config import model
from meshlib.config.compile import compile_config
from meshlib.config.documents import FORMATS, DocumentError, parse
from meshlib.config.fields import Part
from meshlib.config.load import load_file, load_mapping
from meshlib.errors import ConfigError

pytestmark = pytest.mark.slow  # many cases

_QUICK = settings(max_examples=300, deadline=2000, suppress_health_check=list(HealthCheck))

_FIELDS = sorted(
    {name for each in model.__all__ for name in getattr(model, each).model_fields} | {"register", "consul"}
)
_TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [
            *_FIELDS,
            "on",
            "5xx",
            "2s",
            "1h",
            "a:80",
            "[::1]:80",
            "unix:/a",
            "unix:/\udc80\ud800",
            "/a",
            "*.mesh",
            "10.0.0.0/8",
            "GET",
            "(",
            "${X}",
            "http://a",
        ]
    ),
)
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    _TEXTS,
    st.binary(max_size=4),
    st.timedeltas(),
    st.just(10**400),
)
_ANYTHING = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.sampled_from(_FIELDS), _TEXTS), inner, max_size=4)
    ),
    max_leaves=12,
)


def _shaped(cls: type[Part]) -> st.SearchStrategy[dict[str, Any]]:
    """Maps that look like a part: its own fields, with anything in them."""
    names = [field.alias or name for name, field in cls.model_fields.items()]
    return st.dictionaries(st.sampled_from(names), _ANYTHING, max_size=5)


_SERVICES = st.dictionaries(
    st.sampled_from(["a", "b", "C", ""]),
    st.one_of(
        _shaped(model.Service), st.fixed_dictionaries({"routes": st.lists(_shaped(model.Route), max_size=3)}), _ANYTHING
    ),
    max_size=3,
)


def _loads_or_refuses(data: Any) -> None:
    try:
        config = load_mapping(data, environ={"X": "1"})
    except ConfigError as error:
        problems = error.problems
    else:
        compile_config(config)
        return
    assert problems


@_QUICK
@given(st.one_of(st.dictionaries(st.one_of(_TEXTS, st.integers(), st.none()), _ANYTHING, max_size=4), _ANYTHING))
def test_any_map_gives_a_configuration_or_a_config_error(data: Any) -> None:
    _loads_or_refuses(data)


@_QUICK
@given(
    st.one_of(
        _shaped(model.MeshConfig), st.fixed_dictionaries({"services": _SERVICES, "defaults": _shaped(model.Defaults)})
    )
)
def test_any_map_of_real_fields_gives_a_configuration_or_a_config_error(data: Any) -> None:
    _loads_or_refuses(data)


_SNIPPETS = st.lists(
    st.one_of(
        st.sampled_from([*":,[]{}!|>'\"#~0.=\t\\\r\n \x85\0"]),
        st.sampled_from(
            ["a", "  ", "- ", "&x ", "*x", "!!int ", "---\n", "%YAML 1.2\n", "? ", "<<", "services", "true"]
        ),
    ),
    max_size=40,
).map("".join)


@pytest.mark.parametrize("suffix", FORMATS)
@_QUICK
@given(content=st.one_of(st.binary(max_size=200), _SNIPPETS.map(str.encode)))
def test_any_bytes_give_a_document_or_an_error(suffix: str, content: bytes) -> None:
    try:
        documents = parse(content, suffix, "mesh" + suffix)
    except DocumentError:
        return
    for document in documents:
        _loads_or_refuses(document.data)


@_QUICK
@given(content=st.binary(max_size=100))
def test_any_file_loads_or_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_bytes(content)
    with contextlib.suppress(ConfigError):
        load_file(path)
