"""Files that are something else than a configuration, such as the values of a chart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshlib.config.model import MeshConfig
from meshlib.config.rejection import closest

__all__ = ["strangers"]


def strangers(data: Mapping[str, Any]) -> str:
    """What to say of a map that is something else than a configuration, such as a chart's values; else empty."""
    known = {field.alias or name for name, field in MeshConfig.model_fields.items()}
    own = [name for name in data if name in known]
    others = [str(name) for name in data if name not in known and not closest(str(name), known)]
    if "services" in own or len(others) < 3 or len(own) * 3 > len(others):
        return ""
    shown = ", ".join(map(repr, others[:3])) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return f"has fields that no configuration has, {shown}"
