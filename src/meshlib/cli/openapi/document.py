"""An OpenAPI document: read, bounded, its references followed, into files beside it too."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from meshlib.cli.openapi.files import MAX_BYTES, FileError, Files
from meshlib.cli.openapi.swagger import upgraded
from meshlib.config.documents import Document, DocumentError, parse, read_documents

__all__ = [
    "MAX_OPERATIONS",
    "MAX_PARTS",
    "MAX_SCHEMAS",
    "OpenApi",
    "OpenApiError",
    "is_text",
    "read_openapi",
    "text_of",
]

MAX_OPERATIONS: Final = 5000
MAX_SCHEMAS: Final = 20_000
MAX_PARTS: Final = 200_000
"""What is above is no interface that somebody calls."""

_HALF = re.compile("[\ud800-\udfff]")
_INDEX = re.compile("[0-9]{1,9}")
_MAX_STEPS: Final = 100
"""From one reference to the next."""


class OpenApiError(Exception):
    """The document cannot be made a client of; the text names the place."""


def text_of(value: Any) -> str:
    """A text of the document; empty for what is none."""
    return value if isinstance(value, str) else ""


def is_text(value: Any) -> bool:
    """Whether it is text that can be sent: JSON can write half a character, which is none."""
    return isinstance(value, str) and not _HALF.search(value)


class OpenApi:
    """A document.

    Args:
        data: its value.
        name: of the file, for errors and for the head of what is made.
        files: beside it; None if its references lead to none.

    Raises:
        OpenApiError: if it is none of OpenAPI 3.
    """

    def __init__(self, data: Mapping[str, Any], name: str, files: Files | None = None) -> None:
        version = data.get("openapi")
        is_swagger = version is None and data.get("swagger") == "2.0"
        if not is_swagger and not (isinstance(version, str) and version.startswith(("3.0", "3.1", "3.2"))):
            raise OpenApiError(f"{name}: openapi: is no OpenAPI document of version 3.0 or 3.1, nor Swagger 2.0")
        if not isinstance(data.get("paths", {}), dict) or not isinstance(data.get("components", {}), dict):
            raise OpenApiError(f"{name}: paths and components are to be maps")
        self.data = data
        self.name = name
        self._files = files
        self._parts = 0
        self._anchors: dict[str, dict[str, Any]] = {}
        self._settled: dict[str, str] = {}
        if is_swagger:
            self.data = upgraded(data, self.follow, self.use)
            self._parts = 0

    def again(self) -> OpenApi:
        """The same, of which nothing was used yet."""
        return OpenApi(self.data, self.name, self._files)

    def use(self, parts: int) -> None:
        """Count parameters and fields that are looked at: a few references can make many of a few.

        Raises:
            OpenApiError: if they are too many.
        """
        self._parts += parts
        if self._parts > MAX_PARTS:
            raise OpenApiError(f"{self.name}: its references lead to more than {MAX_PARTS} parameters and fields")

    def section(self, name: str) -> Mapping[str, Any]:
        """A part of the components: ``schemas``."""
        found = (self.data.get("components") or {}).get(name)
        return found if isinstance(found, dict) else {}

    def find(self, ref: str) -> Any:
        """What a reference leads to: one step.

        Raises:
            OpenApiError: if it leads nowhere, or where nothing is read from.
        """
        return self._find(ref, 0)

    def _find(self, ref: str, steps: int) -> Any:
        file, _, pointer = ref.partition("#")
        value = self._load(file, ref) if file else self.data
        if pointer and not pointer.startswith("/"):
            return self._anchor(file, value, pointer, ref)
        for part in pointer.split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and key not in value and isinstance(value.get("$ref"), str):
                # A place within what a reference stands for.
                if steps >= _MAX_STEPS:
                    raise OpenApiError(f"{self.name}: $ref {ref[:200]!r} leads to itself")
                value = self._find(value["$ref"], steps + 1)
            if isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise OpenApiError(f"{self.name}: $ref {ref[:200]!r} leads nowhere")
        return value

    def _load(self, file: str, ref: str) -> Any:
        if self._files is None:
            text = "leads out of the document; bundle it into one file first"
            raise OpenApiError(f"{self.name}: $ref {ref[:200]!r} {text}")
        try:
            return self._files.load(file)
        except FileError as error:
            raise OpenApiError(f"{self.name}: $ref {ref[:200]!r} {error}") from None

    def _anchor(self, file: str, data: Any, name: str, ref: str) -> Any:
        """The schema of a file that has an ``$anchor``."""
        if file not in self._anchors:
            stack, found = [data], self._anchors.setdefault(file, {})
            while stack:
                node = stack.pop()
                if isinstance(node, (dict, list)):
                    stack += node.values() if isinstance(node, dict) else node
                if isinstance(node, dict) and isinstance(node.get("$anchor"), str):
                    found.setdefault(node["$anchor"], node)
        if name not in self._anchors[file]:
            raise OpenApiError(f"{self.name}: $ref {ref[:200]!r} leads nowhere")
        return self._anchors[file][name]

    def settled(self, ref: str) -> str:
        """A reference, without the detour by those that only lead on; another name of a schema stays one."""
        first = ref
        if first not in self._settled:
            for _ in range(_MAX_STEPS):
                node = self.find(ref)
                goal = node.get("$ref") if isinstance(node, dict) and len(node) == 1 else None
                if not isinstance(goal, str) or (goal.startswith("#") and ref.startswith("#/components/schemas/")):
                    break
                ref = goal
            self._settled[first] = ref
        return self._settled[first]

    def follow(self, node: Any) -> Mapping[str, Any]:
        """What is meant: the node itself, or what its references lead to in the end.

        Raises:
            OpenApiError: if they go in a circle, or it is no map.
        """
        seen: set[str] = set()
        while isinstance(node, dict) and isinstance(node.get("$ref"), str):
            ref = node["$ref"]
            if ref in seen:
                raise OpenApiError(f"{self.name}: $ref {ref[:200]!r} leads to itself")
            seen.add(ref)
            node = self.find(ref)
        if not isinstance(node, dict):
            raise OpenApiError(f"{self.name}: a map is expected, not {type(node).__name__}")
        return node


def read_openapi(path: Path, root: Path | None = None) -> OpenApi:
    """Read a file, YAML or JSON; ``-`` is standard input.

    Args:
        path: of the file.
        root: the directory that no reference leads out of; None for that of the file.

    Raises:
        OpenApiError: if it cannot be read, or is none.
    """
    piped = str(path) == "-"
    name = "standard input" if piped else path.name
    try:
        documents = _piped(name) if piped else read_documents(path, name, max_bytes=MAX_BYTES)
    except DocumentError as error:
        raise OpenApiError(str(error)) from None
    if len(documents) != 1 or not documents[0].data:
        raise OpenApiError(f"{name}: one document is expected")
    if piped:
        return OpenApi(documents[0].data, name)
    files = Files(path, root)
    return OpenApi(files.rewritten(documents[0].data, name), name, files)


def _piped(name: str) -> list[Document]:
    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    return parse(content, ".json" if content.lstrip().startswith(b"{") else ".yaml", name, max_bytes=MAX_BYTES)
