"""Whether Python's ``re``, which backtracks, can match a pattern without ruin. Used only where RE2 is not installed.

A pattern becomes its position automaton (Glushkov, "The abstract theory of automata", 1961): a state for each character
that it can take. A text costs as many steps as there are paths that read beginnings of it, so the paths are counted,
after Weideman et al., "Analyzing matching time behavior of backtracking regular expression matchers" (2016):

- A loop in which one text leads from a state back to it on two paths doubles the paths in each round: exponential.
- A loop that a character may both stay in and leave, or take in two ways, gives a text of n characters n chances. Each
  further one on the way multiplies: two are allowed (n squared), three are not.
- Other states with a choice multiply by the number of their choices; 256 in all are allowed.
- To take nothing in two ways, as in ``(a?|b?)``, is a choice as well.

A bounded repeat counts as a loop if it is long, so some patterns are refused that would do no harm, and none taken that
would. Only what means the same to RE2 and to Python is taken at all.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any, Final, TypeAlias

from meshlib.routing.regex import RegexError

__all__ = ["checked"]

Ranges: TypeAlias = tuple[tuple[int, int], ...]
_Piece: TypeAlias = tuple[int, list[int], list[int]]
"""Of a part: in how many ways it takes nothing, the states that it begins and those that it ends with; a state is there
once for each way to it without another character."""

_INSTALL: Final = '; pip install "meshlib-http[re2]" has RE2 match it, which can'
_LAST: Final = 0x10FFFF
_ALL: Final[Ranges] = ((0, _LAST),)
_MAX_STATES: Final = 3000
_MAX_LINKS: Final = 50_000
_MAX_TEXT: Final = 10_000
_MAX_LOOP: Final = 200
_MAX_LOOPS: Final = 2
_MAX_CHOICES: Final = 256
_EXACT: Final = 8
"""Bounded repeats of up to so many rounds are written out; longer ones count as loops."""

_ONE_CHARACTER: Final = (op.LITERAL, op.NOT_LITERAL, op.IN, op.ANY)
_DIGIT: Final[Ranges] = ((48, 57),)
_SPACE: Final[Ranges] = ((9, 13), (32, 32))
_WORD: Final[Ranges] = ((48, 57), (65, 90), (95, 95), (97, 122))

_ONLY_RE2: Final = "syntax that only RE2 has"
_FOREIGN: Final = (
    (rb"\\Z", r"'\Z', which RE2 calls '\z'"),
    (rb"\\[zCQpP]|\\x\{|\[:", _ONLY_RE2),
    (rb"\{,", "'{,', which RE2 takes literally"),
    (rb"\\[uUN]", r"'\u', '\U' or '\N', which RE2 does not have"),
    (rb"\(\?[a-zA-Z-]*[aLux]", "a flag that RE2 does not have"),
)
"""What the two engines would take differently. Looked for with pairs of backslashes put aside."""


def checked(text: bytes, *, anywhere: bool = False) -> re.Pattern[bytes]:
    """Compile a pattern for Python's ``re``.

    Args:
        text: in the syntax that RE2 and Python share.
        anywhere: whether it is looked for anywhere in texts, which is as if it had another loop in front.

    Raises:
        RegexError: if it is none, or not safe; says which part.
    """
    if len(text) > _MAX_TEXT:
        raise RegexError(f"is too large for Python's re{_INSTALL}")
    foreign = _foreign(text)
    if foreign is not None:
        raise RegexError(f"has {foreign}{_INSTALL if foreign == _ONLY_RE2 else ''}")
    try:
        with warnings.catch_warnings():
            # What Python warns of (a possible nested set, say) will mean something else one day.
            warnings.simplefilter("error")
            pattern = re.compile(text)
            tree = _parser.parse(text)
        automaton = _Automaton()
        automaton.read(tree)
    except re.error as error:
        at = "" if error.pos is None else f" at character {error.pos + 1}"
        raise RegexError(f"is not a regular expression: {error.msg}{at}") from None
    except (OverflowError, RecursionError, Warning):
        raise RegexError(f"is not one for Python's re{_INSTALL}") from None
    automaton.judge(1 if anywhere else 0)
    return pattern


def _foreign(text: bytes) -> str | None:
    plain = text.replace(rb"\\", b"__")
    return next((words for pattern, words in _FOREIGN if re.search(pattern, plain)), None)


class _Automaton:
    """Position automaton of a pattern; state 0 is the start."""

    def __init__(self) -> None:
        self.sets: list[Ranges] = [()]
        self.follow: list[Counter[int]] = [Counter()]
        self._links = 0
        # First state, the one after the last, as written, whether there is more in it than one character.
        self.repeats: list[tuple[int, int, str, bool]] = []

    def read(self, tree: Any) -> None:
        """Take a pattern in."""
        _, first, _ = self._sequence(tree, tree.state.flags)
        self.follow[0].update(first)

    def _sequence(self, items: Iterable[Any], flags: int) -> _Piece:
        return self._joined([self._item(kind, value, flags) for kind, value in items])

    def _item(self, kind: Any, value: Any, flags: int) -> _Piece:
        if kind is op.AT:
            return 1, [], []
        if kind is op.SUBPATTERN:
            _, added, removed, body = value
            return self._sequence(body, (flags | added) & ~removed)
        if kind is op.BRANCH:
            parts = [self._sequence(branch, flags) for branch in value[1]]
            return (
                _few(sum(ways for ways, _, _ in parts)),
                [state for _, first, _ in parts for state in first],
                [state for _, _, last in parts for state in last],
            )
        if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
            return self._repeat(value, flags)
        if kind in _ONE_CHARACTER:
            return self._state(_set(kind, value, flags))
        raise RegexError(f"has {_named(kind)}, which RE2 does not have")

    def _state(self, ranges: Ranges) -> _Piece:
        self.sets.append(ranges)
        self.follow.append(Counter())
        if len(self.sets) > _MAX_STATES:
            raise RegexError(f"is too large for Python's re{_INSTALL}")
        state = len(self.sets) - 1
        return 0, [state], [state]

    def _repeat(self, value: Any, flags: int) -> _Piece:
        least, most, body = value
        if (most is not op.MAXREPEAT and most > 1000) or least > 1000:
            raise RegexError("repeats something more than 1000 times, which RE2 does not")
        began = len(self.sets)
        if most is not op.MAXREPEAT and (most <= (_EXACT if least == most else _EXACT // 2)):
            parts = [self._sequence(body, flags) for _ in range(most)]
            made = self._joined(
                [(_few(ways + (n >= least)), first, last) for n, (ways, first, last) in enumerate(parts)]
            )
        else:
            copies = least if least <= _EXACT else 1
            parts = [self._sequence(body, flags) for _ in range(max(copies, 1))]
            ways, first, last = parts[-1]
            if ways:
                # Each round may be followed by one that takes nothing.
                raise RegexError(f"repeats what may be empty{_INSTALL}", _shown([(op.MAX_REPEAT, value)]))
            self._link(last, first)
            made = self._joined([*parts[:-1], (int(least == 0), first, last)])
        if most is op.MAXREPEAT or most > 1:
            single = len(body) == 1 and body[0][0] in _ONE_CHARACTER
            self.repeats.append((began, len(self.sets), _shown([(op.MAX_REPEAT, value)]), not single))
        return made

    def _joined(self, parts: Sequence[_Piece]) -> _Piece:
        ways, first, last = 1, list[int](), list[int]()
        for skip, begins, ends in parts:
            self._link(last, begins)
            first += begins * ways
            last = [*(last * skip), *ends]
            ways = _few(ways * skip)
        return ways, first, last

    def _link(self, states: Sequence[int], following: Sequence[int]) -> None:
        self._links += len(states) * len(following)
        if self._links > _MAX_LINKS:
            raise RegexError(f"is too large for Python's re{_INSTALL}")
        for state in states:
            self.follow[state].update(following)

    # The judgement

    def judge(self, loops_before: int) -> None:
        """Refuse what may take too long."""
        groups = _components([list(follow) for follow in self.follow])  # each after those that it leads to
        group_of = {state: number for number, group in enumerate(groups) for state in group}
        loops: list[
            tuple[int, tuple[int, ...]]
        ] = []  # for each group: how many ambiguous loops follow, one state of each
        bits: list[float] = []
        for number, group in enumerate(groups):
            choices = max(_overlap(self.sets, self.follow[state]) for state in group)
            is_loop = len(group) > 1 or group[0] in self.follow[group[0]]
            if is_loop:
                self._judge_loop(group)
            next_groups = {group_of[state] for member in group for state in self.follow[member]} - {number}
            best = max((loops[each] for each in next_groups), default=(0, ()))
            most_bits = max((bits[each] for each in next_groups), default=0.0)
            if is_loop and choices > 1:
                best = (best[0] + 1, (group[0], *best[1]))
            loops.append(best)
            bits.append(most_bits + (0.0 if is_loop else math.log2(max(choices, 1))))
        count, states = loops[group_of[0]]
        if count + loops_before > _MAX_LOOPS:
            parts = " ".join(self._where([state]) for state in states)
            raise RegexError(f"has repeats that can share one text in too many ways{_INSTALL}", parts)
        if 2 ** bits[group_of[0]] > _MAX_CHOICES:
            raise RegexError(f"can take the same text in more than {_MAX_CHOICES} ways, by its choices{_INSTALL}")

    def _judge_loop(self, group: Sequence[int]) -> None:
        """Refuse a loop in which the same text leads from a state back to it on two paths."""
        inside = set(group)
        steps = {state: [each for each in self.follow[state] if each in inside] for state in group}
        twice = any(self.follow[state][each] > 1 for state in group for each in steps[state])
        if not twice:
            if all(_overlap(self.sets, dict.fromkeys(steps[state], 1)) < 2 for state in group):
                return
            if len(group) > _MAX_LOOP:
                raise RegexError(f"has a repeat too large for Python's re{_INSTALL}", self._where(group))
            twice = self._parts_and_meets(group, steps)
        if twice:
            raise RegexError(f"can take one text in exponentially many ways{_INSTALL}", self._where(group, nested=True))

    def _parts_and_meets(self, group: Sequence[int], steps: dict[int, list[int]]) -> bool:
        forward: dict[tuple[int, int], list[tuple[int, int]]] = {}
        back: dict[tuple[int, int], list[tuple[int, int]]] = {}
        together = [(state, state) for state in group]
        todo = list(together)
        seen = set(todo)
        while todo:
            pair = todo.pop()
            forward[pair] = found = [
                (one, other)
                for one in steps[pair[0]]
                for other in steps[pair[1]]
                if _meet(self.sets[one], self.sets[other])
            ]
            for each in found:
                back.setdefault(each, []).append(pair)
                if each not in seen:
                    seen.add(each)
                    todo.append(each)
        todo, returns = list(together), set(together)
        while todo:
            for each in back.get(todo.pop(), ()):
                if each not in returns:
                    returns.add(each)
                    todo.append(each)
        return any(one != other for one, other in returns)

    def _where(self, states: Sequence[int], *, nested: bool = False) -> str:
        """The smallest repeat that has all of these states, as written; of those with more than one character in it."""
        low, high = min(states), max(states)
        around = [
            (end - start, shown)
            for start, end, shown, more in self.repeats
            if start <= low and high < end and (more or not nested)
        ]
        return min(around, default=(0, ""))[1]


def _few(ways: int) -> int:
    if ways > _MAX_CHOICES:
        raise RegexError(f"can take nothing in more than {_MAX_CHOICES} ways, by its choices{_INSTALL}")
    return ways


def _components(follow: Sequence[Sequence[int]]) -> list[list[int]]:
    """Strongly connected components (Tarjan, 1972), each after all those that it leads to."""
    order: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    waiting: set[int] = set()
    found: list[list[int]] = []
    for root in range(len(follow)):
        if root in order:
            continue
        work = [(root, iter(follow[root]))]
        order[root] = low[root] = len(order)
        stack.append(root)
        waiting.add(root)
        while work:
            state, rest = work[-1]
            for each in rest:
                if each not in order:
                    order[each] = low[each] = len(order)
                    stack.append(each)
                    waiting.add(each)
                    work.append((each, iter(follow[each])))
                    break
                if each in waiting:
                    low[state] = min(low[state], order[each])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[state])
                if low[state] == order[state]:
                    at = stack.index(state)
                    group, stack[at:] = stack[at:], []
                    waiting.difference_update(group)
                    found.append(group)
    return found


def _meet(one: Ranges, other: Ranges) -> bool:
    return any(low <= high2 and low2 <= high for low, high in one for low2, high2 in other)


def _overlap(sets: Sequence[Ranges], states: Any) -> int:
    """How many of the next states, at most, take the same character."""
    edges = [
        edge
        for state, times in states.items()
        for low, high in sets[state]
        for edge in ((low, times), (high + 1, -times))
    ]
    most = now = 0
    for _, change in sorted(edges):
        now += change
        most = max(most, now)
    return most


def _set(kind: Any, value: Any, flags: int) -> Ranges:
    if kind is op.ANY:
        return _ALL
    if kind is op.IN:
        negated = value[0][0] is op.NEGATE
        ranges = _merged([each for item in value[negated:] for each in _cased(_part(*item), flags)])
    else:
        negated = kind is op.NOT_LITERAL
        ranges = _merged(_cased(((value, value),), flags))
    return _complement(ranges) if negated else ranges


def _part(kind: Any, value: Any) -> Ranges:
    if kind is op.LITERAL:
        return ((value, value),)
    if kind is op.RANGE:
        return (value,)
    name = str(value)
    ranges = _DIGIT if "DIGIT" in name else _SPACE if "SPACE" in name else _WORD
    return _complement(ranges) if "NOT" in name else ranges


def _cased(ranges: Ranges, flags: int) -> Ranges:
    if not flags & re.IGNORECASE:
        return ranges
    both = list(ranges)
    for low, high in ranges:
        for start, end, shift in ((65, 90, 32), (97, 122, -32)):
            if low <= end and high >= start:
                both.append((max(low, start) + shift, min(high, end) + shift))
    return tuple(both)


def _merged(ranges: Iterable[tuple[int, int]]) -> Ranges:
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def _complement(ranges: Ranges) -> Ranges:
    gaps, at = [], 0
    for low, high in _merged(ranges):
        if low > at:
            gaps.append((at, low - 1))
        at = high + 1
    return (*gaps, (at, _LAST)) if at <= _LAST else tuple(gaps)


def _named(kind: Any) -> str:
    name = str(kind)
    if name.startswith("ASSERT"):
        return "lookaround"
    if name.startswith("GROUPREF"):
        return "a backreference"
    return "a possessive repeat or an atomic group"


def _shown(items: Iterable[Any]) -> str:
    """About as it was written."""
    return "".join(_shown_item(kind, value) for kind, value in items)


def _shown_item(kind: Any, value: Any) -> str:
    if kind is op.LITERAL:
        return re.escape(chr(value)) if chr(value) in r"\.*+?()[]{}|^$" else chr(value)
    if kind is op.NOT_LITERAL:
        return f"[^{chr(value)}]"
    if kind is op.ANY:
        return "."
    if kind is op.IN:
        return f"[{''.join(map(_shown_part, value))}]"
    if kind is op.SUBPATTERN:
        return f"({_shown(value[3])})"
    if kind is op.BRANCH:
        return "|".join(map(_shown, value[1]))
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
        least, most, body = value
        most = None if most is op.MAXREPEAT else most
        count = {(0, None): "*", (1, None): "+", (0, 1): "?"}.get((least, most))
        single = len(body) == 1 and (body[0][0] in _ONE_CHARACTER or body[0][0] is op.SUBPATTERN)
        bounds = f"{{{least},{'' if most is None else most}}}"
        return (_shown(body) if single else f"({_shown(body)})") + (count or bounds)
    return ""


def _shown_part(item: tuple[Any, Any]) -> str:
    kind, value = item
    if kind is op.NEGATE:
        return "^"
    if kind is op.LITERAL:
        return chr(value)
    if kind is op.RANGE:
        return f"{chr(value[0])}-{chr(value[1])}"
    name = str(value)
    letter = "d" if "DIGIT" in name else "s" if "SPACE" in name else "w"
    return f"\\{letter.upper() if 'NOT' in name else letter}"
