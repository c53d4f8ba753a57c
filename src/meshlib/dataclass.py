"""Dataclasses with slots that take no time to make: for the rest, those of the standard library.

The standard library compiles up to eight methods for each class when the class is made, half a millisecond in all. A
mesh has a hundred such classes, and would spend half as long on them as importing httpx takes, before any call. Here
methods are closures over the names of fields, and only ``__init__`` is compiled, once there are a few objects. The
classes behave alike, also to `dataclasses.fields` and `asdict`, `copy`, `pickle` and type checkers.

Annotations have to be text: a module that uses this begins with ``from __future__ import annotations``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, field, make_dataclass
from functools import partial
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, Literal, TypeVar, dataclass_transform

if TYPE_CHECKING:
    from dataclasses import replace

__all__ = ["dataclass", "field", "replace"]

T = TypeVar("T")


@dataclass_transform(field_specifiers=(field,))
def dataclass(
    *, slots: Literal[True], frozen: bool = False, kw_only: bool = False, eq: bool = True
) -> Callable[[type[T]], type[T]]:
    """Make a class a dataclass. For the parameters see `dataclasses.dataclass`; `slots` stands there for the reader."""

    def decorate(cls: type[T]) -> type[T]:
        made: type[T] = _make(cls, frozen, kw_only, eq)
        return made

    return decorate


if not TYPE_CHECKING:

    def replace(value: T, /, **changes: Any) -> T:
        """Return a copy of `value` with some of its fields changed, as `dataclasses.replace` does.

        Raises:
            TypeError: if there is no such field.
            ValueError: if a field is none of the parameters of ``__init__``.
        """
        for name, each in value.__shape__.items():
            if each.init:
                if name not in changes:
                    changes[name] = getattr(value, name)
            elif name in changes:
                raise ValueError(f"field {name} is declared with init=False, it cannot be specified with replace()")
        return value.__class__(**changes)


class _Late:
    """A class attribute that is made when it is first looked up."""

    def __init__(self, make: Callable[[type], Any]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner, self._name = owner, name

    def __get__(self, instance: object, owner: type) -> Any:
        value = self._make(self._owner)
        setattr(self._owner, self._name, value)
        return value


_FEW = 4
"""So many objects of a class are made field by field. To compile ``__init__`` takes as long as twenty of them, and a
program that makes one call through a mesh makes no more than these of any class."""


class _Init:
    """``__init__`` as long as it is not compiled, which it is for who looks at it."""

    def __init__(self, frozen: bool) -> None:
        self.frozen = frozen
        self._left = _FEW

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner = owner

    def __get__(self, instance: object, owner: type) -> Any:
        if self._left > 0 and isinstance(instance, self.owner):  # `inspect` comes with the class itself
            self._left -= 1
            return partial(_fill, self, instance)
        return self.compiled().__get__(instance, owner)

    def compiled(self) -> Any:
        """That of the class from now on."""
        cls: Any = self.owner
        cls.__init__ = made = _compile_init(cls, self.frozen)
        return made


def _fill(init: _Init, made: Any, /, *args: Any, **kwargs: Any) -> None:
    """What the compiled ``__init__`` does, one field after the other."""
    cls: Any = init.owner
    shape: dict[str, Field[Any]] = cls.__shape__
    places = [name for name, each in shape.items() if each.init and not each.kw_only]
    given = dict(zip(places, args, strict=False)) | kwargs
    known = {name for name, each in shape.items() if each.init}
    needed = {name for name in known if shape[name].default is shape[name].default_factory is MISSING}
    if len(given) < len(args) + len(kwargs) or not needed <= given.keys() <= known:
        init.compiled()(made, *args, **kwargs)  # which says what is wrong
        return
    for name, each in shape.items():
        if name in given:
            value = given[name]
        elif each.default is not MISSING:
            value = each.default
        elif each.default_factory is not MISSING:
            value = each.default_factory()
        else:
            continue
        if init.frozen:
            getattr(cls, name).__set__(made, value)
        else:
            setattr(made, name, value)
    if hasattr(cls, "__post_init__"):
        made.__post_init__()


class _MadeByFactory:
    def __repr__(self) -> str:
        return "<factory>"


_MADE_BY_FACTORY = _MadeByFactory()


def _make(cls: Any, frozen: bool, kw_only: bool, eq: bool) -> Any:
    members = dict(cls.__dict__)
    members.pop("__dict__", None)
    members.pop("__weakref__", None)
    inherited: dict[str, Field[Any]] = {}
    for base in reversed(cls.__mro__[1:]):
        inherited |= base.__dict__.get("__shape__", {})
    shape = inherited | _own_fields(members, kw_only)
    members["__shape__"] = shape
    members["__slots__"] = tuple(name for name in shape if name not in inherited)
    members["__match_args__"] = tuple(name for name, each in shape.items() if each.init and not each.kw_only)
    members["__dataclass_fields__"] = _Late(lambda made: _stock(made, frozen, eq).__dataclass_fields__)
    members["__dataclass_params__"] = _Late(lambda made: _stock(made, frozen, eq).__dataclass_params__)
    members.setdefault("__init__", _Init(frozen))
    members.setdefault("__repr__", _repr)
    members["__replace__"] = replace
    if eq:
        _compare(members, shape, frozen)
    if frozen:
        _freeze(members, tuple(shape))
    made = type(cls)(cls.__name__, cls.__bases__, members)
    made.__qualname__ = cls.__qualname__
    return made


def _own_fields(members: dict[str, Any], kw_only: bool) -> dict[str, Field[Any]]:
    """The fields that a class itself declares; their defaults are taken out of its members, to make room for slots."""
    fields: dict[str, Field[Any]] = {}
    for name, annotation in members.get("__annotations__", {}).items():
        if not annotation.startswith("ClassVar"):
            default = members.pop(name, MISSING)
            fields[name] = each = default if isinstance(default, Field) else field(default=default)
            each.name, each.type = name, annotation
            if each.kw_only is MISSING:
                each.kw_only = kw_only
    return fields


def _compare(members: dict[str, Any], shape: dict[str, Field[Any]], frozen: bool) -> None:
    values = _values_of([name for name, each in shape.items() if each.compare])

    def __eq__(self: object, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    members.setdefault("__eq__", __eq__)
    if members.get("__hash__") is None:
        hashed = _values_of(
            [name for name, each in shape.items() if (each.compare if each.hash is None else each.hash)]
        )
        members["__hash__"] = (lambda self: hash(hashed(self))) if frozen else None


def _values_of(names: list[str]) -> Callable[[object], Any]:
    return attrgetter(*names) if names else lambda value: ()


def _freeze(members: dict[str, Any], names: tuple[str, ...]) -> None:
    def __setattr__(self: Any, name: str, value: object) -> None:
        if name in names:
            raise FrozenInstanceError(f"cannot assign to field {name!r}")
        object.__setattr__(self, name, value)

    def __delattr__(self: Any, name: str) -> None:
        if name in names:
            raise FrozenInstanceError(f"cannot delete field {name!r}")
        object.__delattr__(self, name)

    def __getstate__(self: Any) -> list[Any]:
        return [getattr(self, name) for name in names]

    def __setstate__(self: Any, state: list[Any]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    members["__setattr__"], members["__delattr__"] = __setattr__, __delattr__
    members.setdefault("__getstate__", __getstate__)
    members.setdefault("__setstate__", __setstate__)


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name, each in self.__shape__.items() if each.repr)
    return f"{self.__class__.__qualname__}({shown})"


def _compile_init(cls: Any, frozen: bool) -> Any:
    """``__init__`` of a class, with the parameters and annotations that the standard library would give it."""
    # What the text refers to, besides the parameters: the defaults, factories, and setters of slots.
    used: dict[str, Any] = {"_made_by_factory": _MADE_BY_FACTORY}
    positional: list[str] = []
    keywords: list[str] = []
    body: list[str] = []
    for index, (name, each) in enumerate(cls.__shape__.items()):
        parameter, value = name, name
        if each.default is not MISSING:
            used[f"_default_{index}"] = each.default
            parameter = f"{name}=_default_{index}"
            value = name if each.init else f"_default_{index}"
        elif each.default_factory is not MISSING:
            used[f"_factory_{index}"] = each.default_factory
            parameter = f"{name}=_made_by_factory"
            value = f"_factory_{index}()"
            if each.init:
                value += f" if {name} is _made_by_factory else {name}"
        elif not each.init:
            continue
        if each.init:
            (keywords if each.kw_only else positional).append(parameter)
        if frozen:
            # The slot's own setter: faster than object.__setattr__, and not in the way of what forbids assignments.
            used[f"_set_{index}"] = getattr(cls, name).__set__
            body.append(f"_set_{index}(self, {value})")
        else:
            body.append(f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(["self", *positional, *(["*", *keywords] if keywords else [])])
    lines = "\n  ".join(body or ["pass"])
    text = f"def make({', '.join(used)}):\n def __init__({parameters}):\n  {lines}\n return __init__"
    made: dict[str, Any] = {}
    exec(text, sys.modules[cls.__module__].__dict__, made)
    init = made["make"](**used)
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {name: each.type for name, each in cls.__shape__.items() if each.init} | {"return": None}
    return init


def _stock(cls: Any, frozen: bool, eq: bool) -> Any:
    """A class of the standard library's making with the same fields, for those who ask a dataclass what it has."""
    fields = []
    for name, each in cls.__shape__.items():
        copied = field(
            default=each.default,
            default_factory=each.default_factory,
            init=each.init,
            repr=each.repr,
            hash=each.hash,
            compare=each.compare,
            metadata=each.metadata,
            kw_only=each.kw_only,
        )
        fields.append((name, each.type, copied))
    return make_dataclass(cls.__name__, fields, frozen=frozen, eq=eq)
