"""The meshes of this process, for servers that act for whatever mesh the application has made."""

from __future__ import annotations

import weakref

__all__ = ["living"]

living: weakref.WeakSet[object] = weakref.WeakSet()
"""All that are neither closed nor garbage yet."""
