"""Environment variables in a configuration: ``${NAME}``, ``${NAME:-default}``, and ``$$`` for a dollar sign.

Variables are put into values after the file was parsed, so what a variable holds can never become a field of its own. A
dollar sign before anything else stands for itself, as at the end of a regular expression.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from meshlib.config.problems import Path

__all__ = ["substitute"]

_REFERENCE = re.compile(r"\$\$|\$\{([^}]*)(\}?)")
_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def substitute(data: Any, environ: Mapping[str, str] | None) -> tuple[Any, dict[Path, str]]:
    """Copy `data` with its variables filled in.

    Args:
        data: maps, lists and scalars; nested no deeper than `check_bounds` allows. Other objects are taken as they are.
        environ: the variables; None to leave every text as it is.

    Returns:
        The copy, and what is wrong, by path.
    """
    faults: dict[Path, str] = {}
    return _copy(data, environ, (), faults), faults


def _copy(value: Any, environ: Mapping[str, str] | None, path: Path, faults: dict[Path, str]) -> Any:
    if isinstance(value, str):
        return _fill(value, environ, path, faults)
    if isinstance(value, Mapping):
        fields: dict[str, Any] = {}
        for key, inner in value.items():
            if not isinstance(key, str):
                faults[path] = f"the key {str(key)[:40]!r} is not text" if isinstance(key, int) else "a key is not text"
            elif not _is_unicode(key):
                faults[path] = "a key is not valid Unicode"
            else:
                fields[key] = _copy(inner, environ, (*path, key), faults)
        return fields
    if isinstance(value, (list, tuple)):
        return [_copy(inner, environ, (*path, index), faults) for index, inner in enumerate(value)]
    return value


def _fill(text: str, environ: Mapping[str, str] | None, path: Path, faults: dict[Path, str]) -> str:
    if not _is_unicode(text):
        faults[path] = "is not valid Unicode"
        return ""
    if environ is None or "$" not in text:
        return text

    def value_of(reference: re.Match[str]) -> str:
        if reference[0] == "$$":
            return "$"
        body = _BODY.fullmatch(reference[1]) if reference[2] else None
        if body is None:
            faults[path] = (
                f"{reference[0][:40]!r} is not a variable: "
                "write ${NAME} or ${NAME:-default}, and $$ for a dollar sign"
            )
            return ""
        name, default = body.groups()
        found = environ.get(name)
        # As in a shell: the default is also for a variable that is set and empty.
        if default is not None:
            return found or default
        if found is None:
            faults[path] = f"the environment variable {name} is not set; set it, or write a default: ${{{name}:-...}}"
            return ""
        if not _is_unicode(found):
            faults[path] = f"the environment variable {name} is not valid Unicode"
            return ""
        return found

    return _REFERENCE.sub(value_of, text)


def _is_unicode(text: str) -> bool:
    # Lone surrogates: JSON can write them, and environment variables that are no UTF-8 hold them.
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
