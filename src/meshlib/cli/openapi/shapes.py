"""What schemas say of objects, those included that they are composed of; and what tells members of unions apart."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from meshlib.cli.openapi.document import OpenApi, OpenApiError, is_text, text_of

__all__ = ["COMPONENT", "MAX_DEPTH", "Shape", "Shapes", "all_of", "is_union", "last_of", "only_one", "parts_of"]

COMPONENT: Final = "#/components/schemas/"
MAX_DEPTH: Final = 100

_SHAPING: Final = frozenset(
    ("$ref", "properties", "additionalProperties", "allOf", "oneOf", "anyOf", "enum", "const", "items", "prefixItems")
)
"""What in a schema says more than its type and words about it."""


@dataclass
class Shape:
    """What a schema and those that it is composed of say of an object."""

    properties: dict[str, Any] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    extra: Any = None
    is_object: bool = False
    others: list[Any] = field(default_factory=list)
    merged: set[str] = field(default_factory=set)


class Shapes:
    """The objects among the schemas of a document.

    Args:
        document: whose.

    Attributes:
        tags: by the reference of a member of a union, and by field: the values that tell it apart.
    """

    def __init__(self, document: OpenApi) -> None:
        self._document = document
        self._objects: dict[str, bool] = {}
        self.tags: dict[str, dict[str, set[str]]] = {}
        self._find_tags()

    def of(self, schema: Any) -> Shape:
        """What a schema says of an object."""
        return self._shape(schema, Shape())

    def properties(self, schema: Any) -> dict[str, Any] | None:
        """The properties of an object; None for what is none."""
        shape = self.of(schema)
        return shape.properties if shape.is_object and shape.properties else None

    def _shape(self, schema: Any, shape: Shape, path: tuple[str, ...] = ()) -> Shape:
        """Add what a schema says of an object, and those that it is composed of."""
        if not isinstance(schema, dict):
            return shape
        ref = schema.get("$ref")
        if isinstance(ref, str):
            if ref in path:
                raise OpenApiError(f"{self._document.name}: the schema {ref[:200]!r} is composed of itself")
            if not self._is_object({"$ref": ref}):
                shape.others.append({"$ref": ref})
            elif ref not in shape.merged:
                shape.merged.add(ref)
                self._shape(self._document.find(ref), shape, (*path, ref))
        for part in all_of(schema):
            self._shape(part, shape, path)
        properties = schema.get("properties")
        if isinstance(properties, dict):
            self._document.use(len(properties))
            for key, value in properties.items():
                if is_text(key) and (value or key not in shape.properties):
                    shape.properties[key] = value
        required = schema.get("required")
        shape.required |= {key for key in required if isinstance(key, str)} if isinstance(required, list) else set()
        shape.extra = schema.get("additionalProperties", shape.extra)
        if isinstance(properties, dict) or schema.get("type") == "object" or schema.get("type") == ["object", "null"]:
            shape.is_object = True
        elif {"type", "enum", "const"} & schema.keys() or is_union(schema):
            shape.others.append({key: value for key, value in schema.items() if key != "allOf"})
        return shape

    def _is_object(self, schema: Any, depth: int = 0) -> bool:
        """Whether the values of a schema are objects."""
        if depth > MAX_DEPTH:
            raise OpenApiError(f"{self._document.name}: a schema is composed of too many others, or of itself")
        if not isinstance(schema, dict) or is_union(schema):
            return False
        if isinstance(schema.get("properties"), dict) or schema.get("type") in ("object", ["object", "null"]):
            return True
        ref = schema.get("$ref")
        if isinstance(ref, str):
            known = self._objects.get(ref)
            if known is None:
                known = self._objects[ref] = self._is_object(self._document.find(ref), depth + 1)
            return known
        return any(self._is_object(part, depth + 1) for part in all_of(schema))

    def _find_tags(self) -> None:
        """Which values of which fields tell apart the members of unions, all over the document."""
        stack: list[Any] = [self._document.data]
        seen: set[str] = set()
        walked: set[int] = set()  # many references may lead to the same
        while stack:
            node = stack.pop()
            if not isinstance(node, (dict, list)) or id(node) in walked:
                continue
            walked.add(id(node))
            if isinstance(node, list):
                stack += node
                continue
            stack += node.values()
            ref = node.get("$ref")
            if isinstance(ref, str) and not ref.startswith("#") and ref not in seen:
                seen.add(ref)
                with suppress(OpenApiError):  # it may be nothing that is used
                    stack.append(self._document.find(ref))
            named = node.get("discriminator")
            if not isinstance(named, dict) or not text_of(named.get("propertyName")):
                continue
            key = text_of(named["propertyName"])
            mapping = named["mapping"] if isinstance(named.get("mapping"), dict) else {}
            tags: dict[str, list[str]] = {}  # by what they lead to
            for tag, goal in mapping.items():
                tags.setdefault(text_of(goal), []).append(tag)
            for part in parts_of(node):
                ref = part.get("$ref") if isinstance(part, dict) else None
                if isinstance(ref, str):
                    self._tag(ref, key, tags)

    def _tag(self, ref: str, key: str, tags: Mapping[str, list[str]]) -> None:
        try:
            given, ref = ref, self._document.settled(ref)
            found = self._document.find(ref)
        except OpenApiError:
            return  # as above
        properties = self.properties(found) if isinstance(found, dict) and not is_union(found) else None
        if properties is None or key not in properties:
            return
        part, own = properties[key] if isinstance(properties[key], dict) else {}, last_of(given)
        said = [part["const"]] if "const" in part else part.get("enum")
        if not isinstance(said, list):
            said = [tag for goal in {given, ref, own} for tag in tags.get(goal, ())] or [own]
        if all(is_text(tag) for tag in said):
            self.tags.setdefault(ref, {}).setdefault(key, set()).update(said)


def last_of(ref: str) -> str:
    """What a reference calls what it leads to: the last part of it, or the file."""
    file, _, pointer = ref.partition("#")
    last = pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")
    return last or PurePosixPath(file).stem


def is_union(schema: Mapping[str, Any]) -> bool:
    """Whether a schema is one of several, and not an object of which several combinations are allowed."""
    parts = parts_of(schema)
    if not parts:
        return False
    telling = {"$ref", "type", "properties", "allOf", "oneOf", "anyOf", "enum", "const", "items"}
    return any(not isinstance(part, dict) or bool(telling & part.keys()) for part in parts) and (
        not isinstance(schema.get("properties"), dict)
    )


def all_of(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas that one is composed of."""
    parts = schema.get("allOf")
    return parts if isinstance(parts, list) else []


def only_one(schema: Mapping[str, Any]) -> Any:
    """The one that a schema is composed of, if nothing is added to it but words; else None.

    In OpenAPI 3.0 that is how a reference gets a description, a default, or a null beside it.
    """
    parts = all_of(schema)
    told = [part for part in parts if isinstance(part, dict) and _SHAPING & part.keys()]
    if len(told) != 1 or (_SHAPING - {"allOf"}) & schema.keys() or schema.get("required"):
        return None
    nulls = any(isinstance(part, dict) and part.get("nullable") is True for part in parts)
    return {"oneOf": [told[0]], "nullable": True} if nulls and told[0].get("nullable") is not True else told[0]


def parts_of(schema: Mapping[str, Any]) -> list[Any]:
    """The schemas of which one is meant."""
    return [part for key in ("oneOf", "anyOf") if isinstance(schema.get(key), list) for part in schema[key]]
