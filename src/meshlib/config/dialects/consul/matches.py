"""The conditions of a route of Consul's, in the native form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshlib.config.dialects.consul.schema import Fields
from meshlib.config.dialects.draft import Draft
from meshlib.config.dialects.resources import Place

__all__ = ["native_match"]

_PATHS: Final = {"PathExact": "exact", "PathPrefix": "prefix", "PathRegex": "regex"}
_HEADERS: Final = {"Exact": "exact", "Prefix": "prefix", "Suffix": "suffix", "Regex": "regex"}


def native_match(draft: Draft, http: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """One native match; empty if there is no condition."""
    match: dict[str, Any] = {}
    paths = [name for name in _PATHS if http.get(name)]
    if len(paths) > 1:
        draft.note(_at(http, paths[1], place), f"stands beside {paths[0]}: at most one of them is allowed", "wrong")
    elif paths:
        match["path"] = {_PATHS[paths[0]]: http[paths[0]]}
        if http.get("CaseInsensitive") and paths[0] != "PathRegex":
            match["path"]["ignore_case"] = True
    if methods := http.get("Methods"):
        match["method"] = [method.upper() for method in methods]
    for field, name in (("Header", "headers"), ("QueryParam", "query")):
        conditions: dict[str, Any] = {}
        for given in http.get(field) or ():
            key = (given.get("Name") or "").lower() if field == "Header" else given.get("Name") or ""
            condition = _condition(draft, given, place)
            if condition is None:
                continue
            if not key:
                draft.note(_at(given, "", place), "has no Name", "wrong")
            elif key in conditions and conditions[key] != condition:
                # It has to hold as well: what does not meet it is excepted.
                match.setdefault("unless", []).append({"unless": [{name: {key: condition}}]})
            else:
                conditions[key] = condition
        if conditions:
            match[name] = conditions
    return match


def _condition(draft: Draft, given: Mapping[str, Any], place: Place) -> dict[str, Any] | None:
    kinds = [name for name in _HEADERS if given.get(name)]
    if len(kinds) + bool(given.get("Present")) != 1:
        allowed = "Present, Exact, Prefix, Suffix or Regex"
        draft.note(_at(given, "", place), f"has to have exactly one of {allowed}", "wrong")
        return None
    condition: dict[str, Any] = {_HEADERS[kinds[0]]: given[kinds[0]]} if kinds else {"present": True}
    if given.get("Invert"):
        return {**condition, "invert": True} if kinds else {"present": False}
    return condition


def _at(fields: Mapping[str, Any], name: str, place: Place) -> Place:
    return fields.place(name) if isinstance(fields, Fields) and fields.resource is not None else place
