"""All of it as one file of Python, laid out as ruff lays it out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Final, Literal

from meshlib.adapters import declarative
from meshlib.cli.openapi.document import OpenApi, OpenApiError, text_of
from meshlib.cli.openapi.expressions import Call, Expression, Name, Subscript, lay_out
from meshlib.cli.openapi.names import BUILTINS, Names, as_class, literal, prose
from meshlib.cli.openapi.operations import Argument, Method, methods_of
from meshlib.cli.openapi.schemas import Alias, Field, Model, Root, Types, names_in

__all__ = ["Style", "make_module"]

Style = Literal["async", "sync", "both"]

_WHERE: Final = {
    "AsyncIterator": "collections.abc",
    "Iterator": "collections.abc",
    "Decimal": "decimal",
    "Annotated": "typing",
    "Any": "typing",
    "Literal": "typing",
    "Protocol": "typing",
    "TypeAlias": "typing",
    "Union": "typing",
    "UUID": "uuid",
    **dict.fromkeys((*declarative.__all__,), "meshlib.adapters.declarative"),
    "BaseModel": "pydantic",
    "ConfigDict": "pydantic",
    "Field": "pydantic",
    "RootModel": "pydantic",
    "deprecated": "typing_extensions",
}
"""Which module each name comes from that is not made here."""

_STANDARD: Final = ("collections.abc", "decimal", "typing", "uuid")

_RESERVED: Final = BUILTINS | frozenset(_WHERE) | {"dt", "mesh"}


def make_module(document: OpenApi, style: Style, name: str | None = None) -> str:
    """The text of a module.

    Args:
        document: of the service.
        style: of its methods.
        name: of the class; None for one from the document's title.

    Raises:
        OpenApiError: if no client can be made of it.
    """
    try:
        return _text(document, style, name)
    except RecursionError:
        # Of names for names for names, each of which is near.
        raise OpenApiError(f"{document.name}: schemas are nested too deep") from None


def _text(document: OpenApi, style: Style, name: str | None) -> str:
    info = document.data.get("info")
    title = text_of(info.get("title")) if isinstance(info, dict) else ""
    wanted = as_class(name or title) if name or title.strip() else "Client"

    def taken(document: OpenApi, only_sent: Set[str]) -> tuple[str, str, Types, list[Method]]:
        names = Names(_RESERVED)
        own = names.take(wanted)
        other = names.take(f"Async{own}") if style == "both" else own
        types = Types(document, names, only_sent)
        return own, other, types, methods_of(document, types, frozenset(_WHERE) | {"dt", "mesh"})

    own, other, types, methods = taken(document, frozenset())
    if only_sent := types.only_sent():
        # What never comes back needs no second name; that is known only now.
        own, other, types, methods = taken(document.again(), only_sent)
    if not methods:
        raise OpenApiError(f"{document.name}: has no operation")
    module = _Module(document)
    models, roots, aliases = types.finished()
    body: list[str] = []
    for model in models:
        body += module.model(model)
    for root in roots:
        body += module.root(root)
    for number, alias in enumerate(aliases):
        body += ["", *module.alias(alias)] if not number else module.alias(alias)
    for cls, is_async in ((own, False), (other, True)) if style == "both" else ((own, style == "async"),):
        body += module.client(cls, title, methods, is_async)
    head = [f"# Made by `meshlib generate client` of {_comment(document.name)}; what is changed here is lost."]
    doc = [f'"""{prose(title or own, "")[0] if prose(title or own, "") else own}."""']
    return "\n".join([*head, "", *doc, "", "from __future__ import annotations", "", *module.imports(), *body]) + "\n"


def _comment(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:60]


class _Module:
    """Lines of the classes, and which names they use."""

    def __init__(self, document: OpenApi) -> None:
        self._document = document
        self._used: set[str] = set()

    def imports(self) -> list[str]:
        """The lines that import what is used."""
        lines = ["import datetime as dt"] if any(name.startswith("dt.") for name in self._used) else []
        modules: dict[str, list[str]] = {}
        for name in sorted(self._used & _WHERE.keys()):
            modules.setdefault(_WHERE[name], []).append(name)
        standard = [line for module in _STANDARD if module in modules for line in _import(module, modules[module])]
        others = sorted(modules.keys() - set(_STANDARD))
        # Plain imports stand before those of names.
        return [*lines, *standard, "", *(line for module in others for line in _import(module, modules[module]))]

    def _use(self, expression: Expression, lines: list[str]) -> list[str]:
        self._used.update(names_in(expression))
        if any(line.lstrip().startswith("Union[") or " Union[" in line for line in lines):
            self._used.add("Union")
        return lines

    def model(self, model: Model) -> list[str]:
        """A class with fields."""
        self._used.add("BaseModel")
        told = [model.description] if model.description else []
        described = [each for each in model.fields if each.description]
        if described:
            told = told or [model.name]
            told.append(
                "Attributes:\n" + "\n".join(f"    {each.name}: {_line(each.description)}" for each in described)
            )
        lines = ["", "", f"class {model.name}(BaseModel):", *_docstring("\n\n".join(told) or model.name, "    "), ""]
        settings = self._settings(model)
        if settings:
            self._used.add("ConfigDict")
            lines += [*lay_out(Call("ConfigDict", tuple(settings)), "    ", "model_config = "), ""]
        for each in model.fields:
            lines += self._field(each)
        return lines

    def _settings(self, model: Model) -> list[tuple[str, Expression]]:
        settings: list[tuple[str, Expression]] = []
        if model.open:
            settings.append(("extra=", Name('"allow"')))
        if any(each.alias != each.name for each in model.fields):
            settings.append(("populate_by_name=", Name("True")))
        if any(each.name.startswith("model_") for each in model.fields):
            settings.append(("protected_namespaces=", Name("()")))
        return settings

    def _field(self, each: Field) -> list[str]:
        type_ = each.type
        if each.alias != each.name:
            type_ = Subscript("Annotated", (type_, Call("Field", (("alias=", Name(literal(each.alias))),))))
        after = "" if each.default is None else f" = {each.default}"
        return self._use(type_, lay_out(type_, "    ", f"{each.name}: ", after))

    def root(self, root: Root) -> list[str]:
        """A class around a type that holds itself."""
        self._used.add("RootModel")
        self._used.update(names_in(root.type))
        inner = Subscript("RootModel", (Name(f'"{root.type}"' if '"' not in str(root.type) else repr(str(root.type))),))
        base = lay_out(Call(f"class {root.name}", (("", inner),)), "", "", ":")
        return ["", "", *base, *_docstring(root.description or root.name, "    ")]

    def alias(self, alias: Alias) -> list[str]:
        """Another name of a type."""
        self._used.add("TypeAlias")
        return ["", *self._use(alias.type, lay_out(alias.type, "", f"{alias.name}: TypeAlias = "))]

    def client(self, name: str, title: str, methods: Sequence[Method], is_async: bool) -> list[str]:
        """The class of the calls."""
        self._used.add("Protocol")
        prefix = self._prefix()
        bound = f"mesh.bind({name}, '...'" + (f", prefix='{prefix}')" if prefix else ")")
        lines = ["", "", f"class {name}(Protocol):"]
        lines += _docstring(f"{_line(title) or name}\n\nBind it to the name of the service: ``{bound}``.", "    ")
        for method in methods:
            lines += ["", *self._method(method, is_async)]
        return lines

    def _prefix(self) -> str:
        """The path of the document's first server, if it has a plain one."""
        servers = self._document.data.get("servers")
        first = servers[0] if isinstance(servers, list) and servers and isinstance(servers[0], dict) else {}
        _, _, rest = text_of(first.get("url")).rpartition("://")
        path = rest[rest.find("/") :] if "/" in rest else ""
        plain = all(char.isascii() and (char.isalnum() or char in "/-_.~") for char in path)
        return path.rstrip("/") if plain and ".." not in path else ""

    def _method(self, method: Method, is_async: bool) -> list[str]:
        returns, word = method.returns, "async def" if is_async else "def"
        if method.items is not None:
            returns, word = Subscript("AsyncIterator" if is_async else "Iterator", (method.items,)), "def"
        self._used.update(names_in(returns))
        self._used.add(method.decorator.head.removeprefix("@"))
        for _, part in method.decorator.items:
            self._used.update(names_in(part))
        lines = []
        if method.deprecated:
            self._used.add("deprecated")
            lines.append('    @deprecated("The service declares it deprecated.")')
        lines += self._use(Name(""), lay_out(method.decorator, "    "))
        arguments = list(self._arguments(method.arguments))
        flat = f"    {word} {method.name}({', '.join(text for text, _ in arguments)}) -> {returns}:"
        if len(flat) <= 88:
            lines.append(flat)
        else:
            lines.append(f"    {word} {method.name}(")
            for _, laid in arguments:
                lines += self._use(Name(""), laid)
            lines.append(f"    ) -> {returns}:")
        return [*lines, *_docstring(method.text, "        "), "        ..."]

    def _arguments(self, arguments: Sequence[Argument]) -> Iterator[tuple[str, list[str]]]:
        """Each flat, and as lines of its own."""
        yield "self", ["        self,"]
        starred = False
        for each in arguments:
            self._used.update(names_in(each.type))
            if each.by_name and not starred:
                starred = True
                yield "*", ["        *,"]
            default = "" if each.needed else " = None"
            yield f"{each.name}: {each.type}{default}", lay_out(each.type, "        ", f"{each.name}: ", f"{default},")


def _import(module: str, names: Sequence[str]) -> list[str]:
    # As isort has them: constants, classes, functions.
    ordered = sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    flat = f"from {module} import {', '.join(ordered)}"
    return [flat] if len(flat) <= 88 else [f"from {module} import (", *(f"    {name}," for name in ordered), ")"]


def _line(text: str) -> str:
    return " ".join(text.split())


def _docstring(text: str, indent: str) -> list[str]:
    lines = prose(text, indent) or [f"{indent}-"]
    first = f'{indent}"""{lines[0].strip()}'
    if len(lines) == 1:
        return [f'{first}"""']
    return [first, *lines[1:], f'{indent}"""']
