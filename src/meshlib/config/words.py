"""Compiled settings in words: the names that people write, and values as they write them. Nothing secret is shown."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from meshlib.durations import format_duration
from meshlib.routing.match import RouteMatch, is_secret
from meshlib.routing.route import HeaderEdits

__all__ = ["AS_BY_DEFAULT", "HIDDEN", "match_words", "open_fields", "plain", "shortened", "value_words", "written_name"]

AS_BY_DEFAULT: Final = "as by default"
HIDDEN: Final = "(not shown)"
_LONGEST: Final = 200

_WRITTEN: Final = {
    "adaptive_s": "adaptive",
    "body_idle_s": "body_idle_timeout",
    "breaker": "circuit_breaker",
    "outlier": "outlier_detection",
    "backoff_base_s": "backoff.base",
    "backoff_max_s": "backoff.max",
    "backoff_jitter": "backoff.jitter",
    "connect_timeout_s": "connect_timeout",
    "reply": "answer",
    "request_edits": "headers.request",
    "response_edits": "headers.response",
    "mirrors": "mirror",
    "otherwise": "subset_fallback",
    "selector": "metadata",
}
"""Where the settings have a name of their own (`meshlib.config.lay`)."""


def plain(value: Any) -> Any:
    """A settings object as JSON has it: durations in seconds, under the names of the settings; secrets left out."""
    if is_dataclass(value):
        shown = [each for each in fields(value) if each.repr and each.compare]
        return {each.name: plain(getattr(value, each.name)) for each in shown}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (frozenset, set)):
        return sorted((plain(each) for each in value), key=str)
    if isinstance(value, (tuple, list)):
        return [plain(each) for each in value]
    if isinstance(value, enum.Enum):
        return value.value
    return value if value is None or isinstance(value, (str, int, float, bool)) else type(value).__name__


def written_name(field: str) -> str:
    """What a field of the settings is called in a file."""
    return _WRITTEN.get(field, field.removesuffix("_s"))


def open_fields(settings: Any) -> list[tuple[str, Any, bool]]:
    """Name, value, and whether it may be shown, of each field of a settings object that tells two of them apart."""
    return [(each.name, getattr(settings, each.name), each.repr) for each in fields(settings) if each.compare]


def value_words(value: Any, field: str = "") -> str:
    """A value as a person would write it.

    Args:
        value: of a field of settings.
        field: its name there, which says what kind of number it is.
    """
    return shortened(_words(value, field))


def shortened(words: str) -> str:
    """`words`, up to a length that a line can hold."""
    return words if len(words) <= _LONGEST else f"{words[: _LONGEST - 3]}..."


def _words(value: Any, field: str) -> str:
    if value is None:
        return "none"
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return _number_words(value, field)
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value if value and re.fullmatch(r"\S+", value) else repr(value)
    if isinstance(value, HeaderEdits):
        return _edit_words(value)
    if isinstance(value, RouteMatch):
        return match_words(value)
    if is_dataclass(value):
        return _settings_words(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(each, field)}" for key, each in value.items()) or "none"
    if isinstance(value, (frozenset, set)):
        return ", ".join(sorted(_words(each, "") for each in value)) or "none"
    if isinstance(value, (tuple, list)):
        return ", ".join(_pair_words(each, field) for each in value) or "none"
    return type(value).__name__


def _usual(kind: Any) -> Any:
    try:
        return kind()
    except TypeError:  # it has fields without a default
        return None


def _number_words(value: Any, field: str) -> str:
    if field.endswith("percent"):
        return f"{value:g} %"
    if field.endswith("_s") or (field == "after" and isinstance(value, float)):
        return format_duration(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _pair_words(value: Any, field: str) -> str:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        return f"{value[0]} {_words(value[1], field)}"
    return _words(value, "")


def _settings_words(value: Any) -> str:
    """What of a settings object is not as it is by default."""
    usual = _usual(type(value))
    said = []
    for name, each, shown in open_fields(value):
        # Of what has no defaults everything is told that is there.
        if each != (None if usual is None else getattr(usual, name)):
            said.append(f"{written_name(name)} {_words(each, name) if shown else HIDDEN}")
    return ", ".join(said) or AS_BY_DEFAULT


def _edit_words(edits: HeaderEdits) -> str:
    """Names alone: values may be secrets."""
    said = [f"remove {name.decode('ascii')}" for name in sorted(edits.remove)]
    said += [f"set {name.decode('ascii')}" for name, _ in edits.set]
    said += [f"add {name.decode('ascii')}" for name, _ in edits.add]
    return ", ".join(said) or "none"


def match_words(match: RouteMatch) -> str:
    """All conditions of a match."""
    said = []
    for name, value, _ in open_fields(match):
        if value in (None, (), frozenset(), "") or (name == "percent" and value == 100.0):
            continue
        if name == "path":
            said.append(f"path {value}")
        elif name == "methods":
            said.append(f"method {' or '.join(sorted(value))}")
        elif name == "never":
            said.append(f"never ({value})")
        elif name == "unless":
            said += [f"not ({match_words(each)})" for each in value]
        elif name in ("headers", "query", "cookies"):
            what = {"headers": "header", "query": "query parameter", "cookies": "cookie"}[name]
            secret = name == "cookies"
            said += [f"{what} {key} {_condition(key, each, secret)}" for key, each in value]
        elif name == "also":
            said.append(match_words(value))
        else:
            said.append(f"{name} {_words(value, name)}" if not hasattr(value, "kind") else f"{name} {value}")
    return " and ".join(said) or "everything"


def _condition(name: str, condition: Any, secret: bool) -> str:
    return str(condition) if not (secret or is_secret(name)) else f"{condition.kind} {HIDDEN}"
