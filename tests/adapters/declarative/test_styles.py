"""Lists and objects in one parameter, as OpenAPI has them: the examples of its specification, and what is refused."""

from typing import Annotated, Any, Protocol
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from meshlib.adapters.declarative import File, Form, Header, Path, Query, Upload, get, post
from meshlib.adapters.declarative.encoding import encode_pairs
from meshlib.adapters.declarative.styles import header_text, path_text, styled_pairs
from meshlib.testing import MeshFixture

LIST = ["blue", "black", "brown"]
OBJECT = {"R": 100, "G": 200, "B": 150}

# OpenAPI 3.1.1, "Style Examples"; RFC 6570, 3.2.5 and 3.2.7.
PATHS = [
    ("simple", False, "blue", "blue"),
    ("simple", False, LIST, "blue,black,brown"),
    ("simple", True, LIST, "blue,black,brown"),
    ("simple", False, OBJECT, "R,100,G,200,B,150"),
    ("simple", True, OBJECT, "R=100,G=200,B=150"),
    ("label", False, "blue", ".blue"),
    ("label", False, LIST, ".blue,black,brown"),
    ("label", True, LIST, ".blue.black.brown"),
    ("label", False, OBJECT, ".R,100,G,200,B,150"),
    ("label", True, OBJECT, ".R=100.G=200.B=150"),
    ("matrix", False, "blue", ";color=blue"),
    ("matrix", False, "", ";color"),
    ("matrix", False, LIST, ";color=blue,black,brown"),
    ("matrix", True, LIST, ";color=blue;color=black;color=brown"),
    ("matrix", False, OBJECT, ";color=R,100,G,200,B,150"),
    ("matrix", True, OBJECT, ";R=100;G=200;B=150"),
    ("matrix", True, {"R": ""}, ";R"),
    ("simple", False, ["a,b", "c/d", "e=f"], "a%2Cb,c%2Fd,e%3Df"),
    ("matrix", False, ["a,b", "%"], ";color=a%2Cb,%25"),
]
QUERIES = [
    ("form", "blue", "color=blue"),
    ("form", LIST, "color=blue,black,brown"),
    ("form", OBJECT, "color=R,100,G,200,B,150"),
    ("form", ["a,b", "c d&e=+"], "color=a%2Cb,c%20d%26e%3D%2B"),
    ("form", [], ""),
    ("spaceDelimited", LIST, "color=blue%20black%20brown"),
    ("spaceDelimited", OBJECT, "color=R%20100%20G%20200%20B%20150"),
    ("pipeDelimited", LIST, "color=blue%7Cblack%7Cbrown"),
    ("pipeDelimited", OBJECT, "color=R%7C100%7CG%7C200%7CB%7C150"),
    ("deepObject", OBJECT, "color%5BR%5D=100&color%5BG%5D=200&color%5BB%5D=150"),
    ("deepObject", {"a": {"b": [1, None, 2]}, "c": None}, "color[a][b][]=1&color[a][b][]=2"),
    ("deepObject", [{"a": 1}, {"a": 2}], "color[0][a]=1&color[1][a]=2"),
    ("deepObject", ["x", "y"], "color[]=x&color[]=y"),
]


@pytest.mark.parametrize(("style", "explode", "value", "text"), PATHS)
def test_styles_of_paths(style: str, explode: bool, value: Any, text: str) -> None:
    assert path_text("color", style, explode)(value) == text


@pytest.mark.parametrize(("style", "value", "text"), QUERIES)
def test_styles_of_queries(style: str, value: Any, text: str) -> None:
    written = encode_pairs(styled_pairs("color", style)(value))
    assert (unquote(written) if "[" in text else written) == text


def test_styles_of_headers() -> None:
    assert header_text(True)(OBJECT) == "R=100,G=200,B=150"
    assert header_text(False)(OBJECT) == "R,100,G,200,B,150"
    assert header_text(False)(LIST) == "blue, black, brown"


@pytest.mark.parametrize(
    ("style", "value"),
    [("simple", []), ("simple", [""]), ("simple", ".."), ("label", ""), ("label", "."), ("matrix", []), ("label", {})],
)
def test_no_style_leads_elsewhere(style: str, value: Any) -> None:
    with pytest.raises(ValueError, match="a segment of a path cannot be empty"):
        path_text("color", style, True)(value)


@given(st.sampled_from(["simple", "label", "matrix"]), st.booleans(), st.lists(st.text(max_size=5)))
def test_any_list_is_one_segment_or_refused(style: str, explode: bool, value: list[str]) -> None:
    if any("\ud800" <= char <= "\udfff" for text in value for char in text):
        return
    try:
        written = path_text("n", style, explode)(value)
    except ValueError:
        return
    assert httpx.URL(f"http://h/a/{written}").raw_path == f"/a/{written}".encode()
    assert "/" not in written and "?" not in written and "#" not in written and written not in ("", ".", "..")


def test_what_separates_cannot_be_in_a_value_where_it_would_not_be_told_apart() -> None:
    for style, value in (("spaceDelimited", "secret a"), ("pipeDelimited", "secret|a")):
        with pytest.raises(ValueError, match=f"in the style {style} a value cannot have") as caught:
            styled_pairs("n", style)([value])
        assert "secret" not in str(caught.value)
    endless: Any = []
    endless.append(endless)
    with pytest.raises(ValueError, match="nested more than 32"):
        styled_pairs("n", "deepObject")(endless)


class Range(BaseModel):
    low: int
    high: Annotated[int | None, Field(alias="to")] = None


class Calls(Protocol):
    @get("/{ids}/{at}")
    def path(
        self, ids: Annotated[list[int], Path(style="simple")], at: Annotated[Range, Path(explode=True)]
    ) -> None: ...
    @get("/q{ids}")
    def query(
        self,
        ids: Annotated[list[int], Path(style="matrix", explode=True)],
        *,
        tags: Annotated[list[str] | None, Query("t", explode=False)] = None,
        sizes: Annotated[list[int] | None, Query(style="pipeDelimited")] = None,
        many: Annotated[list[int] | None, Query(style="pipeDelimited", explode=True)] = None,
        within: Annotated[Range | None, Query(style="deepObject")] = None,
        limits: Annotated[dict[str, int] | None, Header("x-limits", explode=True)] = None,
    ) -> None: ...
    @post("/form")
    def form(
        self,
        tags: Annotated[list[str], Form(explode=False)],
        within: Annotated[Range, Form("w", style="deepObject")],
    ) -> None: ...
    @post("/parts")
    def parts(self, file: Annotated[Upload, File()], within: Annotated[Range, Form(style="deepObject")]) -> None: ...


def test_styles_of_declared_parameters() -> None:
    with MeshFixture() as mesh:
        mesh.serve("orders", 204)
        calls = mesh.bind(Calls, "orders")
        calls.path([1, 2], Range.model_validate({"low": 1, "to": 2}))
        calls.query([1, 2], tags=["a", "b,c"], sizes=[1, 2], many=[3, 4], within=Range(low=1), limits={"a": 1})
        calls.query([1])
        calls.form(["a", "b c"], Range.model_validate({"low": 1, "to": 2}))
        calls.parts(b"x", Range(low=7))
        seen = mesh.calls("orders")
    assert seen[0].url.raw_path == b"/1,2/low=1,to=2"
    query = b"t=a,b%2Cc&sizes=1%7C2&many=3&many=4&within%5Blow%5D=1"
    assert seen[1].url.raw_path == b"/q;ids=1;ids=2?" + query
    assert seen[1].headers["x-limits"] == "a=1"
    assert seen[2].url.raw_path == b"/q;ids=1"
    assert seen[3].body == b"tags=a,b%20c&w%5Blow%5D=1&w%5Bto%5D=2"
    assert b'name="within[low]"\r\n\r\n7' in seen[4].body


def test_markers_that_contradict_themselves_are_refused() -> None:
    for make in (lambda: Query(style="simple"), lambda: Path(style="form"), lambda: Form(style="x")):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="style is '"):
            make()
    with pytest.raises(ValueError, match="always exploded"):
        Query(style="deepObject", explode=False)

    class Spans(Protocol):
        @get("/{names:path}")
        def files(self, names: Annotated[list[str], Path(style="simple")]) -> None: ...

    class Parts(Protocol):
        @post("/")
        def parts(self, file: Annotated[Upload, File()], tags: Annotated[list[str], Form(explode=False)]) -> None: ...

    with MeshFixture() as mesh:
        for shape in (Spans, Parts):
            with pytest.raises(TypeError, match="has no style"):
                mesh.bind(shape, "orders")
