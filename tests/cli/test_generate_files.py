"""Documents of several files: references lead to files beside the document, and nowhere else."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from pydantic import TypeAdapter

from meshlib.cli.commands import meshlib as command
from meshlib.cli.openapi import files
from meshlib.cli.openapi.document import OpenApiError, read_openapi
from meshlib.cli.openapi.module import make_module
from tests.cli.test_generate import executed

Write = Callable[[dict[str, Any]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(texts: dict[str, Any]) -> Path:
        for name, value in texts.items():
            path = tmp_path / "api" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(value if isinstance(value, str) else json.dumps(value))
        return tmp_path / "api/openapi.json"

    return write


def made(path: Path, root: Path | None = None) -> str:
    return make_module(read_openapi(path, root), "sync")


def answering(ref: str, **more: Any) -> dict[str, Any]:
    answer = {"200": {"description": "", "content": {"application/json": {"schema": {"$ref": ref}}}}}
    return {"openapi": "3.1.0", "paths": {"/a": {"get": {"responses": answer}}}, **more}


def obj(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


def test_references_mean_the_same_from_every_file(write: Write, tmp_path: Path) -> None:
    kind = {"type": "string"}
    pet = obj(kind=kind, owner={"$ref": "../people.yaml#/Owner"}, home={"$ref": "../openapi.json#/x/Home"})
    pet["properties"]["friend"] = {"$ref": "#"}
    unions = {
        "oneOf": [{"$ref": "pet.json"}, {"$ref": "./cow.json"}],
        "discriminator": {"propertyName": "kind", "mapping": {"p": "pet.json", "c": "cow.json"}},
    }
    path = write(
        {
            "openapi.json": {
                "openapi": "3.1.0",
                "paths": {"/pets": {"$ref": "paths/pets.yml"}},
                "x": {"Animal": {"$ref": "#/components/schemas/Animal"}, "Home": obj(street={"type": "string"})},
                "components": {
                    "schemas": {"Animal": {"$ref": "schemas/animal.json"}, "Pet": {"$ref": "schemas/pet.json"}}
                },
            },
            "paths/pets.yml": (
                "get:\n  operationId: pets\n  parameters: [{$ref: '../people.yaml#/Limit'}]\n"
                "  responses: {200: {$ref: '../people.yaml#/Answer'}}\n"
                "put: {$ref: put.yaml}\n"
            ),
            "paths/put.yaml": "operationId: keep\nresponses: {204: {description: x}}",
            "people.yaml": (
                "Owner: {type: object, properties: {name: {$ref: '#/Name'}, pet: {$ref: 'schemas/pet.json'}}}\n"
                "Name: {$anchor: name, enum: [ann, bob]}\n"
                "Limit: {name: limit, in: query, schema: {$ref: '#name'}}\n"
                "Answer: {description: x, content: {application/json: {schema: {$ref: 'openapi.json#/x/Animal'}}}}\n"
            ),
            "schemas/animal.json": unions,
            "schemas/pet.json": pet,
            "schemas/cow.json": obj(
                kind=kind, milk={"$ref": "../openapi.json#/components/schemas/Pet/properties/kind"}
            ),
        }
    )
    text = made(path)
    assert text == made(path)
    module = executed(text, "generated_files", tmp_path)
    client = module.Client
    assert client.pets.__annotations__["return"] == "Animal"
    assert client.pets.__annotations__["limit"] == "Name | None"
    assert client.keep.__meshlib_operation__.method == "PUT"
    assert "class Pet2" not in text, "one schema is one class, however it is referred to"
    read = TypeAdapter(module.Animal).validate_python
    cow = read({"kind": "c", "milk": "white"})
    assert type(cow) is module.Cow
    owner = {"name": "ann", "pet": None}
    pet = read({"kind": "p", "owner": owner, "home": {"street": "s"}, "friend": None})
    assert (type(pet), type(pet.owner), pet.home.street) == (module.Pet, module.Owner, "s")


def test_circles_of_files(write: Write) -> None:
    tree = obj(children={"type": "array", "items": {"$ref": "tree.json"}}, other={"$ref": "other.json"})
    path = write(
        {
            "openapi.json": answering("tree.json"),
            "tree.json": tree,
            "other.json": {"type": "object", "properties": {"tree": {"$ref": "tree.json"}}},
        }
    )
    assert "children: list[Tree]" in made(path)
    write({"tree.json": {"$ref": "other.json"}, "other.json": {"$ref": "tree.json"}})
    with pytest.raises(OpenApiError, match="leads to itself"):
        made(path)


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("../secret.json", "leads out of the directory of the document; --root DIRECTORY allows more"),
        ("a/../../secret.json", "leads out of the directory"),
        ("%2e%2e/secret.json", "leads out of the directory"),
        ("link.json", "leads out of the directory"),
        ("/etc/passwd", "leads out of the directory"),
        ("file:///etc/passwd", "where nothing is fetched from"),
        ("http://127.0.0.1:1/x.json", "where nothing is fetched from"),
        ("//127.0.0.1/x.json", "where nothing is fetched from"),
        ("missing.json", "cannot be read: No such file"),
        ("pipe.json", "is not a file but a pipe"),
        ("directory.json", "is a directory"),
        ("text.txt", "its name does not say its format"),
        ("broken.json", "not JSON"),
        ("a\0b.json", "leads to no file"),
        ("other.json#/nothing", "leads nowhere"),
        ("other.json#nothing", "leads nowhere"),
        ("other.json#/self/x", "leads to itself"),
    ],
)
def test_no_reference_leads_anywhere_else(write: Write, tmp_path: Path, ref: str, message: str) -> None:
    other = {"self": {"$ref": "#/self/x"}}
    path = write({"openapi.json": answering(ref), "other.json": other, "broken.json": "{", "text.txt": "a: b"})
    (tmp_path / "secret.json").write_text('{"type": "string", "description": "secret"}')
    (tmp_path / "api/link.json").symlink_to(tmp_path / "secret.json")
    (tmp_path / "api/directory.json").mkdir()
    os.mkfifo(tmp_path / "api/pipe.json")
    with pytest.raises(OpenApiError) as caught:
        made(path)
    assert message in str(caught.value)


def test_a_larger_directory_if_asked(write: Write, tmp_path: Path) -> None:
    path = write({"openapi.json": answering("../common/pet.json"), "../common/pet.json": obj(name={"type": "string"})})
    assert "class Pet(BaseModel):" in made(path, tmp_path)
    run = CliRunner().invoke(command, ["generate", "client", str(path)])
    assert (run.exit_code, "--root DIRECTORY" in run.output) == (2, True)
    run = CliRunner().invoke(command, ["generate", "client", str(path), "--root", str(tmp_path)])
    assert (run.exit_code, "class Pet(BaseModel):" in run.output) == (0, True)
    piped = CliRunner().invoke(command, ["generate", "client", "-"], input=path.read_bytes())
    assert "leads out of the document" in piped.output


def test_files_without_end_are_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = {f"f{n}.json": obj(next={"$ref": f"f{n + 1}.json"}) for n in range(20)}
    path = write({"openapi.json": answering("f0.json"), **chain, "f20.json": obj()})
    assert made(path).count("(BaseModel)") == 20
    monkeypatch.setattr(files, "MAX_FILES", 10)
    with pytest.raises(OpenApiError, match="more than 10 files"):
        made(path)
    monkeypatch.setattr(files, "MAX_FILES", 100)
    monkeypatch.setattr(files, "MAX_VALUES", 30)
    with pytest.raises(OpenApiError, match="more than 30 values"):
        made(path)


def test_directories_without_end_are_refused(write: Write, tmp_path: Path) -> None:
    path = write({"openapi.json": answering("a.json"), "a.json": obj(next={"$ref": "again/a.json"})})
    (tmp_path / "api/again").symlink_to(".")
    with pytest.raises(OpenApiError, match="leads to a file more than 64 directories deep"):
        made(path)


def test_many_references_to_one_place_of_a_large_file_take_no_time(write: Write) -> None:
    letters = "abcdefghijkl"
    codes = [
        [f"%{ord(letter):x}" if at >> bit & 1 else letter for bit, letter in enumerate(letters)] for at in range(3000)
    ]
    refs = {f"p{at}": {"$ref": f"large.json#/{''.join(code)}"} for at, code in enumerate(codes)}
    large = {letters: {"type": "string", "examples": [[number] for number in range(50_000)]}}
    path = write({"openapi.json": answering("all.json"), "all.json": obj(**refs), "large.json": large})
    assert made(path).count("TypeAlias = str") == 3000


def test_aliases_of_aliases_are_no_bomb(write: Write) -> None:
    lines = ["a0: &a0 {type: string}"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    path = write({"openapi.json": answering("bomb.yaml#/a0"), "bomb.yaml": "\n".join(lines)})
    with pytest.raises(OpenApiError, match="aliases expand to more"):
        made(path)
    deep = '{"a":' * 5000 + "1" + "}" * 5000
    with pytest.raises(OpenApiError, match="nested more than 64 levels"):
        made(write({"bomb.yaml": "", "openapi.json": answering("deep.json"), "deep.json": deep}))
