"""Filter expressions over endpoints, in the language of Consul's: which instances a subset has.

    expression  = conjunction ["or" expression]
    conjunction = negation ["and" conjunction]
    negation    = "not" negation | "(" expression ")" | condition
    condition   = selector ("==" | "!=" | "contains" | "not contains" | "matches" | "not matches") value
                | value ("in" | "not in") selector
                | selector ("is empty" | "is not empty")
    selector    = "Service.Meta.version", "Service.Meta["my-key"]", "Service.Meta", "Service.Tags", "Service.Address",
                  "Service.Port"
    value       = a word, a number, "text" or `text`

Source: HashiCorp's go-bexpr, whose words and precedence these are, and which Consul's resolvers use. A key that is not
there equals nothing, contains nothing and matches nothing, so all that is negated holds of it. ``matches`` looks for
the pattern anywhere in the value. An empty filter takes all. Of what Consul lets filters look at, these selectors are
what a caller knows of an endpoint.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Literal, NoReturn, TypeAlias

from meshlib.balance.endpoint import Endpoint
from meshlib.dataclass import dataclass, field
from meshlib.routing.regex import RegexError, searching

__all__ = ["EndpointFilter", "FilterError", "parse_filter"]

Test: TypeAlias = Callable[[Endpoint], bool]
Field: TypeAlias = Literal["meta", "metas", "tags", "address", "port"]

MAX_DEPTH: Final = 50
_TAG: Final = "tag."
_WORD: Final = r"[A-Za-z][A-Za-z0-9_/]*"
_KEY: Final = r'\[\s*(?:"[^"]*"|`[^`]*`)\s*\]'
_TOKEN = re.compile(
    rf'\s*(?:(?P<text>"[^"]*"|`[^`]*`)|(?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?![A-Za-z0-9_]))'
    rf"|(?P<word>{_WORD}(?:\.{_WORD}|{_KEY})*)|(?P<sign>==|!=|\(|\)))"
)
_PART = re.compile(rf"{_WORD}|{_KEY}")
_KNOWN: Final = "Service.Meta, Service.Tags, Service.Address and Service.Port"


class FilterError(ValueError):
    """Text is no filter expression, or one over what a caller does not know of an endpoint."""


@dataclass(frozen=True, slots=True)
class EndpointFilter:
    """A filter expression. Two of the same text are equal.

    Attributes:
        text: as it was written.
    """

    text: str
    holds: Test = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "holds", _Parser(self.text).parse())

    def __reduce__(self) -> tuple[type[EndpointFilter], tuple[str]]:
        return EndpointFilter, (self.text,)


def parse_filter(text: str) -> EndpointFilter:
    """Return the filter that `text` is.

    Raises:
        FilterError: if it is none.
    """
    return EndpointFilter(text)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._next = 0
        self._depth = 0

    def parse(self) -> Test:
        if not self._tokens:
            return lambda endpoint: True
        test = self._expression()
        if self._kind:
            self._wrong("the end, 'and' or 'or'")
        return test

    def _expression(self) -> Test:
        tests = [self._conjunction()]
        while self._take("or"):
            tests.append(self._conjunction())
        return tests[0] if len(tests) == 1 else lambda endpoint: any(test(endpoint) for test in tests)

    def _conjunction(self) -> Test:
        tests = [self._negation()]
        while self._take("and"):
            tests.append(self._negation())
        return tests[0] if len(tests) == 1 else lambda endpoint: all(test(endpoint) for test in tests)

    def _negation(self) -> Test:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise FilterError(f"is nested more than {MAX_DEPTH} levels deep")
        try:
            if self._take("not"):
                test = self._negation()
                return lambda endpoint: not test(endpoint)
            if self._take("("):
                test = self._expression()
                if not self._take(")"):
                    self._wrong("')'")
                return test
            return self._condition()
        finally:
            self._depth -= 1

    def _condition(self) -> Test:
        first = self._operand("a condition")
        if self._take("in"):
            return self._inside(self._operand("a selector"), first.text)
        if self._take("not"):
            if self._take("in"):
                return _negated(self._inside(self._operand("a selector"), first.text))
            if self._take("contains"):
                return _negated(self._inside(first, self._value()))
            if self._take("matches"):
                return _negated(self._matching(first))
            self._wrong("'in', 'contains' or 'matches'")
        if self._take("is"):
            negated = self._take("not")
            if not self._take("empty"):
                self._wrong("'empty'")
            test = self._empty(first)
            return _negated(test) if negated else test
        if self._take("=="):
            return self._equal(first, self._value())
        if self._take("!="):
            return _negated(self._equal(first, self._value()))
        if self._take("contains"):
            return self._inside(first, self._value())
        if self._take("matches"):
            return self._matching(first)
        self._wrong("'==', '!=', 'in', 'contains', 'matches' or 'is'")

    def _equal(self, selector: _Token, value: str) -> Test:
        kind, key = _selected(selector)
        if kind == "meta":
            return lambda endpoint: endpoint.metadata.get(key) == value
        if kind == "address":
            return lambda endpoint: endpoint.host == value
        if kind == "port":
            if not (value.isascii() and value.isdigit()):
                raise FilterError(f"compares {selector.text} with {value!r}, which is no port")
            port = int(value)
            return lambda endpoint: endpoint.port == port
        raise FilterError(f"compares {selector.text}, which has many values; 'in' looks for one of them")

    def _inside(self, selector: _Token, value: str) -> Test:
        kind, key = _selected(selector)
        if kind == "tags":
            tag = _TAG + value
            return lambda endpoint: tag in endpoint.metadata
        if kind == "metas":
            return lambda endpoint: value in endpoint.metadata
        if kind == "meta":
            return lambda endpoint: value in endpoint.metadata.get(key, ()) if value else key in endpoint.metadata
        if kind == "address":
            return lambda endpoint: value in endpoint.host
        raise FilterError(f"looks into {selector.text}, which is a number")

    def _matching(self, selector: _Token) -> Test:
        kind, key = _selected(selector)
        pattern = self._value()
        try:
            expression = searching(pattern)
        except RegexError as error:
            raise FilterError(f"has {pattern!r}, which {error}") from None
        if kind == "meta":
            return lambda endpoint: key in endpoint.metadata and expression.found_in(endpoint.metadata[key])
        if kind == "address":
            return lambda endpoint: expression.found_in(endpoint.host)
        raise FilterError(f"matches {selector.text}, which is no text")

    def _empty(self, selector: _Token) -> Test:
        kind, _ = _selected(selector)
        if kind == "tags":
            return lambda endpoint: not any(key.startswith(_TAG) for key in endpoint.metadata)
        if kind == "metas":
            return lambda endpoint: all(key.startswith(_TAG) for key in endpoint.metadata)
        raise FilterError(f"asks whether {selector.text} is empty, which only a list or a map can be")

    @property
    def _kind(self) -> str:
        return self._tokens[self._next].kind if self._next < len(self._tokens) else ""

    def _take(self, text: str) -> bool:
        kind = "sign" if text in ("==", "!=", "(", ")") else "word"
        if self._kind == kind and self._tokens[self._next].text == text:
            self._next += 1
            return True
        return False

    def _operand(self, expected: str) -> _Token:
        if self._kind in ("", "sign"):
            self._wrong(expected)
        self._next += 1
        return self._tokens[self._next - 1]

    def _value(self) -> str:
        return self._operand("a value").text

    def _wrong(self, expected: str) -> NoReturn:
        if not self._kind:
            raise FilterError(f"ends where {expected} is expected")
        token = self._tokens[self._next]
        raise FilterError(f"has {token.text!r} at character {token.at + 1}, where {expected} is expected")


def _negated(test: Test) -> Test:
    return lambda endpoint: not test(endpoint)


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            rest = text[at:].strip()
            raise FilterError(f"has {rest[:20]!r} at character {end - len(rest) + 1}, which begins nothing")
        kind = match.lastgroup or ""
        value = match[kind]
        found.append(_Token(kind, value[1:-1] if kind == "text" else value, match.start(kind)))
        at = match.end()
    return found


def _selected(token: _Token) -> tuple[Field, str]:
    """What a selector names, and the key where it names one of many."""
    parts = _PART.findall(token.text) if token.kind == "word" else []
    keys = [part.strip("[] \t")[1:-1] if part.startswith("[") else part for part in parts]
    match keys:
        case ["Service", "Meta", key]:
            return "meta", key
        case ["Service", "Meta"]:
            return "metas", ""
        case ["Service", "Tags"]:
            return "tags", ""
        case ["Service", "Address"]:
            return "address", ""
        case ["Service", "Port"]:
            return "port", ""
    raise FilterError(f"looks at {token.text!r}; of an endpoint {_KNOWN} are known")
