"""JSON Schema into types: models, unions, literals, lists and maps.

A schema says much that a caller need not know: bounds, patterns, what must not be together. The server checks that;
here only the shape counts. What has no shape that Python can tell is `Any`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

from pydantic import BaseModel

from meshlib.cli.openapi.directions import Directions
from meshlib.cli.openapi.document import MAX_SCHEMAS, OpenApi, OpenApiError, is_text, text_of
from meshlib.cli.openapi.expressions import NONE, Call, Expression, Name, Subscript, Union, optional, union
from meshlib.cli.openapi.names import WORDS, Names, as_class, as_variable, literal, short_classes
from meshlib.cli.openapi.shapes import COMPONENT, MAX_DEPTH, Shapes, is_union, last_of, only_one, parts_of

__all__ = ["ANY", "Alias", "Field", "Model", "Root", "Types", "names_in"]

ANY: Final = Name("Any")

_FIELDS_TAKEN: Final = WORDS | frozenset(dir(BaseModel)) | {"dt", "model_config"}

_SCALARS: Final = ("str", "int", "float", "bool", "UUID", "Decimal", "None")

_FORMATS: Final = {
    "date-time": Name("dt.datetime"),
    "date": Name("dt.date"),
    "time": Name("dt.time"),
    "duration": Name("dt.timedelta"),
    "uuid": Name("UUID"),
    "decimal": Name("Decimal"),
}


@dataclass(frozen=True)
class Field:
    """A field of a model."""

    name: str
    alias: str
    type: Expression
    default: Expression | None
    description: str


@dataclass(frozen=True)
class Model:
    """A class with fields."""

    name: str
    description: str
    fields: tuple[Field, ...]
    open: bool


@dataclass(frozen=True)
class Root:
    """A class around a type that holds itself."""

    name: str
    description: str
    type: Expression


@dataclass(frozen=True)
class Alias:
    """Another name of a type."""

    name: str
    type: Expression


def names_in(expression: Expression) -> Iterator[str]:
    """The names that an expression uses."""
    match expression:
        case Name(text):
            yield text
        case Subscript(head, items):
            yield head
            for item in items:
                yield from names_in(item)
        case Union(items):
            for item in items:
                yield from names_in(item)
        case Call(head, pairs):
            yield head
            for _, item in pairs:
                yield from names_in(item)


class Types:
    """The types of a document, made as they are asked for.

    Args:
        document: whose.
        names: of the module.
        only_sent: references that lead to what is sent and never comes back, as far as that is known.

    Attributes:
        models: with fields, by name.
        aliases: all else that has a name.
        shapes: of the objects among the schemas.
    """

    def __init__(self, document: OpenApi, names: Names, only_sent: Set[str] = frozenset()) -> None:
        self._document = document
        self._names = names
        self._by_ref: dict[str, str] = {}
        self._sent_by_ref: dict[str, str] = {}
        self._only_sent = only_sent
        self._sending = False
        self._told: dict[str, str] = {}
        self._plain_aliases: dict[str, bool] = {}
        self._depth = 0
        self.models: dict[str, Model] = {}
        self.aliases: dict[str, Expression] = {}
        components = document.section("schemas")
        if len(components) > MAX_SCHEMAS:
            raise OpenApiError(f"{document.name}: has more than {MAX_SCHEMAS} schemas")
        for key, short in short_classes(components).items():
            ref = COMPONENT + key.replace("~", "~0").replace("/", "~1")
            self._by_ref[ref] = names.take(short)
            with suppress(OpenApiError):  # it may be nothing that is used
                self._by_ref.setdefault(document.settled(ref), self._by_ref[ref])
        self._waiting: list[tuple[str, str, bool]] = []
        self._declared: set[str] = set()
        self.shapes = Shapes(document)
        self._directions = Directions(document)

    def of(self, schema: Any, name: str, *, sending: bool = False) -> Expression:
        """The type of a schema.

        Args:
            schema: it.
            name: what a model is called, if one comes of it.
            sending: whether it is of what is sent.
        """
        self._sending = sending
        made = self._expression(schema, name)
        while self._waiting:
            ref, known, self._sending = self._waiting.pop()
            self._declare(known, self._document.find(ref), ref)
        self._sending = False
        return made

    def only_sent(self) -> Set[str]:
        """The references to what differs by direction, was sent, and did not come back."""
        return {ref for ref in self._sent_by_ref if self._by_ref[ref] not in self._declared}

    def named(self, name: str, type_: Expression) -> Expression:
        """A type, under a name of its own where it is too long to stand in a line with others."""
        if len(str(type_)) <= 50:
            return type_
        taken = self._names.take(as_class(name))
        self.aliases[taken] = type_
        return Name(taken)

    def finished(self) -> tuple[list[Model], list[Root], list[Alias]]:
        """All that was made: classes by name, aliases so that each comes after what it uses.

        Raises:
            OpenApiError: if a type is nothing but itself.
        """
        uses = {
            name: {each for each in names_in(type_) if each in self.aliases} for name, type_ in self.aliases.items()
        }
        order, circular = _sorted(uses)
        bare = {
            name: {str(each) for each in _members(self.aliases[name]) if str(each) in circular} for name in circular
        }
        for name in sorted(_sorted(bare)[1]):
            raise OpenApiError(f"{self._document.name}: the schema of {name} is nothing but itself")
        roots = [Root(name, self._told.get(name, ""), self.aliases[name]) for name in sorted(circular)]
        aliases = [Alias(name, self.aliases[name]) for name in order]
        return [self.models[name] for name in sorted(self.models)], roots, aliases

    def is_plain(self, type_: Expression) -> bool:
        """Whether values of a type have a text, or are lists of what has, or None."""
        match type_:
            case Name(text) if text in self.aliases:
                if text not in self._plain_aliases:
                    self._plain_aliases[text] = False  # should it hold itself
                    self._plain_aliases[text] = self.is_plain(self.aliases[text])
                return self._plain_aliases[text]
            case Name(text):
                return text in _SCALARS or text.startswith("dt.")
            case Subscript("Literal", _):
                return True
            case Subscript("list" | "tuple", items):
                return all(not self.is_list(item) and self.is_plain(item) for item in items)
            case Union(items):
                return all(self.is_plain(each) for each in items)
        return False

    def is_list(self, type_: Expression) -> bool:
        """Whether a type is one of lists, under whatever name."""
        seen: set[str] = set()
        while isinstance(type_, Name) and type_.text in self.aliases and type_.text not in seen:
            seen.add(type_.text)
            type_ = self.aliases[type_.text]
        return any(isinstance(each, Subscript) and each.head in ("list", "tuple") for each in _members(type_))

    def has_parts(self, type_: Expression, *, deep: bool = False) -> bool:
        """Whether values of a type are lists or objects of what has a text; or of anything, if that is to be nested."""
        seen: set[str] = set()
        while isinstance(type_, Name) and type_.text in self.aliases and type_.text not in seen:
            seen.add(type_.text)
            type_ = self.aliases[type_.text]
        if self.is_list(type_):
            return deep or self.is_plain(type_)
        found = [each for each in _members(type_) if each != NONE]
        return bool(found) and all(self._is_object(each, deep) for each in found)

    def _is_object(self, type_: Expression, deep: bool) -> bool:
        if isinstance(type_, Name) and type_.text in self.models:
            return deep or all(self.is_plain(field.type) for field in self.models[type_.text].fields)
        if isinstance(type_, Subscript) and type_.head == "dict":
            return deep or self.is_plain(type_.items[1])
        return False

    def scalar(self, type_: Expression) -> Expression:
        """The type, if its values have a text each; else text."""
        return type_ if self.is_plain(type_) and not self.is_list(type_) and type_ != NONE else Name("str")

    # Names and references

    def _reference(self, ref: str) -> Name:
        ref = self._document.settled(ref)  # which says so, if it leads nowhere
        name = self._by_ref.get(ref)
        if name is None:
            name = self._by_ref[ref] = self._names.take(as_class(last_of(ref)))
        sent = self._sending and self._directions.differs(ref)
        if sent and ref not in self._only_sent:
            if ref not in self._sent_by_ref:
                self._sent_by_ref[ref] = self._names.take(f"{name}Input")
            name = self._sent_by_ref[ref]
        if name not in self._declared:
            self._declared.add(name)
            self._waiting.append((ref, name, sent))
        return Name(name)

    def _declare(self, name: str, schema: Any, ref: str) -> None:
        self._document.follow(schema) if isinstance(schema, dict) else None
        if isinstance(schema, dict):
            self._told[name] = text_of(schema.get("description")) or text_of(schema.get("title"))
        if self._is_model(schema) and "$ref" not in schema:
            self._model(name, schema, self.shapes.tags.get(ref, {}))
        else:
            made = self._expression(schema, name + "Value")
            # `Nothing | None` could not be looked up, were it None.
            self.aliases[name] = Subscript("Literal", (NONE,)) if made == NONE else made

    def _is_model(self, schema: Any) -> bool:
        return isinstance(schema, dict) and not is_union(schema) and self.shapes.properties(schema) is not None

    # Schemas

    def _expression(self, schema: Any, name: str) -> Expression:
        if not isinstance(schema, dict) or not schema:
            return ANY
        self._depth += 1
        try:
            if self._depth > MAX_DEPTH:
                raise OpenApiError(f"{self._document.name}: schemas are nested too deep")
            made = self._plain(schema, name)
        finally:
            self._depth -= 1
        return optional(made) if schema.get("nullable") is True and made != ANY else made

    def _plain(self, schema: Mapping[str, Any], name: str) -> Expression:
        ref = schema.get("$ref")
        if isinstance(ref, str) and not ({"properties", "allOf"} & schema.keys()):
            return self._reference(ref)
        if "const" in schema:
            return _literals([schema["const"]])
        if isinstance(schema.get("enum"), list):
            return _literals(schema["enum"])
        if is_union(schema):
            return self._union(schema, name)
        alone = only_one(schema)
        if alone is not None:
            return self._expression(alone, name)
        if self._is_model(schema):
            taken = self._names.take(as_class(name))
            self._told[taken] = text_of(schema.get("description"))
            self._model(taken, schema, {})
            return Name(taken)
        if isinstance(schema.get("allOf"), list):
            shape = self.shapes.of(schema)
            if not shape.is_object:
                made = [self._expression(each, name) for each in shape.others]
                return next((each for each in made if each != ANY), ANY)
        kinds = schema.get("type")
        if isinstance(kinds, list):
            return union([self._of_kind(kind, schema, name) for kind in kinds])
        return self._of_kind(kinds, schema, name)

    def _of_kind(self, kind: Any, schema: Mapping[str, Any], name: str) -> Expression:
        form = text_of(schema.get("format"))
        match kind:
            case "string":
                return Name("bytes") if form == "binary" else _FORMATS.get(form, Name("str"))
            case "integer":
                return Name("int")
            case "number":
                return Name("Decimal") if form == "decimal" else Name("float")
            case "boolean":
                return Name("bool")
            case "null":
                return NONE
            case "array":
                return self._array(schema, name)
        if kind == "object" or "additionalProperties" in schema:
            extra = schema.get("additionalProperties")
            return Subscript("dict", (Name("str"), self._expression(extra, name + "Value")))
        return self._array(schema, name) if {"items", "prefixItems"} & schema.keys() else ANY

    def _array(self, schema: Mapping[str, Any], name: str) -> Expression:
        first, rest = schema.get("prefixItems"), schema.get("items")
        if not isinstance(first, list) or not first:
            return Subscript("list", (self._expression(rest, name + "Item"),))
        self._document.use(len(first))
        items = [self._expression(each, f"{name}Item{number}") for number, each in enumerate(first, 1)]
        if len(first) == schema.get("minItems") and (rest is False or len(first) == schema.get("maxItems")):
            return Subscript("tuple", tuple(items))
        others = [] if rest is False else [self._expression(rest, name + "Item")]
        return Subscript("list", (union([*items, *others]),))

    def _union(self, schema: Mapping[str, Any], name: str) -> Expression:
        parts = parts_of(schema)
        several = sum(not (isinstance(each, dict) and each.get("type") == "null") for each in parts) > 1
        named = [f"{name}Option{n}" if several else name for n in range(1, len(parts) + 1)]
        made = union([self._expression(each, own) for each, own in zip(parts, named, strict=True)])
        known = self._discriminated(schema)
        members = [each for each in _members(made) if each != NONE]
        if known is None or len(members) < 2 or len(members) != len(known[1]):
            return made
        tagged = Subscript("Annotated", (union(members), Call("Field", (("discriminator=", known[0]),))))
        return optional(tagged) if len(members) < len(_members(made)) else tagged

    def _discriminated(self, schema: Mapping[str, Any]) -> tuple[Name, list[str]] | None:
        """The field that tells the members of a union apart, and their references; None if nothing does."""
        named = schema.get("discriminator")
        key = text_of(named.get("propertyName")) if isinstance(named, dict) else ""
        refs = [each.get("$ref") for each in parts_of(schema) if isinstance(each, dict) and each.get("type") != "null"]
        if not key or not all(isinstance(ref, str) for ref in refs):
            return None
        seen: set[str] = set()
        for ref in refs:
            tags = self.shapes.tags.get(self._document.settled(str(ref)), {}).get(key)
            if not tags or tags & seen:
                return None
            seen |= tags
        return Name(literal(as_variable(key, "field"))), [str(ref) for ref in refs]

    def _model(self, name: str, schema: Mapping[str, Any], tags: Mapping[str, set[str]]) -> None:
        # Noted before its fields are looked at: one of them may be of the same type.
        self.models[name] = Model(name, "", (), False)
        shape = self.shapes.of(schema)
        names = Names(_FIELDS_TAKEN)
        # Those whose names stand as they are have them first.
        order = sorted(shape.properties, key=lambda key: as_variable(key, "field") != key)
        taken = {key: names.take(as_variable(key, "field")) for key in order}
        fields = []
        for key, part in shape.properties.items():
            other = "readOnly" if self._sending else "writeOnly"
            needed = key in shape.required and not self._directions.is_for(part, other)
            type_, default = self._expression(part, name + as_class(key)), None
            if key in tags:
                type_, needed = _literals(sorted(tags[key])), True
            if not needed:
                default = _default(part, type_)
                type_, default = (optional(type_), NONE) if default is None else (type_, default)
            described = text_of(part.get("description")) if isinstance(part, dict) else ""
            fields.append(Field(taken[key], key, type_, default, described))
        is_open = shape.extra is True or (isinstance(shape.extra, dict))
        self.models[name] = Model(name, self._told.get(name, ""), tuple(fields), is_open)


def _members(expression: Expression) -> tuple[Expression, ...]:
    return expression.items if isinstance(expression, Union) else (expression,)


def _literals(values: list[Any]) -> Expression:
    """The values that are allowed, if a type can say them."""
    said = [value for value in values if value is None or isinstance(value, int) or is_text(value)]
    if len(said) < len(values) or not said:
        numbers = all(isinstance(value, (int, float)) for value in values)
        return Name("float") if numbers and values else ANY
    known = list(dict.fromkeys(literal(value) for value in said if value is not None))
    made: list[Expression] = [Subscript("Literal", tuple(Name(text) for text in known))] if known else []
    return union([*made, NONE] if None in said else made)


def _default(schema: Any, type_: Expression) -> Expression | None:
    """The default of a field that need not be there, if it is a simple one of its type."""
    value = schema.get("default") if isinstance(schema, dict) else None
    if not isinstance(value, (str, int, float)) or len(literal(value)) > 30:
        return None
    if isinstance(value, float) and not isfinite(value):
        return None  # Python has no literal for it
    written, kind = Name(literal(value)), type(value).__name__
    for each in _members(type_):
        if each == Name(kind) or (isinstance(each, Subscript) and each.head == "Literal" and written in each.items):
            return written
        if kind == "int" and each == Name("float"):
            return Name(literal(float(value)))
    return None


def _sorted(uses: Mapping[str, set[str]]) -> tuple[list[str], set[str]]:
    """Names, so that each comes after those that it uses; and those left that go in a circle."""
    users: dict[str, set[str]] = {name: set() for name in uses}
    for name, used in uses.items():
        for each in used:
            users[each].add(name)
    order, open_ = _peel(uses, users, set(uses))
    circular = open_ - set(_peel(users, uses, open_)[0])
    rest, _ = _peel({name: used - circular for name, used in uses.items()}, users, open_ - circular)
    return order + rest, circular


def _peel(uses: Mapping[str, set[str]], users: Mapping[str, set[str]], names: set[str]) -> tuple[list[str], set[str]]:
    """Of some names those that use none of the others, again and again; and those that are left."""
    left = {name: len(uses[name] & names) for name in names}
    ready = sorted((name for name, count in left.items() if not count), reverse=True)
    order = []
    while ready:
        name = ready.pop()
        order.append(name)
        for user in sorted(users[name] & names, reverse=True):
            left[user] -= 1
            if not left[user]:
                ready.append(user)
    return order, names - set(order)
