"""Regular expressions in time that grows with the text and not faster, so that no request can hold a process up.

The syntax is RE2's, as in Envoy, Istio and Linkerd: no lookaround and no backreferences. With google-re2 (the extra
``re2``) it does the work. Without it Python's ``re`` does, for the patterns that mean the same in both and that
`meshlib.routing.backtracking` finds free of ruinous backtracking; the others are refused when they are loaded.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol

__all__ = ["CompiledRegex", "RegexError", "check_substitution", "compile_regex", "parse_substitution"]

_MAX_PROGRAM = 32_768
"""RE2's instructions of one pattern, at most: what Istio lets Envoy have (``re2.max_program_size.error_level``)."""


class RegexError(ValueError):
    """What is wrong with a pattern or a substitution."""


class CompiledRegex(Protocol):
    """A pattern, ready to be used from any thread."""

    def fullmatch(self, text: str) -> bool:
        """Whether it matches the whole text."""
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
    if "\0" in text:
        raise RegexError("has a null character in it")
    try:
        import re2
    except ImportError:
        return _Backtracking(text)
    return _Linear(text, re2)


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


def check_substitution(regex: str, substitution: str) -> None:
    """See that a substitution fits a pattern.

    Raises:
        RegexError: if it names a group that the pattern does not have, or is wrong by itself.
    """
    wanted = max((part for part in parse_substitution(substitution) if isinstance(part, int)), default=0)
    compiled: Any = compile_regex(regex)
    groups = compiled.groups
    if wanted > groups:
        raise RegexError(rf"uses \{wanted}, and the pattern has {groups} group{'' if groups == 1 else 's'}")


class _Linear:
    """RE2. A set of one pattern answers yes or no with a tenth of the overhead that a match object has."""

    __slots__ = ("_pattern", "_set", "groups")

    def __init__(self, text: str, re2: Any) -> None:
        options = re2.Options()
        options.log_errors = False
        try:
            self._pattern = re2.compile(text, options)
            self._set = re2.Set.FullMatchSet(options)
            self._set.Add(text)
            self._set.Compile()
        except UnicodeEncodeError:
            raise RegexError("has half a character in it") from None
        except re2.error as error:
            raise RegexError(f"is not one that RE2 knows: {_words(error)}") from None
        if self._pattern.programsize > _MAX_PROGRAM:
            raise RegexError(
                f"is too large: {self._pattern.programsize} instructions, and {_MAX_PROGRAM} are the limit"
            )
        self.groups: int = self._pattern.groups

    def fullmatch(self, text: str) -> bool:
        return bool(self._set.Match(text if text.isascii() else text.encode("utf-8", "surrogatepass")))

    def replace(self, text: str, substitution: str) -> str:
        whole = text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
        return _replace(self._pattern, whole, substitution)


class _Backtracking:
    """Python's own."""

    __slots__ = ("_pattern", "groups")

    def __init__(self, text: str) -> None:
        from meshlib.routing.backtracking import checked

        self._pattern = checked(text)
        self.groups = self._pattern.groups

    def fullmatch(self, text: str) -> bool:
        return self._pattern.fullmatch(text) is not None

    def replace(self, text: str, substitution: str) -> str:
        return _replace(self._pattern, text, substitution)


def _replace(pattern: Any, text: str, substitution: str) -> str:
    # By hand, because the two engines' own functions differ in what becomes of empty matches; this is GlobalReplace.
    parts = parse_substitution(substitution)
    made: list[str] = []
    at, last = 0, -1
    while at <= len(text):
        match = pattern.search(text, at)
        if match is None:
            break
        start, end = match.span()
        made.append(text[at:start])
        if start == end == last:
            made.append(text[start : start + 1])
            at = start + 1
            continue
        made += [part if isinstance(part, str) else match.group(part) or "" for part in parts]
        at = last = end
    return "".join([*made, text[at:]])


def _words(error: Exception) -> str:
    said = error.args[0] if error.args else b""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
