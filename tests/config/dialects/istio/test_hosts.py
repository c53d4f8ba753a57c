"""Which candidate fits a host best, and who sees a rule."""

from __future__ import annotations

import pytest

from meshlib.config.dialects.istio.hosts import most_specific, visible


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
