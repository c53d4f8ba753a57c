"""The files of a document: those beside it that its references lead to. Never the network, nothing outside a directory.

Each reference is rewritten when its file is read, so that it means the same wherever it stands: ``#/components/...`` is
in the document itself, ``schemas/pet.yaml#/Pet`` in a file by its path from there.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from meshlib.config.documents import DocumentError, read_documents

__all__ = ["MAX_BYTES", "MAX_FILES", "MAX_VALUES", "FileError", "Files"]

MAX_BYTES: Final = 64 * 1024 * 1024
"""Of a file."""
MAX_FILES: Final = 10_000
MAX_VALUES: Final = 2_000_000
"""Of all files together. The largest interfaces that are published have 300 000."""
_MAX_DEPTH: Final = 64

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:|//")
_FILE = re.compile(r"\.(?:json|ya?ml)(?:#|$)")


class FileError(Exception):
    """A file cannot be read, or is not to be."""


class Files:
    """The files of a document, each read once.

    Args:
        document: its path.
        root: the directory that no reference leads out of; None for that of the document.
    """

    def __init__(self, document: Path, root: Path | None = None) -> None:
        self._directory = document.parent
        self._root = (root or document.parent).resolve()
        self._own = document.name
        self._found: dict[str, Any] = {}
        self._values = 0

    def load(self, file: str) -> Any:
        """What is in a file, its references rewritten.

        Args:
            file: as a rewritten reference has it.

        Raises:
            FileError: if it cannot be read, or is not to be.
        """
        if file not in self._found:
            self._found[file] = self._read(file)
        return self._found[file]

    def _read(self, file: str) -> Any:
        if _SCHEME.match(file):
            raise FileError(
                "leads out of the document, to where nothing is fetched from; bundle it into one file first"
            )
        try:
            path = (self._directory / file).resolve()
        except (OSError, ValueError, RuntimeError):
            raise FileError("leads to no file") from None
        if file.count("/") > _MAX_DEPTH:  # through a link to a directory around it, say
            raise FileError(f"leads to a file more than {_MAX_DEPTH} directories deep")
        if not path.is_relative_to(self._root):
            raise FileError("leads out of the directory of the document; --root DIRECTORY allows more")
        if len(self._found) >= MAX_FILES:
            raise FileError(f"leads to more than {MAX_FILES} files")
        try:
            documents = read_documents(path, file, max_bytes=MAX_BYTES, number_keys=True)
        except DocumentError as error:
            raise FileError(f"leads to a file that cannot be used: {error}") from None
        if len(documents) != 1:
            raise FileError("leads to a file of several documents")
        self._values += documents[0].values
        if self._values > MAX_VALUES:
            raise FileError(f"leads to files of more than {MAX_VALUES} values together")
        return self.rewritten(documents[0].data, file)

    def rewritten(self, data: Any, file: str) -> Any:
        """The value of a file, once its references are as they are from the document; it is changed in place."""
        stack, seen = [data], set()
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue  # an alias of YAML
            seen.add(id(node))
            if isinstance(node, list):
                stack += node
            elif isinstance(node, dict):
                stack += node.values()
                if isinstance(node.get("$ref"), str):
                    node["$ref"] = self._from_document(node["$ref"], file)
                named = node.get("discriminator")
                mapping = named.get("mapping") if isinstance(named, dict) else None
                if isinstance(mapping, dict) and id(mapping) not in seen:
                    seen.add(id(mapping))
                    for tag, goal in mapping.items():
                        if isinstance(goal, str) and ("#" in goal or _FILE.search(goal)):
                            mapping[tag] = self._from_document(goal, file)
        return data

    def _from_document(self, ref: str, file: str) -> str:
        if _SCHEME.match(ref):
            return ref
        goal, _, pointer = ref.partition("#")
        goal = posixpath.normpath(posixpath.join(posixpath.dirname(file), unquote(goal))) if goal else file
        return f"{'' if goal == self._own else goal}#{pointer}"
