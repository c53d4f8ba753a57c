"""Values of headers as Envoy takes them from documents.

Commands stand between percent signs (``%REQ(x-user)%``), ``%%`` is a percent sign, and an edit whose value is empty is
none at all. Sources: ``SubstitutionFormatParser`` and ``HeaderParser::evaluateHeaders`` in Envoy.
"""

from __future__ import annotations

import re

__all__ = ["edited_value", "has_command"]

_SIGNS = re.compile(r"%%|(%[A-Z0-9_]+(?:\([^)]*\))?(?::[0-9]+)?%)")


def has_command(value: str) -> bool:
    """Whether Envoy would put something in, which is not done here."""
    return any(found[1] for found in _SIGNS.finditer(value))


def edited_value(value: str) -> str | None:
    """What is sent of a value; None where nothing is edited."""
    return value.replace("%%", "%") or None
