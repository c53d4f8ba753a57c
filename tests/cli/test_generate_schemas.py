"""What becomes of schemas in generated clients: names, references with words beside them, tuples, long types."""

import inspect
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from meshlib.cli.openapi.expressions import Name, union
from meshlib.cli.openapi.names import Names, as_class, as_method, short_classes
from meshlib.testing import MeshFixture
from tests.cli.test_generate import executed, generated, ref, schemas, tool


def made(tmp_path: Path, **named: Any) -> Any:
    module = executed(generated(schemas(**named), "sync"), "generated_schemas", tmp_path)
    module.A.model_rebuild()
    return module


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def test_a_reference_with_words_beside_it_is_that_reference(tmp_path: Path) -> None:
    module = made(
        tmp_path,
        A=obj(
            told={"allOf": [ref("B")], "description": "Told.", "default": {}},
            typed={"type": "object", "allOf": [ref("B")]},
            null={"allOf": [ref("B")], "nullable": True},
            nulls={"allOf": [ref("B"), {"nullable": True}, {"description": "x"}]},
            state={"allOf": [ref("S")], "default": "on"},
            more={"allOf": [ref("B")], "properties": {"y": {"type": "integer"}}},
            needed={"allOf": [ref("C")], "required": ["x"]},
        ),
        B=obj(x={"type": "integer"}),
        C={"type": "object", "properties": {"x": {"type": "integer"}}},
        S={"enum": ["on", "off"]},
    )
    fields = module.A.model_fields
    assert fields["told"].annotation is fields["typed"].annotation is module.B
    assert fields["null"].annotation == fields["nulls"].annotation == module.B | None
    assert fields["state"].annotation == module.S
    assert set(module.AMore.model_fields) == {"x", "y"}
    assert module.ANeeded.model_fields["x"].is_required()


def test_names_of_qualified_schemas_are_as_short_as_they_can_be() -> None:
    assert short_classes(["io.k8s.api.apps.v1.Pod", "io.k8s.api.core.v1.Pod", "io.k8s.meta.Status", "a.b", "1.2"]) == {
        "io.k8s.api.apps.v1.Pod": "AppsV1Pod",
        "io.k8s.api.core.v1.Pod": "CoreV1Pod",
        "io.k8s.meta.Status": "Status",
        "a.b": "AB",
        "1.2": "Model12",
    }
    assert short_classes(["Pod", "x.Pod"]) == {"Pod": "Pod", "x.Pod": "XPod"}
    assert short_classes(["x.A.B", "y.A.B"]) == {"x.A.B": "XAB", "y.A.B": "YAB"}


def test_long_names_end_with_a_word() -> None:
    long = "list every single one of the namespaced horizontal pod autoscalers for all namespaces"
    assert as_method(long) == "list_every_single_one_of_the_namespaced_horizontal_pod"
    assert as_class("x" * 100) == "X" + "x" * 63


def test_many_that_are_alike_take_no_time_together() -> None:
    parts = "x." * 200_000
    assert list(short_classes([f"a.{parts}Pod", f"b.{parts}Pod"]).values()) == ["A" + "X" * 63, "B" + "X" * 63]
    names = Names(frozenset())
    assert [names.take("x") for _ in range(100_000)][-1] == "x100000"
    assert len(str(union([Name(f"N{number % 50_000}") for number in range(100_000)])).split(" | ")) == 50_000


def test_a_lattice_of_types_takes_no_time() -> None:
    lattice: dict[str, Any] = {side: {"type": "integer"} for side in ("L40", "R40")}
    for n in range(40):
        for side in "LR":
            lattice[f"{side}{n}"] = {"oneOf": [ref(f"L{n + 1}"), ref(f"R{n + 1}"), {"type": "string"}]}
    document = schemas(A={}, **lattice)
    asked = {"name": "q", "in": "query", "schema": {"oneOf": [ref("L0"), ref("R0")]}}
    document["paths"]["/q"] = {"get": {"parameters": [asked]}}
    assert "*, q: L0 | R0 | None = None) -> None:" in generated(document)


def test_many_required_names_beside_many_parts_take_no_time() -> None:
    parts = [{"type": "object", "required": [f"k{number}"]} for number in range(40_000)]
    body = {"content": {"application/json": {"schema": ref("B")}}}
    document = schemas(A={}, B={"allOf": parts, "properties": {"k0": {"type": "string"}}})
    document["paths"]["/b"] = {"post": {"requestBody": body}}
    assert "class B(BaseModel):" in generated(document)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_a_default_that_python_has_no_literal_for_is_left_out(value: float, tmp_path: Path) -> None:
    module = made(tmp_path, A={"type": "object", "properties": {"x": {"type": "number", "default": value}}})
    assert module.A().x is None


def test_half_a_character_is_no_text_that_a_type_could_say(tmp_path: Path) -> None:
    part = {"type": "object", "required": ["k"], "properties": {"k": {"const": "\ud800"}, "\ud800": {}}}
    union = {"oneOf": [ref("B"), ref("C")], "discriminator": {"propertyName": "k"}}
    module = made(tmp_path, A=obj(x={"enum": ["a", "\udfff"]}, y=union), B=part, C={**part, "title": "C"})
    assert module.A.model_validate({"x": "a", "y": {"k": "c"}}).x == "a"


def test_tuples_and_null(tmp_path: Path) -> None:
    number, text = {"type": "integer"}, {"type": "string"}
    module = made(
        tmp_path,
        A=obj(
            pair={"type": "array", "prefixItems": [number, text], "minItems": 2, "maxItems": 2},
            closed={"type": "array", "prefixItems": [number], "items": False, "minItems": 1},
            open={"type": "array", "prefixItems": [number, text], "items": {"type": "boolean"}},
            some={"prefixItems": [number, text], "items": False},
            nothing={"allOf": [ref("Nothing")], "nullable": True},
            tuple={"type": "string"},
            maybe={"anyOf": [obj(x=number), {"type": "null"}]},
        ),
        Nothing={"type": "null"},
    )
    fields = {key: field.annotation for key, field in module.A.model_fields.items()}
    assert (fields["pair"], fields["closed"]) == (tuple[int, str], tuple[int])
    assert (fields["open"], fields["some"]) == (list[int | str | bool], list[int | str])
    assert fields["maybe"] == module.AMaybe | None
    value = {"pair": [1, "a"], "closed": [1], "open": [1], "some": [], "nothing": None, "tuple": "t", "maybe": None}
    assert module.A.model_validate(value).pair == (1, "a")
    with pytest.raises(ValidationError):
        module.A.model_validate({**value, "pair": [1]})


HOSTILE = '"""\n    import os\n\'\'\'\\"\\N{DASH}\r\u2028{evil} \x00 = (\n#'


def test_text_of_any_sort_stays_text_wherever_it_stands(tmp_path: Path) -> None:
    long = HOSTILE * 9
    document = {
        "openapi": "3.1.0",
        "info": {"title": HOSTILE},
        "servers": [{"url": f"http://h/{HOSTILE}"}],
        "paths": {
            "/a": {
                "post": {
                    "operationId": HOSTILE,
                    "summary": HOSTILE,
                    "description": long,
                    "parameters": [
                        {"name": HOSTILE, "in": "query", "schema": {"enum": [HOSTILE, long]}, "description": long},
                        {"name": "deep" + HOSTILE, "in": "query", "style": "deepObject", "schema": {"type": "object"}},
                        {"name": "m" + HOSTILE, "in": "query", "explode": False, "schema": {"type": "array"}},
                        {"name": HOSTILE, "in": "header", "schema": {"type": "string"}},
                    ],
                    "requestBody": {"content": {f"text/x{HOSTILE}": {}}},
                    "responses": {
                        "200": {"content": {"application/json": {"schema": ref("A")}}},
                        HOSTILE: {"content": {"application/json": {"schema": ref("A")}}},
                    },
                }
            }
        },
        "components": {"schemas": {"A": obj(**{HOSTILE: {"type": "string", "default": HOSTILE, "title": long}})}},
    }
    module = executed(generated(document, "sync"), "generated_hostile", tmp_path)
    with MeshFixture() as mesh:
        mesh.bind(next(each for each in reversed(vars(module).values()) if inspect.isclass(each)), "x")
    assert [field.alias for field in module.A.model_fields.values()] == [HOSTILE]
    assert not {"os", "evil"} & vars(module).keys()


def test_a_matrix_in_the_path_has_the_name_that_is_sent() -> None:
    def document(name: str, **said: Any) -> dict[str, Any]:
        parameter = {"name": name, "in": "path", "required": True, "schema": {"type": "integer"}, **said}
        return {"openapi": "3.0.0", "paths": {f"/a{{{name}}}": {"get": {"parameters": [parameter]}}}}

    text = generated(document("petId", style="matrix"), "sync")
    assert '@get("/a{petId}")' in text and 'Path("petId", style="matrix")' in text
    for name, style, message in (("pet-Id!", "matrix", "no name that can be sent"), ("id", "x", "unknown style 'x'")):
        with pytest.raises(Exception, match=message):
            generated(document(name, style=style))


@pytest.mark.skipif(tool("ruff") is None, reason="needs ruff")
def test_long_types_stand_as_ruff_has_them(tmp_path: Path) -> None:
    long, other = "A" + "very" * 14, "A" + "long" * 14
    document = schemas(
        A=obj(**{"field_" * 6: ref(long), "other_" * 6: {"type": "string", "default": "= (" * 9}}),
        **{long: ref(other), other: obj(x={"type": "integer"})},
    )
    document["components"]["schemas"]["A"]["required"] = ["field_" * 6]
    path = tmp_path / "made.py"
    path.write_text(generated(document))
    done = subprocess.run(
        [tool("ruff") or "", "format", "--isolated", "--check", str(path)], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert inspect.getdoc(executed(path.read_text(), "generated_long", tmp_path).A)


def test_what_is_for_one_direction_is_required_in_that_alone(tmp_path: Path) -> None:
    number, text = {"type": "integer"}, {"type": "string"}
    holder = {"type": "array", "items": ref("Pet")}
    document = schemas(
        A=obj(pets=ref("Pets"), tree=ref("Tree"), plain=ref("Plain")),
        Pets=holder,
        Pet={"allOf": [ref("Base"), {"required": ["id", "secret", "at"]}], "properties": {"at": ref("Moment")}},
        Base={"properties": {"id": {**number, "readOnly": True}, "secret": {**text, "writeOnly": True}, "name": text}},
        Moment={**text, "readOnly": True},
        Tree=obj(children={"type": "array", "items": ref("Tree")}, own=ref("Key")),
        Key={"type": "object", "properties": {"k": {**number, "readOnly": True}}, "required": ["k"]},
        Plain=obj(x=number),
        New=obj(id={**number, "readOnly": True}, plain=ref("Plain")),
    )
    body = {"content": {"application/json": {"schema": ref("A")}}, "required": True}
    new = {"content": {"application/json": {"schema": ref("New")}}, "required": True}
    document["paths"]["/a"] |= {"put": {"requestBody": body}, "post": {"requestBody": new}}
    module = executed(generated(document, "sync"), "generated_directions", tmp_path)
    needed = {
        name: {key for key, field in model.model_fields.items() if field.is_required()}
        for name, model in vars(module).items()
        if inspect.isclass(model) and hasattr(model, "model_fields") and model.__module__ == module.__name__
    }
    assert needed["Pet"] == {"id", "at"} and needed["PetInput"] == {"secret"}
    assert needed["Tree"] == needed["TreeInput"] == {"children", "own"}
    assert (needed["Key"], needed["KeyInput"], needed["New"]) == ({"k"}, set(), {"plain"})
    assert "PlainInput" not in needed and "NewInput" not in needed
    assert module.Client.put_a.__annotations__["body"].startswith("Annotated[AInput,")
    assert module.Client.get_a.__annotations__["return"] == "A"
    made = module.AInput(pets=[{"secret": "s"}], tree={"children": [], "own": {}}, plain={"x": 1})
    assert made.model_dump(exclude_unset=True)["pets"] == [{"secret": "s"}]


def test_a_parameter_that_is_called_body_goes_where_it_is_to(tmp_path: Path) -> None:
    said = {"name": "body", "in": "query", "schema": {"type": "string"}}
    form = {"content": {"application/x-www-form-urlencoded": {"schema": obj(amount={"type": "integer"})}}}
    read = {"operationId": "read", "parameters": [said], "responses": {}}
    pay = {"operationId": "pay", "parameters": [said], "requestBody": form, "responses": {}}
    document = {"openapi": "3.0.0", "info": {"title": "T"}, "paths": {"/a": {"get": read, "post": pay}}}
    module = executed(generated(document, "sync"), "generated_body", tmp_path)
    with MeshFixture() as mesh:
        mesh.serve("t", 204)
        client = mesh.bind(module.T, "t")
        client.read(body="x")
        client.pay(body="y", body2=module.PayForm(amount=1))
        assert [(call.query["body"], call.body) for call in mesh.calls("t")] == [("x", b""), ("y", b"amount=1")]
