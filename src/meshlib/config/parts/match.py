"""Conditions on values, as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from meshlib.config.fields import Count, Flag, Part, Regex, Text, exactly_one, reject

__all__ = ["ValueMatch"]


def _bounds(value: Sequence[int]) -> tuple[int, int]:
    low, high = value
    if low >= high:
        reject("is empty: the first number is the lowest that matches, the second the lowest above that does not")
    return low, high


_Bounds = Annotated[Sequence[Count], Field(min_length=2, max_length=2), AfterValidator(_bounds)]


class ValueMatch(Part):
    """A condition on a header, a cookie or a query parameter; exactly one of the first seven fields.

    Attributes:
        exact, prefix, suffix, contains: the value is, begins with, ends with, has in it this text.
        regex: must match the whole value.
        range: two whole numbers: the value is a whole number from the first up to, and without, the second.
        present: true: it is there, whatever its value; false: it is not.
        invert: matches where the rest does not.
        ignore_case: of letters, for texts.
        absent_as_empty: look at what is not there as if it were empty.
    """

    exact: str | None = None
    prefix: Text | None = None
    suffix: Text | None = None
    contains: Text | None = None
    regex: Regex | None = None
    range: _Bounds | None = None
    present: Flag | None = None
    invert: Flag = False
    ignore_case: Flag = False
    absent_as_empty: Flag = False

    @model_validator(mode="after")
    def _one_kind(self) -> ValueMatch:
        exactly_one(self, ("exact", "prefix", "suffix", "contains", "regex", "range", "present"))
        return self
