"""Files, formats, variables, includes, and which file is read."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshlib.config import yaml12
from meshlib.config.documents import MAX_BYTES
from meshlib.config.load import load_file, load_mapping
from meshlib.config.yaml12 import read_yaml
from meshlib.errors import ConfigError


def write(directory: Path, **files: str) -> Path:
    """Write files, a__b_yaml as a/b.yaml; return the first."""
    paths = []
    for name, text in files.items():
        path = directory / (name.replace("__", "/").rpartition("_")[0] + "." + name.rpartition("_")[2])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths[0]


def refused(path: Path, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_file(path, environ=environ)
    return str(caught.value)


# YAML


@pytest.fixture(params=["libyaml", "python"])
def _either_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "python":
        monkeypatch.setattr(yaml12, "_LOADER", yaml.SafeLoader)
    elif not hasattr(yaml, "CSafeLoader"):
        pytest.skip("PyYAML was built without libyaml")


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("Off", "Off"),
        ("on", "on"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("0b1", "0b1"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("12:30:45", "12:30:45"),
        ("2024-01-02", "2024-01-02"),
        ("1.10", 1.1),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("~", None),
        ("", None),
        ("null", None),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("!!float 5", 5.0),
        ("! 5", "5"),
        ("=", "="),
        ("|\n  5\n", "5\n"),
    ],
)
def test_yaml_scalars_are_those_of_the_core_schema(text: str, value: Any) -> None:
    (read,) = read_yaml(f"a: {text}")[0][0].values()
    assert read == value
    assert type(read) is type(value)


@pytest.mark.usefixtures("_either_parser")
@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("a: 1\nb: 2\na: 3", 3, "'a' is written twice, first in line 1"),
        ("services:\n  a: {}\n  'a': {}", 3, "services: 'a' is written twice, first in line 2"),
        ("a: !!python/object/apply:os.system [ls]", 1, "the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !!timestamp 2024-01-02", 1, "not known here"),
        ("a: !!int five", 1, "does not fit"),
        ("a:\n  <<: {b: 1}", 2, "'<<' is not part of YAML 1.2"),
        ("a: &x [*x]", 1, "stands inside what it names"),
        ("a: *x", 1, "has no anchor"),
        ("8080: x", 1, "the key 8080 is not text; write it in quotes: '8080'"),
        ("? [a]\n: b", 1, "a key is a map or a list"),
        ("a: ]", 1, "not YAML"),
        ("a: b: c", 1, "not YAML"),
        ("- a", 1, "a map is expected at the top"),
        ("just text", 1, "a map is expected at the top"),
        ("a: \x01", 1, "not YAML"),
        ("a: " + "9" * 5000, 1, "is not a number that can be held"),
        ("a: 0x" + "f" * 5000, 1, "is not a number that can be held"),
        ("a: 0o" + "7" * 5000, 1, "is not a number that can be held"),
        ("a: !!float 1" + "0" * 400, 1, "is not a number that can be held"),
        ("a: " + "[" * 200 + "]" * 200, 1, "nested more than 64 levels deep"),
        ("\n".join(" " * depth + "a:" for depth in range(80)), 66, "nested more than 64 levels deep"),
    ],
)
def test_yaml_that_is_refused_says_where(tmp_path: Path, text: str, line: int, what: str) -> None:
    path = write(tmp_path, mesh_yaml=text)
    problem = refused(path)
    assert what in problem
    assert f"mesh.yaml:{line}: " in problem


def test_aliases_repeat_a_value() -> None:
    ((value, _),) = read_yaml("a: &x {b: 1}\nc: *x\nd: [*x, *x]")
    assert value == {"a": {"b": 1}, "c": {"b": 1}, "d": [{"b": 1}, {"b": 1}]}


def test_aliases_that_explode_are_refused_at_once(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path = write(tmp_path, mesh_yaml="\n".join(rows))
    started = time.monotonic()
    assert "aliases expand to more than" in refused(path)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("apiVersion: v2\nname: shop\n", "has 'apiVersion' and no 'kind': .* `helm template` prints it"),
        ("kind: VirtualService\nspec: {}\n", "has 'kind' and no 'apiVersion'"),
        ("{{- if .Values.x }}\na: 1\n{{- end }}\n", "`helm template` prints it"),
    ],
)
def test_what_is_no_document_yet_is_refused_in_one_line(tmp_path: Path, text: str, what: str) -> None:
    (tmp_path / "some.yaml").write_text(text)
    with pytest.raises(ConfigError, match=what) as caught:
        load_file(tmp_path / "some.yaml")
    assert len(caught.value.problems) == 1


def test_an_empty_file_is_a_configuration_with_all_defaults(tmp_path: Path) -> None:
    config = load_file(write(tmp_path, mesh_yaml="# nothing yet\n"))
    assert config.model_dump(exclude_unset=True) == {}


# JSON, TOML, and bytes


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"a": 1,\n "b": 2,\n "a": 3}', ":3: 'a' is written twice, first in line 1"),
        ('{"services": {"x": {},\n "x": {}}}', ":2: services: 'x' is written twice, first in line 1"),
        (
            '{"services": {"x": {"hosts": ["a", {"b": "}],{", \n"b": 2}]}}}',
            ":2: services.x.hosts[1]: 'b' is written twice",
        ),
        ('{"mode": }', ":1: not JSON"),
        ('{"mode": NaN}', "not JSON: NaN is not a value"),
        ("[1]", "a map is expected at the top"),
        ('{"a": ' + "[" * 100_000, "nested more than 64 levels deep"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "nested more than 64 levels deep"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON"),
        ('{"service": "\\ud800"}', "is not valid Unicode"),
        ('{"\\ud800": 1}', "a key is not valid Unicode"),
    ],
)
def test_json_that_is_refused_says_where(tmp_path: Path, text: str, what: str) -> None:
    assert what in refused(write(tmp_path, mesh_json=text))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a = 1\na = 2", ":2: not TOML: Cannot overwrite a value"),
        ("a = ", ":1: not TOML"),
        ("a." * 20_000 + "a = 1", "mesh.toml: nested more than 64 levels deep"),
        ('["a b"' + ' . "a b"' * 100 + "]", "mesh.toml: nested more than 64 levels deep"),
        ("a = " + "[" * 5000, "mesh.toml: nested more than 64 levels deep"),
        ("register = {port = 2024-01-01}\nservice = 'a'", "register.port"),
    ],
)
def test_toml_that_is_refused_says_where(tmp_path: Path, text: str, what: str) -> None:
    assert what in refused(write(tmp_path, mesh_toml=text))


def test_bytes_that_are_not_utf8_are_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    path.write_bytes(b"mode: on\nservice: \xff")
    assert "mesh.yaml:2: is not UTF-8" in refused(path)


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "mesh.json"
    path.write_bytes(b'\xef\xbb\xbf{"service": "a"}')
    assert load_file(path).service == "a"


def test_a_file_beyond_the_bound_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "mesh.yaml"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES * 50)
    assert "is larger than 10 MiB" in refused(path)


def test_files_that_cannot_be_read_are_config_errors(tmp_path: Path) -> None:
    assert "mesh.yaml: cannot be read: No such file" in refused(tmp_path / "mesh.yaml")
    assert "there is no file in it: .yaml, .yml, .toml, .json are looked for" in refused(tmp_path)
    assert "does not say its format: .yaml, .yml, .toml, .json" in refused(write(tmp_path, mesh_ini="x"))
    with pytest.raises(ConfigError, match="null"):
        load_file("a\0b.yaml")


# Variables


def test_variables_are_filled_in() -> None:
    config = load_mapping(
        {
            "service": "${NAME}-${STAGE:-test}",
            "register": {"port": "${PORT}", "metadata": {"cost": "$$5", "pattern": "a$", "no": "$NAME $${NAME}"}},
            "services": {
                "orders": {"http2": "${HTTP2}", "retry": {"max_retries": "${RETRIES:-1}"}, "timeout": "${T:-}2s"}
            },
        },
        environ={"NAME": "checkout", "PORT": "8000", "HTTP2": "true", "RETRIES": ""},
    )
    assert config.service == "checkout-test"
    assert config.registration is not None
    assert config.registration.port == 8000
    assert config.registration.metadata == {"cost": "$5", "pattern": "a$", "no": "$NAME ${NAME}"}
    orders = config.services["orders"]
    assert (orders.http2, orders.retry.max_retries, orders.timeout) == (True, 1, 2.0)


def test_a_variable_cannot_become_structure(tmp_path: Path) -> None:
    path = write(tmp_path, mesh_yaml="locality: {region: '${REGION}'}")
    config = load_file(path, environ={"REGION": "a}\nmode: off"})
    assert config.locality.region == "a}\nmode: off"
    assert config.mode == "on"


def test_an_unset_variable_is_an_error_that_names_file_path_and_variable(tmp_path: Path) -> None:
    path = write(tmp_path, mesh_yaml="discovery:\n- consul:\n    token: ${CONSUL_TOKEN}\n    wait: ${W AIT}")
    problem = refused(path)
    assert "mesh.yaml:3: discovery[0].consul.token: the environment variable CONSUL_TOKEN is not set" in problem
    assert "mesh.yaml:4: discovery[0].consul.wait: '${W AIT}' is not a variable" in problem
    assert "2 problems" in problem


def test_texts_in_code_can_be_taken_as_they_are() -> None:
    assert load_mapping({"locality": {"region": "${X}"}}, variables=False).locality.region == "${X}"


# Includes


def test_services_of_included_files_are_put_together_in_the_order_of_their_names(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        mesh_yaml="service: me\ninclude: ['mesh.d/*.yaml', extra/more.toml, 'none/*.yaml']\nservices: {a: {}}",
        mesh__d_yaml="",
    )
    (tmp_path / "mesh.d").mkdir()
    (tmp_path / "mesh.d" / "2.yaml").write_text("services: {c: {}}\ninclude: [deep/x.json]")
    (tmp_path / "mesh.d" / "1.yaml").write_text("services: {b: {timeout: 3s}}\negress: refuse")
    (tmp_path / "mesh.d" / "ignored.txt").write_text("?")
    (tmp_path / "mesh.d" / "deep").mkdir()
    (tmp_path / "mesh.d" / "deep" / "x.json").write_text('{"services": {"d": {}}}')
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "more.toml").write_text("[services.e]")
    config = load_file(path)
    assert list(config.services) == ["a", "b", "c", "d", "e"]
    assert (config.egress, config.services["b"].timeout) == ("refuse", 3.0)
    names = [os.path.relpath(name, tmp_path) for name in config.sources]
    assert names == ["mesh.yaml", "mesh.d/1.yaml", "mesh.d/2.yaml", "mesh.d/deep/x.json", "extra/more.toml"]


def test_faults_in_an_included_file_name_that_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        mesh_yaml="include: [a.yaml, b.yaml]",
        a_yaml="services:\n  a: {timeout: 1s, per_try_timeout: 2s, hosts: [x]}",
        b_yaml="\nservices:\n  b: {timeuot: 1s, hosts: [x]}\negres: pass",
    )
    problem = refused(path)
    assert "a.yaml:2: services.a.per_try_timeout: 2s is above" in problem
    assert "b.yaml:3: services.b.timeuot: unknown field; did you mean 'timeout'" in problem
    assert "b.yaml:4: egres: unknown field; did you mean 'egress'" in problem
    assert "a.yaml:2: services.a.hosts[0])" in problem


@pytest.mark.parametrize(
    ("one", "two", "what"),
    [
        ("services: {a: {}}", "services: {a: {}}", "services.a: the service is declared in"),
        ("mode: on", "\nmode: on", "mode: is declared in"),
        ("discovery: []", "\ndiscovery: []", "discovery: is declared in"),
    ],
)
def test_what_two_files_declare_is_an_error_that_names_both(tmp_path: Path, one: str, two: str, what: str) -> None:
    path = write(tmp_path, mesh_yaml="include: [one.yaml, two.yaml]", one_yaml=one, two_yaml=two)
    problem = refused(path)
    assert f"{what} {tmp_path}/one.yaml:1 as well" in problem
    assert f"{tmp_path}/two.yaml:" in problem


@pytest.mark.parametrize(
    "files",
    [
        {"mesh_yaml": "include: [mesh.yaml]"},
        {"mesh_yaml": "include: ['*.yaml']"},
        {"mesh_yaml": "include: [a.yaml]", "a_yaml": "include: [b.yaml]", "b_yaml": "include: [a.yaml]"},
    ],
)
def test_a_file_that_includes_itself_is_refused(tmp_path: Path, files: dict[str, str]) -> None:
    assert "a file includes itself: " in refused(write(tmp_path, **files))


def test_a_file_that_two_files_include_is_read_once(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        mesh_yaml="include: [a.yaml, b.yaml]",
        a_yaml="include: [c.yaml]",
        b_yaml="include: [c.yaml]",
        c_yaml="services: {c: {}}",
    )
    assert list(load_file(path).services) == ["c"]


def test_an_included_file_that_is_not_there_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    path = write(tmp_path, mesh_yaml="\ninclude: [ordrs.yaml]", orders_yaml="")
    problem = refused(path)
    assert "mesh.yaml:2: include[0]: there is no file 'ordrs.yaml'; did you mean" in problem
    assert "orders.yaml" in problem


def test_an_included_file_that_is_broken_hides_no_other_fault(tmp_path: Path) -> None:
    path = write(tmp_path, mesh_yaml="include: [a.yaml]\nmode: x", a_yaml="]")
    assert "a.yaml:1: not YAML" in refused(path)
    assert "mesh.yaml:2: mode: 'x'" in refused(path)


def test_includes_of_a_map_are_relative_to_the_directory_given(tmp_path: Path) -> None:
    write(tmp_path, a_yaml="services: {a: {}}")
    config = load_mapping({"include": ["a.yaml"]}, directory=tmp_path)
    assert list(config.services) == ["a"]
    assert config.sources == ("a.yaml",)


def test_a_map_is_not_changed_by_loading_it() -> None:
    data = {"service": "${X:-a}", "services": {"b": None, "c": {"hosts": ["X"]}}}
    before = json.dumps(data)
    load_mapping(data)
    assert json.dumps(data) == before


def test_a_map_that_contains_itself_is_refused() -> None:
    data: dict[str, Any] = {}
    data["services"] = data
    with pytest.raises(ConfigError, match="nested more than 64"):
        load_mapping(data)


def test_a_map_of_shared_maps_is_refused_at_once() -> None:
    value: Any = ["x"] * 1000
    for _ in range(6):
        value = [value] * 1000
    started = time.monotonic()
    with pytest.raises(ConfigError, match="holds more than"):
        load_mapping({"services": value})
    assert time.monotonic() - started < 5
