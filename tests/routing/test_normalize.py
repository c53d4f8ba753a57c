"""Normalization of paths, by Istio's own cases and by what Envoy 1.40 did with the others here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.routing.normalize import PathNormalization, normalize_path

ROWS = json.loads((Path(__file__).parents[1] / "data" / "istio_names_and_paths.json").read_text())["path_normalization"]
HOWS: dict[str, PathNormalization] = {
    "None": "none",
    "Base": "base",
    "MergeSlashes": "merge_slashes",
    "DecodeAndMergeSlashes": "decode_and_merge_slashes",
}


@pytest.mark.parametrize(("how", "path", "expected"), [(how, *row) for how in HOWS for row in ROWS[how]])
def test_paths_become_what_they_do_in_istio(how: str, path: str, expected: str) -> None:
    # No client sends a fragment.
    assert normalize_path(path.partition("#")[0], HOWS[how]) == expected


@pytest.mark.parametrize("how", HOWS.values())
@pytest.mark.parametrize("path", [row[0] for row in ROWS["NotNormalized"]])
def test_what_is_left_alone_everywhere(how: PathNormalization, path: str) -> None:
    assert normalize_path(path, how) == path


@pytest.mark.parametrize("path", [row[0] for row in ROWS["Invalid"]])
def test_an_escaped_null_is_refused(path: str) -> None:
    assert [normalize_path(path, how) for how in HOWS.values()] == [path, None, None, None]


@pytest.mark.parametrize(
    ("path", "base"),
    [
        ("/%7e%41%2d", "/~A-"),
        ('/^|{}"<>` ', "/%5E%7C%7B%7D%22%3C%3E%60%20"),
        ("/%c3%a4%5e", "/%c3%a4%5e"),
        ("/ä", "/%C3%A4"),
        ("/%%300", "/%2500"),
        ("/%%30%30", "/%2500"),
        ("/%3%30", "/%2530"),
        ("/%zz%", "/%zz%"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/../..", "/"),
        ("/a/%2e%2E/b", "/b"),
        ("/...", "/..."),
        ("/.a/a.", "/.a/a."),
    ],
)
def test_what_chromium_does(path: str, base: str) -> None:
    assert normalize_path(path, "base") == base


def test_slashes_alone_become_two_as_in_envoy() -> None:
    assert [normalize_path(path, "merge_slashes") for path in ("//", "///", "/", "//a//", "/a//b")] == [
        *("//", "//", "/"),
        *("/a/", "/a/b"),
    ]


@given(
    st.text(st.sampled_from("/.%2eE5cCfF\\a ;{"), max_size=12).map("/".__add__), st.sampled_from(list(HOWS.values()))
)
def test_what_is_normal_stays_so(path: str, how: PathNormalization) -> None:
    once = normalize_path(path, how)
    if once is not None and how in ("none", "base"):
        assert normalize_path(once, how) == once
    assert once is None or once.startswith("/")
