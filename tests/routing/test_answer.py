"""Answers that routes give: what Envoy's local replies say, to HTTP and to gRPC clients."""

from __future__ import annotations

from meshlib.routing.actions import DirectResponse, Redirect
from meshlib.routing.answer import answer_of
from meshlib.routing.match import PathMatch, RequestView

ASKED = RequestView("GET", "/a/b", "token=secret", {"host": "orders"}, host="orders")


def test_a_redirect_says_where_and_its_text_leaves_the_query_out() -> None:
    answer = answer_of(Redirect(prefix="/n", status=307), ASKED, PathMatch("path_prefix", "/a"))
    assert answer.status == 307
    assert answer.headers == [(b"location", b"http://orders/n/b?token=secret"), (b"content-length", b"0")]
    assert (answer.body, answer.text) == (b"", "redirect to http://orders/n/b")


def test_a_body_is_plain_text_unless_its_headers_say_otherwise() -> None:
    plain = answer_of(DirectResponse(503, b"later"), ASKED, None)
    assert plain.headers == [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    typed = answer_of(DirectResponse(503, b"{}", ((b"content-type", b"application/json"),)), ASKED, None)
    assert typed.headers == [(b"content-type", b"application/json"), (b"content-length", b"2")]
    assert "later" not in repr(DirectResponse(503, b"later"))


def test_what_has_no_body_announces_none() -> None:
    assert answer_of(DirectResponse(204), ASKED, None).headers == []
    assert answer_of(DirectResponse(404), ASKED, None).headers == [(b"content-length", b"0")]
    typed = ((b"content-type", b"text/html"), (b"x-by", b"mesh"))
    assert answer_of(DirectResponse(204, b"", typed), ASKED, None).headers == [typed[1]]
    assert answer_of(DirectResponse(404, b"", typed), ASKED, None).headers == [typed[1], (b"content-length", b"0")]


def test_created_and_moved_things_are_where_they_were_asked_for_unless_it_says_where() -> None:
    assert answer_of(DirectResponse(201), ASKED, None).headers[0] == (b"location", b"http://orders/a/b?token=secret")
    given = DirectResponse(302, b"", ((b"location", b"/elsewhere"),))
    assert answer_of(given, ASKED, None).headers == [(b"location", b"/elsewhere"), (b"content-length", b"0")]


def test_a_grpc_client_is_told_in_its_own_way() -> None:
    asked = RequestView("POST", "/s/m", headers={"content-type": "application/grpc+proto", "host": "orders"})
    answer = answer_of(DirectResponse(503, "später".encode()), asked, None)
    assert (answer.status, answer.body) == (200, b"")
    assert (b"grpc-status", b"14") in answer.headers
    assert (b"grpc-message", b"sp%C3%A4ter") in answer.headers
    asked = RequestView("HEAD", "/s/m", headers=asked.headers)
    assert b"grpc-message" not in dict(answer_of(DirectResponse(503, b"later"), asked, None).headers)  # as Envoy
