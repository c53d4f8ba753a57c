"""The dataclasses of the mesh beside those of the standard library: the same classes, made by both."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import pprint
import subprocess
import sys
import typing
from collections.abc import Callable
from types import ModuleType
from typing import Any, ClassVar

import pytest

from meshlib import dataclass as ours

MAKERS: list[ModuleType] = [dataclasses, ours]


def _plain(made_by: Any) -> Any:
    @made_by.dataclass(slots=True, frozen=True)
    class Sample:
        """A sample."""

        kind: ClassVar[str] = "sample"
        name: str
        size: int = 3
        parts: tuple[int, ...] = (1, 2)
        secret: str = made_by.field(default="hidden", repr=False)
        extra: dict[str, int] = made_by.field(default_factory=dict, hash=False)
        derived: int = made_by.field(init=False, compare=False, repr=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "derived", self.size * 2)

        @property
        def shout(self) -> str:
            return self.name.upper()

    return Sample


def _open(made_by: Any) -> Any:
    @made_by.dataclass(slots=True)
    class Sample:
        """A sample."""

        name: str
        items: list[int] = made_by.field(default_factory=list)

    return Sample


def _identity(made_by: Any) -> Any:
    @made_by.dataclass(slots=True, frozen=True, eq=False)
    class Sample:
        """A sample."""

        name: str

    return Sample


def _empty(made_by: Any) -> Any:
    @made_by.dataclass(slots=True, frozen=True)
    class Sample:
        """A sample."""

    return Sample


def _derived(made_by: Any) -> Any:
    @made_by.dataclass(slots=True, frozen=True, kw_only=True)
    class Base:
        """A base."""

        kind: ClassVar[str] = "base"
        name: str = ""
        count: int = made_by.field(default_factory=lambda: 7)

    @made_by.dataclass(slots=True, frozen=True, kw_only=True)
    class Sample(Base):
        """A sample."""

        kind: ClassVar[str] = "sample"
        size: int
        name: str = "another default"

        def __str__(self) -> str:
            return f"{self.kind} {self.name}"

    return Sample


def _own_methods(made_by: Any) -> Any:
    @made_by.dataclass(slots=True, frozen=True)
    class Sample:
        """A sample."""

        name: str

        def __repr__(self) -> str:
            return f"<{self.name}>"

        def __eq__(self, other: object) -> bool:
            return isinstance(other, type(self)) and self.name.lower() == other.name.lower()

        def __hash__(self) -> int:
            return hash(self.name.lower())

    return Sample


SHAPES: list[Callable[[Any], Any]] = [_plain, _open, _identity, _empty, _derived, _own_methods]
CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    (("a",), {}),
    (("A",), {}),
    (("b", 4), {}),
    (("b", 4, (), "x", {"k": 1}), {}),
    (("b", 4, (), "x", {"k": 1}, 5), {}),
    ((), {"name": "a", "size": 9}),
    ((), {"size": 9, "count": 2}),
    ((), {"name": "a", "nothing": 1}),
    (("a",), {"name": "a"}),
    (("a",), {"items": [1]}),
    (("a",), {"derived": 1}),
]


def _outcome(function: Callable[[], Any]) -> Any:
    """What a call gives, as text that does not say whose class it is; or the type of what it raises."""
    try:
        result = function()
    except (TypeError, AttributeError, ValueError) as error:
        return type(error)
    return str(result)


def _agree(shape: Callable[[Any], Any], ask: Callable[[Any], Any]) -> None:
    theirs, mine = (_outcome(lambda made_by=made_by: ask(shape(made_by))) for made_by in MAKERS)
    assert mine == theirs


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_objects_are_made_alike(shape: Callable[[Any], Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    _agree(shape, lambda cls: [repr(cls(*args, **kwargs)), dataclasses.asdict(cls(*args, **kwargs))])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("left", CALLS[:9])
@pytest.mark.parametrize("right", CALLS[:9])
def test_objects_are_compared_alike(shape: Callable[[Any], Any], left: Any, right: Any) -> None:
    def ask(cls: Any) -> Any:
        one, other = cls(*left[0], **left[1]), cls(*right[0], **right[1])
        return one == other, one == "text", one != other, hash(one) == hash(other), {one: 1}.get(other)

    _agree(shape, ask)


QUESTIONS_TO_A_CLASS: dict[str, Callable[[Any], Any]] = {
    "signature": inspect.signature,
    "types": lambda cls: typing.get_type_hints(cls.__init__),
    "match": lambda cls: cls.__match_args__,
    "slots": lambda cls: cls.__slots__,
    "names": lambda cls: (cls.__doc__, cls.__name__, cls.__qualname__, cls.__module__),
    "fields": lambda cls: [
        (each.name, each.type, each.init, each.repr, each.hash, each.compare) for each in dataclasses.fields(cls)
    ],
    "is one": dataclasses.is_dataclass,
    "frozen": lambda cls: cls.__dataclass_params__.frozen,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("question", QUESTIONS_TO_A_CLASS)
def test_classes_say_the_same_of_themselves(shape: Callable[[Any], Any], question: str) -> None:
    _agree(shape, QUESTIONS_TO_A_CLASS[question])


def _some(cls: Any) -> Any:
    """An object of any of the shapes that have a name."""
    return cls(**{"name": "a", **({"size": 2} if "size" in inspect.signature(cls).parameters else {})})


QUESTIONS_TO_AN_OBJECT: dict[str, Callable[[Any], Any]] = {
    "assign": lambda one: setattr(one, "name", "b"),
    "assign another": lambda one: setattr(one, "other", "b"),
    "delete": lambda one: delattr(one, "name"),
    "replace": lambda one: repr(dataclasses.replace(one, name="b")),
    "replace another": lambda one: dataclasses.replace(one, nothing="b"),
    "copy": lambda one: repr(copy.copy(one)),
    "deepcopy": lambda one: repr(copy.deepcopy(one)),
    "copy is equal": lambda one: copy.copy(one) == one,
    "print": lambda one: pprint.pformat(one),
    "dict": lambda one: hasattr(one, "__dict__"),
}


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape is not _empty])
@pytest.mark.parametrize("question", QUESTIONS_TO_AN_OBJECT)
def test_objects_behave_alike(shape: Callable[[Any], Any], question: str) -> None:
    def outcome(made_by: Any) -> Any:
        answer = _outcome(lambda: QUESTIONS_TO_AN_OBJECT[question](_some(shape(made_by))))
        # The standard library says FrozenInstanceError, or TypeError, also where there is no such attribute at all.
        return "no" if answer in (AttributeError, TypeError, dataclasses.FrozenInstanceError) else answer

    assert outcome(ours) == outcome(dataclasses)


@pytest.mark.parametrize("shape", [_plain, _open, _derived])
@pytest.mark.parametrize(
    "changes", [{}, {"name": "b"}, {"size": 5}, {"items": [1]}, {"nothing": 1}, {"derived": 1}, {"count": 1}]
)
def test_replace_does_what_that_of_the_standard_library_does(
    shape: Callable[[Any], Any], changes: dict[str, Any]
) -> None:
    one = _some(shape(ours))

    mine, theirs = _outcome(lambda: ours.replace(one, **changes)), _outcome(lambda: dataclasses.replace(one, **changes))

    # A field that is no parameter: a ValueError until Python 3.12, a TypeError since.
    assert mine == theirs or {mine, theirs} == {ValueError, TypeError}


def test_each_object_has_a_product_of_the_factory_for_itself() -> None:
    cls = _open(ours)

    assert cls("a").items is not cls("a").items


@pytest.mark.parametrize("shape", [_plain, _derived, _identity])
def test_a_frozen_object_cannot_be_changed(shape: Callable[[Any], Any]) -> None:
    one = _some(shape(ours))

    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'name'"):
        one.name = "b"
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'name'"):
        del one.name
    assert one.name == "a"


def test_a_class_that_is_derived_without_slots_may_have_attributes_of_its_own() -> None:
    class Wider(_identity(ours)):  # type: ignore[misc]
        pass

    wider = Wider("a")
    wider.note = "b"

    assert (wider.name, wider.note) == ("a", "b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        wider.name = "c"


def test_a_dataclass_of_the_standard_library_can_be_derived() -> None:
    @dataclasses.dataclass(frozen=True)
    class Further(_plain(ours)):  # type: ignore[misc]
        more: int = 1

    assert Further("a", more=2) == Further("a", more=2) != Further("a")
    assert [each.name for each in dataclasses.fields(Further)][-1] == "more"


def test_an_object_that_holds_itself_has_a_text() -> None:
    one = _open(ours)("a")
    one.items.append(one)

    assert repr(one).endswith("(name='a', items=[...])")


@ours.dataclass(slots=True, frozen=True)
class Sent:
    """Pickled below, so at the top of its module."""

    name: str
    parts: list[int] = ours.field(default_factory=list)


@ours.dataclass(slots=True)
class Changed:
    """The same, and not frozen."""

    name: str


@pytest.mark.parametrize("value", [Sent("a", [1]), Changed("a")])
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_was_pickled_is_equal(value: object, protocol: int) -> None:
    assert pickle.loads(pickle.dumps(value, protocol)) == value


def test_an_object_may_come_out_of_a_pickle_before_any_is_made() -> None:
    sent = pickle.dumps(Sent("a"))
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}\nimport pickle; one = pickle.loads({sent!r}); print(one == one, one)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)

    assert done.stdout == "True Sent(name='a', parts=[])\n"


def test_init_is_compiled_for_more_than_a_few_objects_and_then_found_without_a_detour() -> None:
    cls = _open(ours)
    few = [cls("a") for _ in range(ours._FEW)]
    assert not inspect.isfunction(cls.__dict__["__init__"])

    assert [cls("a")] * ours._FEW == few

    made = cls.__dict__["__init__"]
    cls("b")
    assert inspect.isfunction(made)
    assert cls.__dict__["__init__"] is made


def test_init_is_compiled_for_who_looks_at_it() -> None:
    cls = _open(ours)

    assert list(inspect.signature(cls).parameters) == list(inspect.signature(_open(dataclasses)).parameters)

    assert inspect.isfunction(cls.__dict__["__init__"])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_objects_are_made_alike_before_and_after(
    shape: Callable[[Any], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    def ask(cls: Any) -> list[str]:
        return [repr(cls(*args, **kwargs)) for _ in range(ours._FEW + 1)]

    _agree(shape, ask)
    looked_at = shape(ours)
    assert inspect.isfunction(looked_at.__init__)
    assert _outcome(lambda: ask(looked_at)) == _outcome(lambda: ask(shape(ours)))
