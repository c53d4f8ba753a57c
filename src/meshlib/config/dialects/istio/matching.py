"""``HTTPMatchRequest``: read in Istio's own words, so that delegates can be merged, and then put into ours.

Source: ``TranslateRouteMatch`` and ``sourceMatchHTTP`` in Istio's ``route.go``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.istio.values import string_match
from meshlib.routing.regex import RegexError, compile_regex

__all__ = ["MESH", "match_of", "native_match", "read_match"]

MESH: Final = "mesh"
"""The gateway that stands for all sidecars, and so for this process."""

_CLAIMS: Final = "@request.auth.claims"
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
_SCHEMES: Final = ("http", "https")
_PSEUDO: Final = {":authority": "authority", ":method": "method", ":scheme": "scheme"}
"""Names of HTTP/2's, for Envoy headers like any other, and the conditions that they are."""

_CONDITIONS: Final = ("headers", "withoutHeaders", "queryParams")


def read_match(reader: Reader) -> dict[str, Any]:
    """The conditions, checked, with Istio's names."""
    reader.narrowing()
    match: dict[str, Any] = {}
    for name in ("uri", "scheme", "method", "authority"):
        if name in reader:
            match[name] = string_match(reader.map(name))
        reader.skip(name)
    for name in _CONDITIONS:
        if (values := _conditions(reader, name)) is not None:
            match[name] = values
    headers = match.get("headers", {})
    for key, name in _PSEUDO.items():
        if key in headers:
            match.setdefault(name, headers.pop(key))
    rest: dict[str, Any] = {
        "name": reader.text("name"),
        "port": reader.integer("port"),
        "ignoreUriCase": reader.flag("ignoreUriCase"),
        "sourceLabels": reader.entries("sourceLabels"),
        "sourceNamespace": reader.text("sourceNamespace"),
        "gateways": reader.texts("gateways"),
        "statPrefix": reader.text("statPrefix"),
    }
    match |= {name: value for name, value in rest.items() if value}
    if "statPrefix" in reader:
        reader.different("statPrefix", "metrics are by the name of the route")
    for name in ("method", "scheme"):
        if "exact" not in match.get(name, {"exact": ""}):
            reader.different(name, "is taken for those of the usual methods and schemes that it fits")
    reader.rest()
    return match


def _conditions(reader: Reader, name: str) -> dict[str, dict[str, str]] | None:
    given = reader.map(name)
    if given is None:
        return None
    found: dict[str, dict[str, str]] = {}
    for key in given.data:
        if name == "queryParams":
            pass  # a parameter may have any name
        elif str(key).startswith(_CLAIMS):
            text = "is not honoured: claims of a token are known where it is checked; it never holds here"
            given.draft.note(given.place(str(key)), text, "ignored")
        elif str(key).startswith(":") and (name != "headers" or key not in _PSEUDO):
            known = ", ".join(_PSEUDO)
            text = f"is not honoured: of what is no header {known} can be told, under 'headers'; it never holds here"
            given.draft.note(given.place(str(key)), text, "ignored")
        if given.data[key] is None:
            given.skip(key)
            found[key] = {}
        else:
            found[key] = string_match(given.map(key))
    return found


def match_of(match: Mapping[str, Any], labels: Mapping[str, str], namespace: str) -> bool:
    """Whether the match is for this workload at all: by its gateways, and the labels and namespace of callers."""
    gateways = match.get("gateways")
    if gateways:
        return MESH in gateways
    return match.get("sourceNamespace", namespace) == namespace and all(
        labels.get(key) == value for key, value in match.get("sourceLabels", {}).items()
    )


def native_match(match: Mapping[str, Any]) -> dict[str, Any] | None:
    """The conditions in our words, empty if there are none; None for those that nothing can meet."""
    native: dict[str, Any] = {}
    path = _path(match)
    if path:
        native["path"] = path
    if "method" in match:
        methods = _one_of(match["method"], _METHODS)
        if methods is not None:
            if not methods:
                return None
            native["method"] = methods[0] if len(methods) == 1 else methods
    if "scheme" in match:
        schemes = _one_of(match["scheme"], _SCHEMES)
        if schemes is not None:
            if not set(schemes) & set(_SCHEMES):
                return None
            if len(schemes) == 1:
                native["scheme"] = schemes[0]
    if "authority" in match:
        native["authority"] = _value(match["authority"])
    if "port" in match:
        native["port"] = match["port"]
    headers: dict[str, Any] = {}
    for name, condition in match.get("headers", {}).items():
        if str(name).startswith((_CLAIMS, ":")):
            return None
        headers[name] = _value(condition)
    for name, condition in match.get("withoutHeaders", {}).items():
        if str(name).startswith((_CLAIMS, ":")):
            return None
        if name in headers:
            # Both have to hold: what does not meet it is excepted.
            native.setdefault("unless", []).append({"unless": [{"headers": {name: _absent(condition)}}]})
        else:
            headers[name] = _absent(condition)
    if headers:
        native["headers"] = headers
    if match.get("queryParams"):
        native["query"] = {name: _value(condition) for name, condition in match["queryParams"].items()}
    if not match.get("gateways"):
        caller = {
            **({"labels": dict(match["sourceLabels"])} if match.get("sourceLabels") else {}),
            **({"namespace": match["sourceNamespace"]} if match.get("sourceNamespace") else {}),
        }
        if caller:
            native["caller"] = caller
    return native


def _path(match: Mapping[str, Any]) -> dict[str, Any]:
    uri = match.get("uri") or {}
    case: dict[str, Any] = {"ignore_case": True} if match.get("ignoreUriCase") else {}
    if "exact" in uri:
        return {"exact": uri["exact"], **case}
    if uri.get("prefix") not in (None, "", "/"):
        return {"prefix": uri["prefix"], **case}
    if "regex" in uri and uri["regex"] not in (".*", "/.*"):
        return {"regex": uri["regex"]}
    return {}


def _value(condition: Mapping[str, str]) -> dict[str, Any]:
    if not condition or condition.get("regex") == "*":
        return {"present": True}
    return dict(condition)


def _absent(condition: Mapping[str, str]) -> dict[str, Any]:
    if not condition or condition.get("regex") == "*":
        return {"present": False}
    return {**condition, "invert": True, "absent_as_empty": True}


def _one_of(condition: Mapping[str, str], known: tuple[str, ...]) -> list[str] | None:
    """The values, of those that there are, that meet a condition; None if all do."""
    if not condition or condition.get("regex") in ("*", ".*"):
        return None
    if "exact" in condition:
        exact = condition["exact"]
        # Methods and schemes are compared letter by letter, and are sent in one case.
        return [exact] if exact in known or (known is _METHODS and exact == exact.upper()) else []
    if "prefix" in condition:
        return [each for each in known if each.startswith(condition["prefix"])]
    try:
        pattern = compile_regex(condition["regex"])
    except RegexError:
        return []
    return [each for each in known if pattern.fullmatch(each)]
