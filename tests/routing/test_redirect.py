"""Where redirects lead: Envoy's rules, and no port that is its scheme's own."""

from __future__ import annotations

import pytest

from meshlib.routing.actions import Redirect, RegexRewrite
from meshlib.routing.match import PathMatch, RequestView
from meshlib.routing.redirect import location_of


def view(url: str, host: str | None = None) -> RequestView:
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    name, _, port = authority.partition(":")
    path, _, query = path.partition("?")
    headers = {} if host is None else {"host": host}
    return RequestView("GET", f"/{path}", query, headers, scheme=scheme, host=name, port=int(port) if port else None)


@pytest.mark.parametrize(
    ("redirect", "url", "expected"),
    [
        (Redirect(), "http://orders/a?b=c", "http://orders/a?b=c"),
        (Redirect(strip_query=True), "http://orders/a?b=c", "http://orders/a"),
        (Redirect(host="new.example"), "http://orders:8080/a?b=c", "http://new.example/a?b=c"),
        (Redirect(host="new.example", port=81), "http://orders:8080/a", "http://new.example:81/a"),
        (Redirect(host="new.example", port=80), "http://orders:8080/a", "http://new.example/a"),
        (Redirect(scheme="https"), "http://orders/a", "https://orders/a"),
        (Redirect(scheme="https", port=443), "http://orders:8080/a", "https://orders/a"),
        (Redirect(scheme="https"), "http://orders:8080/a", "https://orders:8080/a"),
        (Redirect(scheme="https", port=8443), "http://orders:80/a", "https://orders:8443/a"),
        (Redirect(path="/n"), "http://orders/a?b=c", "http://orders/n?b=c"),
        (Redirect(path="/n", strip_query=True), "http://orders/a?b=c", "http://orders/n"),
        (Redirect(path="/n?own=1", strip_query=True), "http://orders/a?b=c", "http://orders/n?own=1"),
        (Redirect(prefix="/n"), "http://orders/a/x?b=c", "http://orders/n/x?b=c"),
        (Redirect(regex=RegexRewrite("/(.)/(.)", r"/\2/\1")), "http://orders/a/x?b=c", "http://orders/x/a?b=c"),
    ],
)
def test_what_is_not_given_stays_as_it_was_asked_for(redirect: Redirect, url: str, expected: str) -> None:
    assert location_of(redirect, view(url), PathMatch("path_prefix", "/a")) == expected


@pytest.mark.parametrize(
    ("given", "scheme", "expected"),
    [
        ("orders:80", "https", "https://orders/"),
        ("orders:80", "http", "http://orders:80/"),
        ("orders:443", "https", "https://orders:443/"),
        ("[::1]:80", "https", "https://[::1]/"),
        ("[::1]", "https", "https://[::1]/"),
    ],
)
def test_a_port_that_was_the_schemes_own_goes_with_the_scheme(given: str, scheme: str, expected: str) -> None:
    assert location_of(Redirect(scheme=scheme), view("http://orders/", given), None) == expected
