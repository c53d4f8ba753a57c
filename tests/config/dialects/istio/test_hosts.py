"""Which hosts cover which, and who sees a rule."""

from __future__ import annotations

import pytest

from meshlib.config.dialects.istio.hosts import covers, meets, most_specific, visible


@pytest.mark.parametrize(
    ("wide", "narrow", "is_covered", "is_met"),
    [
        ("*", "foo.com", True, True),
        ("*", "*.com", True, True),
        ("*.com", "foo.com", True, True),
        ("*.foo.com", "foo.com", False, False),
        ("foo.com", "*.com", False, True),
        ("*.foo.com", "*.com", False, True),
        ("*.com", "*.foo.com", True, True),
        ("foo.com", "bar.com", False, False),
        ("foo.com", "foo.com", True, True),
    ],
)
def test_a_wildcard_covers_names_below_it(wide: str, narrow: str, is_covered: bool, is_met: bool) -> None:
    # From the comments in Istio's pkg/config/host/name.go.
    assert covers(wide, narrow) is is_covered
    assert meets(wide, narrow) is meets(narrow, wide) is is_met


def test_the_most_specific_candidate_is_the_host_itself_or_the_longest_wildcard() -> None:
    candidates = ["*", "*.com", "*.foo.com", "a.foo.com"]
    found = [most_specific(host, candidates) for host in ("a.foo.com", "b.foo.com", "b.com", "b.org")]
    assert found == ["a.foo.com", "*.foo.com", "*.com", "*"]
    assert most_specific("b.org", ["*.com"]) is None


@pytest.mark.parametrize(
    ("export_to", "viewer", "seen"),
    [
        ((), "other", True),
        (("*",), "other", True),
        ((".",), "other", False),
        ((".",), "own", True),
        (("~",), "own", False),
        (("other",), "other", True),
        (("third",), "other", False),
    ],
)
def test_who_sees_a_rule(export_to: tuple[str, ...], viewer: str, seen: bool) -> None:
    assert visible(export_to, "own", viewer) is seen
