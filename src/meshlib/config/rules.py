"""Routes as they are written: match, where to, and what to do on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from meshlib.config.fields import (
    Amount,
    Flag,
    HeaderName,
    Interval,
    Many,
    Methods,
    Name,
    OrFalse,
    Part,
    Percent,
    Port,
    Regex,
    Template,
    Text,
    UrlPath,
    exactly_one,
    reject,
)
from meshlib.config.parts import Fault, HashOn, Hedge, Retry, ValueMatch
from meshlib.config.parts.actions import (
    DirectResponse,
    HeaderEdits,
    Mirrors,
    Redirect,
    Rewrite,
    Sticky,
)
from meshlib.config.parts.hashing import CookieName

__all__ = ["Backend", "Caller", "Match", "PathMatch", "Route", "ValueMatch"]


class PathMatch(Part):
    """A condition on the path; exactly one of its fields.

    Attributes:
        exact: this path.
        prefix: paths that begin with this text, as Istio and Envoy mean it: ``/v2`` matches ``/v20``.
        path_prefix: by whole segments, as the Gateway API means it: ``/v2`` matches ``/v2`` and ``/v2/x`` alone.
        regex: must match the whole path.
        template: ``/orders/{order_id}``, each variable one segment.
        ignore_case: of letters, for the first three.
    """

    exact: UrlPath | None = None
    prefix: UrlPath | None = None
    path_prefix: UrlPath | None = None
    regex: Regex | None = None
    template: Template | None = None
    ignore_case: Flag = False

    @model_validator(mode="after")
    def _one_kind(self) -> PathMatch:
        exactly_one(self, ("exact", "prefix", "path_prefix", "regex", "template"))
        return self


class Caller(Part):
    """A condition on this workload: whether the route is for it at all.

    Attributes:
        labels: that it has, among others.
        namespace: that it is in.
    """

    labels: Mapping[Text, str] = Field(default_factory=dict)
    namespace: Name | None = None


class Match(Part):
    """All conditions of one match must hold; a route matches if any of its matches does.

    Attributes:
        path: a condition on the path.
        method: a method, or a list of them.
        scheme: of the URL.
        authority: a condition on ``Host``, as the caller wrote it.
        port: of the URL.
        headers: conditions on headers, by name.
        query: conditions on query parameters, by name.
        cookies: conditions on cookies, by name.
        caller: a condition on this workload.
        percent: of the requests that meet the rest, by chance.
        unless: further matches, none of which may hold.
    """

    path: PathMatch | None = None
    method: Methods = ()
    scheme: Literal["http", "https"] | None = None
    authority: ValueMatch | None = None
    port: Port | None = None
    # Values that are asked for may be secrets, so no repr shows them.
    headers: Mapping[HeaderName, ValueMatch] = Field(default_factory=dict, repr=False)
    query: Mapping[Text, ValueMatch] = Field(default_factory=dict, repr=False)
    cookies: Mapping[CookieName, ValueMatch] = Field(default_factory=dict, repr=False)
    caller: Caller | None = None
    percent: Percent = 100.0
    unless: Many[Match] = ()

    @model_validator(mode="after")
    def _not_empty(self) -> Match:
        if not any(getattr(self, name) for name in type(self).model_fields if name != "percent") and (
            "percent" not in self.model_fields_set
        ):
            reject("has no condition; a route that takes everything has no 'match' at all")
        return self


class Backend(Part):
    """Where a share of a route's calls goes.

    Attributes:
        service: another service; the route's own unless given.
        subset: one of its subsets.
        weight: its share, relative to the other backends'.
        headers: header edits, besides the route's.
    """

    service: Name | None = None
    subset: Name | None = None
    weight: Amount = 1.0
    headers: HeaderEdits = HeaderEdits()


class Route(Part):
    """One route of a service. Routes are tried in order, and the first that matches is taken.

    Attributes:
        name: for records, spans and metrics; ``route-1``, ``route-2``, ... unless given.
        match: conditions, any of which may hold; without any the route takes everything.
        backends: where to, by weight; the service itself unless given.
        sticky: what the draw of the backend goes by; chance unless given.
        headers: header edits.
        rewrite: of path and host.
        redirect: answer with one, instead of calling anybody.
        direct_response: answer with this, instead of calling anybody.
        mirror: who gets copies; one, or a list.
        delegate: the name of a list under ``route_sets``, whose routes take this one's place, each with this one's
            conditions besides its own.
        timeout, per_try_timeout, body_idle_timeout, retry: instead of the service's.
        priority: ``high`` for calls that have limits of their own; the service's unless given.
        fault, hedge: field by field over the service's, or false for none.
        hash_on: instead of the service's.
        metadata_match: instead of the service's.
    """

    name: Name | None = None
    match: Many[Match] = ()
    backends: Annotated[Many[Backend], Field(min_length=1)] = (Backend(),)
    sticky: Sticky | None = None
    headers: HeaderEdits = HeaderEdits()
    rewrite: Rewrite | None = None
    redirect: Redirect | None = None
    direct_response: DirectResponse | None = None
    mirror: Mirrors = ()
    delegate: Name | None = None
    timeout: Interval | None = None
    per_try_timeout: Interval | None = None
    body_idle_timeout: Interval | None = None
    retry: Retry = Retry()
    priority: Literal["default", "high"] | None = None
    fault: OrFalse[Fault] | None = None
    hedge: OrFalse[Hedge] | None = None
    hash_on: Many[HashOn] = ()
    metadata_match: Mapping[Text, str] = Field(default_factory=dict)
