"""Regular expressions: one meaning with RE2 and without, and nothing that takes long."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.routing import regex
from meshlib.routing.backtracking import _Automaton, _parser, checked
from meshlib.routing.regex import CompiledRegex, RegexError, check_substitution, compile_regex, parse_substitution

Compile = Callable[[str], CompiledRegex]


def without_re2(text: str) -> CompiledRegex:
    return regex._Backtracking(text.encode())


def with_re2(text: str) -> CompiledRegex:
    return regex._Linear(text.encode(), pytest.importorskip("re2"))


both = pytest.mark.parametrize("compiled", [with_re2, without_re2])


@both
@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        (r"/v[12]", ["/v1"], ["/v3", "/v1/x", "x/v1"]),
        (r"^/a$", ["/a"], ["/a\n", "/ab"]),
        (r"/a|/b", ["/a", "/b"], ["/a/b"]),
        (r"\d+", ["42"], ["٤٢", ""]),
        (r"(?i)/Foo", ["/fOO"], ["/fo"]),
        (r".", ["a"], ["ä", ""]),
        (r"..", ["ä"], ["a"]),
        (r"ä+", ["ä"], ["ö"]),
        (r"", [""], ["a"]),
        (r"(?:/[a-z0-9-]+)*/items/\d+", ["/items/1", "/a/b-c/items/12"], ["/a/items/x"]),
        (r"(?s:.)*", ["a\nb"], []),
        (r"\.\*", [".*"], ["ab"]),
    ],
)
def test_both_engines_match_the_same(compiled: Compile, pattern: str, yes: list[str], no: list[str]) -> None:
    made = compiled(pattern)
    assert [text for text in yes + no if made.fullmatch(text)] == yes


@both
@pytest.mark.parametrize(
    ("pattern", "substitution", "text", "made"),
    [
        ("/a", "/b", "/a/a", "/b/b"),
        (r"^/service/([^/]+)(/.*)$", r"\2/instance/\1", "/service/foo/v1/api", "/v1/api/instance/foo"),
        ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
        (r"^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"),
        (r"(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
        ("x*", "-", "abxd", "-a-b-d-"),
        ("(|a)", "-", "aa", "-a-a-"),
        ("(a)|b", r"[\1]", "ab", "[a][]"),
        ("b", r"\0\\", "abc", r"ab\c"),
        ("z", "", "ä", "ä"),
    ],
)
def test_both_engines_replace_as_re2_does(
    compiled: Compile, pattern: str, substitution: str, text: str, made: str
) -> None:
    """The first rows are those of Envoy's documentation of ``regex_rewrite``."""
    assert compiled(pattern).replace(text, substitution) == made


@both
@pytest.mark.parametrize(
    "pattern",
    [r"(", r"a**", r"(?=a)b", r"(?<!a)b", r"(a)\1", r"a++", r"(?>a)", r"a\Z", r"a{1001}", r"(?x)a", "a\ud800"],
)
def test_what_is_not_in_re2_is_refused_by_both(compiled: Compile, pattern: str) -> None:
    with pytest.raises((RegexError, UnicodeEncodeError)):
        compiled(pattern)
    with pytest.raises(RegexError):
        compile_regex(pattern)


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        ("(a*)*", "(a*)*"),
        ("/x(a+)+b", "(a+)+"),
        (r"(\w+\s?)+", r"([\w]+[\s]?)+"),
        ("(a|b|ab)*c", "(a|b|ab)*"),
        ("(x+x+)+y", "(x+x+)+"),
        ("([a-z]{1,3})*", "([a-z]{1,3})*"),
        (".*a.*b.*c", ".* .* .*"),
        ("(a?){30}a{30}", "(a?){30,30}"),
        ("a?" * 30 + "a" * 30, None),
        (r"(?:[^/]|[^a]){9,}(?:x+){2,30}", "(x+){2,30}"),
        (r"[[:alpha:]]", None),
        (r"\pL", None),
    ],
)
def test_without_re2_what_may_take_long_is_refused_with_the_part_and_the_cure(pattern: str, part: str | None) -> None:
    with pytest.raises(RegexError, match=re.escape('pip install "meshlib-http[re2]"')) as caught:
        checked(pattern.encode())
    assert caught.value.part == part
    assert pattern not in caught.value.text
    assert with_re2(pattern) is not None


@pytest.mark.parametrize(
    "pattern",
    [
        *(".*", ".*foo.*bar", "/api/v[0-9]+/.*/items/.*", "(/(\\w+)?)?", "(\\d+)?", "(?:a|b)*?c", "^(.+)@(.+)$"),
        "[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}",
        "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
        "(%[0-9a-fA-F]{2}|[a-z])*",
        "(?P<year>\\d{4})/(?P<month>\\d{1,2})",
        "|".join(f"/service-{n}/.*" for n in range(100)),
    ],
)
def test_without_re2_what_people_write_is_taken(pattern: str) -> None:
    assert checked(pattern.encode()).pattern == pattern.encode()


def test_a_pattern_too_large_is_refused() -> None:
    with pytest.raises(RegexError, match="too large for Python"):
        checked(b"(?:" + b"|".join(b"%dx" % n for n in range(2000)) + b")")
    with pytest.raises(RegexError, match=r"too large|RE2"):
        with_re2("((a{100}){100}b{1000})")
    with pytest.raises(RegexError):
        checked(b"(" * 5000 + b")" * 5000)


PATTERNS = st.recursive(
    st.sampled_from(["a", "b", "[ab]", "."]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "*?"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(PATTERNS)
def test_no_pattern_is_taken_of_which_a_short_text_leads_back_on_two_paths(pattern: str) -> None:
    """The paths are counted for each short text here, and by the pairs of states there."""
    try:
        checked(pattern.encode())
    except RegexError:
        return
    automaton = _Automaton()
    automaton.read(_parser.parse(pattern.encode()))
    takes = [
        {letter for letter in (97, 98) if any(low <= letter <= high for low, high in ranges)}
        for ranges in automaton.sets
    ]
    for start in range(1, len(takes)):
        for length in range(1, 5):
            for word in itertools.product((97, 98), repeat=length):
                paths = {start: 1}
                for letter in word:
                    after: dict[int, int] = {}
                    for state, count in paths.items():
                        for each, times in automaton.follow[state].items():
                            if letter in takes[each]:
                                after[each] = after.get(each, 0) + count * times
                    paths = after
                assert paths.get(start, 0) < 2


@settings(deadline=None)
@given(PATTERNS, st.text("ab", max_size=6))
def test_the_engines_agree_on_every_text(pattern: str, text: str) -> None:
    linear = with_re2(pattern)
    assert linear.fullmatch(text) is (re.fullmatch(pattern, text) is not None)
    try:
        safe = without_re2(pattern)
    except RegexError:
        return
    assert linear.fullmatch(text) is safe.fullmatch(text)
    assert linear.replace(text, r"<\0>") == safe.replace(text, r"<\0>")


@settings(deadline=None)
@given(st.text(max_size=12))
def test_any_text_is_a_pattern_or_is_refused_clearly(text: str) -> None:
    for compiled in (with_re2, without_re2):
        with suppress(RegexError):
            compiled(text).fullmatch(text)


def test_substitutions_are_checked() -> None:
    assert parse_substitution(r"a\1b\\\0") == ("a", 1, "b\\", 0)
    for wrong in (r"\x", "a\\"):
        with pytest.raises(RegexError, match="backslash"):
            parse_substitution(wrong)
    check_substitution("(a)(b)", r"\2\1")
    with pytest.raises(RegexError, match=r"uses \\2, and the pattern has 1 group$"):
        check_substitution("(a)", r"\2")


def test_without_re2_a_pattern_to_be_found_anywhere_may_repeat_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    compile_regex.cache_clear()
    try:
        assert isinstance(compile_regex(".*a.*b"), regex._Backtracking)
        with pytest.raises(RegexError, match="too many ways"):
            check_substitution(".*a.*b", "x")
        check_substitution("^/a/([^/]+)", r"\1")
    finally:
        compile_regex.cache_clear()
