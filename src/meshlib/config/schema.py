"""The JSON Schema (draft 2020-12) of the native file, for editors that complete and check it.

Made of the models: descriptions are the texts of their docstrings, and defaults those of the fields. It says what can
be said about one field, and about those of one map; what rests on more than that (`meshlib.config.checks`) is found
when the file is loaded. Wherever a value stands, ``${VARIABLE}`` may stand as well.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from meshlib.config.fields import Part
from meshlib.config.model import MeshConfig
from meshlib.config.shown import DURATION_TEXT, VARIABLE
from meshlib.durations import format_duration

__all__ = ["DIALECT", "config_schema", "field_texts"]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_ENTRY = re.compile(r"(\w+(?:, \w+)*)( and so on)?(?: \(``\w+`` in a file\))?: (.*)", re.DOTALL)

_EXACTLY_ONE: Final[Mapping[str, tuple[str, ...]]] = {
    "PathMatch": ("exact", "prefix", "path_prefix", "regex", "template"),
    "ValueMatch": ("exact", "prefix", "suffix", "contains", "regex", "present", "range"),
    "HeaderCondition": ("exact", "prefix", "suffix", "contains", "regex", "present", "range"),
    "HashOn": ("header", "cookie", "query", "source"),
    "Rate": ("rate", "max_tokens"),
    "Sticky": ("header", "cookie", "query", "hash_key", "number"),
}
"""Of each part with fields that exclude one another, and of which one must be there: which they are."""

_AT_MOST_ONE: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "FaultAbort": (("status", "grpc_status"),),
    "Redirect": (("path", "prefix", "regex"),),
    "Rewrite": (("path", "prefix", "regex"),),
    "Route": (
        ("redirect", "direct_response", "delegate"),
        *((answer, other) for answer in ("redirect", "direct_response") for other in ("rewrite", "mirror")),
        *(
            (answer, other)
            for answer in ("redirect", "direct_response", "delegate")
            for other in ("backends", "sticky")
        ),
    ),
}

_WITH: Final[Mapping[str, Mapping[str, list[str]]]] = {
    "Tls": {"cert_file": ["key_file"], "key_file": ["cert_file"]},
}
"""What a field needs beside it."""


def config_schema() -> dict[str, Any]:
    """The schema of the whole file."""
    schema = MeshConfig.model_json_schema(schema_generator=_Generator)
    tidied: dict[str, Any] = _tidied(schema)
    tidied["properties"]["$schema"] = {"type": "string", "description": "Of a file in JSON: where this schema is."}
    return {"$schema": DIALECT, **tidied, "title": "The configuration of meshlib"}


_WORDS: Final = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
"""What pydantic calls bounds that it checks after a function of ours, and what JSON Schema calls them."""

_FAR: Final = 1e15
"""A bound from here on is for the machine, and tells nobody anything."""


def _tidied(made: Any) -> Any:
    if isinstance(made, list):
        return [_tidied(each) for each in made]
    if not isinstance(made, dict):
        return made
    tidied = {}
    for key, value in made.items():
        if key in ("properties", "$defs"):
            tidied[key] = {name: _tidied(each) for name, each in value.items()}
        elif not (key in ("le", "maximum") and value >= _FAR):
            tidied[_WORDS.get(key, key)] = _tidied(value)
    return tidied


def field_texts(cls: type[BaseModel]) -> dict[str, str]:
    """What the docstrings of a part say of its fields, by the fields' names."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            texts |= _texts_of(base, cls)
    return texts


def _texts_of(base: type[BaseModel], cls: type[BaseModel]) -> dict[str, str]:
    texts: dict[str, str] = {}
    vague: list[tuple[str, str]] = []
    for names, others, text in _entries(base):
        for name in names:
            texts[name] = _plain(text)
        if others:
            vague.append((names[0].split("_")[0], _plain(text)))
    for stem, text in vague:
        for name in cls.model_fields:
            if name.startswith(f"{stem}_"):
                texts.setdefault(name, text)
    return texts


def _entries(cls: type[BaseModel]) -> Iterator[tuple[list[str], bool, str]]:
    """The entries of the section ``Attributes`` of a docstring."""
    _, _, section = inspect.cleandoc(cls.__dict__.get("__doc__") or "").partition("Attributes:\n")
    for entry in re.split(r"\n    (?=\S)", f"\n{section}"):
        if found := _ENTRY.match(entry.strip()):
            yield found[1].split(", "), bool(found[2]), found[3]


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _summary(cls: type[BaseModel]) -> str:
    """A docstring without its sections."""
    return _plain(inspect.cleandoc(cls.__dict__.get("__doc__") or "").partition("Attributes:\n")[0])


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, for files that people write and editors read."""

    schema_dialect = DIALECT

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def int_schema(self, schema: core_schema.IntSchema) -> JsonSchemaValue:
        return _or_text(super().int_schema(schema), r"^-?[0-9]+$")

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return _or_text(super().float_schema(schema), r"^[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?$")

    def literal_schema(self, schema: core_schema.LiteralSchema) -> JsonSchemaValue:
        if schema["expected"] == [False]:
            return {"const": False}
        return {"anyOf": [{"enum": list(schema["expected"])}, {"type": "string", "pattern": VARIABLE}]}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        keys = self.generate_inner(schema["keys_schema"]) if "keys_schema" in schema else {}
        values = self.generate_inner(schema["values_schema"]) if "values_schema" in schema else {}
        names = {key: value for key, value in keys.items() if key in ("pattern", "minLength")}
        made: JsonSchemaValue = {"type": "object", "additionalProperties": values}
        if names:
            made["propertyNames"] = names
        self.update_with_validations(made, schema, self.ValidationsMapping.object)
        return made

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        return {"anyOf": [self.generate_inner(choice) for choice in schema["choices"].values()]}

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        default = schema.get("default")
        if isinstance(default, (BaseModel, frozenset)) or default in (None, (), ""):
            return inner
        if isinstance(default, tuple):
            plain = all(isinstance(each, (str, int, float)) for each in default)
            return {**inner, "default": list(default)} if plain else inner
        if isinstance(default, float) and _is_duration(inner):
            default = format_duration(default)
        return {**inner, "default": default}

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        cls = schema["cls"]
        made = super().model_schema(schema)
        made["description"] = _summary(cls)
        texts = field_texts(cls)
        for name, field in cls.model_fields.items():
            text = texts.get(name, "")
            if not text or re.match(r"see (its|their) class", text):
                parts = _parts_in(field.annotation)
                text = _summary(parts[0]) if parts else text
            if text:
                made["properties"][field.alias or name]["description"] = text
        return {**made, **_together(cls)}


def _or_text(made: JsonSchemaValue, pattern: str) -> JsonSchemaValue:
    """The same, or text that a variable stands in, or what it would be filled in with."""
    return {**made, "type": [made["type"], "string"], "pattern": f"{pattern}|{VARIABLE}"}


def _is_duration(made: JsonSchemaValue) -> bool:
    choices: Sequence[JsonSchemaValue] = made.get("anyOf", [made])
    return any(choice.get("pattern") == DURATION_TEXT for choice in choices)


def _parts_in(annotation: Any) -> list[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [part for each in get_args(annotation) for part in _parts_in(each)]


def _together(cls: type[BaseModel]) -> JsonSchemaValue:
    """What the fields of a part ask of one another."""
    made: JsonSchemaValue = {}
    if kinds := [kind for kind in _EXACTLY_ONE.get(cls.__name__, ()) if kind in cls.model_fields]:
        made["oneOf"] = [{"required": [kind]} for kind in kinds]
    pairs = [
        {"required": list(pair)} for group in _AT_MOST_ONE.get(cls.__name__, ()) for pair in combinations(group, 2)
    ]
    if pairs:
        made["not"] = {"anyOf": pairs}
    if cls.__name__ in _WITH:
        made["dependentRequired"] = dict(_WITH[cls.__name__])
    choices: Mapping[str, Any] = getattr(cls, "choices", {})
    if choices:
        made["allOf"] = [_of_choice(cls, name, settings) for name, settings in choices.items()]
    return made


def _of_choice(cls: type[BaseModel], name: str, settings: Any) -> JsonSchemaValue:
    """With this algorithm, only its own fields."""
    own = {field.removesuffix("_s") for field in settings.__dataclass_fields__}
    asked: JsonSchemaValue = {"properties": {"algorithm": {"const": name}}}
    if cls.model_fields["algorithm"].default != name:
        asked["required"] = ["algorithm"]
    others = {field: False for field in cls.model_fields if field not in own | {"algorithm"}}
    return {"if": asked, "then": {"properties": others}}
