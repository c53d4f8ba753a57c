"""Drawing a backend by weight: by chance, or by something of the request, so that a user stays where he was.

Backends lie side by side in their order, each as wide as its weight. Chance, or a hash of what the draw goes by, is a
point in that width, the same part of it for the same value. So who has a point below 10 % of the weights is at the
first of two backends with 10 : 90, and stays there when that becomes 20 : 80: only every tenth user moves.

A number that a header gives is the point itself, modulo the sum of the weights: Envoy's ``header_name`` of
``weighted_clusters`` (``source/common/router/config_impl.cc``), for values that ``absl::SimpleAtoi`` reads.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

from meshlib.balance.hashing import xxh64
from meshlib.routing.actions import Sticky
from meshlib.routing.match import RequestView

if TYPE_CHECKING:
    from meshlib.routing.route import Backend

__all__ = ["Draw", "draw", "draw_again", "draw_of"]

Draw: TypeAlias = "float | int"
"""A share of the weights in [0, 1), or a whole number that is a point among them."""

_WHOLE = re.compile(r"\s*\+?([0-9]{1,20})\s*", re.ASCII)
_SPAN = float(1 << 53)


def draw_of(sticky: Sticky, request: RequestView, hash_key: str | None) -> Draw | None:
    """What a request is drawn by; None where it lacks what the draw goes by: then chance decides.

    Args:
        sticky: what it goes by.
        request: that is on its way.
        hash_key: what the caller gave as such.
    """
    if sticky.number is not None:
        return _number(request.headers.get(sticky.number))
    if sticky.header is not None:
        value = request.headers.get(sticky.header)
    elif sticky.cookie is not None:
        value = request.cookies.get(sticky.cookie)
    elif sticky.query is not None:
        value = request.parameters.get(sticky.query)
    else:
        value = hash_key
    if not value:
        return None
    return (xxh64(value.encode("utf-8", "surrogateescape")) >> 11) / _SPAN


def _number(value: str | None) -> int | None:
    found = None if value is None else _WHOLE.fullmatch(value)
    number = -1 if found is None else int(found[1])
    return number if 0 <= number < 1 << 64 else None


def draw_again(by: Draw, times: int) -> float:
    """What a request is drawn by when it was drawn `times` before, and nobody was there.

    Another share of the weights, but the same for the same value: those who had the first backend in common would
    otherwise have the second in common, too.
    """
    value = by if isinstance(by, int) else int(by * _SPAN)
    return (xxh64(value.to_bytes(8, "little"), times) >> 11) / _SPAN


def draw(backends: Sequence[Backend], by: Draw, left_out: frozenset[int] = frozenset()) -> int | None:
    """Draw a backend by weight.

    Args:
        backends: the choices.
        by: a random number in [0, 1), or what `draw_of` gave.
        left_out: indexes not to draw.

    Returns:
        The index of the backend drawn; None if none with a weight above 0 is left.
    """
    if len(backends) == 1:
        return None if left_out else 0
    total = sum(backend.weight for index, backend in enumerate(backends) if index not in left_out)
    if total <= 0:
        return None
    point = _within(by, total) if isinstance(by, int) else by * total
    last = None
    for index, backend in enumerate(backends):
        if index in left_out or backend.weight <= 0:
            continue
        last = index
        point -= backend.weight
        if point < 0:
            return index
    return last


def _within(number: int, total: float) -> float:
    """A number as a point among the weights; exact for whole weights, as those of Envoy are."""
    whole = int(total)
    return float(number % whole) if whole == total else number % total
