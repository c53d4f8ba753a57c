"""What can take nothing in several ways takes exponential time in a loop, too: without RE2 it is refused."""

from __future__ import annotations

import pytest

from meshlib.balance.filter import FilterError, parse_filter
from meshlib.routing.backtracking import checked
from meshlib.routing.regex import RegexError, check_substitution


@pytest.mark.parametrize(
    "pattern",
    ["(a|a)*b", "(?:y(?:x?)?)*z", "(?:/(?:a?|b?))*", "(?:y(|))*z", "(?:y(?:x?)*)*z", "(()+a?)*", "([ab](){1,})*"],
)
def test_a_loop_that_takes_nothing_in_two_ways_is_refused(pattern: str) -> None:
    with pytest.raises(RegexError):
        checked(pattern.encode())


@pytest.mark.parametrize("pattern", ["(|)" * 20, "(a?|b?)" * 20, "[a-z]*" * 2000, "a" * 20_000])
def test_too_many_ways_and_too_much_of_it_are_refused(pattern: str) -> None:
    with pytest.raises(RegexError):
        checked(pattern.encode())


@pytest.mark.parametrize("pattern", ["/a?(b|)c", "(?:/[a-z]+)*/?", "(v1|v2|)/x?y?"])
def test_what_takes_nothing_in_one_way_is_not(pattern: str) -> None:
    assert checked(pattern.encode()).pattern == pattern.encode()


def test_a_substitution_has_a_length() -> None:
    check_substitution("(a)", r"\1" * 500)
    with pytest.raises(RegexError, match="longer than 1024"):
        check_substitution("(a)", r"\1" * 1000)


def test_the_pattern_of_a_filter_is_checked_like_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_filter('Service.Meta.zone matches "^eu-(west|east)"')
    monkeypatch.setitem(__import__("sys").modules, "re2", None)
    with pytest.raises(FilterError, match="exponentially many ways"):
        parse_filter('Service.Meta.zone matches "(ab|(ab))+x"')
