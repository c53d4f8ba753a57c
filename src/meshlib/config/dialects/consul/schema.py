"""The fields of Consul's documents, as tables: which there are, what they hold, and how far they are honoured.

Consul has three spellings of one field: ``PathPrefix`` in JSON, ``path_prefix`` in HCL, and ``pathPrefix`` in the
custom resources of Kubernetes. Here all of them are the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

from meshlib.config.dialects.draft import Draft, Effect
from meshlib.config.dialects.fields import NARROWING, WIDER, go_duration
from meshlib.config.dialects.resources import Place, Resource
from meshlib.config.problems import Path
from meshlib.config.rejection import closest
from meshlib.dataclass import dataclass, replace

__all__ = ["Field", "Fields", "Kind", "Reading", "Table", "duration", "read_table", "rows_of"]

How: TypeAlias = Literal["honoured", "different", "ignored"]
Simple: TypeAlias = Literal["text", "texts", "number", "numbers", "flag", "duration", "names", "any"]
Table: TypeAlias = Mapping[str, "Field"]
Kind: TypeAlias = Simple | Table
Many: TypeAlias = Literal["", "list", "map"]

_LARGEST: Final = 2**63
"""Of Go's numbers; none that is larger, nor one that is none, is taken."""

_SAYS: Final[dict[str, str]] = {
    "text": "a text",
    "texts": "a list of texts",
    "number": "a number",
    "numbers": "a list of whole numbers",
    "flag": "true or false",
    "duration": "a duration such as 500ms, 15s or 1m30s",
    "names": "a map of texts",
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        kind: what it holds: a simple value, or fields of its own.
        many: whether it holds a list or a map of those.
        how: whether it is honoured.
        why: what differs, where it is not honoured, or not to the letter.
        narrows: whether it says which calls are meant, with all that is in it: what is unknown there is an error.
    """

    kind: Kind = "text"
    many: Many = ""
    how: How = "honoured"
    why: str = ""
    narrows: bool = False


class Fields(dict[str, Any]):
    """The fields of one map, in Consul's spelling, checked.

    Attributes:
        resource: the document that the map is in; None for one that nobody wrote.
        path: where in it.
        spelled: how each field was written.
    """

    def __init__(self, resource: Resource | None = None, path: Path = ()) -> None:
        super().__init__()
        self.resource = resource
        self.path = path
        self.spelled: dict[str, str] = {}

    def place(self, name: str = "") -> Place:
        """Where a field is written, or the map."""
        if self.resource is None:
            return Place("", "Consul")
        return self.resource.place(*self.path, *((self.spelled.get(name, name),) if name else ()))


@dataclass(frozen=True, slots=True)
class Reading:
    """How a document is read.

    Attributes:
        draft: where notes go.
        resource: the document.
        narrows: whether a field is read that says which calls are meant.
    """

    draft: Draft
    resource: Resource
    narrows: bool = False

    def note(self, path: Path, text: str, effect: Effect) -> None:
        """Say something of the field at `path`."""
        self.draft.note(self.resource.place(*path), text, effect)


def read_table(table: Table, value: Any, path: Path, reading: Reading) -> Fields:
    """Read a map by its table. What is wrong is noted, and left out."""
    fields = Fields(reading.resource, path)
    if not isinstance(value, Mapping):
        reading.note(path, f"a map is expected, not {_shown(value)}", "wrong")
        return fields
    known = {_plain(name): name for name in table}
    for key, inner in value.items():
        name = known.get(_plain(str(key)))
        if name is None:
            if inner is not None:
                near = closest(str(key), table)
                hint = f"; did you mean {near!r}?" if near else ""
                if not _is_empty(inner) and (reading.narrows or (near is not None and near.lower() in NARROWING)):
                    reading.note((*path, str(key)), f"{WIDER}{hint}", "wrong")
                else:
                    reading.note((*path, str(key)), f"is not honoured: unknown field{hint}", "ignored")
            continue
        if inner is None:
            continue
        place = (*path, str(key))
        if name in fields:
            reading.note(place, f"is the same field as {fields.spelled[name]!r}", "wrong")
            continue
        spec = table[name]
        if spec.how == "different" and not _is_empty(inner):
            reading.note(place, spec.why, "different")
        elif spec.how == "ignored" and not _is_empty(inner):
            reading.note(place, f"is not honoured: {spec.why}", "ignored")
        fields.spelled[name] = str(key)
        read = _read(spec, inner, place, reading)
        if read is not None:
            fields[name] = read
    return fields


def _read(spec: Field, value: Any, path: Path, reading: Reading) -> Any:
    if spec.narrows:
        reading = replace(reading, narrows=True)
    if spec.many == "list":
        if not isinstance(value, Sequence) or isinstance(value, str):
            reading.note(path, f"a list is expected, not {_shown(value)}", "wrong")
            return None
        found = [_one(spec.kind, each, (*path, index), reading) for index, each in enumerate(value)]
        return [each for each in found if each is not None]
    if spec.many == "map":
        if not isinstance(value, Mapping):
            reading.note(path, f"a map is expected, not {_shown(value)}", "wrong")
            return None
        return {str(key): _one(spec.kind, each, (*path, str(key)), reading) for key, each in value.items()}
    return _one(spec.kind, value, path, reading)


def _one(kind: Kind, value: Any, path: Path, reading: Reading) -> Any:
    if not isinstance(kind, str):
        return read_table(kind, {} if value is None else value, path, reading)
    read = _SIMPLE[kind](value)
    if read is None and value is not None:
        reading.note(path, f"{_SAYS[kind]} is expected, not {_shown(value)}", "wrong")
    return read


def duration(value: Any) -> float | None:
    """A duration as Go writes it, ``1m30s``, in seconds; a number is one of nanoseconds. None if it is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value * 1e-9 if abs(value) <= _LARGEST else None
    if not isinstance(value, str):
        return None
    seconds = go_duration(value.removeprefix("-"))
    return -seconds if seconds is not None and value.startswith("-") else seconds


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and abs(value) <= _LARGEST else None


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= _LARGEST else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else {"true": True, "false": False}.get(str(value).lower())


def _texts(value: Any) -> list[str] | None:
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, Sequence):
        return None
    texts = [text for each in given if (text := _text(each)) is not None]
    return texts if len(texts) == len(given) else None


def _numbers(value: Any) -> list[int] | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    numbers = [int(each) for each in map(_number, value) if each is not None and each == int(each)]
    return numbers if len(numbers) == len(value) else None


def _names(value: Any) -> dict[str, str] | None:
    if not isinstance(value, Mapping):
        return None
    names = {str(key): text for key, each in value.items() if (text := _text(each)) is not None}
    return names if len(names) == len(value) else None


_SIMPLE: Final[dict[str, Callable[[Any], Any]]] = {
    "text": _text,
    "texts": _texts,
    "number": _number,
    "numbers": _numbers,
    "flag": _flag,
    "duration": duration,
    "names": _names,
    "any": lambda value: value,
}


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _is_empty(value: Any) -> bool:
    """Whether a field says nothing: what Consul itself writes of what was not given, the default namespace too."""
    return value in ("", 0, False, "default") or (isinstance(value, Mapping | list) and not value)


def _shown(value: Any) -> str:
    if isinstance(value, bool | float):
        return repr(value)
    # Python refuses to write out the largest integers.
    return (
        type(value).__name__
        if not isinstance(value, int)
        else repr(value)
        if abs(value) <= _LARGEST
        else "a huge number"
    )


def rows_of(table: Table, prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Every field of a table, by its dotted name; lists are ``Routes[]``, maps are ``Subsets{}``."""
    for name, spec in table.items():
        full = f"{prefix}{name}" + {"": "", "list": "[]", "map": "{}"}[spec.many]
        yield full, spec
        if not isinstance(spec.kind, str):
            yield from rows_of(spec.kind, f"{full}.")
