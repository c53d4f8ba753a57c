"""The annotations of a method, looked up, and with the type variables of a generic class filled in."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, NoReturn, Protocol, TypeVar, Union, get_args, get_origin

__all__ = ["hints_of", "is_optional", "of_generics", "split", "without_none"]


def hints_of(function: Callable[..., Any], filled: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """The annotations of a function, ``return`` among them.

    Args:
        function: whose.
        filled: what type variables stand for.
        where: it is, for errors.

    Raises:
        TypeError: if one cannot be looked up; the message names the parameter.
    """
    try:
        found = typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        _tell(function, where, error)
    hints = {name: _fill(hint, filled) for name, hint in found.items()}
    for name, hint in hints.items():
        if isinstance(hint, TypeVar) or _open(hint):
            raise TypeError(f"{where}: {_called(name)} has a type variable that nothing fills: bind Class[...]")
    return hints


def _tell(function: Callable[..., Any], where: str, error: Exception) -> NoReturn:
    culprit = "an annotation"
    try:
        if sys.version_info >= (3, 14):
            from annotationlib import Format, get_annotations

            # What cannot be looked up comes as a reference; to ask for values would fail for all of them.
            annotations = get_annotations(function, format=Format.FORWARDREF)
        else:
            annotations = inspect.get_annotations(function)
    except Exception:
        annotations = {}
    for name, annotation in annotations.items():
        probe = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            typing.get_type_hints(probe, globalns=getattr(function, "__globals__", {}), include_extras=True)
        except Exception:
            culprit = _called(name)
            break
    raise TypeError(
        f"{where}: {culprit} has an annotation that cannot be looked up ({error}); "
        "what it names has to be imported, and defined at the top of its module"
    ) from None


def _called(name: str) -> str:
    return "what it returns" if name == "return" else f"parameter {name!r}"


def of_generics(shape: Any) -> tuple[type, dict[Any, Any]]:
    """The class that is meant, and what its type variables stand for: ``Crud[Order]``, and what it derives from."""
    filled: dict[Any, Any] = {}
    origin = get_origin(shape)
    cls = shape if origin is None else origin
    if not isinstance(cls, type):
        raise TypeError(f"a class is to be bound, not {shape!r}")
    if origin is not None:
        filled.update(zip(getattr(cls, "__parameters__", ()), get_args(shape), strict=False))
    for base in cls.__mro__:
        for alias in base.__dict__.get("__orig_bases__", ()):
            parent = get_origin(alias)
            if parent is not None and parent is not Generic and parent is not Protocol:
                values = [_fill(value, filled) for value in get_args(alias)]
                filled.update(zip(getattr(parent, "__parameters__", ()), values, strict=False))
    return cls, filled


def _fill(hint: Any, filled: Mapping[Any, Any]) -> Any:
    if isinstance(hint, TypeVar):
        return filled.get(hint, hint)
    # Of a generic class of pydantic's, `Page[T]` is `Page` itself.
    parameters = getattr(hint, "__pydantic_generic_metadata__", {}).get("parameters") or _open(hint)
    if not any(each in filled for each in parameters):
        return hint
    return hint[tuple(filled.get(each, each) for each in parameters)]


def _open(hint: Any) -> tuple[Any, ...]:
    """The type variables that a hint leaves open. A generic class by itself stands for itself."""
    if isinstance(hint, type) and get_origin(hint) is None:
        return ()
    return tuple(getattr(hint, "__parameters__", ()))


def split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A hint without what `Annotated` adds, and that."""
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        return inner, tuple(extras)
    return hint, ()


def is_optional(hint: Any) -> bool:
    """Whether None is a value of a type."""
    hint, _ = split(hint)
    if hint is None or hint is type(None) or hint is Any or hint is object:
        return True
    return get_origin(hint) in (Union, types.UnionType) and any(is_optional(each) for each in get_args(hint))


def without_none(hint: Any) -> Any:
    """A type without None, where that leaves one type; else as it is."""
    hint, _ = split(hint)
    if get_origin(hint) in (Union, types.UnionType):
        left = [each for each in get_args(hint) if each is not type(None)]
        if len(left) == 1:
            return split(left[0])[0]
    return hint
