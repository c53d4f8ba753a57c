"""``HTTPRoute``: read once, in Istio's order of fields, and put into our words when it is known for whom it is.

What is read keeps Istio's names, so that delegates can be merged by Istio's rules (`delegate`). Sources:
``TranslateRoute`` in Istio's ``route.go`` and ``validateHTTPRoute`` in its ``virtualservice.go``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from meshlib.config.dialects.fields import Reader
from meshlib.config.dialects.istio.faults import read_fault
from meshlib.config.dialects.istio.headers import Edits, read_headers
from meshlib.config.dialects.istio.matching import read_match
from meshlib.config.dialects.istio.retries import read_retries
from meshlib.config.dialects.istio.values import Destination, destination_of, percentage_of
from meshlib.config.dialects.resources import Place
from meshlib.dataclass import dataclass

__all__ = ["Mirror", "Rule", "Share", "read_rule"]

_ACTIONS = ("route", "redirect", "directResponse", "delegate")


@dataclass(frozen=True, slots=True)
class Share:
    """One of the destinations of a route."""

    destination: Destination
    weight: int
    edits: Edits
    place: Place


@dataclass(frozen=True, slots=True)
class Mirror:
    """Who gets copies, and of how many calls."""

    destination: Destination
    percent: float


@dataclass(frozen=True, slots=True)
class Rule:
    """One HTTPRoute.

    Attributes:
        fields: what it says, by Istio's names; times in seconds.
        place: of it.
    """

    fields: Mapping[str, Any]
    place: Place


def read_rule(reader: Reader, namespace: str) -> Rule:
    """Read an HTTPRoute of a rule in `namespace`."""
    fields: dict[str, Any] = {}
    if name := reader.text("name"):
        fields["name"] = name
    if matches := [read_match(each) for each in reader.maps("match")]:
        fields["match"] = matches
    if shares := [share for each in reader.maps("route") if (share := _share(each, namespace)) is not None]:
        fields["route"] = shares
    for name, read in (
        ("redirect", _redirect),
        ("directResponse", _direct_response),
        ("delegate", _delegate),
        ("rewrite", _rewrite),
        ("retries", read_retries),
        ("fault", read_fault),
        ("headers", read_headers),
    ):
        inner = reader.map(name)
        if inner is not None:
            fields[name] = read(inner)
    timeout_s = reader.duration("timeout")
    if timeout_s is not None:
        fields["timeout"] = timeout_s
    if mirrors := _mirrors(reader, namespace):
        fields["mirrors"] = mirrors
    cors = "preflights are sent on to the service: cross-origin rules are for browsers, which come through a gateway"
    reader.ignore("corsPolicy", cors)
    reader.rest()
    _check(reader, fields)
    return Rule(fields, reader.place())


def _check(reader: Reader, fields: Mapping[str, Any]) -> None:
    given = [name for name in _ACTIONS if name in fields]
    if len(given) > 1:
        reader.wrong(None, f"has {' and '.join(given)}: one of {', '.join(_ACTIONS)} is expected")
    elif not given:
        reader.wrong(None, "says nothing of what becomes of a call: a route, redirect or directResponse is needed")
    elif given[0] in ("redirect", "directResponse"):
        for name in ("fault", "rewrite"):
            if name in fields:
                reader.wrong(name, f"is of no use beside {given[0]}")
    delay = fields.get("fault", {}).get("delay", {})
    if fields.get("timeout") and delay.get("percent"):
        text = "the delay counts against the timeout of this rule; in Istio that begins after the delay"
        reader.different("fault", text)


def _share(reader: Reader, namespace: str) -> Share | None:
    destination = destination_of(reader.map("destination"), namespace)
    weight = reader.integer("weight") or 0
    headers = reader.map("headers")
    edits = Edits() if headers is None else read_headers(headers)
    reader.rest()
    if weight < 0:
        reader.wrong("weight", "is below 0")
        weight = 0
    if destination is None:
        if "destination" not in reader:
            reader.wrong("destination", "is required")
        return None
    return Share(destination, weight, edits, reader.place())


def _mirrors(reader: Reader, namespace: str) -> list[Mirror]:
    """Istio's `mirror` and `mirrors`. Without a percentage all calls are copied, with 0 none."""
    found = []
    percent = percentage_of(reader, "mirrorPercentage")
    old = reader.integer("mirrorPercent")
    destination = destination_of(reader.map("mirror"), namespace)
    if destination is not None:
        found.append(Mirror(destination, percent if percent is not None else 100 if old is None else old))
    for each in reader.maps("mirrors"):
        destination = destination_of(each.map("destination"), namespace)
        percent = percentage_of(each, "percentage")
        each.rest()
        if destination is not None:
            found.append(Mirror(destination, 100 if percent is None else percent))
    return [mirror for mirror in found if mirror.percent > 0]


def _redirect(reader: Reader) -> dict[str, Any]:
    redirect: dict[str, Any] = {}
    uri, prefix = reader.text("uri"), reader.text("prefixRewrite")
    if prefix:
        redirect["prefix"] = prefix
    elif uri:
        redirect["path"] = uri
    if authority := reader.text("authority"):
        redirect["host"] = authority
    if scheme := reader.text("scheme"):
        redirect["scheme"] = scheme
    if port := reader.integer("port"):
        redirect["port"] = port
    derived = reader.text("derivePort")
    if derived == "FROM_REQUEST_PORT":
        redirect["derivePort"] = True
    elif derived not in (None, "FROM_PROTOCOL_DEFAULT"):
        reader.wrong("derivePort", "is neither FROM_PROTOCOL_DEFAULT nor FROM_REQUEST_PORT")
    if code := reader.integer("redirectCode"):
        redirect["status"] = code
    reader.rest()
    return redirect


def _direct_response(reader: Reader) -> dict[str, Any]:
    status = reader.integer("status")
    if status is None:
        reader.wrong("status", "is required")
    response: dict[str, Any] = {"status": 200 if status is None else status}
    body = reader.map("body")
    if body is not None:
        text, encoded = body.text("string"), body.text("bytes")
        if encoded is not None:
            try:
                text = base64.b64decode(encoded, validate=True).decode()
            except (binascii.Error, ValueError):
                body.ignore("bytes", "it is no base64 of text in UTF-8, and a body here is text")
        if text:
            response["body"] = text
        body.rest()
    reader.rest()
    return response


def _delegate(reader: Reader) -> dict[str, Any]:
    found = {"name": reader.text("name") or "", "namespace": reader.text("namespace") or ""}
    reader.rest()
    return found


def _rewrite(reader: Reader) -> dict[str, Any]:
    rewrite: dict[str, Any] = {}
    if uri := reader.text("uri"):
        rewrite["uri"] = uri
    if authority := reader.text("authority"):
        rewrite["host"] = authority
    regex = reader.map("uriRegexRewrite")
    if regex is not None:
        rewrite["regex"] = {"pattern": regex.text("match") or "", "substitution": regex.text("rewrite") or ""}
        regex.rest()
        if "uri" in rewrite:
            reader.wrong(None, "has uri and uriRegexRewrite: one of them is expected")
            del rewrite["uri"]
    reader.rest()
    return rewrite
