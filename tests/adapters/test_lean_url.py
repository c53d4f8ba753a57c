"""What a lean call reads of a URL is what httpx reads, for every URL and every base."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshlib.adapters.httpx import LIBRARY
from meshlib.adapters.httpx_lean_url import MAX_LENGTH, MAX_ORIGINS, Origins, Place

ANY = httpx.URL("")
STARTS = [
    *("http://orders", "https://orders:8443", "HTTP://Orders", "http://orders:80", "https://orders:443", "http://o:0"),
    *("http://127.0.0.1:8080", "http://[::1]:80", "http://999.1.1.1", "http://1.2.3", "http://u:p@orders", "ftp://x"),
    *("http://orders:", "http://orders:x", "http://[::x", "http://é.example", "http://xn--9ca.x", "http://", "", "//o"),
]
PIECES = [
    *("/", "a", "42", ".", "..", "%2F", "%2e", "%", "%4", "?", "#", ":", "@", "é", " ", "\n", "+", "{", '"', "~", "`"),
    *("q=1", "&", ";", "=", "!", "$", "'", "(", ")", "*", ",", "-", "_", "\\", "^", "|", "[", "]", "<", ">", "\x7f"),
]

paths = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)
urls = st.builds(str.__add__, st.sampled_from(STARTS), paths) | st.text(max_size=12)
bases = st.builds(str.__add__, st.sampled_from(STARTS), paths)


def origins() -> Origins:
    return Origins(LIBRARY, lambda host, port, scheme: host)


REFUSALS = (httpx.InvalidURL, UnicodeError)  # IDNA's errors are of the latter kind


def client(base_url: str) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(200)), base_url=base_url)


def by_httpx(url: str, client: httpx.Client) -> httpx.URL | str:
    try:
        return client.build_request("GET", url).url
    except REFUSALS as error:
        return str(error)


def read(url: str, base_url: httpx.URL) -> Place | str | None:
    try:
        return origins().place(url, base_url)
    except REFUSALS as error:
        return str(error)


def agree(url: str, base_url: str) -> None:
    bare = client(base_url)
    expected = by_httpx(url, bare)
    found = read(url, bare.base_url)
    if isinstance(found, Place):
        assert isinstance(expected, httpx.URL)
        target = found.target.decode("ascii")
        assert (str(found.url), found.url.raw_path) == (str(expected), expected.raw_path)
        assert found.target == expected.raw_path
        assert found.path + ("?" + found.query if "?" in target else "") == target
        origin = found.origin
        assert (origin.scheme, origin.host.encode("ascii"), origin.port) == (
            expected.scheme,
            expected.raw_host,
            expected.port,
        )
        assert origin.host_header == (b"Host", expected.netloc)
        assert not expected.userinfo
    elif isinstance(found, str):
        assert found == expected
    else:
        unusual = isinstance(expected, str) or expected.userinfo or not expected.host
        assert unusual or expected.scheme not in ("http", "https")


@given(urls)
@example("http://orders")
@example("http://orders?")
@example("http://orders//a")
@example("http://orders/a/./b/../c")
@example("http://orders/a%2fb?c=%20/?")
@example("http://orders/a#b")
def test_an_absolute_url_is_read_as_httpx_reads_it(url: str) -> None:
    agree(url, "")


@given(urls, bases)
@example("/b", "http://orders/a")
@example("//b/c", "http://orders/a")
@example("/", "http://orders/a/")
@example("", "http://orders/a?b=c")
@example("/b?", "http://orders/a?b=c")
@example("/b", "http://orders/a/../b")
@example("/b#c", "http://orders/a#d")
@example("/../b", "http://orders/a")
@example("", "http://orders#")
@example("/b", "http://u@orders/a")
def test_a_url_below_a_base_is_joined_as_httpx_joins_it(url: str, base_url: str) -> None:
    try:
        client(base_url)
    except REFUSALS:
        return
    agree(url, base_url)


@pytest.mark.parametrize(
    "url", ["http://orders/a", "http://Orders:80/a/%20?x=1&y=/?", "http://127.0.0.1:80/", "http://o"]
)
def test_usual_urls_are_not_taken_apart(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = origins()
    known.place(url, ANY)
    monkeypatch.setattr(httpx, "URL", None)
    assert isinstance(known.place(url + ("&" if "?" in url else "?") + "id=7", ANY), Place)


def test_a_url_object_may_be_given() -> None:
    place = origins().place(httpx.URL("http://orders/a?b#c"), ANY)
    assert place is not None
    assert (place.target, place.query, str(place.url)) == (b"/a?b", "b", "http://orders/a?b#c")


def test_a_changed_base_is_noticed() -> None:
    known, targets = origins(), []
    for base in ("http://orders/a/", "http://orders/b/"):
        place = known.place("/x", httpx.URL(base))
        assert place is not None
        targets.append(place.target)
    assert targets == [b"/a/x", b"/b/x"]


def test_origins_that_are_made_up_fill_no_memory() -> None:
    known = origins()
    for number in range(3 * MAX_ORIGINS):
        assert known.place(f"http://host{number}/x", ANY) is not None
    assert len(known._memory.origins) <= MAX_ORIGINS


def test_a_very_long_url_is_httpxs_to_refuse() -> None:
    place = origins().place("http://orders/" + "a" * MAX_LENGTH, ANY)
    assert place is not None and place.target == b"/" + b"a" * MAX_LENGTH
    with pytest.raises(httpx.InvalidURL, match="too long"):
        origins().place("http://orders/" + "a" * 70_000, ANY)
