"""Routes as they are written: match, where to, and what to do on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from meshlib.config.fields import (
    WIRE_HEADERS,
    Amount,
    HeaderName,
    HeaderValue,
    Interval,
    Many,
    Methods,
    Name,
    OrFalse,
    Part,
    Regex,
    Template,
    Text,
    UrlPath,
    exactly_one,
    reject,
)
from meshlib.config.parts import Fault, HashOn, Hedge, Retry, ValueMatch

__all__ = ["Backend", "HeaderEdit", "HeaderEdits", "Match", "PathMatch", "Route", "ValueMatch"]


class PathMatch(Part):
    """A condition on the path; exactly one of its fields.

    Attributes:
        exact: this path.
        prefix: paths that begin with this text, as Istio and Envoy mean it: ``/v2`` matches ``/v20``.
        path_prefix: by whole segments, as the Gateway API means it: ``/v2`` matches ``/v2`` and ``/v2/x`` alone.
        regex: must match the whole path.
        template: ``/orders/{order_id}``, each variable one segment.
    """

    exact: UrlPath | None = None
    prefix: UrlPath | None = None
    path_prefix: UrlPath | None = None
    regex: Regex | None = None
    template: Template | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> PathMatch:
        exactly_one(self, ("exact", "prefix", "path_prefix", "regex", "template"))
        return self


class Match(Part):
    """All conditions of one match must hold; a route matches if any of its matches does.

    Attributes:
        path: a condition on the path.
        method: a method, or a list of them.
        headers: conditions on headers, by name.
        query: conditions on query parameters, by name.
    """

    path: PathMatch | None = None
    method: Methods = ()
    headers: Mapping[HeaderName, ValueMatch] = Field(default_factory=dict)
    query: Mapping[Text, ValueMatch] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _not_empty(self) -> Match:
        if self.path is None and not self.method and not self.headers and not self.query:
            reject("has no condition; a route that takes everything has no 'match' at all")
        return self


class Backend(Part):
    """Where a share of a route's calls goes.

    Attributes:
        service: another service; the route's own unless given.
        subset: one of its subsets.
        weight: its share, relative to the other backends'.
    """

    service: Name | None = None
    subset: Name | None = None
    weight: Amount = 1.0


def _editable(name: str) -> str:
    if name in WIRE_HEADERS:
        reject("belongs to the connection and cannot be edited")
    return name


_Edited = Annotated[HeaderName, AfterValidator(_editable)]


class HeaderEdit(Part):
    """Changes to headers: remove, then set (replace), then add. Values may be secrets, so no repr shows them.

    Attributes:
        set: values that replace what is there, by name.
        add: values beside what is there, by name.
        remove: names.
    """

    set: Mapping[_Edited, HeaderValue] = Field(default_factory=dict, repr=False)
    add: Mapping[_Edited, HeaderValue] = Field(default_factory=dict, repr=False)
    remove: Many[_Edited] = ()

    @model_validator(mode="after")
    def _consistent(self) -> HeaderEdit:
        for name in self.remove:
            if name in self.set or name in self.add:
                reject(f"removes {name} and sets it as well; 'set' alone replaces it")
        return self


class HeaderEdits(Part):
    """Header edits of a route.

    Attributes:
        request: on the way to the service.
        response: on the way back.
    """

    request: HeaderEdit = HeaderEdit()
    response: HeaderEdit = HeaderEdit()

    @model_validator(mode="after")
    def _host_has_a_field(self) -> HeaderEdits:
        if "host" in {*self.request.set, *self.request.add, *self.request.remove}:
            reject("edits host; the service's 'host_header' says what it is")
        return self


class Route(Part):
    """One route of a service. Routes are tried in order, and the first that matches is taken.

    Attributes:
        name: for records, spans and metrics; ``route-1``, ``route-2``, ... unless given.
        match: conditions, any of which may hold; without any the route takes everything.
        backends: where to, by weight; the service itself unless given.
        headers: header edits.
        timeout, per_try_timeout, body_idle_timeout, retry: instead of the service's.
        priority: ``high`` for calls that have limits of their own; the service's unless given.
        fault, hedge: field by field over the service's, or false for none.
        hash_on: instead of the service's.
        metadata_match: instead of the service's.
    """

    name: Name | None = None
    match: Many[Match] = ()
    backends: Annotated[Many[Backend], Field(min_length=1)] = (Backend(),)
    headers: HeaderEdits = HeaderEdits()
    timeout: Interval | None = None
    per_try_timeout: Interval | None = None
    body_idle_timeout: Interval | None = None
    retry: Retry = Retry()
    priority: Literal["default", "high"] | None = None
    fault: OrFalse[Fault] | None = None
    hedge: OrFalse[Hedge] | None = None
    hash_on: Many[HashOn] = ()
    metadata_match: Mapping[Text, str] = Field(default_factory=dict)
