"""`meshlib generate client`: what comes out runs, is typed, laid out, and calls the service that the document is of."""

import asyncio
import importlib.util
import inspect
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import meshlib
from meshlib.adapters.declarative import InvalidResponse, StatusError
from meshlib.cli.commands import meshlib as command
from meshlib.cli.openapi.document import OpenApi, OpenApiError, read_openapi
from meshlib.cli.openapi.module import Style, make_module
from meshlib.cli.openapi.names import as_class, as_variable, literal
from meshlib.testing import MeshFixture
from tests.cli.openapi_app import app
from tests.cli.openapi_echo import app as echo

DATA = Path(__file__).parent.parent / "data/openapi"
DOCUMENTS = ("petstore.yaml", "nasty.json")


def generated(document: Mapping[str, Any], style: Style = "both") -> str:
    return make_module(OpenApi(document, "d.json"), style)


def executed(text: str, name: str, directory: Path) -> ModuleType:
    path = directory / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    return executed(generated(app.openapi()), "generated_desk", tmp_path_factory.mktemp("generated"))


def test_a_client_of_an_application_calls_it(desk: ModuleType) -> None:
    with MeshFixture() as mesh:
        mesh.serve("desk", app)
        client = mesh.bind(desk.OrderDesk, "desk")
        order = client.read_order(7, verbose=True)
        assert type(order) is desk.Order
        assert (order.id, order.class_, order.at.year) == (7, "True", 2026)
        assert order.payment == desk.Invoice(kind="invoice", due="2026-12-01")
        new = desk.NewOrderInput(lines=[desk.Line(sku="a")], payment=desk.Card(kind="card", number="4"))
        made = client.create_order(new.model_copy(update={"parent": new}), idempotency_key="k1")
        assert (made.id, made.lines[0].sku, made.parent.payment.number, made.class_) == (1, "a", "4", "k1")
        assert b'"state"' not in mesh.calls("desk")[-1].body, "what was not given is not sent"
        mesh.fail_next("desk", error=meshlib.Reset)
        assert client.create_order(new, idempotency_key="k2").id == 1
        assert client.login(body=desk.BodyLoginLoginPost(user="ada", remember=True)) == {
            "user": "ada",
            "remember": "True",
        }
        assert client.upload(photo=("p.png", b"png"), others=[b"x", b"y"], caption="c") == [
            "p.png",
            "png",
            "x",
            "y",
            "c",
        ]
        found = client.search(
            at=desk.dt.datetime(2026, 1, 2, tzinfo=desk.dt.UTC),
            tags=["a", "b"],
            state="done",
            session="s",
            x_trace=None,
        )
        assert found == {
            "at": "2026-01-02T00:00:00+00:00",
            "tags": ["a", "b"],
            "state": "done",
            "trace": None,
            "session": "s",
        }
        assert client.remove(7) is None
        assert client.text() == "grün"
        assert client.file("a") == "a"
        assert list(client.events()) == [desk.Line(sku="a"), desk.Line(sku="b", count=2)]
        with pytest.raises(StatusError) as caught:
            client.search(at=desk.dt.datetime(2026, 1, 2), tags=[])
        assert caught.value.status == 422
        assert type(caught.value.body) is desk.HTTPValidationError
        mesh.fail_next("desk", status=200)
        with pytest.raises(InvalidResponse):
            client.read_order(1)


def test_its_asynchronous_twin_does_the_same(desk: ModuleType) -> None:
    async def main() -> None:
        async with MeshFixture() as mesh:
            mesh.serve("desk", app)
            client = mesh.bind(desk.AsyncOrderDesk, "desk")
            assert (await client.read_order(7)).id == 7
            assert [line.sku async for line in client.events()] == ["a", "b"]

    asyncio.run(main())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_made_can_be_bound_and_is_always_the_same(name: str, tmp_path: Path) -> None:
    text = make_module(read_openapi(DATA / name), "both")
    assert text == make_module(read_openapi(DATA / name), "both")
    module = executed(text, f"generated_{name.partition('.')[0]}", tmp_path)
    protocols = [
        each
        for each in vars(module).values()
        if getattr(each, "_is_protocol", False) and each.__module__ == module.__name__
    ]
    with MeshFixture() as mesh:
        for protocol in protocols:
            assert " calls]>" in repr(mesh.bind(protocol, "pets"))
    assert len(protocols) == 2


def test_details_of_a_document(tmp_path: Path) -> None:
    text = make_module(read_openapi(DATA / "petstore.yaml"), "async", "pets of mine")
    module = executed(text, "generated_details", tmp_path)
    client = module.PetsOfMine
    assert list(inspect.signature(client.list_pets).parameters) == [
        *("self", "x_request_id", "limit", "tags", "ids", "status", "born_after", "filter", "session")
    ]
    assert "List the pets." in client.list_pets.__doc__
    assert "prefix='/v1'" in client.__doc__
    assert client.show_pet_by_id.__deprecated__
    assert client.create_pet.__meshlib_operation__.idempotent is True
    assert client.delete_pets_pet_id.__meshlib_operation__.idempotent is True
    assert client.list_pets.__meshlib_operation__.idempotent is None
    assert client.create_pet.__meshlib_operation__.errors == {409: module.Conflict, 4: module.Problem}
    pet = module.Pet.model_validate(
        {"id": 1, "name": "Rex", "friends": [{"id": 2, "name": "Tom"}], "owner": {"ownerType": "firm", "vat": "x"}}
    )
    assert type(pet.owner) is module.Company
    assert type(pet.friends[0]) is module.Pet
    assert module.NewPet(name="a", class_="b").model_dump(by_alias=True, exclude_unset=True) == {
        "name": "a",
        "class": "b",
    }


def test_nothing_in_a_document_becomes_code(tmp_path: Path) -> None:
    text = make_module(read_openapi(DATA / "nasty.json"), "both")
    path = tmp_path / "nasty.py"
    path.write_text(text)
    with path.open("rb") as file:
        names = {token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME}
    assert {"os", "system", "__import__", "Evil"}.isdisjoint(names)
    assert text.isascii()
    module = executed(text, "generated_nasty", tmp_path)
    assert (
        module.ImportOs.model_validate({"class": "a", "__class__": "b", "model_config": 1, "1st": '"first"'}).class_
        == "a"
    )
    assert module.Json.model_validate({"a": ["b", None]}).root["a"].root[0].root == "b"
    assert module.Tree.model_validate([[], [[]]]).root[1].root[0].root == []


_WORDS = re.findall(
    r"\S+",
    "type properties items allOf oneOf anyOf enum const $ref required default additionalProperties discriminator"
    " propertyName mapping description format nullable A prefixItems minItems readOnly writeOnly style explode",
)

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from(
        ["object", "array", "string", "deepObject", "matrix", "label", "#a", "#/components/schemas/A", '\n"""', "\\"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(_WORDS) | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(_JSON, _JSON, _JSON)
def test_any_document_becomes_python_or_is_refused(schema: Any, parameter: Any, operation: Any) -> None:
    body = {"content": {"application/json": {"schema": schema}}}
    form = {"schema": {"properties": {"a": schema, "b": parameter}}, "encoding": {"a": parameter, "b": schema}}

    def styled(place: str, said: Any) -> Any:
        return {**(said if isinstance(said, dict) else {}), "name": "b", "in": place, "schema": schema}

    document = {
        "openapi": "3.1.0",
        "info": {"title": "T"},
        "paths": {
            "/a/{b}": {
                "get": {"parameters": [{"name": "q", "in": "query", "schema": parameter}], "responses": {"200": body}},
                "head": {"parameters": [styled(place, parameter) for place in ("query", "path", "header", "cookie")]},
                "patch": {"requestBody": {"content": {"application/x-www-form-urlencoded": form}}},
                "post": {"requestBody": body, "responses": {"default": body}, "operationId": "x", "summary": parameter},
                "put": operation,
            }
        },
        "components": {"schemas": {"A": schema, "B": parameter}},
    }
    try:
        text = generated(document)
    except OpenApiError:
        return
    compile(text, "generated", "exec")


@pytest.mark.parametrize("seed", range(30))
def test_a_document_with_anything_anywhere_becomes_python_or_is_refused(seed: int) -> None:
    rng = random.Random(seed)
    document = json.loads(json.dumps(read_openapi(DATA / rng.choice(DOCUMENTS)).data))
    for _ in range(5):
        inner = list(nodes(document))
        holder, key = rng.choice(inner)
        other, place = rng.choice(inner)
        holder[key] = rng.choice([None, True, -1, "", 'x"', [], {}, [None], {"$ref": "#"}, deepcopy(other[place])])
    try:
        text = generated(document)
    except OpenApiError:
        return
    compile(text, "generated", "exec")


def nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in a document, by what holds it and the key there."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from nodes(value[key])


@given(st.text(max_size=30))
def test_any_text_becomes_a_name_and_a_literal(text: str) -> None:
    assert as_class(text).isidentifier() and as_class(text).isascii()
    assert as_variable(text).isidentifier() and as_variable(text).isascii()
    assert eval(literal(text)) == text


def schemas(**named: Any) -> dict[str, Any]:
    answer = {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/A"}}}}}
    return {"openapi": "3.1.0", "paths": {"/a": {"get": {"responses": answer}}}, "components": {"schemas": named}}


def ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def paths(**found: Any) -> dict[str, Any]:
    return {"openapi": "3.0.0", "paths": {f"/{name}": item for name, item in found.items()}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "swagger": ({"swagger": "1.2"}, "nor Swagger 2.0"),
    "empty swagger": ({"swagger": "2.0"}, "has no operation"),
    "version": ({"openapi": "4.0"}, "is no OpenAPI document"),
    "empty": ({"openapi": "3.0.0"}, "has no operation"),
    "loop of references": (schemas(A=ref("B"), B=ref("A")), "leads to itself"),
    "composed of itself": (schemas(A={"allOf": [ref("B")]}, B={"allOf": [ref("A")]}), "or of itself"),
    "one of itself": (
        schemas(A={"anyOf": [ref("B"), {"type": "null"}]}, B={"oneOf": [ref("A")]}),
        "nothing but itself",
    ),
    "remote": (schemas(A={"$ref": "http://evil.example/x.yaml"}), "leads out of the document"),
    "file": (schemas(A={"$ref": "../../etc/passwd"}), "leads out of the document"),
    "nowhere": (schemas(A=ref("Z")), "leads nowhere"),
    "no index": (paths(a={"$ref": "#/servers/²"}) | {"servers": [{}]}, "leads nowhere"),
    "huge index": (paths(a={"$ref": "#/servers/" + "1" * 5000}) | {"servers": [{}]}, "leads nowhere"),
    "long chain": (
        schemas(A=ref("S0"), **{f"S{n}": {"allOf": [ref(f"S{n + 1}")]} for n in range(3000)}),
        "too many others",
    ),
    "chain of names": (
        schemas(
            A={"properties": {f"p{n}": ref(f"S{n}") for n in range(1500, -1, -1)}},
            S1500={"type": "string"},
            **{f"S{n}": {"oneOf": [ref(f"S{n + 1}"), {"type": "integer"}]} for n in range(1500)},
        )
        | paths(a={"get": {"parameters": [{"name": "q", "in": "query", "schema": ref("S0")}]}, "$ref": "#/x"})
        | {"x": {"post": {"responses": {"200": {"content": {"application/json": {"schema": ref("A")}}}}}}},
        "nested too deep",
    ),
    "many schemas": (schemas(**{f"S{n}": {} for n in range(20_001)}), "more than 20000 schemas"),
    "many operations": (paths(**{f"a{n}": {"get": {}} for n in range(5001)}), "more than 5000 operations"),
    "dots in a path": (paths(**{"a/../b": {"get": {}}}), "has an empty segment, . or .."),
    "wrong escape": (paths(**{"a%zz": {"get": {}}}), "percent-encode"),
    "no map": (paths(a={"get": {"responses": {"200": 3}}}), "a map is expected, not int (in GET '/a')"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_made_a_client_of_is_refused(case: str) -> None:
    document, message = REFUSED[case]
    with pytest.raises(OpenApiError) as caught:
        generated(document)
    assert message in str(caught.value)


def test_references_to_one_place_from_many_do_not_make_a_file_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"p{n}": {"type": "string"} for n in range(75)}
    item = {"parameters": [{"name": name, "in": "query", "schema": {}} for name in many], "get": {}}
    every = {f"A{n}": {"allOf": [ref("Big")]} for n in range(75)}
    holder = {"type": "object", "properties": {name: ref(name) for name in every}}
    bombs = (
        paths(**{f"a{n}": {"$ref": "#/x"} for n in range(75)}) | {"x": item},
        schemas(A=holder, Big={"type": "object", "properties": many}, **every),
    )
    for bomb in bombs:
        generated(bomb)
    monkeypatch.setattr("meshlib.cli.openapi.document.MAX_PARTS", 5000)
    for bomb in bombs:
        with pytest.raises(OpenApiError, match="lead to more than 5000"):
            generated(bomb)


def test_a_lattice_of_compositions_takes_no_time() -> None:
    lattice: dict[str, Any] = {"A": {"allOf": [ref("L0"), ref("R0")]}}
    for n in range(40):
        for side in "LR":
            lattice[f"{side}{n}"] = {"allOf": [ref(f"L{n + 1}"), ref(f"R{n + 1}")]}
    lattice |= {side: {"type": "object", "properties": {side: {"type": "string"}}} for side in ("L40", "R40")}
    assert "class A(BaseModel):" in generated(schemas(**lattice))


def test_the_command(tmp_path: Path) -> None:
    document, output = tmp_path / "openapi.json", tmp_path / "orders.py"
    document.write_text(json.dumps(app.openapi()))
    run: Callable[..., Any] = lambda *args: CliRunner().invoke(command, ["generate", "client", str(document), *args])  # noqa: E731
    printed = run("--sync")
    assert (printed.exit_code, "async def" in printed.output) == (0, False)
    assert "async def" in run().output
    piped = CliRunner().invoke(command, ["generate", "client", "-"], input=document.read_bytes())
    assert piped.output == run().output.replace("of openapi.json;", "of standard input;")
    assert run("--both", "--output", str(output), "--name", "desk").exit_code == 0
    assert "class Desk(Protocol):" in output.read_text() and "class AsyncDesk(Protocol):" in output.read_text()
    again = run("--output", str(output))
    assert (again.exit_code, "is there already" in again.output) == (2, True)
    assert run("--output", str(output), "--force").exit_code == 0
    document.write_text("[]")
    assert run().exit_code == 2
    document.write_text('{"openapi": "3.0.0"}')
    assert "has no operation" in run().output


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("mypy")
def test_what_is_made_is_typed_and_laid_out(tmp_path: Path, mypy: list[str]) -> None:
    for name in DOCUMENTS:
        (tmp_path / f"made_{name.partition('.')[0]}.py").write_text(make_module(read_openapi(DATA / name), "both"))
    (tmp_path / "made_desk.py").write_text(generated(app.openapi()))
    (tmp_path / "made_echo.py").write_text(generated(echo.openapi()))
    root = Path(__file__).parent.parent.parent
    checks = [[*mypy, str(tmp_path)]]
    if ruff := tool("ruff"):
        checks.append([ruff, "format", "--isolated", "--check", str(tmp_path)])
    if pyright := tool("pyright"):
        # With the typing tests, as most of its time goes to the packages that both import.
        checks.append([pyright, "--pythonpath", sys.executable, str(tmp_path), str(root / "tests/typing")])
    quietly = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}  # it would ask for newer versions of itself
    for check in checks:
        done = subprocess.run(check, capture_output=True, text=True, cwd=root, env=quietly, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def tool(name: str) -> str | None:
    """A tool of development, where it is installed."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)
