"""Where a parameter of a method goes: ``Annotated[str, Header("x-user")]``."""

from __future__ import annotations

from typing import IO, TypeAlias

from meshlib.dataclass import dataclass

__all__ = ["PLACES", "Body", "Cookie", "File", "Form", "HashKey", "Header", "Path", "Query", "Upload"]

Upload: TypeAlias = (
    bytes | IO[bytes] | tuple[str | None, bytes | IO[bytes]] | tuple[str | None, bytes | IO[bytes], str | None]
)
"""A file of a form: what is in it; with its name, and with its media type."""


@dataclass(frozen=True, slots=True)
class Path:
    """Into the path; a parameter that the template names goes there without being told.

    Args:
        alias: its name in the template, if that is another.
    """

    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Query:
    """Into the query, as scalars and lists of them do without being told; of a model or a mapping, each field.

    Args:
        alias: its name there; None for the parameter's own.
    """

    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """Into the headers.

    Args:
        alias: its name there; None for the parameter's own, with ``-`` for ``_``.
    """

    alias: str | None = None


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
    """

    alias: str | None = None


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
