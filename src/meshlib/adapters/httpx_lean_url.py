"""Where a lean call goes: what httpx makes of a URL, found without taking apart what needs no change.

Nearly every URL in a program is one that httpx leaves as it is: an absolute one, or a path below the client's
``base_url``, of characters that need no escape and without ``.`` and ``..``. One regular expression says so. Origins,
which are few, are read by httpx itself and remembered, so that ports, cases, IDNA and IPv6 are its own matter; any
other URL goes through the library's `URL` as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Protocol

from meshlib.dataclass import dataclass

if TYPE_CHECKING:
    import httpx

    from meshlib.adapters.httpx_library import Library

__all__ = ["Located", "Origin", "Origins", "Place"]

MAX_ORIGINS = 256
"""So many are remembered. A program calls few; one that makes them up must not fill the memory."""

MAX_KNOWN = 256
"""So many URLs are remembered, of at most so many characters: many are called again and again."""
MAX_KNOWN_LENGTH = 256

MAX_LENGTH = 8192
"""Of URLs that are read here. httpx refuses very long ones."""

_PLAIN = r"[A-Za-z0-9._~!$&'()*+,;=:@/-]*"
_PATH = rf"{_PLAIN}(?:%[0-9A-Fa-f]{{2}}{_PLAIN})*"
_QUERY = _PATH.replace("=:@/", "=:@/?")
_URL = re.compile(rf"(https?://[A-Za-z0-9._:\[\]-]+)?(/{_PATH})?(\?{_QUERY})?")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a URL.

    Attributes:
        scheme, host, port: as `httpx.URL` has them; the port is None for the scheme's own.
        host_header: the pair that is sent.
        service: the service of the mesh that is meant; None for a host outside.
    """

    scheme: str
    host: str
    port: int | None
    host_header: tuple[bytes, bytes]
    service: str | None


@dataclass(frozen=True, slots=True)
class _Base:
    """A client's ``base_url``: the URLs of calls are put behind its path.

    Attributes:
        url: it.
        origin: None where calls cannot be lean.
        text: without the last slash; None where only httpx can tell what comes of a join.
        path: the same of its path.
    """

    url: httpx.URL
    origin: Origin | None
    text: str | None
    path: str


class Place:
    """What one call's URL says.

    Attributes:
        origin: of the URL.
        path, query: as sent, percent-encoded.
        target: both, as in the request line.
    """

    __slots__ = ("_text", "_url", "origin", "path", "query", "target")
    library: ClassVar[Library]

    def __init__(self, origin: Origin, path: str, query: str, target: bytes, text: str, url: httpx.URL | None) -> None:
        self.origin = origin
        self.path = path
        self.query = query
        self.target = target
        self._text = text
        self._url = url

    @property
    def url(self) -> httpx.URL:
        """The URL, absolute."""
        if self._url is None:
            self._url = self.library.httpx.URL(self._text)
        return self._url


class Located(Protocol):
    """What says which services hosts mean."""

    @property
    def hosts(self) -> object:
        """Another object whenever they mean others."""


class _ForEver:
    """Hosts that always mean the same."""

    hosts = None


class _Memory:
    """What was read while hosts meant what they mean now."""

    __slots__ = ("base", "hosts", "origins", "places")

    def __init__(self, hosts: object, no_url: httpx.URL) -> None:
        self.hosts = hosts
        self.origins: dict[str, Origin | None] = {}
        self.base = _Base(no_url, None, None, "")
        # Of the base that it is for. A pair, so that threads never see one without the other.
        self.places: tuple[httpx.URL, dict[str, Place]] = (self.base.url, {})


class Origins:
    """Reads the URLs of a client's calls.

    Args:
        library: whose URLs they are.
        locate: the service that a host and a port mean; None for a host outside the mesh.
        located: says when these are others.
    """

    def __init__(
        self,
        library: Library,
        locate: Callable[[str, int | None, str], str | None],
        located: Located | None = None,
    ) -> None:
        self._url = library.httpx.URL
        self._invalid = library.httpx.InvalidURL
        self._place = library.place
        self._locate = locate
        self._located = located = located or _ForEver()
        self._memory = self._remember()

    def _remember(self) -> _Memory:
        return _Memory(self._located.hosts, self._url(""))

    def place(self, url: httpx.URL | str, base_url: httpx.URL) -> Place | None:
        """Where a call goes; None where httpx has to say, or to refuse it.

        Raises:
            httpx.InvalidURL: as httpx does.
        """
        if type(url) is str and len(url) <= MAX_LENGTH:
            memory = self._memory
            if memory.hosts is not self._located.hosts:
                memory = self._memory = self._remember()
            base, places = memory.places
            if base is not base_url:
                places = {}
                memory.places = base_url, places
            place = places.get(url)
            if place is not None:
                return place
            parts = _URL.fullmatch(url)
            if parts is not None:
                place = self._plain(memory, url, parts, base_url)
                if place is not None:
                    if len(url) <= MAX_KNOWN_LENGTH:
                        if len(places) >= MAX_KNOWN:
                            places.clear()
                        places[url] = place
                    return place
        parsed = self._url(url)
        if parsed.is_relative_url:
            parsed = base_url.copy_with(raw_path=base_url.raw_path + parsed.raw_path.lstrip(b"/"))
        return self.place_of(parsed)

    def place_of(self, url: httpx.URL) -> Place | None:
        """The same of an absolute URL that httpx has read."""
        origin = self._make(url)
        if origin is None:
            return None
        target = url.raw_path
        path, _, query = target.decode("ascii").partition("?")
        return self._place(origin, path, query, target, "", url)

    def _plain(self, memory: _Memory, url: str, parts: re.Match[str], base_url: httpx.URL) -> Place | None:
        """A URL of plain characters; None where they are not all that matters."""
        start, path, query = parts.groups()
        if path is None:
            path = "/"
        elif "/." in path:
            return None
        if start is not None:
            origin = self._origin(memory, start)
            text = url
        else:
            base = memory.base
            if base.url is not base_url:
                base = memory.base = self._read_base(base_url)
            if base.text is None or path[:2] == "//":
                return None
            origin = base.origin
            path = base.path + path
            text = base.text + path if query is None else base.text + path + query
        if origin is None:
            return None
        if query is None:
            return self._place(origin, path, "", path.encode("ascii"), text, None)
        return self._place(origin, path, query[1:], (path + query).encode("ascii"), text, None)

    def _read_base(self, url: httpx.URL) -> _Base:
        base, url = url, url.copy_with(raw_path=url.raw_path)  # as a join does, which may normalize once more
        origin = self._make(url)
        text = f"{url.scheme}://{url.netloc.decode('ascii')}"
        path = url.raw_path.decode("ascii").removesuffix("/")
        plain = re.fullmatch(f"(/{_PATH})?", path) is not None and "/." not in path and "#" not in str(url)
        return _Base(base, origin, text if plain and origin is not None else None, path)

    def _origin(self, memory: _Memory, text: str) -> Origin | None:
        known = memory.origins
        try:
            return known[text]
        except KeyError:
            pass
        try:
            origin = self._make(self._url(text))
        except self._invalid:
            return None
        if len(known) >= MAX_ORIGINS:
            known.clear()
        known[text] = origin
        return origin

    def _make(self, url: httpx.URL) -> Origin | None:
        """None for what is no plain http or https URL: with credentials in it, or without a host."""
        if url.scheme not in ("http", "https") or not url.host or url.userinfo:
            return None
        host = url.raw_host.decode("ascii")
        service = self._locate(host, url.port, url.scheme)
        return Origin(url.scheme, host, url.port, (b"Host", url.netloc), service)
