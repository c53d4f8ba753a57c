"""What a callable of the user's takes, without looking up what its annotations name.

Since Python 3.14 they are looked up when somebody asks, and what they name may be there for type checkers alone.
"""

from __future__ import annotations

import sys
from functools import partial
from inspect import signature

__all__ = ["signature_of"]

if sys.version_info >= (3, 14):
    from annotationlib import Format

    signature_of = partial(signature, annotation_format=Format.STRING)
else:
    signature_of = signature
