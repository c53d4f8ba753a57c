"""Swagger 2.0: clients are made of it as of OpenAPI 3.0."""

from pathlib import Path
from typing import Any

import pytest

from meshlib.cli.openapi.document import OpenApiError, read_openapi
from meshlib.cli.openapi.module import make_module
from meshlib.testing import MeshFixture
from tests.cli.test_generate import executed

DOCUMENT = """
swagger: '2.0'
info: {title: Pets}
basePath: /v1
consumes: [application/json]
parameters: {limit: {name: limit, in: query, type: integer}}
responses: {gone: {description: x, schema: {$ref: '#/definitions/Problem'}}}
definitions:
  Pet:
    {type: object, required: [id], properties: {id: {type: integer}, kind: {enum: [cat]}, n: {$ref: '#/definitions/N'}}}
  N: {type: string, x-nullable: true}
  Problem: {type: object, required: [why], properties: {why: {type: string}}}
paths:
  /pets/{id}:
    parameters: [{name: id, in: path, required: true, type: integer, format: int64}]
    get:
      operationId: getPet
      parameters:
        - $ref: '#/parameters/limit'
        - {name: tags, in: query, type: array, items: {type: string}}
        - {name: more, in: query, type: array, items: {type: string}, collectionFormat: multi}
        - {name: some, in: query, type: array, items: {type: string}, collectionFormat: pipes}
        - {name: X-Id, in: header, type: string}
      responses: {200: {schema: {$ref: '#/definitions/Pet'}}, 410: {$ref: '#/responses/gone'}, 204: {description: x}}
    put:
      operationId: putPet
      parameters: [{name: pet, in: body, required: true, schema: {$ref: '#/definitions/Pet'}}]
      responses: {200: {schema: {type: file}}}
  /forms:
    post:
      operationId: form
      parameters:
        - {name: a, in: formData, required: true, type: string}
        - {name: b, in: formData, type: array, items: {type: integer}}
    put:
      operationId: upload
      parameters: [{name: photo, in: formData, required: true, type: file}, {name: note, in: formData, type: string}]
"""


def test_a_client_of_swagger(tmp_path: Path) -> None:
    path = tmp_path / "swagger.yaml"
    path.write_text(DOCUMENT)
    module = executed(make_module(read_openapi(path), "sync"), "generated_swagger", tmp_path)
    assert "prefix='/v1'" in module.Pets.__doc__
    assert module.Pets.get_pet.__meshlib_operation__.errors == {410: module.Problem}
    with MeshFixture() as mesh:
        mesh.serve("pets", {"id": 7, "kind": "cat", "n": None})
        pets = mesh.bind(module.Pets, "pets", prefix="/v1")
        pet: Any = pets.get_pet(7, limit=1, tags=["a", "b"], more=["a", "b"], some=["a", "b"], x_id="i")
        assert (type(pet), pet.id) == (module.Pet, 7)
        assert pets.put_pet(7, pet).startswith(b"{")
        pets.form(a="x", b=[1, 2])
        pets.upload(photo=b"jpeg", note="n")
        got, put, form, upload = mesh.calls("pets")
    assert got.url.raw_path == b"/v1/pets/7?limit=1&tags=a,b&more=a&more=b&some=a%7Cb"
    assert (put.body, got.headers["x-id"]) == (b'{"id":7,"kind":"cat","n":null}', "i")
    assert form.body == b"a=x&b=1,2"
    assert b'name="photo"' in upload.body and b'name="note"' in upload.body


def test_swagger_that_multiplies_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "swagger.yaml"
    shared = "".join(f"  - {{name: p{n}, in: query, type: string}}\n" for n in range(50))
    items = "".join(f"  /a{n}: {{$ref: '#/x'}}\n" for n in range(50))
    path.write_text(f"swagger: '2.0'\nx:\n  get: {{}}\n  parameters:\n{shared}paths:\n{items}")
    monkeypatch.setattr("meshlib.cli.openapi.document.MAX_PARTS", 1000)
    with pytest.raises(OpenApiError, match="lead to more than 1000"):
        read_openapi(path)
