"""What is known of a service."""

from __future__ import annotations

import enum

__all__ = ["Known"]


class Known(enum.Enum):
    """What discovery knows of the service behind a cluster."""

    PENDING = "pending"
    """It has not answered yet."""
    YES = "yes"
    NO = "no"
    """No source knows the service."""
    UNWELL = "unwell"
    """The registry cannot be asked, and never answered before."""
