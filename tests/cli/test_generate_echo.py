"""A generated client against the service that it was generated from: each value arrives as it was given."""

import datetime as dt
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import pytest

from meshlib.adapters.declarative import StatusError
from meshlib.testing import MeshFixture
from tests.cli.openapi_echo import app
from tests.cli.test_generate import executed, generated


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    module = executed(generated(app.openapi(), "sync"), "generated_echo", tmp_path_factory.mktemp("generated"))
    with MeshFixture() as mesh:
        mesh.serve("echo", app)
        yield mesh.bind(module.Echo, "echo"), module
    sys.modules.pop("generated_echo")


def test_parameters_in_the_path(echo: Any) -> None:
    client, _ = echo
    name = "a/b c?d#e%ä;=,"
    given = [7, 0.5, True, "old one", 2, dt.date(2026, 1, 2), UUID(int=1), name]
    with pytest.raises(StatusError):
        client.paths(*given)  # the framework takes %2F for a /
    given[-1] = name.replace("/", "")
    assert client.paths(*given) == [7, 0.5, True, "old one", 2, "2026-01-02", str(UUID(int=1)), given[-1]]


def test_parameters_in_the_query(echo: Any) -> None:
    client, module = echo
    moment, span = dt.datetime(2026, 1, 2, tzinfo=dt.UTC), dt.timedelta(hours=1.5)
    assert client.query(text="&=+ü") == ["&=+ü", 1, None, [], None, None, None, None]
    found = client.query(
        text="", number=-1, flag=False, many=[1, 2], kind=["new", "old one"], moment=moment, span=span, from_="f"
    )
    assert found == ["", -1, False, [1, 2], ["new", "old one"], "2026-01-02T00:00:00Z", "PT1H30M", "f"]
    page = client.page(offset=3, tags=["a", "b"], order_by="new")
    assert page == module.Page(offset=3, tags=["a", "b"], order_by="new")


def test_headers_and_cookies(echo: Any) -> None:
    client, _ = echo
    assert client.headers(x_number=1) == [1, None, None, None]
    assert client.headers(x_number=2, x_plain="a, b", session="s", class_="new") == [2, "a, b", "s", "new"]


def test_bodies(echo: Any) -> None:
    client, module = echo
    inner = module.NodeInput(name="b", pet=module.Dog(kind="dog", tricks=["sit"]), labels={"x": 1})
    outer = module.NodeInput(
        name="a",
        pet=module.Cat(kind="cat"),
        children=[inner],
        at=dt.datetime(2026, 1, 2, tzinfo=dt.UTC),
        price="1.10",
        pair=(1, "x"),
        from_="f",
    )
    node = client.node(outer)
    assert (node.children[0].pet.tricks, node.children[0].labels) == (["sit"], {"x": 1})
    assert (node.pet.lives, node.at, str(node.price), node.pair, node.from_) == (9, outer.at, "1.10", (1, "x"), "f")
    assert [each.name for each in client.nodes([inner, inner])] == ["b", "b"]
    assert client.pet(module.Dog(kind="dog")) == module.Dog(kind="dog", tricks=[])
    assert client.mapped({"a": [1, 2]}) == {"a": [1, 2]}
    assert client.two(module.BodyTwoTwoPost(node=inner, count=3))[1] == 3
    assert client.word("ü") == ["ü"]


def test_forms_and_files(echo: Any) -> None:
    client, module = echo
    assert client.form(module.BodyFormFormPost(name="n", tags=["a", "b&"], size=2)) == ["n", ["a", "b&"], 2]
    assert client.files(one=("o.txt", b"1"), more=[b"2", b"3"]) == ["o.txt", "1", ["2", "3"], "-"]
    assert client.nothing() is None


def test_styles(echo: Any) -> None:
    client, module = echo
    deep = module.RawDeep(size=module.RawDeepSize(low=1), tags=["x", "y"])
    seen = client.raw(
        ["a", "b,c"],
        ["d", "e"],
        module.RawMatrix(low=1, high=2),
        commas=["a", "b,c"],
        pipes=["a", "b"],
        blanks=["a", "b"],
        again=["a", "b"],
        deep=deep,
        free={"k": "v"},
        all={"m": 1, "n": 2},
        joined=module.RawJoined(low=1, high=2),
        x_list=["a", "b"],
        x_range=module.RawXRange(low=1, high=2),
    )
    assert seen["path"] == "/raw/a,b%2Cc/.d.e/;matrix=low,1,high,2"
    assert unquote(seen["query"].replace("%2C", "(comma)")).split("&") == [
        *("commas=a,b(comma)c", "pipes=a|b", "blanks=a b", "again=a", "again=b"),
        *("deep[size][low]=1", "deep[tags][]=x", "deep[tags][]=y", "free[k]=v", "m=1", "n=2", "joined=low,1,high,2"),
    ]
    assert (seen["list"], seen["range"]) == ("a, b", "low=1,high=2")
    (body,) = client.raw_form(name="n", deep=deep, tags=["a", "b"])
    assert unquote(body) == "name=n&deep[size][low]=1&deep[tags][]=x&deep[tags][]=y&tags=a,b"
