"""Names of Python for what documents name as they like. Whatever comes in, an identifier comes out."""

from __future__ import annotations

import builtins
import keyword
import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Final

__all__ = ["BUILTINS", "WORDS", "Names", "as_class", "as_method", "as_variable", "literal", "prose", "short_classes"]

BUILTINS: Final = frozenset({*dir(builtins), *keyword.kwlist, *keyword.softkwlist})
"""What no class is called."""

WORDS: Final = frozenset({*keyword.kwlist, "self", "bool", "bytes", "dict", "float", "int", "list", "str", "tuple"})
"""What no field, parameter and method is called: keywords, and types that are used beside them."""

_MAX: Final = 64
_MAX_VARIABLE: Final = 44
_MAX_PARTS: Final = 16
_WIDTH: Final = 88
_QUALIFIED = re.compile(r"(?:[A-Za-z][A-Za-z0-9_-]*\.)+[A-Z][A-Za-z0-9_-]*")
_ATTRIBUTE = re.compile(r" {4}[a-z][a-z0-9_]*: ")
_ESCAPE = re.compile(r"\\.")
_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+[0-9]*|[A-Z]+[0-9]*|[0-9]+")


def _words(text: str) -> list[str]:
    # Letters lose their accents; other scripts have no part in the name.
    plain = unicodedata.normalize("NFKD", text[:400]).encode("ascii", "ignore").decode("ascii")
    return _WORDS.findall(plain)


def as_class(text: str) -> str:
    """A name as classes have: ``OrderItem``."""
    name = "".join(_bounded([word[0].upper() + word[1:] for word in _words(text)], _MAX))
    return name if name[:1].isalpha() else f"Model{name}"


def as_method(text: str) -> str:
    """A name as methods have: ``list_orders``."""
    return as_variable(text, "call", _MAX)


def as_variable(text: str, otherwise: str = "value", length: int = _MAX_VARIABLE) -> str:
    """A name as parameters and fields have: ``order_id``."""
    name = "_".join(_bounded([word.lower() for word in _words(text)], length, between=1))
    if not name:
        return otherwise
    return name if name[0].isalpha() else f"{otherwise}_{name}"


def _bounded(words: list[str], length: int, between: int = 0) -> list[str]:
    """The words that there is room for; of one that is too long by itself, its beginning."""
    room = length
    for at, word in enumerate(words):
        room -= len(word)
        if room < 0:
            return words[:at] or [word[:length]]
        room -= between
    return words


def short_classes(keys: Iterable[str]) -> dict[str, str]:
    """A class's name for each name of a schema; of ``io.k8s.api.apps.v1.Pod`` as much of the end as is unique."""
    parts = {key: key.rsplit(".", _MAX_PARTS) if _QUALIFIED.fullmatch(key) else [key] for key in keys}
    found: dict[str, str] = {}
    left, taken = list(parts), 1
    while left:
        names = {key: as_class(".".join(parts[key][-taken:])) for key in left}
        count = Counter([*names.values(), *found.values()])
        done = [key for key in left if count[names[key]] == 1 or taken >= len(parts[key])]
        found |= {key: names[key] for key in done}
        left, taken = [key for key in left if key not in found], taken + 1
    return {key: found[key] for key in parts}


class Names:
    """Gives each name once.

    Args:
        reserved: those that are not given.
    """

    def __init__(self, reserved: frozenset[str]) -> None:
        self._reserved = reserved
        self._taken = set(reserved)
        self._next: dict[str, int] = {}

    def take(self, name: str) -> str:
        """The name; with something added, if it is taken."""
        free = name
        if name in self._reserved:
            free = f"{name}_"
        number = self._next.get(name, 2)
        while free in self._taken:
            free, number = f"{name}{'' if name[-1].isalpha() else '_'}{number}", number + 1
        self._next[name] = number
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
    return [f"{indent}{part}" if part else "" for line in lines for part in _wrapped(line, _WIDTH - len(indent))]


def _wrapped(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    margin = line[: len(line) - len(line.lstrip())]
    further = margin + "    " if _ATTRIBUTE.match(line) else margin
    return textwrap.wrap(
        line, max(width, 40), subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )
