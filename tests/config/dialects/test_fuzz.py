"""Hostile configurations: each compiles, or there is a ConfigError that says where, soon and in plain words."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshlib.config.compile import compile_config
from meshlib.config.dialects.consul import chain, read
from meshlib.config.documents import FORMATS
from meshlib.config.load import MAX_SERVICES, load_file
from meshlib.config.problems import MAX_TOLD
from meshlib.config.yaml12 import MAX_VALUES
from meshlib.errors import ConfigError
from tests.config.fuzz.oracle import check_bytes, check_chain, check_documents, check_error
from tests.config.fuzz.seeds import CHAIN, ODD, SEEDS, changed, paths

_SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

_PLACES = [(index, path) for index, seed in enumerate(SEEDS) for path in paths(seed)]
_VALUES = st.one_of(
    st.sampled_from(ODD),
    st.sampled_from(_PLACES).map(lambda place: _at(*place)),
    st.text(max_size=12),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
        max_leaves=4,
    ),
)


def _at(index: int, path: tuple[Any, ...]) -> Any:
    value: Any = SEEDS[index]
    for key in path:
        value = value[key]
    return value


@st.composite
def mutants(draw: st.DrawFn) -> Any:
    """A document of the samples with up to three fields that hold what they should not."""
    index = draw(st.integers(0, len(SEEDS) - 1))
    document: Any = SEEDS[index]
    places = list(paths(document))
    for path in draw(st.lists(st.sampled_from(places), max_size=3)):
        try:
            document = changed(document, path, draw(_VALUES))
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return document


@_SETTINGS
@given(st.lists(mutants(), min_size=1, max_size=4))
def test_documents_with_odd_fields_side_by_side_are_read_or_refused(documents: list[Any]) -> None:
    check_documents(documents)


@_SETTINGS
@given(st.lists(st.tuples(st.sampled_from(list(paths(CHAIN))), _VALUES), min_size=1, max_size=3))
def test_a_compiled_chain_with_odd_fields_is_read_or_refused(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    chain: Any = CHAIN
    for path, value in changes:
        try:
            chain = changed(chain, path, value)
        except (KeyError, IndexError, TypeError):
            continue
    check_chain(chain)


_PARTS = {
    "word": [
        "kind: ",
        "Kind: ",
        "apiVersion: ",
        "VirtualService\n",
        "v1\n",
        "service-router\n",
        "spec:\n  ",
        "services",
    ],
    "yaml": ["---\n", "...\n", "%YAML 1.1\n", "&a ", "*a", "<<: ", "!!python/object:os.system ", "? ", "|\n", "- "],
    "mark": ["items: [", "{", "}", "[", "]", '"', ",", ":", "\n", "a", "=", "1: 2\n", "0x", "1e999"],
    "rare": ["\t", "\x00", "\r", "\ufeff", "\x85"],
}
_SNIPPETS = st.lists(
    st.sampled_from([each for parts in _PARTS.values() for each in parts]),
    max_size=30,
).map(lambda parts: "".join(parts).encode())


@pytest.mark.parametrize("suffix", FORMATS)
@_SETTINGS
@given(content=st.binary(max_size=80) | _SNIPPETS)
def test_any_bytes_are_documents_or_an_error(suffix: str, content: bytes) -> None:
    check_bytes(content, suffix)


# Bombs


def virtual_service(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def splitters(count: int, splits: int) -> list[dict[str, Any]]:
    return [
        {
            "Kind": "service-splitter",
            "Name": f"s{n}",
            "Splits": [{"Weight": 100 / splits, "Service": f"s{n + 1}"}] * splits,
        }
        for n in range(count)
    ]


TO = [{"destination": {"host": "a"}}]
DELEGATES = [
    virtual_service(
        "root", hosts=["a"], http=[{"match": [{"port": n} for n in range(1, 900)], "delegate": {"name": "d"}}]
    ),
    virtual_service("d", http=[{"match": [{"uri": {"prefix": f"/{n}"}} for n in range(900)], "route": TO}]),
]
ROUTE_SETS = {f"s{n}": [{"delegate": f"s{n + 1}"}] * 2 for n in range(30)} | {"s30": [{}]}
BOMBS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "splitters in a row": (splitters(500, 1), "splits more than 64 times in a row"),
    "splitters in a circle": (
        [{"Kind": "service-splitter", "Name": n, "Splits": [{"Weight": 100, "Service": m}]} for n, m in ("ab", "ba")],
        "splits in a circle",
    ),
    "redirects in a row": (
        [{"Kind": "service-resolver", "Name": f"s{n}", "Redirect": {"Service": f"s{n + 1}"}} for n in range(200)],
        "redirects more than 64 times in a row",
    ),
    "redirects in a circle": (
        [{"Kind": "service-resolver", "Name": n, "Redirect": {"Service": m}} for n, m in ("ab", "ba")],
        "redirects in a circle",
    ),
    "delegates that multiply": (DELEGATES, "more than 300000 routes and endpoints"),
    "delegates in a circle": (
        [
            virtual_service("root", hosts=["a"], http=[{"delegate": {"name": "d"}}]),
            virtual_service("d", http=[{"delegate": {"name": "d"}}]),
        ],
        "a delegate cannot delegate",
    ),
    "lists of routes that double": (
        [{"route_sets": ROUTE_SETS, "services": {"a": {"routes": [{"delegate": "s0"}]}}}],
        "come to more than 100000 routes",
    ),
    "lists of routes in a row": (
        [
            {
                "route_sets": {f"s{n}": [{"delegate": f"s{n + 1}"}] for n in range(2000)} | {"s2000": [{}]},
                "services": {"a": {"routes": [{"delegate": "s0"}]}},
            }
        ],
        "hand over from list to list more than 32 times",
    ),
    "lists of routes for all": (
        [
            {
                "route_sets": {"s": [{"match": [{"port": 80}] * 2000, "delegate": "t"}], "t": [{}] * 20},
                "services": {f"a{n}": {"routes": [{"delegate": "s"}]} for n in range(20)},
            }
        ],
        "with those of all services before, to more than 300000 routes",
    ),
    "hosts times ports times endpoints": (
        [
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "ServiceEntry",
                "metadata": {"name": "e"},
                "spec": {
                    "hosts": [f"a{n}.com" for n in range(200)],
                    "ports": [{"number": n, "name": f"p{n}", "protocol": "HTTP"} for n in range(1, 101)],
                    "resolution": "STATIC",
                    "endpoints": [{"address": f"10.0.0.{n}"} for n in range(200)],
                },
            }
        ],
        "more than 300000 routes and endpoints",
    ),
}


def refused(documents: list[dict[str, Any]]) -> ConfigError:
    found = check_documents(documents)
    assert isinstance(found, ConfigError)
    return found


@pytest.mark.parametrize(("documents", "problem"), BOMBS.values(), ids=BOMBS)
def test_what_multiplies_or_never_ends_is_refused(documents: list[dict[str, Any]], problem: str) -> None:
    assert problem in str(refused(documents))


def test_splitters_that_double_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (chain, read):
        monkeypatch.setattr(module, "MAX_TARGETS", 2000)  # a hundredth: it is seconds of work up to the bound
    assert "more than 2000 targets" in str(refused(splitters(40, 2)))


def test_very_many_services_are_refused() -> None:
    error = refused([{"services": dict.fromkeys(map(str, range(MAX_SERVICES + 1)))}])
    assert error.problems == (
        f"some.yaml: services: {MAX_SERVICES + 1} services are more than {MAX_SERVICES}, which is the limit",
    )


def test_of_very_many_problems_the_first_are_told() -> None:
    error = refused([{"services": {f"s{n}": {"timeuot": 1} for n in range(MAX_TOLD + 5)}}])
    assert (len(error.problems), error.problems[-1]) == (MAX_TOLD + 1, "and 5 more")


# Files


def refused_file(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_file(path)
    check_error(caught.value)
    return caught.value


def test_aliases_are_bounded_over_the_documents_of_a_file() -> None:
    one = f"a: &a [{'x,' * 400}]\nb: [{'*a,' * 20}]\n---\n"
    assert check_bytes(one.encode(), ".yaml") is not None
    assert check_bytes((one * 10).encode(), ".yaml") is None


def test_values_are_bounded_over_all_files(tmp_path: Path) -> None:
    text = f"kind: A\napiVersion: a.b/v1\na: &a [{'x,' * 400}]\nb: [{'*a,' * 120}]\n"
    for number in range(MAX_VALUES // 48_000 + 2):
        (tmp_path / f"{number:02}.yaml").write_text(text)
    (problem,) = refused_file(tmp_path).problems
    assert problem.endswith(f"with all files before it, holds more than {MAX_VALUES} values")


def test_pipes_and_devices_in_a_directory_are_refused_and_links_in_circles_passed_by(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    os.symlink("/dev/zero", tmp_path / "zero.yaml")
    os.symlink(tmp_path / "loop.yaml", tmp_path / "loop.yaml")
    os.symlink(tmp_path, tmp_path / "below")
    (tmp_path / "mesh.yaml").write_text("services: {a: {}}\n")
    told = [problem.rsplit(": ", 1)[1] for problem in refused_file(tmp_path).problems]
    pipe = "is not a file but a pipe, a device or the like"
    assert told == ["Too many levels of symbolic links", pipe, pipe]


def test_a_pattern_follows_no_links_to_directories(tmp_path: Path) -> None:
    inner = tmp_path / "inner" / "most"
    inner.mkdir(parents=True)
    for name in "abcd":
        os.symlink(tmp_path, inner / name)
    (inner / "some.yaml").write_text("services: {a: {}}\n")
    (tmp_path / "mesh.yml").write_text('include: ["**/*.yaml", "inner/**/most/*.yaml", "inner/**"]\n')
    assert set(load_file(tmp_path / "mesh.yml").services) == {"a"}


def test_names_with_control_characters_are_told_in_plain_words(tmp_path: Path) -> None:
    document = virtual_service("\x1b[31m\r\nx", hosts=[7], http=[])
    (tmp_path / "some.json").write_text(json.dumps(document))
    (problem, *_) = refused_file(tmp_path / "some.json").problems
    assert r"VirtualService default/\x1b[31m\r\nx: spec.hosts" in problem


def test_half_a_character_in_a_document_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "some.json").write_text(json.dumps(virtual_service("a", hosts=["\ud800"], http=[])))
    (problem,) = refused_file(tmp_path / "some.json").problems
    assert problem.endswith("spec.hosts[0]: is not valid Unicode")


def test_hundreds_of_documents_side_by_side_compile(tmp_path: Path) -> None:
    documents = [virtual_service(f"v{n}", hosts=[f"h{n}"], http=[{"route": TO}]) for n in range(300)]
    (tmp_path / "some.yaml").write_text("\n---\n".join(map(json.dumps, documents)))
    assert len(compile_config(load_file(tmp_path)).services) == 301
