"""Conditions on values, as they are written."""

from __future__ import annotations

from pydantic import model_validator

from meshlib.config.fields import Flag, Part, Regex, Text, exactly_one

__all__ = ["ValueMatch"]


class ValueMatch(Part):
    """A condition on a header or a query parameter; exactly one of its fields, besides `invert`.

    Attributes:
        exact, prefix, suffix: the value is, begins with, ends with this text.
        regex: must match the whole value.
        present: true: it is there, whatever its value; false: it is not.
        invert: matches where the rest does not.
    """

    exact: str | None = None
    prefix: Text | None = None
    suffix: Text | None = None
    regex: Regex | None = None
    present: Flag | None = None
    invert: Flag = False

    @model_validator(mode="after")
    def _one_kind(self) -> ValueMatch:
        exactly_one(self, ("exact", "prefix", "suffix", "regex", "present"))
        return self
