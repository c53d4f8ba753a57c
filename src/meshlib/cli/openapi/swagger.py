"""Swagger 2.0 as OpenAPI 3.0: what differs is where the types of parameters, bodies and answers stand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["upgraded"]

_DEFINITIONS: Final = "#/definitions/"
_SCHEMAS: Final = "#/components/schemas/"
_METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch")
_NOT_OF_TYPES: Final = ("name", "in", "required", "description", "collectionFormat", "allowEmptyValue")
_STYLES: Final[dict[str, dict[str, Any]]] = {
    "csv": {"explode": False},
    "tsv": {"explode": False},  # OpenAPI 3 has no tabs
    "ssv": {"style": "spaceDelimited"},
    "pipes": {"style": "pipeDelimited"},
    "multi": {"explode": True},
}

Follow = Callable[[Any], Mapping[str, Any]]


def upgraded(data: Mapping[str, Any], follow: Follow, use: Callable[[int], None]) -> Mapping[str, Any]:
    """A document of Swagger 2.0 as one of OpenAPI 3.0, so far as a client is made of it.

    Args:
        data: the document; it is not changed.
        follow: what its references lead to.
        use: counts the parameters that are looked at, and refuses too many.
    """
    return _Upgrade(data, follow, use).document()


class _Upgrade:
    """What is known of the document meanwhile."""

    def __init__(self, data: Mapping[str, Any], follow: Follow, use: Callable[[int], None]) -> None:
        self._data = data
        self._follow = follow
        self._use = use
        self._schemas: dict[int, tuple[Any, Any]] = {}  # kept with what they are of, whose id is no other's then

    def document(self) -> Mapping[str, Any]:
        """All of it."""
        data = self._data
        paths = _map(data.get("paths"))
        return {
            **data,
            "openapi": "3.0.4",
            "servers": [{"url": data["basePath"]}] if isinstance(data.get("basePath"), str) else [],
            "paths": {path: self._path_item(self._follow(item)) for path, item in paths.items() if item},
            "components": {"schemas": self._schema(_map(data.get("definitions")))},
        }

    def _schema(self, value: Any) -> Any:
        """A schema, or what holds some, with its references as OpenAPI 3 has them."""
        if isinstance(value, list):
            return [self._schema(each) for each in value]
        if not isinstance(value, dict):
            return value
        if id(value) in self._schemas:
            return self._schemas[id(value)][1]
        made = {key: self._schema(each) for key, each in value.items()}
        ref = made.get("$ref")
        if isinstance(ref, str) and ref.startswith(_DEFINITIONS):
            made["$ref"] = _SCHEMAS + ref.removeprefix(_DEFINITIONS)
        if isinstance(made.get("discriminator"), str):
            made["discriminator"] = {"propertyName": made["discriminator"]}
        if made.get("x-nullable") is True:
            made["nullable"] = True
        self._schemas[id(value)] = value, made
        return made

    def _path_item(self, item: Mapping[str, Any]) -> dict[str, Any]:
        shared = _list(item.get("parameters"))
        return {
            method: self._operation(self._follow(item[method]), shared)
            for method in _METHODS
            if isinstance(item.get(method), dict)
        }

    def _operation(self, said: Mapping[str, Any], shared: list[Any]) -> dict[str, Any]:
        found = {}
        self._use(len(shared) + len(_list(said.get("parameters"))) + 1)
        for each in [*shared, *_list(said.get("parameters"))]:
            parameter = self._follow(each)
            found[str(parameter.get("in")), str(parameter.get("name"))] = parameter
        consumes = [each for each in _list(said.get("consumes", self._data.get("consumes"))) if isinstance(each, str)]
        produces = [each for each in _list(said.get("produces", self._data.get("produces"))) if isinstance(each, str)]
        made = {key: value for key, value in said.items() if key not in ("parameters", "responses")}
        made["parameters"] = [
            self._parameter(each) for each in found.values() if each.get("in") not in ("body", "formData")
        ]
        body = next((each for each in found.values() if each.get("in") == "body"), None)
        form = [each for each in found.values() if each.get("in") == "formData"]
        if body is not None:
            content = {
                media: {"schema": self._schema(body.get("schema"))} for media in consumes or ["application/json"]
            }
            made["requestBody"] = {"required": body.get("required") is True, "content": content}
        elif form:
            made["requestBody"] = self._form(form, consumes)
        made["responses"] = {
            status: self._answer(self._follow(each), produces)
            for status, each in _map(said.get("responses")).items()
            if each
        }
        return made

    def _parameter(self, said: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **{key: said[key] for key in ("name", "in", "required", "description") if key in said},
            "schema": self._schema({key: value for key, value in said.items() if key not in _NOT_OF_TYPES}),
            **(_style(said) if said.get("in") == "query" else {}),
        }

    def _form(self, fields: list[Mapping[str, Any]], consumes: list[str]) -> dict[str, Any]:
        properties, encoding = {}, {}
        for each in fields:
            is_file = each.get("type") == "file"
            properties[str(each.get("name"))] = (
                {"type": "string", "format": "binary"} if is_file else self._parameter(each)["schema"]
            )
            if style := _style(each):
                encoding[str(each.get("name"))] = style
        files = any(each.get("type") == "file" for each in fields) or consumes[:1] == ["multipart/form-data"]
        needed = [str(each.get("name")) for each in fields if each.get("required") is True]
        media = "multipart/form-data" if files else "application/x-www-form-urlencoded"
        schema = {"type": "object", "properties": properties, "required": needed}
        return {"required": bool(needed), "content": {media: {"schema": schema, "encoding": encoding}}}

    def _answer(self, said: Mapping[str, Any], produces: list[str]) -> dict[str, Any]:
        if "schema" not in said:
            return {"description": said.get("description", "")}
        schema = said["schema"]
        if isinstance(schema, dict) and schema.get("type") == "file":
            return {"content": {"application/octet-stream": {}}}
        return {"content": {media: {"schema": self._schema(schema)} for media in produces or ["application/json"]}}


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _style(said: Mapping[str, Any]) -> dict[str, Any]:
    if said.get("type") != "array":
        return {}
    return _STYLES.get(str(said.get("collectionFormat", "csv")), {})
