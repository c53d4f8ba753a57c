"""Durations as the native form writes them."""

from __future__ import annotations

__all__ = ["written"]


def written(seconds: float) -> str:
    """A duration in the native form: ``500ms``, ``2s``."""
    return f"{seconds * 1000:.10g}ms" if 0 < seconds < 1 else f"{seconds:.10g}s"
