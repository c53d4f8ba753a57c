"""Going from page to page: what to ask for next, for sync and async alike. No I/O."""

from __future__ import annotations

from typing import Any

import httpx

from meshlib.adapters.declarative.outgoing import Outgoing
from meshlib.adapters.declarative.pagination import ByCursor, ByLink, ByPage, Pages, dig, link_to
from meshlib.adapters.declarative.reading import Answers
from meshlib.dataclass import dataclass

__all__ = ["Pager"]


@dataclass(frozen=True, slots=True)
class _Turn:
    """The parameter that asks for the next page."""

    name: str
    value: str


class Pager:
    """The pages of one call.

    Args:
        pages: as declared.
        outgoing: the first request.
        answers: of the method, for errors.
        adapter: pydantic's, of a page.

    Attributes:
        url: to ask for now.
    """

    def __init__(self, pages: Pages, outgoing: Outgoing, answers: Answers, adapter: Any) -> None:
        self._pages = pages
        self._outgoing = outgoing
        self._answers = answers
        self._adapter = adapter
        self._asked = 0
        self._number = 0
        self._cursor: str | None = None
        by = pages.by
        if isinstance(by, ByPage):
            given = next((value for name, value in outgoing.query if name == by.parameter), None)
            try:
                self._number = by.first if given is None else int(given)
            except ValueError:
                raise ValueError(f"the page to begin with, {by.parameter}, is no number") from None
            self._ask(_Turn(by.parameter, str(self._number)))
        self.url = outgoing.url

    def _ask(self, turn: _Turn) -> None:
        query = [pair for pair in self._outgoing.query if pair[0] != turn.name]
        self._outgoing.query = [*query, (turn.name, turn.value)]

    def take(self, response: httpx.Response) -> tuple[list[Any], bool]:
        """The items of a page, and whether there is another, at `url`.

        Raises:
            StatusError, InvalidResponse: what the answer means, if it is no page.
        """
        if not response.is_success:
            self._answers.check(response)
            return [], False
        page = self._answers.fit(response, self._adapter)
        items: list[Any] = page if self._pages.items is None else dig(page, self._pages.items)
        self._asked += 1
        more = self._turn(response, page, items)
        if more and self._asked >= self._pages.max_pages:
            text = f"there are more than {self._asked} pages, which is the most that is asked for (max_pages)"
            raise self._answers.invalid(response, text)
        return items, more

    def _turn(self, response: httpx.Response, page: Any, items: list[Any]) -> bool:
        by = self._pages.by
        if isinstance(by, ByLink):
            return self._follow(response, by)
        if isinstance(by, ByCursor):
            cursor = dig(page, by.at)
            if cursor is None or cursor == "":
                return False
            text = str(cursor)
            if text == self._cursor:
                raise self._answers.invalid(response, f"{by.at} leads to the same page again")
            self._cursor = text
            self._ask(_Turn(by.parameter, text))
        else:
            count = None if by.pages is None else dig(page, by.pages)
            if not items or (count is not None and self._number + by.step >= by.first + count * by.step):
                return False
            self._number += by.step
            self._ask(_Turn(by.parameter, str(self._number)))
        self.url = self._outgoing.url
        return True

    def _follow(self, response: httpx.Response, by: ByLink) -> bool:
        link = link_to(response, by.rel)
        if link is None:
            return False
        here = response.request.url
        try:
            target = here.join(link)
            path = target.raw_path.decode("ascii")
        except (httpx.InvalidURL, ValueError):
            raise self._answers.invalid(response, f"its link {by.rel!r} is no URL") from None
        if target.host != here.host or target.port != here.port or target.scheme not in ("http", "https"):
            # Nobody but the service is to say where requests, and the secrets in their headers, go.
            text = f"its link {by.rel!r} leads to another host, {target.host[:200]!r}"
            raise self._answers.invalid(response, text)
        if path == here.raw_path.decode("ascii"):
            raise self._answers.invalid(response, f"its link {by.rel!r} leads to the same page again")
        if path.startswith("//"):
            raise self._answers.invalid(response, f"its link {by.rel!r} leads to a path that begins with //")
        self.url = path
        return True
