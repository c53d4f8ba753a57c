"""Answers in pages: how the next one is asked for, and when there is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NotRequired, TypeVar

import httpx

from meshlib.adapters.declarative.operation import PAGES
from meshlib.dataclass import dataclass

__all__ = ["ByCursor", "ByLink", "ByPage", "Pages", "dig", "link_to", "paginated", "shape_of"]

F = TypeVar("F", bound=Callable[..., Any])

_PART = r';\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:\s*=(?:\s*("(?:[^"\\]|\\.)*"|[^",;\s]+))?)?'
_PARAMETER = re.compile(_PART)
_LINK = re.compile(rf"\s*<([^<>]*)>((?:\s*{_PART.replace('(', '(?:').replace('(?:?:', '(?:')})*)\s*(?:,|$)")
_MAX_LINK = 16 * 1024


@dataclass(frozen=True, slots=True)
class ByCursor:
    """Each page says what to ask for the next one by; one that says nothing, null or an empty text is the last.

    Args:
        at: where in the answer, by the names of fields: ``"meta.next"``.
        parameter: of the query, by which it is sent.
    """

    at: str
    parameter: str = "cursor"


@dataclass(frozen=True, slots=True)
class ByLink:
    """Each page has a ``Link`` header that leads to the next one (RFC 8288); one without it is the last.

    Args:
        rel: the relation of the link.
    """

    rel: str = "next"


@dataclass(frozen=True, slots=True)
class ByPage:
    """Pages are numbered; one without items is the last.

    Args:
        parameter: of the query, by which the number is sent.
        first: number.
        step: from one to the next; the size of a page where the number is that of its first item.
        pages: where in the answer it is said how many there are, which saves asking for an empty one.
    """

    parameter: str = "page"
    first: int = 1
    step: int = 1
    pages: str | None = None


@dataclass(frozen=True, slots=True)
class Pages:
    """What `paginated` says."""

    by: ByCursor | ByLink | ByPage
    items: str | None
    max_pages: int


def paginated(by: ByCursor | ByLink | ByPage, *, items: str | None = None, max_pages: int = 1000) -> Callable[[F], F]:
    """Have a method ask for page after page, as its items are taken; it returns an Iterator or AsyncIterator of them.

    Args:
        by: how one page leads to the next.
        items: where in an answer the items are, by the names of fields: ``"data.items"``; None if it is a list of them.
        max_pages: to ask for at most; if there are more, `InvalidResponse` is raised, so that nothing goes on for ever
            and nothing is left out unnoticed.

    Raises:
        ValueError, TypeError: if one of these is wrong.
    """
    if not isinstance(by, (ByCursor, ByLink, ByPage)):
        raise TypeError(f"paginated by what? ByCursor(...), ByLink() or ByPage(), not {type(by).__name__}")
    if max_pages < 1:
        raise ValueError(f"max_pages is {max_pages}; it has to be at least 1")
    if isinstance(by, ByPage) and by.step < 1:
        raise ValueError(f"step is {by.step}; it has to be at least 1")
    at = by.at if isinstance(by, ByCursor) else by.pages if isinstance(by, ByPage) else None
    for name, path in (("items", items), ("at" if isinstance(by, ByCursor) else "pages", at)):
        if path is not None and not all(path.split(".")):
            raise ValueError(f"{name} is {path!r}; it is to be names of fields with dots between them")
    if at is not None and items is None:
        raise ValueError("an answer that is a list has no place for anything else: say where its items are: items=...")
    pages = Pages(by, items, max_pages)

    def declare(function: F) -> F:
        if hasattr(function, PAGES):
            raise TypeError(f"{getattr(function, '__qualname__', function)} is paginated twice")
        setattr(function, PAGES, pages)
        return function

    return declare


def shape_of(pages: Pages, item: Any) -> Any:
    """The type of a page, as far as it is looked at."""
    if pages.items is None:
        return list[item]
    tree: dict[str, Any] = {}
    _plant(tree, pages.items.split("."), (list[item], True))
    at = pages.by.at if isinstance(pages.by, ByCursor) else pages.by.pages if isinstance(pages.by, ByPage) else None
    if at is not None:
        _plant(tree, at.split("."), (str | int | None if isinstance(pages.by, ByCursor) else int | None, False))
    return _grow(tree)


def _plant(tree: dict[str, Any], path: list[str], leaf: tuple[Any, bool]) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise TypeError(f"{'.'.join(path)} lies within the items")
    if path[-1] in tree:
        raise TypeError(f"{'.'.join(path)} has two meanings")
    tree[path[-1]] = leaf


def _grow(tree: Mapping[str, Any]) -> Any:
    from typing_extensions import TypedDict

    fields: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, tuple):
            hint, needed = value
        else:
            hint, needed = _grow(value), _holds_items(value)
            hint = hint if needed else hint | None
        fields[name] = hint if needed else NotRequired[hint]
    return TypedDict("Page", fields)  # type: ignore[operator]


def _holds_items(tree: Mapping[str, Any]) -> bool:
    return any(value[1] if isinstance(value, tuple) else _holds_items(value) for value in tree.values())


def dig(value: Any, path: str | None) -> Any:
    """What is at a path of fields; None where nothing is."""
    for name in path.split(".") if path else ():
        if not isinstance(value, Mapping):
            return None
        value = value.get(name)
    return value


def link_to(response: httpx.Response, rel: str) -> str | None:
    """The target of the first link with a relation in an answer's ``Link`` headers (RFC 8288); None for none."""
    text = ", ".join(response.headers.get_list("link"))[:_MAX_LINK]
    at = 0
    while at < len(text):
        link = _LINK.match(text, at)
        if link is None:
            return None
        for name, value in _PARAMETER.findall(link[2]):
            if name.lower() == "rel":
                plain = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] == '"' else value
                if rel.lower() in plain.lower().split():
                    return link[1]
                break  # only the first `rel` of a link counts
        at = link.end()
    return None
