"""What a route does to a call, as it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from meshlib.config import shown
from meshlib.config.fields import (
    WIRE_HEADERS,
    Count,
    Flag,
    HeaderName,
    HeaderText,
    Host,
    Many,
    Name,
    Part,
    Percent,
    Port,
    Regex,
    Text,
    UrlPath,
    reject,
)
from meshlib.config.parts.hashing import CookieName
from meshlib.routing import actions

__all__ = [
    "DirectResponse",
    "HeaderEdit",
    "HeaderEdits",
    "Mirror",
    "Mirrors",
    "Redirect",
    "RegexRewrite",
    "Rewrite",
    "Sticky",
]

_REDIRECT = actions.Redirect()
_PATHS = ("path", "prefix", "regex")
_STICKY = ("header", "cookie", "query", "hash_key", "number")


def _editable(name: str) -> str:
    if name in WIRE_HEADERS:
        reject("belongs to the connection and cannot be edited")
    return name


_Edited = Annotated[HeaderName, AfterValidator(_editable)]


def _sendable(text: str) -> str:
    if not text.isascii() or any(character.isspace() or not character.isprintable() for character in text):
        reject("has a character in it that no URL has; write it percent-encoded")
    return text


def _location(text: str) -> str:
    if not text.startswith("/") or "#" in text:
        reject("is not a path, with a query or without, such as /new?from=old")
    return _sendable(text)


def _redirect_status(status: int) -> int:
    if status not in actions.REDIRECT_STATUSES:
        reject(f"is no status of a redirect: {', '.join(map(str, actions.REDIRECT_STATUSES))} are")
    return status


_NewPath = Annotated[UrlPath, AfterValidator(_sendable)]
_Location = Annotated[str, AfterValidator(_location)]


class HeaderEdit(Part):
    """Changes to headers: remove, then set (replace), then add. Values may be secrets, so no repr shows them.

    Attributes:
        set: values that replace what is there, by name.
        add: values beside what is there, by name.
        remove: names.
    """

    set: Mapping[_Edited, HeaderText] = Field(default_factory=dict, repr=False)
    add: Mapping[_Edited, HeaderText] = Field(default_factory=dict, repr=False)
    remove: Many[_Edited] = ()

    @model_validator(mode="after")
    def _consistent(self) -> HeaderEdit:
        for name in self.remove:
            if name in self.set or name in self.add:
                reject(f"removes {name} and sets it as well; 'set' alone replaces it")
        return self


class HeaderEdits(Part):
    """Header edits of a route, or of one of its backends.

    Attributes:
        request: on the way to the service.
        response: on the way back.
    """

    request: HeaderEdit = HeaderEdit()
    response: HeaderEdit = HeaderEdit()

    @model_validator(mode="after")
    def _host_has_a_field(self) -> HeaderEdits:
        if "host" in {*self.request.add, *self.request.remove, *self.response.set, *self.response.add}:
            reject("edits host, which a request has once: 'set' replaces it, and so do 'rewrite' and 'host_header'")
        return self


class RegexRewrite(Part):
    r"""A substitution in the path, wherever the pattern matches.

    Attributes:
        pattern: what is replaced.
        substitution: what with; ``\1`` is the first group.
    """

    pattern: Regex
    substitution: Annotated[str, AfterValidator(_sendable)]

    @model_validator(mode="after")
    def _fitting(self) -> RegexRewrite:
        from meshlib.routing.regex import RegexError, check_substitution

        try:
            check_substitution(self.pattern, self.substitution)
        except RegexError as error:
            reject(f"cannot be done: it {error.text}", part=error.part)
        return self


def _at_most_one(part: Part) -> None:
    given = [name for name in _PATHS if getattr(part, name) is not None]
    if len(given) > 1:
        reject(f"has {' and '.join(given)}: one of them is expected")


class Rewrite(Part):
    """A change of the request's path (at most one of the first three) and host.

    Attributes:
        path: instead of the whole path.
        prefix: instead of the prefix by which the route matched.
        regex: a substitution in the path.
        host: instead of ``Host``.
    """

    path: _NewPath | None = None
    prefix: _NewPath | None = None
    regex: RegexRewrite | None = None
    host: Host | None = None

    @model_validator(mode="after")
    def _one_path(self) -> Rewrite:
        _at_most_one(self)
        if self.host is None and not any(getattr(self, name) is not None for name in _PATHS):
            reject("rewrites nothing")
        return self


class Redirect(Part):
    """An answer that sends the caller elsewhere. What is not given stays as it was asked for.

    Attributes:
        path, prefix, regex: of the new location; at most one of them. See `Rewrite`. A path may have a query.
        host, port, scheme: of the new location.
        status: 301, 302, 303, 307 or 308.
        strip_query: leave out the query.
    """

    path: _Location | None = None
    prefix: _NewPath | None = None
    regex: RegexRewrite | None = None
    host: Host | None = None
    port: Port | None = None
    scheme: Literal["http", "https"] | None = None
    status: Annotated[Count, AfterValidator(_redirect_status)] = _REDIRECT.status
    strip_query: Flag = _REDIRECT.strip_query

    @model_validator(mode="after")
    def _one_path(self) -> Redirect:
        _at_most_one(self)
        return self


class DirectResponse(Part):
    """An answer given without asking anybody. It may hold secrets, so no repr shows it.

    Attributes:
        status: of the response.
        body: of the response.
        headers: of the response, by name.
    """

    status: Annotated[Count, Field(ge=200, le=599)]
    body: Annotated[str, Field(max_length=1 << 20)] = Field(default="", repr=False)
    headers: Mapping[_Edited, HeaderText] = Field(default_factory=dict, repr=False)


class Mirror(Part):
    """Who gets a copy of a route's calls. Its answers go nowhere.

    Attributes:
        service: the route's own unless given.
        subset: one of its subsets.
        percent: of the calls that are copied.
    """

    service: Name | None = None
    subset: Name | None = None
    percent: Percent = 100.0


class Sticky(Part):
    """What the draw of the backend goes by, so that a user stays at one; exactly one field.

    Attributes:
        header: the name of a header.
        cookie: the name of a cookie.
        query: the name of a parameter of the URL.
        hash_key: what the caller gives with ``meshlib.call(hash_key=...)``.
        number: the name of a header that holds the draw itself, a whole number (Envoy's ``header_name``).
    """

    compiles_to: ClassVar = actions.Sticky

    header: HeaderName | None = None
    cookie: CookieName | None = None
    query: Text | None = None
    hash_key: Flag = False
    number: HeaderName | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Sticky:
        given = [kind for kind in _STICKY if getattr(self, kind)]
        if len(given) != 1:
            found = f"has {' and '.join(given)}" if given else "has nothing to go by"
            reject(f"{found}: exactly one of {', '.join(_STICKY)} is expected")
        return self


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, (Mapping, Mirror)) else value


Mirrors = Annotated[Many[Mirror], BeforeValidator(_listed), shown.OrOne()]
"""One mirror, or a list of them."""
