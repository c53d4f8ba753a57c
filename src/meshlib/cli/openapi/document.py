"""An OpenAPI document: read, bounded, its references followed. Only what is in it: no reference leads to another."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from meshlib.config.documents import MAX_BYTES, Document, DocumentError, parse, read_documents

__all__ = ["MAX_OPERATIONS", "MAX_PARTS", "MAX_SCHEMAS", "OpenApi", "OpenApiError", "read_openapi", "text_of"]

MAX_OPERATIONS: Final = 5000
MAX_SCHEMAS: Final = 20_000
MAX_PARTS: Final = 200_000
"""What is above is no interface that somebody calls."""

_INDEX = re.compile("[0-9]{1,9}")


class OpenApiError(Exception):
    """The document cannot be made a client of; the text names the place."""


def text_of(value: Any) -> str:
    """A text of the document; empty for what is none."""
    return value if isinstance(value, str) else ""


class OpenApi:
    """A document.

    Args:
        data: its value.
        name: of the file, for errors and for the head of what is made.

    Raises:
        OpenApiError: if it is none of OpenAPI 3.
    """

    def __init__(self, data: Mapping[str, Any], name: str) -> None:
        version = data.get("openapi")
        if version is None and "swagger" in data:
            raise OpenApiError(f"{name}: is Swagger 2.0; converters to OpenAPI 3 are many, and this reads 3.0 and 3.1")
        if not isinstance(version, str) or not version.startswith(("3.0", "3.1", "3.2")):
            raise OpenApiError(f"{name}: openapi: is no OpenAPI document of version 3.0 or 3.1")
        if not isinstance(data.get("paths", {}), dict) or not isinstance(data.get("components", {}), dict):
            raise OpenApiError(f"{name}: paths and components are to be maps")
        self.data = data
        self.name = name
        self._parts = 0

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
            OpenApiError: if it leads nowhere, or out of the document.
        """
        shown = repr(ref[:200])
        if not ref.startswith("#"):
            raise OpenApiError(f"{self.name}: $ref {shown} leads out of the document; bundle it into one file first")
        value: Any = self.data
        for part in ref[1:].split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and _INDEX.fullmatch(key) and int(key) < len(value):
                value = value[int(key)]
            elif isinstance(value, dict) and key in value:
                value = value[key]
            else:
                raise OpenApiError(f"{self.name}: $ref {shown} leads nowhere")
        return value

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


def read_openapi(path: Path) -> OpenApi:
    """Read a file, YAML or JSON; ``-`` is standard input.

    Raises:
        OpenApiError: if it cannot be read, or is none.
    """
    piped = str(path) == "-"
    name = "standard input" if piped else path.name
    try:
        documents = _piped(name) if piped else read_documents(path, name)
    except DocumentError as error:
        raise OpenApiError(str(error)) from None
    if len(documents) != 1 or not documents[0].data:
        raise OpenApiError(f"{name}: one document is expected")
    return OpenApi(documents[0].data, name)


def _piped(name: str) -> list[Document]:
    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    return parse(content, ".json" if content.lstrip().startswith(b"{") else ".yaml", name)
