"""How what is written is laid over settings: field by field, and only the fields that were written.

What a field of a `Part` is called in the settings is a matter of convention, so that a new field is stated twice only
(where it is written, and where it is used) and nowhere listed:

    written                             settings
    ``window``                          ``window``, or ``window_s`` if it is a duration
    ``backoff: {base: ...}``            ``backoff_base_s``, where there is no field ``backoff``
    a `Part` under a name of its own    the settings class in its `compiles_to`, laid over what is there, or over its
                                        defaults where there is nothing yet (None: switched off)
    ``false`` for such a `Part`         None
    a list or a map of such             a tuple or a dict of settings

What is written and has no field in the settings belongs to others, and is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from meshlib.config.fields import Part
from meshlib.dataclass import replace

__all__ = ["compiled", "lay_over", "name_in"]

S = TypeVar("S")

_OTHERWISE = {
    "body_idle_timeout": "body_idle_s",
    "circuit_breaker": "breaker",
    "outlier_detection": "outlier",
}
"""Where the settings have a name of their own."""


def lay_over(base: S, part: Part) -> S:
    """`base`, a settings object, with the fields that were written in `part`."""
    changes = _changes(base, part, "")
    return replace(base, **changes) if changes else base  # type: ignore[type-var]


def compiled(value: Any, base: Any = None) -> Any:
    """What a written value is in the settings: `base` is what it is there now."""
    if isinstance(value, Part):
        if value.is_off:
            return None
        kind: Any = value.compiles_to
        return lay_over(value.begins_with(base if isinstance(base, kind) else kind()), value)
    if isinstance(value, tuple):
        return tuple(compiled(each) for each in value)
    if isinstance(value, Mapping):
        return {key: compiled(each) for key, each in value.items()}
    return value


def _changes(base: Any, part: Part, prefix: str) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    for field in part.model_fields_set:
        value = getattr(part, field)
        name = name_in(base, prefix + field)
        if name is None:
            if isinstance(value, Part) and value.compiles_to is None:
                changes.update(_changes(base, value, f"{prefix}{field}_"))
            continue
        old = getattr(base, name)
        # False stands for "none of it" where a map could be written; elsewhere it is a flag.
        changes[name] = None if value is False and not isinstance(old, bool) else compiled(value, old)
    return changes


def name_in(settings: Any, field: str) -> str | None:
    """What a field that is written as `field` is called in a settings object; None if it has none."""
    names = (field, f"{field}_s", _OTHERWISE.get(field, field))
    return next((name for name in names if name in type(settings).__dataclass_fields__), None)
