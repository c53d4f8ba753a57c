"""When a single endpoint is left out, as it is written."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from meshlib.config.fields import Count, Interval, Part, Percent
from meshlib.policy.settings import OutlierSettings

__all__ = ["OutlierDetection"]

_OUTLIER = OutlierSettings()


class OutlierDetection(Part):
    """When a single endpoint is left out for a while.

    Attributes:
        consecutive_errors: failures in a row.
        base_ejection: how long it is out the first time.
        max_ejection: how long at most.
        max_ejection_percent: of the endpoints, at once.
    """

    compiles_to: ClassVar = OutlierSettings

    consecutive_errors: Annotated[Count, Field(ge=1)] = _OUTLIER.consecutive_errors
    base_ejection: Interval = _OUTLIER.base_ejection_s
    max_ejection: Interval = _OUTLIER.max_ejection_s
    max_ejection_percent: Percent = _OUTLIER.max_ejection_percent
