"""Where a parameter of a method goes: ``Annotated[str, Header("x-user")]``."""

from __future__ import annotations

from typing import IO, Any, Literal, TypeAlias, get_args

from meshlib.dataclass import dataclass

__all__ = [
    "PLACES",
    "Body",
    "Cookie",
    "File",
    "Form",
    "HashKey",
    "Header",
    "Path",
    "PathStyle",
    "Query",
    "QueryStyle",
    "Upload",
]

PathStyle: TypeAlias = Literal["simple", "label", "matrix"]
QueryStyle: TypeAlias = Literal["form", "spaceDelimited", "pipeDelimited", "deepObject"]
"""As OpenAPI calls the ways to write lists and objects."""

Upload: TypeAlias = (
    bytes | IO[bytes] | tuple[str | None, bytes | IO[bytes]] | tuple[str | None, bytes | IO[bytes], str | None]
)
"""A file of a form: what is in it; with its name, and with its media type."""


@dataclass(frozen=True, slots=True)
class Path:
    """Into the path; a parameter that the template names goes there without being told.

    Args:
        alias: its name in the template, if that is another.
        style: how OpenAPI has a list or an object written there: ``simple`` (``a,b``), ``label`` (``.a,b``) or
            ``matrix`` (``;name=a,b``); None for one value.
        explode: whether its parts stand by themselves: ``.a.b``, ``;name=a;name=b``. None is false.

    Raises:
        ValueError: for an unknown style.
    """

    alias: str | None = None
    style: PathStyle | None = None
    explode: bool | None = None

    def __post_init__(self) -> None:
        _check_style("Path", self.style, PathStyle)


@dataclass(frozen=True, slots=True)
class Query:
    """Into the query, as scalars and lists of them do without being told; of a model or a mapping, each field.

    Args:
        alias: its name there; None for the parameter's own.
        style: how OpenAPI has a list or an object written there: ``form``, which is that of None, ``spaceDelimited``,
            ``pipeDelimited`` or ``deepObject`` (``name[field]=value``).
        explode: whether each part is a pair by itself; if not, there is one, ``name=a,b``. None is what OpenAPI says:
            true for ``form`` and ``deepObject``.

    Raises:
        ValueError: for an unknown style, and for a ``deepObject`` that is not exploded.
    """

    alias: str | None = None
    style: QueryStyle | None = None
    explode: bool | None = None

    def __post_init__(self) -> None:
        _check_style("Query", self.style, QueryStyle, self.explode)


@dataclass(frozen=True, slots=True)
class Header:
    """Into the headers.

    Args:
        alias: its name there; None for the parameter's own, with ``-`` for ``_``.
        explode: of a model or a mapping, whether it is ``R=1,G=2`` (true) or ``R,1,G,2``; None refuses them.
    """

    alias: str | None = None
    explode: bool | None = None


@dataclass(frozen=True, slots=True)
class Cookie:
    """Into the ``Cookie`` header.

    Args:
        alias: its name there; None for the parameter's own.
    """

    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """The body, as a parameter named ``body`` and models are without being told.

    Args:
        media_type: the ``Content-Type``; None for that of what is sent.
        exclude_unset: leave out fields of a model that were not given.
        exclude_none: leave out fields that are None.
    """

    media_type: str | None = None
    exclude_unset: bool = False
    exclude_none: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """Into a form; of a model or a mapping, each field.

    Args:
        alias: its name there; None for the parameter's own.
        style, explode: as of `Query`. In a multipart form there is ``deepObject`` alone.

    Raises:
        ValueError: as of `Query`.
    """

    alias: str | None = None
    style: QueryStyle | None = None
    explode: bool | None = None

    def __post_init__(self) -> None:
        _check_style("Form", self.style, QueryStyle, self.explode)


@dataclass(frozen=True, slots=True)
class File:
    """A file of a form, which makes the form a multipart one: an `Upload`, or a list of them.

    Args:
        alias: its name in the form; None for the parameter's own.
    """

    alias: str | None = None


@dataclass(frozen=True, slots=True)
class HashKey:
    """What ``ring_hash`` and ``maglev`` choose an endpoint by. Beside another marker, or alone: then it is not sent."""


PLACES = (Path, Query, Header, Cookie, Body, Form, File)
"""Those of which a parameter has at most one."""


def _check_style(marker: str, style: str | None, known: Any, explode: bool | None = None) -> None:
    if style is not None and style not in get_args(known):
        raise ValueError(f"{marker}: style is {style!r}; it can be {', '.join(get_args(known))}")
    if style == "deepObject" and explode is False:
        raise ValueError(f"{marker}: a deepObject is always exploded")
