"""Normalization of paths, so that routes and servers see one form of what can be written in many.

After Istio's ``pathNormalization`` and what Envoy makes of it, in this order: escaped slashes are decoded, the path is
made canonical as Chromium does (``url_canon_path.cc``, Envoy's ``normalize_path``), and slashes are merged.

| | decodes %2F and %5C | canonical | merges slashes |
|---|---|---|---|
| `none` | | | |
| `base` | | x | |
| `merge_slashes` | | x | x |
| `decode_and_merge_slashes` | x | x | x |

Canonical means: a backslash is a slash; ``.`` and ``..`` are resolved, also where their dots are written ``%2E``;
letters, digits and ``-._~`` are not escaped; what may not stand in a URL is. Other escapes stay as they are, and so
does what is no escape. Nothing is decoded twice.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from meshlib.dataclass import replace
from meshlib.routing.actions import DirectResponse
from meshlib.routing.route import Route

__all__ = ["PathNormalization", "normalize_path", "refusing"]

PathNormalization: TypeAlias = Literal["none", "base", "merge_slashes", "decode_and_merge_slashes"]

_CANONICAL: Final = re.compile(r"(?:/(?!\.)[A-Za-z0-9_~!$&'()*+,\-.:;=@\[\]]*)+")
"""What is sure to be canonical: most paths are, and then there is nothing to do."""

_PIECES: Final = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_SLASHES: Final = re.compile(r"/{2,}")
_HEX: Final = frozenset("0123456789ABCDEFabcdef")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_KEPT: Final = _UNRESERVED | frozenset("!$%&'()*+,/:;=@[]")


def normalize_path(path: str, how: PathNormalization) -> str | None:
    """Normalize a path without its query.

    Args:
        path: as sent, from its slash on.
        how: what is done; see above.

    Returns:
        The path; None if it has an escaped null character: see `refusing`.
    """
    if how == "none":
        return path
    if _CANONICAL.fullmatch(path) is None:
        if how == "decode_and_merge_slashes":
            path = re.sub("%2[Ff]", "/", path)
            path = re.sub("%5[Cc]", r"\\", path)
        made = _canonical(path)
        if made is None:
            return None
        path = made
    if how == "base" or "//" not in path:
        return path
    # Of nothing but slashes Envoy leaves the first and the last.
    return _SLASHES.sub("/", path) if path.strip("/") else "//"


def refusing(route: Route) -> Route:
    """The route of requests whose path has no normal form: they are answered with a 400, as Envoy does."""
    return replace(route, name="no-normal-path", matches=(), reply=DirectResponse(400), mirrors=(), rewrite=None)


def _canonical(path: str) -> str | None:
    made = [_piece(piece) for piece in _PIECES.findall(path)]
    if "%00" in made:
        return None
    for at, (piece, *digits) in enumerate(zip(made, made[1:], made[2:], strict=False)):
        if piece == "%" and _HEX.issuperset(digits):
            # What was no escape must not become one because what follows was decoded.
            made[at] = "%25"
    segments: list[str] = []
    *before, last = "".join(made).removeprefix("/").split("/")
    for segment in before:
        if segment == "..":
            del segments[-1:]
        elif segment != ".":
            segments.append(segment)
    if last == "..":
        del segments[-1:]
    return "/".join(["", *segments, "" if last in (".", "..") else last])


def _piece(piece: str) -> str:
    if len(piece) == 3:
        character = chr(int(piece[1:], 16))
        return character if character in _UNRESERVED else piece
    if piece == "\\":
        return "/"
    return piece if piece in _KEPT else "".join(f"%{byte:02X}" for byte in piece.encode("utf-8", "replace"))
