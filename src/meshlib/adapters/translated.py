"""The mesh's errors as those of a client library: made anew as a class that is both."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from meshlib import errors
from meshlib.errors import MeshError

__all__ = ["of_the_same_name", "translated"]


def of_the_same_name(names: Mapping[str, Any]) -> Mapping[type[MeshError], type[MeshError]]:
    """The classes among the `names` of a module that are also errors of the mesh, by those whose names they have."""
    of_mesh = vars(errors)
    own = {name: cls for name, cls in names.items() if isinstance(cls, type) and issubclass(cls, MeshError)}
    return MappingProxyType({of_mesh[name]: cls for name, cls in own.items() if of_mesh.get(name, cls) is not cls})


def translated(error: MeshError, classes: Mapping[type[MeshError], type[MeshError]], **state: Any) -> MeshError:
    """The same error, as the class that `classes` has for its own; itself where there is none.

    Args:
        error: to translate; the cause of the result is its cause.
        classes: by class of the mesh.
        state: further attributes. What begins with an underscore does not travel when the error is pickled.
    """
    cls = classes.get(type(error))
    if cls is None:
        return error
    made = cls.__new__(cls, *error.args)
    made.args = error.args
    made.__dict__.update(error.__dict__, **state)
    made.__cause__ = error.__cause__
    made.__suppress_context__ = True
    return made
