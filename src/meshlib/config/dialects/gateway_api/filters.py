"""What a rule, or a backend of it, does to requests on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.gateway_api.references import Reference
from meshlib.config.fields import WIRE_HEADERS
from meshlib.dataclass import dataclass, field

__all__ = ["Actions", "read_edits", "read_filters"]

_STATUSES: Final = (301, 302, 303, 307, 308)
_PORTS: Final = {"http": 80, "https": 443}
_FIELDS: Final = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestMirror": "requestMirror",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "CORS": "cors",
    "ExtensionRef": "extensionRef",
    "ExternalAuth": "externalAuth",
}


@dataclass(slots=True)
class Actions:
    """What the filters of a rule, or of a backend, do; in the native form.

    Attributes:
        request, response: edits of headers.
        rewrite: of path and host.
        redirect: None without one.
        mirrors: who gets copies.
        refused: why requests that come this way are to fail; empty if they are not.
    """

    request: dict[str, Any] = field(default_factory=dict)
    response: dict[str, Any] = field(default_factory=dict)
    rewrite: dict[str, Any] = field(default_factory=dict)
    redirect: dict[str, Any] | None = None
    mirrors: list[dict[str, Any]] = field(default_factory=list)
    refused: str = ""

    @property
    def headers(self) -> dict[str, Any]:
        """The edits of headers, as a backend or a route has them."""
        return {name: edit for name, edit in (("request", self.request), ("response", self.response)) if edit}

    @property
    def is_plain(self) -> bool:
        """Whether a backend among others can have them: edits of headers alone."""
        return not self.rewrite and self.redirect is None and not self.mirrors and not self.refused


def read_filters(readers: list[Reader], find: Callable[[Reader], Reference]) -> Actions:
    """Read a list of filters.

    Args:
        readers: of each.
        find: looks up the backend that a map refers to.
    """
    actions = Actions()
    for reader in readers:
        kind = reader.text("type") or ""
        given = _FIELDS.get(kind)
        body = None if given is None else reader.map(given)
        for other in _FIELDS.values():
            if other in reader and other != given:
                reader.wrong(other, f"is not what the type {kind!r} has")
        reader.skip(*_FIELDS.values())
        reader.rest()
        if given is None:
            reader.wrong("type", f"{kind!r} is none of {', '.join(_FIELDS)}")
        elif body is None:
            reader.wrong(given, f"is required, since the type is {kind}")
        else:
            _READ[kind](body, actions, find)
    return actions


def _request_headers(reader: Reader, actions: Actions, find: Callable[[Reader], Reference]) -> None:
    edits = read_edits(reader, "request")
    host = edits.get("set", {}).pop("host", None)
    if host is not None:
        actions.rewrite.setdefault("host", host)
    actions.request = {kind: edit for kind, edit in edits.items() if edit}


def _response_headers(reader: Reader, actions: Actions, find: Callable[[Reader], Reference]) -> None:
    actions.response = read_edits(reader, "response")


def read_edits(reader: Reader, side: Literal["request", "response"]) -> dict[str, Any]:
    """Read a header modifier; of `host` a request's can be set, and no more."""
    edits: dict[str, Any] = {}
    used: set[str] = set()

    def take(kind: str, name: str, place: Reader, field: str | None) -> bool:
        name = name.lower()
        if name in WIRE_HEADERS:
            text = f"is not honoured: {name} belongs to the connection and cannot be edited"
            reader.draft.note(place.place(field), text, "ignored")
            return False
        if name in used:
            place.different(field, f"{name} is edited twice, and the first edit holds")
            return False
        if name == "host" and (kind, side) != ("set", "request"):
            text = "is not honoured for Host: a request has just one, and a response none"
            reader.draft.note(reader.place(kind), text, "ignored")
            return False
        used.add(name)
        return True

    for kind in ("set", "add"):
        for each in reader.maps(kind):
            name, value = each.text("name"), each.text("value")
            each.rest()
            if not name or value is None:
                each.wrong("value" if name else "name", "is required")
            elif take(kind, name, each, None):
                edits.setdefault(kind, {})[name.lower()] = value
    removed = [name.lower() for name in reader.texts("remove") if take("remove", name, reader, "remove")]
    if removed:
        edits["remove"] = removed
    reader.rest()
    return edits


def _mirror(reader: Reader, actions: Actions, find: Callable[[Reader], Reference]) -> None:
    backend = reader.map("backendRef")
    percent, fraction = reader.number("percent"), reader.map("fraction")
    if fraction is not None:
        if percent is not None:
            reader.wrong("fraction", "is given and percent as well; one of them is expected")
        numerator, denominator = fraction.integer("numerator"), fraction.integer("denominator") or 100
        fraction.rest()
        if numerator is None or not 0 <= numerator <= denominator:
            fraction.wrong("numerator", f"is no part of {denominator}")
        else:
            percent = numerator / denominator * 100.0
    reader.rest()
    if backend is None:
        reader.wrong("backendRef", "is required")
        return
    found = find(backend)
    backend.rest()
    if found.service is None:
        text = f"is not honoured: no copies are sent, since {found.why}"
        reader.draft.note(backend.place(), text, "ignored")
        return
    mirror: dict[str, Any] = {"service": found.service}
    if percent is not None and percent != 100:
        mirror["percent"] = int(percent) if percent == int(percent) else percent
    actions.mirrors.append(mirror)


def _redirect(reader: Reader, actions: Actions, find: Callable[[Reader], Reference]) -> None:
    scheme, host, port = reader.text("scheme"), reader.text("hostname"), reader.integer("port")
    status = reader.integer("statusCode")
    redirect: dict[str, Any] = {**_path(reader.map("path")), "status": 302 if status is None else status}
    reader.rest()
    if redirect["status"] not in _STATUSES:
        reader.wrong("statusCode", f"is none of {', '.join(map(str, _STATUSES))}")
    if scheme is not None:
        if scheme not in _PORTS:
            reader.wrong("scheme", f"{scheme!r} is none of http, https")
        redirect["scheme"] = scheme
        # Of another scheme it is that scheme's own port, whatever that of the request was.
        port = _PORTS.get(scheme) if port is None else port
    if host is not None:
        redirect["host"] = host
    if port is not None:
        redirect["port"] = port
    actions.redirect = redirect


def _rewrite(reader: Reader, actions: Actions, find: Callable[[Reader], Reference]) -> None:
    host = reader.text("hostname")
    actions.rewrite.update(_path(reader.map("path")))
    reader.rest()
    if host is not None:
        actions.rewrite["host"] = host


def _path(reader: Reader | None) -> dict[str, str]:
    if reader is None:
        return {}
    kind = reader.text("type")
    whole, prefix = reader.text("replaceFullPath"), reader.text("replacePrefixMatch")
    reader.rest()
    if kind == "ReplaceFullPath" and whole is not None:
        return {"path": whole or "/"}
    if kind == "ReplacePrefixMatch" and prefix is not None:
        return {"prefix": prefix or "/"}
    reader.wrong(
        "type", "ReplaceFullPath with replaceFullPath, or ReplacePrefixMatch with replacePrefixMatch is expected"
    )
    return {}


def _cors(reader: Reader, actions: Actions, find: Callable[[Reader], Reference]) -> None:
    text = "is not honoured: what a browser may do is said by those who answer it, and responses stay as they are"
    reader.draft.note(reader.place(), text, "ignored")


def _unresolved(reader: Reader, actions: Actions, find: Callable[[Reader], Reference]) -> None:
    # The API: a filter that cannot be resolved must not be skipped, and requests that it is for must fail.
    actions.refused = "a filter cannot be resolved"
    text = "is not honoured: there is no such filter here, so requests that it is for are answered with 500"
    reader.draft.note(reader.place(), text, "ignored")


_READ: Final[dict[str, Callable[[Reader, Actions, Callable[[Reader], Reference]], None]]] = {
    "RequestHeaderModifier": _request_headers,
    "ResponseHeaderModifier": _response_headers,
    "RequestMirror": _mirror,
    "RequestRedirect": _redirect,
    "URLRewrite": _rewrite,
    "CORS": _cors,
    "ExtensionRef": _unresolved,
    "ExternalAuth": _unresolved,
}
