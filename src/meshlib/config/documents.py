"""One file: its bytes, its format, its value, and the line of each field."""

from __future__ import annotations

import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, islice
from pathlib import Path as FilePath
from typing import Any, Final, NoReturn

from meshlib.config.problems import Path, Problem
from meshlib.config.yaml12 import MAX_DEPTH, MAX_VALUES, SourceError, read_yaml
from meshlib.dataclass import dataclass, field

__all__ = ["FORMATS", "MAX_BYTES", "Document", "DocumentError", "check_bounds", "parse", "read_documents"]

MAX_BYTES: Final = 10 * 1024 * 1024
"""The size of a file, at most."""

_TOML_BREAK = re.compile(r"([=\n{},\[\]])")
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]|[^\s{}\[\],:"]+|\n')


class DocumentError(Exception):
    """A file cannot be read, or is not in its format; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _unreadable(name: str, text: str, line: int | None = None, path: Path = ()) -> DocumentError:
    return DocumentError(Problem(name, path, text, line))


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file.

    Attributes:
        name: the file, as errors name it.
        data: its value: a map.
        lines: where each field stands, from 1, as far as that is known.
        directory: what its includes are relative to.
        values: how many it holds; of long texts each kilobyte counts.
    """

    name: str
    data: dict[str, Any]
    lines: Mapping[Path, int] = field(default_factory=dict)
    directory: FilePath = FilePath()
    values: int = 0

    @property
    def for_kustomize(self) -> bool:
        """Whether it is for kustomize, which goes by the name of the file: the kind may be left out."""
        return self.name.endswith(("kustomization.yaml", "kustomization.yml"))

    def line(self, path: Path) -> int | None:
        """The line of the field at `path`, or of the nearest map around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.lines:
                return self.lines[path[:end]]
        return None


def read_documents(
    path: FilePath, name: str, *, piped: bool = False, max_bytes: int = MAX_BYTES, number_keys: bool = False
) -> list[Document]:
    """Read the documents of a file.

    Args:
        path: of the file.
        name: how errors name it.
        piped: whether it may be something else than a file: it is waited for what comes.
        max_bytes: that it may have.
        number_keys: whether a number may be a key of YAML, and is text, in whatever document.

    Raises:
        DocumentError: if it cannot be read, is too large, or is not in the format that its name says.
    """
    try:
        with open(path, "rb", opener=None if piped else _at_once) as file:
            if not piped and not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _unreadable(name, "is not a file but a pipe, a device or the like")
            content = file.read(max_bytes + 1)
    except IsADirectoryError:
        raise _unreadable(name, "is a directory; a file is expected") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _unreadable(name, f"cannot be read: {reason}") from error
    return parse(content, path.suffix.lower(), name, path.parent, max_bytes, number_keys)


def _at_once(path: str, flags: int) -> int:
    # To open a pipe is to wait for who writes to it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def parse(
    content: bytes,
    suffix: str,
    name: str,
    directory: FilePath | None = None,
    max_bytes: int = MAX_BYTES,
    number_keys: bool = False,
) -> list[Document]:
    """Make documents of a file's content: of YAML one for each, with ``---`` in between; at least one.

    Args:
        content: the bytes.
        suffix: what the file's name ends in: ``.yaml``, ``.yml``, ``.toml`` or ``.json``.
        name: how errors name the file.
        directory: what its includes are relative to.
        max_bytes, number_keys: as of `read_documents`.

    Raises:
        DocumentError: as `read_documents` says.
    """
    if suffix not in FORMATS:
        hint = "; `consul config read -kind ... -name ...` prints an entry as JSON" if suffix == ".hcl" else ""
        raise _unreadable(name, f"its name does not say its format: {', '.join(FORMATS)} are known{hint}")
    if len(content) > max_bytes:
        raise _unreadable(name, f"is larger than {max_bytes // 1024 // 1024} MiB")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _unreadable(name, f"is not UTF-8: {error.reason} at byte {error.start}", line) from None
    try:
        numbered = number_keys and suffix in (".yaml", ".yml")
        found = read_yaml(text, number_keys=True) if numbered else FORMATS[suffix](text)
        sizes = []
        for data, lines in found:
            if data is not None and not isinstance(data, dict):
                raise SourceError("a map is expected at the top", lines.get((), 1))
            sizes.append(check_bounds(data))
    except SourceError as error:
        helm = suffix in (".yaml", ".yml") and "{{" in text
        hint = "; a template of Helm is read as `helm template` prints it" if helm else ""
        raise _unreadable(name, f"{error.text}{hint}", error.line, error.path) from None
    # Long texts take room as well.
    if sizes:
        sizes[0] += len(content) // 1024
    given = [(*each, size) for each, size in zip(found, sizes, strict=True) if each[0] is not None] or [({}, {}, 0)]
    return [Document(name, data, lines, directory or FilePath(), size) for data, lines, size in given]


def check_bounds(data: Any) -> int:
    """Refuse what nests too deep or holds too much, a map that contains itself included; or say how much it holds.

    Raises:
        SourceError: if it does.
    """
    level: list[Any] = [data]
    total = 0
    for _ in range(MAX_DEPTH + 1):
        inner = chain.from_iterable(_inside(value) for value in level)
        # Never more than the bound is gathered: of maps that share maps, a level can be beyond any memory.
        level = list(islice(inner, MAX_VALUES + 1 - total))
        total += len(level)
        if total > MAX_VALUES:
            raise SourceError(f"holds more than {MAX_VALUES} values")
        if not level:
            return total
    raise SourceError(f"nested more than {MAX_DEPTH} levels deep")


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, (list, tuple)) else ()


def _read_toml(text: str) -> list[tuple[Any, dict[Path, int]]]:
    # Python's reader takes time and memory in the square of a key's parts, before anything can be counted.
    pieces = _TOML_BREAK.split(text)
    for piece, after in zip(pieces[::2], pieces[1::2], strict=False):
        if after in "=]" and piece.count(".") > MAX_DEPTH:
            raise SourceError(f"nested more than {MAX_DEPTH} levels deep")
    try:
        return [(tomllib.loads(text), {})]
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        # Without a line it is "at end of document".
        raise SourceError(f"not TOML: {error}", int(line[1]) if line else text.count("\n") + 1) from None
    except RecursionError:
        raise SourceError(f"nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise SourceError(f"not TOML: {error}") from None


def _read_json(text: str) -> list[tuple[Any, dict[Path, int]]]:
    try:
        value = json.loads(text, parse_constant=_not_json)
    except json.JSONDecodeError as error:
        raise SourceError(f"not JSON: {error.msg}", error.lineno) from None
    except RecursionError:
        raise SourceError(f"nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise SourceError(f"not JSON: {error}") from None
    check_bounds(value)
    return [(value, _json_lines(text))]


def _not_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a value")


def _json_lines(text: str) -> dict[Path, int]:
    """The line of each field in a valid JSON text.

    Python's own reader keeps neither lines nor the first of two equal keys, so the text is gone over once more.

    Raises:
        SourceError: at a key that is written twice.
    """
    lines: dict[Path, int] = {(): 1}
    stack: list[str | int | None] = []  # for each open map its key (None: one is expected), for each list its index
    line = 1
    for token in _JSON_TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token in "}]":
            stack.pop()
        elif token == ",":
            stack[-1] = stack[-1] + 1 if isinstance(stack[-1], int) else None
        elif stack and stack[-1] is None:
            key = json.loads(token)
            stack[-1] = key
            path = _inner(stack)
            if path in lines:
                raise SourceError(f"{key!r} is written twice, first in line {lines[path]}", line, path[:-1])
            lines[path] = line
        else:
            lines.setdefault(_inner(stack), line)
            if token in "{[":
                stack.append(None if token == "{" else 0)
    return lines


def _inner(stack: list[str | int | None]) -> Path:
    return tuple(part for part in stack if part is not None)


FORMATS: Final[dict[str, Callable[[str], list[tuple[Any, dict[Path, int]]]]]] = {
    ".yaml": read_yaml,
    ".yml": read_yaml,
    ".toml": _read_toml,
    ".json": _read_json,
}
