"""What is wrong with a configuration, in words: file, line, path, value, and the nearest thing that would be right.

A value is shown as it was written, so that of a substituted variable only the name appears; never where the field or
the name of a header says that it is a secret; and of a map or a list only what it is, since a secret may lie inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias, get_args, get_origin

from pydantic import BaseModel, ValidationError

from meshlib.config.fields import MAP_OR_FALSE, Part, closest
from meshlib.dataclass import dataclass
from meshlib.errors import ConfigError

__all__ = [
    "MAX_TOLD",
    "Found",
    "Path",
    "Problem",
    "dotted",
    "from_code",
    "on_one_line",
    "problems_of",
    "refuse",
    "written_path",
]

Path: TypeAlias = tuple[str | int, ...]
Found: TypeAlias = Iterator[tuple[Path, str, frozenset[str]]]
"""Of each contradiction the path of the field to change, what is wrong, and the fields that it rests on."""

_SECRET = re.compile(
    r"token(?!s)|key_file|secret|passw|credential|auth(?!ority)|cookie|session(?!_)|signature|api.?key|-key$",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(?<=//).*@|^[^/]*:.*@", re.DOTALL)
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]*")

PLANNED: Final = frozenset({"kubernetes", "xds", "dns"})
"""Words of the mesh's design that this version does not know yet; whoever writes one has made no typing error."""

_KINDS: Final = (
    (bool, "a boolean"),
    (str, "text"),
    ((int, float), "a number"),
    (Mapping, "a map"),
    ((list, tuple), "a list"),
    (type(None), "null"),
)


MAX_TOLD: Final = 1000
"""So many problems are told, at most; of more it is said how many they are."""

_LONGEST_KEY: Final = 100

_NOWHERE: Final = object()
_HIDDEN: Final = object()


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault.

    Attributes:
        file: where it is.
        path: of the field.
        text: what is wrong, with the value and what to write instead.
        line: in the file, from 1; None where it is not known.
    """

    file: str
    path: Path
    text: str
    line: int | None = None

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return on_one_line(f"{where}: {dotted(self.path)}: {self.text}" if self.path else f"{where}: {self.text}")


def refuse(problems: Iterable[Problem], subject: str) -> ConfigError:
    """The error that reports `problems`, in the order of files and lines."""
    unique = dict.fromkeys(problems)
    ordered = sorted(unique, key=lambda problem: (problem.file, problem.line or 0))
    texts = tuple(str(problem) for problem in ordered[:MAX_TOLD])
    if len(ordered) > MAX_TOLD:
        texts += (f"and {len(ordered) - MAX_TOLD} more",)
    count = "1 problem" if len(ordered) == 1 else f"{len(ordered)} problems"
    return ConfigError(f"{subject}: {count}", problems=texts)


def from_code(cls: type[Part], fields: Mapping[str, Any], error: ValidationError) -> ConfigError:
    """The error for `cls(**fields)`, written in code."""
    problems = [Problem(cls.__name__, path, text) for path, text, _ in problems_of(cls, fields, fields, error)]
    return refuse(problems, f"{cls.__name__}(...) is wrong")


def dotted(path: Path) -> str:
    """``services.orders.routes[0].match``; a key that would be misread is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = len(part) <= _LONGEST_KEY and _PLAIN_KEY.fullmatch(part) and "." not in part
            shown = part if plain else _quoted(part)
            text += f".{shown}" if text else shown
    return text


def written_path(path: Path, data: Any) -> Path:
    """`path` as a user knows it: of a list of one thing, written as that thing, without the place in the list."""
    found: list[str | int] = []
    for part in path:
        if isinstance(part, int) and isinstance(data, Mapping):
            continue
        found.append(part)
        try:
            data = data[part]
        except (LookupError, TypeError):
            data = None
    return tuple(found)


def on_one_line(text: str, longest: int = 2000) -> str:
    """`text` as a terminal or a log may have it: what moves a cursor or ends a line is escaped, the middle left out."""
    if len(text) > longest:
        text = f"{text[: longest // 2]} ... {text[-longest // 2 :]}"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def problems_of(
    cls: type[Part], data: Any, written: Any, error: ValidationError
) -> Iterable[tuple[Path, str, frozenset[str]]]:
    """Put what pydantic found into words.

    Args:
        cls: the model that refused.
        data: what it was given.
        written: the same before variables were substituted; values are quoted from here.
        error: what it said.

    Yields:
        The path, the text, and the names of the fields concerned, for each fault.
    """
    for number, fault in enumerate(error.errors(include_url=False, include_input=False)):
        path = _real_path(fault["loc"], data, fault["type"])
        if number >= MAX_TOLD:
            # To find good words for each of very many takes longer than anybody waits.
            yield path, "is wrong", frozenset(part for part in path if isinstance(part, str))
            continue
        text, touched = _words(cls, path, fault, path[-1] if fault["loc"][-1:] == ("[key]",) else _look(path, written))
        yield path, text, touched | {part for part in path if isinstance(part, str)}


def _real_path(loc: Sequence[Any], data: Any, kind: str) -> Path:
    """`loc` without what pydantic puts in between: the member of a union, the key of a map."""
    path: list[str | int] = []
    here = data
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if (isinstance(here, Mapping) and part in here) or (
            isinstance(here, (list, tuple)) and isinstance(part, int) and part < len(here)
        ):
            here = here[part]
        elif not (last and kind == "missing"):
            continue
        path.append(part)
    return tuple(path)


def _words(cls: type[Part], path: Path, fault: Any, known: Any) -> tuple[str, frozenset[str]]:
    kind, context = fault["type"], fault.get("ctx", {})
    shown = "it" if known is _NOWHERE else "the value (not shown)" if known is _HIDDEN else _shown(known)
    nearest: str | None = None
    touched: frozenset[str] = frozenset()
    match kind:
        case "extra_forbidden":
            return _unknown_field(cls, path)
        case "missing":
            return "is required", touched
        case "union_tag_invalid":
            tag, choices = str(context["tag"]), re.findall(r"'([^']*)'", context["expected_tags"])
            if tag in PLANNED:
                return f"{tag} is not a discovery source yet: this version has {' and '.join(choices)}", touched
            text, nearest = (
                f"{_quoted(tag)} is not a discovery source: {' or '.join(choices)} is expected",
                closest(tag, choices),
            )
        case "union_tag_not_found":
            text = f"{_kind(known)} is not a discovery source: a map with one key is expected, as in {{consul: {{}}}}"
        case "literal_error":
            choices = re.findall(r"'([^']*)'", context["expected"])
            if path[-2:] == ("tls", "mode") and known == "mesh":
                return "'mesh' is not built yet: 'simple' or 'off' is expected", touched
            if isinstance(known, bool) and "on" in choices:
                nearest = "on" if known else "off"
            elif isinstance(known, str):
                nearest = closest(known, choices)
            text = f"{shown} is not one of {', '.join(choices) or 'false'}"
        case "string_type":
            text = f"{shown} is not text"
            if isinstance(known, (bool, int, float)):
                text += f"; write {_as_text(known)}"
        case "model_type" | "model_attributes_type" | "dict_type" | "mapping_type":
            wanted = MAP_OR_FALSE if fault["loc"][-1:] == (MAP_OR_FALSE,) else "a map"
            text = f"{wanted} is expected, not {shown if isinstance(known, bool) else _kind(known)}"
        case "sequence_str" | "list_type" | "tuple_type" | "is_instance_of":
            text = f"a list is expected, not {_kind(known)}"
            if isinstance(known, str) and not _is_secret(path):
                text += "; put it in brackets: [...]"
        case "too_short":
            text = "is empty; at least one is expected"
        case "meshlib_value" | "meshlib_type":
            subject = "" if isinstance(known, (Mapping, list, tuple)) and kind == "meshlib_value" else f"{shown} "
            text, nearest = subject + context["text"], context["nearest"]
            # What a variable stands for may be a secret, so a part of it is not shown either.
            if context.get("part") and isinstance(known, str) and "${" not in known:
                text += f": {_quoted(context['part'])}"
        case _:
            said = fault["msg"][:1].lower() + fault["msg"][1:]
            text = f"{shown}: {said.replace('input should be', 'it should be')}"
    return (f"{text}; did you mean {_quoted(nearest)}?" if nearest else text), touched


def _unknown_field(cls: type[Part], path: Path) -> tuple[str, frozenset[str]]:
    # The value is left out: it may be a token whose field was misspelt.
    name = str(path[-1])
    classes = _classes_at(cls, path[:-1])
    if name in PLANNED:
        return "is not built yet: this version cannot honour it", frozenset()
    own = [field for each in classes for field in _fields(each)]
    for each in classes:
        for field, annotation in _fields(each).items():
            if any(name in _fields(part) for part in _parts(annotation)):
                return f"unknown field; it belongs under {field!r}", frozenset({name})
    nearest = closest(name, own)
    if nearest:
        return f"unknown field; did you mean {nearest!r}?", frozenset({nearest})
    if name in _fields(cls):
        return "unknown field here; it belongs at the top of the file", frozenset({name})
    return f"unknown field; the fields here are {', '.join(own)}", frozenset()


def _fields(cls: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in cls.model_fields.items()}


def _parts(annotation: Any) -> list[type[Part]]:
    """The parts that an annotation speaks of: ``Mapping[str, Service]`` of `Service`."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return [annotation] if issubclass(annotation, Part) else []
    return [part for argument in get_args(annotation) for part in _parts(argument)]


def _classes_at(cls: type[Part], path: Path) -> list[type[Part]]:
    """The parts that may stand at `path`; names of services and places in lists lead to what they hold."""
    classes = [cls]
    after_map = False
    for part in path:
        if after_map or isinstance(part, int):
            after_map = False
            continue
        annotations = [_fields(each)[part] for each in classes if part in _fields(each)]
        if annotations:
            classes = [inside for annotation in annotations for inside in _parts(annotation)]
            after_map = any(get_origin(annotation) is Mapping for annotation in annotations)
        else:
            # The name of a discovery source stands before its fields.
            classes = [each for each in classes if each.__name__.lower() == part]
    return classes


def _look(path: Path, written: Any) -> Any:
    """What was written at `path`, unless it may not be looked at."""
    here = written
    for part in path:
        try:
            here = here[part]
        except (LookupError, TypeError):
            return _NOWHERE
    return _HIDDEN if _is_secret(path) and not isinstance(here, (Mapping, list, tuple)) else here


def _is_secret(path: Path) -> bool:
    fields = path[2:] if path[:1] == ("services",) else path
    if path[:2] in (("redis", "url"), ("overrides", "key")) or path[-2:] == ("tls", "ca"):
        return True
    # The values of header edits, and what is answered: who writes them there may mean them for one service alone.
    if ("direct_response" in fields[:-1] and fields[-1] != "status") or fields[-2:-1] in (("set",), ("add",)):
        return True
    return any(isinstance(part, str) and _SECRET.search(part) for part in fields)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return "the text of a PEM file" if "-----BEGIN" in value else _quoted(value)
    if isinstance(value, (int, float)):
        # Python refuses to write out the largest integers.
        return repr(value) if isinstance(value, float) or abs(value) < 10**40 else "a huge number"
    return _kind(value)


def _quoted(text: str) -> str:
    text = _USERINFO.sub("***@", text)
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _as_text(value: Any) -> str:
    return f'"{_shown(value)}"'


def _kind(value: Any) -> str:
    if value is _HIDDEN or value is _NOWHERE:
        return "what is there"
    return next((name for kind, name in _KINDS if isinstance(value, kind)), type(value).__name__)
