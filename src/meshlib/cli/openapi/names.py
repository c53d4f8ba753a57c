"""Names of Python for what documents name as they like. Whatever comes in, an identifier comes out."""

from __future__ import annotations

import builtins
import keyword
import re
import unicodedata
from typing import Final

__all__ = ["BUILTINS", "WORDS", "Names", "as_class", "as_variable", "literal", "prose"]

BUILTINS: Final = frozenset({*dir(builtins), *keyword.kwlist, *keyword.softkwlist})
"""What no class is called."""

WORDS: Final = frozenset({*keyword.kwlist, "self", "bool", "bytes", "dict", "float", "int", "list", "str"})
"""What no field, parameter and method is called: keywords, and types that are used beside them."""

_MAX: Final = 40
_ESCAPE = re.compile(r"\\.")
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+[0-9]*|[A-Z]+[0-9]*|[0-9]+")


def _words(text: str) -> list[str]:
    # Letters lose their accents; other scripts have no part in the name.
    plain = unicodedata.normalize("NFKD", text[:400]).encode("ascii", "ignore").decode("ascii")
    return _WORDS.findall(plain)


def as_class(text: str) -> str:
    """A name as classes have: ``OrderItem``."""
    name = "".join(word[0].upper() + word[1:] for word in _words(text))[:_MAX]
    return name if name[:1].isalpha() else f"Model{name}"


def as_variable(text: str, otherwise: str = "value") -> str:
    """A name as parameters, fields and methods have: ``order_id``."""
    name = "_".join(word.lower() for word in _words(text))[:_MAX].strip("_")
    if not name:
        return otherwise
    return name if name[0].isalpha() else f"{otherwise}_{name}"


class Names:
    """Gives each name once.

    Args:
        reserved: those that are not given.
    """

    def __init__(self, reserved: frozenset[str]) -> None:
        self._reserved = reserved
        self._taken = set(reserved)

    def take(self, name: str) -> str:
        """The name; with something added, if it is taken."""
        free = name
        if name in self._reserved:
            free = f"{name}_"
        number = 2
        while free in self._taken:
            free, number = f"{name}{'' if name[-1].isalpha() else '_'}{number}", number + 1
        self._taken.add(free)
        return free


def literal(value: str | float | bool | None) -> str:
    """A value as Python writes it; a text with double quotes, where that needs fewer escapes."""
    if not isinstance(value, str):
        return repr(value)
    quote = "'" if value.count('"') > value.count("'") else '"'
    plain = _ESCAPE.sub(lambda found: "'" if found[0] == "\\'" else found[0], ascii(value)[1:-1])
    return quote + plain.replace(quote, "\\" + quote) + quote


def prose(text: str, indent: str) -> list[str]:
    """A text of a document as lines of a docstring: whatever it says, it stays text."""
    plain = "".join(char if char.isprintable() or char == "\n" else " " for char in text.replace("\r\n", "\n")[:4000])
    plain = plain.replace("\\", "\\\\").replace('"', "'")
    lines = [line.rstrip() for line in plain.strip().split("\n")]
    return [f"{indent}{line}" if line else "" for line in lines]
