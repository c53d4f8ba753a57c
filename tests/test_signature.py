"""What a callable takes is asked without looking up its annotations."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest

from meshlib.server.interface import takes
from meshlib.signature import signature_of
from meshlib.testing.apps import as_app

FOR_TYPE_CHECKERS = """
async def app(scope: Scope, receive: Receive, send: Send) -> Nothing: ...

class Called:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Nothing: ...
"""


def test_it_is_that_of_inspect() -> None:
    def function(a: int, /, b: str = "", *c: Any, d: float, **e: Any) -> None: ...

    assert signature_of(function) == inspect.signature(function)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="until then annotations are looked up where they are written")
@pytest.mark.parametrize("name", ["app", "Called"])
def test_annotations_may_name_what_is_there_for_type_checkers_alone(name: str) -> None:
    names: dict[str, Any] = {}
    exec(compile(FOR_TYPE_CHECKERS, "app", "exec", dont_inherit=True), names)
    app: Callable[..., Any] = names["app"] if name == "app" else names["Called"]()
    with pytest.raises(NameError):
        inspect.signature(app)
    assert takes(app, 3)
    assert not takes(app, 2)
    assert as_app(app).__qualname__ == as_app(lambda scope, receive, send: None).__qualname__ != as_app("").__qualname__
