"""Regular expressions in time that grows with the text and not faster, so that no request can hold a process up.

The syntax is RE2's, as in Envoy, Istio and Linkerd: no lookaround and no backreferences. With google-re2 (the extra
``re2``) it does the work. Without it Python's ``re`` does, for the patterns that mean the same in both and that
`meshlib.routing.backtracking` finds free of ruinous backtracking; the others are refused when they are loaded. Texts
are matched byte by byte, as Envoy has RE2 do it: to ``.`` a character outside ASCII is several.
"""

from __future__ import annotations

import functools
from typing import Any, Final, Protocol

__all__ = ["CompiledRegex", "RegexError", "check_substitution", "compile_regex", "parse_substitution", "searching"]

_MAX_PROGRAM = 32_768
"""RE2's instructions of one pattern, at most: what Istio lets Envoy have (``re2.max_program_size.error_level``)."""


_MAX_PATTERN: Final = 65_536
"""The length of a pattern, at most: to find out that one is too large takes RE2 memory, too."""

_MAX_SUBSTITUTION: Final = 1024
"""Its length, at most: each group in it may be as long as the text that is rewritten."""


class RegexError(ValueError):
    """What is wrong with a pattern or a substitution: `text` goes on after it ("is too large").

    Attributes:
        text: without anything of the pattern, which may be nobody's business.
        part: the part of the pattern that is meant; None for the whole.
    """

    def __init__(self, text: str, part: str | None = None) -> None:
        super().__init__(text, part)
        self.text = text
        self.part = part

    def __str__(self) -> str:
        return self.text if self.part is None else f"{self.text}: {self.part!r}"


class CompiledRegex(Protocol):
    """A pattern, ready to be used from any thread.

    Attributes:
        groups: how many groups it has.
    """

    groups: int

    def fullmatch(self, text: str) -> bool:
        """Whether it matches the whole text."""
        ...

    def found_in(self, text: str) -> bool:
        """Whether it matches anywhere in the text."""
        ...

    def replace(self, text: str, substitution: str) -> str:
        r"""The text with each match replaced, as RE2's ``GlobalReplace`` does; ``\1`` is what the first group took."""
        ...


@functools.lru_cache(maxsize=1024)
def compile_regex(text: str) -> CompiledRegex:
    """Compile a pattern in RE2's syntax.

    Raises:
        RegexError: if it is none, or if only RE2 could match it safely and is not installed.
    """
    if len(text) > _MAX_PATTERN:
        raise RegexError(f"is longer than {_MAX_PATTERN} characters")
    try:
        pattern = text.encode("utf-8")
    except UnicodeEncodeError:
        raise RegexError("has half a character in it") from None
    try:
        import re2
    except ImportError:
        return _Backtracking(pattern)
    return _Linear(pattern, re2)


@functools.lru_cache(maxsize=1024)
def parse_substitution(substitution: str) -> tuple[str | int, ...]:
    r"""Literal texts and the numbers of groups, in turn. ``\0`` is the whole match and ``\\`` a backslash.

    Raises:
        RegexError: if a backslash stands before anything else.
    """
    parts: list[str | int] = []
    literal, escaped = "", False
    for character in substitution:
        if not escaped:
            escaped = character == "\\"
            literal += "" if escaped else character
            continue
        escaped = False
        if character == "\\":
            literal += character
        elif character.isascii() and character.isdigit():
            parts += [literal, int(character)] if literal else [int(character)]
            literal = ""
        else:
            raise RegexError(r"has a backslash before something that is neither a digit nor a backslash")
    if escaped:
        raise RegexError("ends with a backslash")
    return (*parts, literal) if literal else tuple(parts)


def searching(text: str) -> CompiledRegex:
    """Compile a pattern that is looked for anywhere in texts.

    Raises:
        RegexError: if it is none, or if only RE2 could look for it safely and is not installed.
    """
    compiled = compile_regex(text)
    if isinstance(compiled, _Backtracking):
        compiled.check_anywhere()
    return compiled


def check_substitution(regex: str, substitution: str) -> None:
    """See that a substitution fits a pattern, and that the pattern can be looked for anywhere in a text.

    Raises:
        RegexError: if it names a group that the pattern does not have, or one of the two is wrong by itself.
    """
    if len(substitution) > _MAX_SUBSTITUTION:
        raise RegexError(f"is longer than {_MAX_SUBSTITUTION} characters")
    compiled = searching(regex)
    wanted = max((part for part in parse_substitution(substitution) if isinstance(part, int)), default=0)
    groups = compiled.groups
    if wanted > groups:
        raise RegexError(rf"uses \{wanted}, and the pattern has {groups} group{'' if groups == 1 else 's'}")


class _Linear:
    """RE2. A set of one pattern answers yes or no with a tenth of the overhead that a match object has."""

    __slots__ = ("_pattern", "_set", "groups")

    def __init__(self, pattern: bytes, re2: Any) -> None:
        options = re2.Options()
        options.log_errors = False
        options.encoding = re2.Options.Encoding.LATIN1
        try:
            self._pattern = re2.compile(pattern, options)
            self._set = re2.Set.FullMatchSet(options)
            self._set.Add(pattern)
            self._set.Compile()
        except re2.error as error:
            raise _refused(error) from None
        if self._pattern.programsize > _MAX_PROGRAM:
            raise RegexError(
                f"is too large: {self._pattern.programsize} instructions, and {_MAX_PROGRAM} are the limit"
            )
        self.groups: int = self._pattern.groups

    def fullmatch(self, text: str) -> bool:
        return bool(self._set.Match(text.encode("utf-8", "surrogatepass")))

    def found_in(self, text: str) -> bool:
        return self._pattern.search(text.encode("utf-8", "surrogatepass")) is not None

    def replace(self, text: str, substitution: str) -> str:
        return _replace(self._pattern, text, substitution)


class _Backtracking:
    """Python's own."""

    __slots__ = ("_pattern", "groups")

    def check_anywhere(self) -> None:
        """Refuse what is harmless only where it must match the whole text."""
        from meshlib.routing.backtracking import checked

        checked(self._pattern.pattern, anywhere=True)

    def __init__(self, pattern: bytes) -> None:
        from meshlib.routing.backtracking import checked

        self._pattern = checked(pattern)
        self.groups = self._pattern.groups

    def fullmatch(self, text: str) -> bool:
        return self._pattern.fullmatch(text.encode("utf-8", "surrogatepass")) is not None

    def found_in(self, text: str) -> bool:
        return self._pattern.search(text.encode("utf-8", "surrogatepass")) is not None

    def replace(self, text: str, substitution: str) -> str:
        return _replace(self._pattern, text, substitution)


def _replace(pattern: Any, text: str, substitution: str) -> str:
    # By hand, because the two engines' own functions differ in what becomes of empty matches; this is GlobalReplace.
    parts = [part.encode() if isinstance(part, str) else part for part in parse_substitution(substitution)]
    whole = text.encode("utf-8", "surrogatepass")
    made: list[bytes] = []
    at, last = 0, -1
    while at <= len(whole):
        match = pattern.search(whole, at)
        if match is None:
            break
        start, end = match.span()
        made.append(whole[at:start])
        if start == end == last:
            made.append(whole[start : start + 1])
            at = start + 1
            continue
        made += [part if isinstance(part, bytes) else match.group(part) or b"" for part in parts]
        at = last = end
    return b"".join([*made, whole[at:]]).decode("utf-8", "replace")


def _refused(error: Exception) -> RegexError:
    # What RE2 says is followed by the part that it means: "missing ): (a".
    said = error.args[0] if error.args else b""
    text, _, part = (said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)).partition(": ")
    return RegexError(f"is not a regular expression of RE2: {text}", part or None)
