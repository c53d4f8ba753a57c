"""Which endpoints may be chosen, as it is written: by place, by label, by metadata, and since when they are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from meshlib.balance import settings
from meshlib.balance.locality import parse_locality
from meshlib.config.fields import Amount, Count, Flag, Interval, Many, Name, Part, Percent, Positive, Text, reject
from meshlib.config.settings import FailoverTarget as FailoverSettings

__all__ = [
    "Distribute",
    "FailoverOrFlag",
    "FailoverRegion",
    "FailoverTarget",
    "MetadataSubsets",
    "Place",
    "SlowStart",
    "SubsetSelector",
    "ZoneAware",
]

_ZONE_AWARE = settings.ZoneAwareSettings()
_SUBSET = settings.SubsetSettings()
_SLOW_START = settings.SlowStartSettings()


def _place(value: str) -> str:
    try:
        parse_locality(value)
    except ValueError:
        reject("is no locality: region, region/zone or region/zone/sub_zone is expected, * for any")
    return value


Place = Annotated[str, AfterValidator(_place)]


class ZoneAware(Part):
    """Calls stay in the zone of this process as far as its endpoints there can carry them.

    Attributes:
        local_service: the service whose endpoints are the callers, this process among them.
        local_counts: or how many callers there are, by locality.
        min_cluster_size: with fewer healthy endpoints than this, zones do not count.
        routing_percent: of calls to which this applies.
        force_local_zone: with at least as many healthy endpoints in the zone as this, all calls stay; null for never.
    """

    compiles_to: ClassVar = settings.ZoneAwareSettings

    local_service: Name | None = None
    local_counts: Mapping[Place, Amount] = Field(default_factory=dict)
    min_cluster_size: Annotated[Count, Field(ge=0)] = _ZONE_AWARE.min_cluster_size
    routing_percent: Percent = _ZONE_AWARE.routing_percent
    force_local_zone: Annotated[Count, Field(ge=1)] | None = None


class FailoverTarget(Part):
    """Where calls go while none of a service's, or a subset's, own endpoints is healthy.

    Attributes:
        service: its own unless given.
        subset: all of the service unless given.
    """

    compiles_to: ClassVar = FailoverSettings

    service: Name | None = None
    subset: Name | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> FailoverTarget:
        if self.service is None and self.subset is None:
            reject("names neither a service nor a subset")
        return self


class FailoverRegion(Part):
    """Where the calls of one region go before any other region.

    Attributes:
        from_: the region of the callers (``from`` in a file).
        to: the region.
    """

    model_config = ConfigDict(populate_by_name=True)
    compiles_to: ClassVar = settings.FailoverRegion

    from_: Text = Field(alias="from")
    to: Text


FailoverOrFlag = Annotated[
    Annotated[Many[FailoverRegion], Tag("list")] | Annotated[Flag, Tag("flag")],
    Discriminator(lambda value: "list" if isinstance(value, (list, tuple)) else "flag"),
]


class Distribute(Part):
    """Where the calls of one place go.

    Attributes:
        from_: where the caller runs (``from`` in a file).
        to: places, and the percentage for each, 100 in all.
    """

    model_config = ConfigDict(populate_by_name=True)
    compiles_to: ClassVar = settings.DistributeRule

    from_: Place = Field(alias="from")
    to: Annotated[Mapping[Place, Percent], Field(min_length=1)]


class SlowStart(Part):
    """How the share of a newcomer grows.

    Attributes:
        window: how long it takes to its full weight.
        aggression: the shape of the growth: 1 is a straight line, above it grows faster at first.
        min_weight_percent: of its weight, what it has from the first moment.
    """

    compiles_to: ClassVar = settings.SlowStartSettings

    window: Interval = _SLOW_START.window_s
    aggression: Positive = _SLOW_START.aggression
    min_weight_percent: Percent = _SLOW_START.min_weight_percent


class SubsetSelector(Part):
    """A set of metadata keys that calls may name.

    Attributes:
        keys: all that a call names.
        fallback: what takes a call that names these keys, with values that nobody has: ``none``, ``any``, ``default``,
            or ``keys``: fewer of them. That of all selectors unless given.
        fallback_keys: which, for ``keys``.
    """

    compiles_to: ClassVar = settings.SubsetSelector

    keys: Annotated[Many[Text], Field(min_length=1)]
    fallback: Literal["none", "any", "default", "keys"] | None = None
    fallback_keys: Many[Text] = ()


class MetadataSubsets(Part):
    """How the metadata that a call or its route names choose among endpoints.

    Attributes:
        selectors: the sets of keys that may be named.
        fallback: what takes a call whose metadata make no subset: ``none``, ``any`` or ``default``.
        default: the metadata of ``default``.
        panic_mode_any: use all endpoints where the fallback has none that may be picked.
        list_as_any: take metadata for lists, with commas, any of which a call may name.
    """

    compiles_to: ClassVar = settings.SubsetSettings

    selectors: Annotated[Many[SubsetSelector], Field(min_length=1)]
    fallback: Literal["none", "any", "default"] = _SUBSET.fallback
    default: Mapping[Text, str] = Field(default_factory=dict)
    panic_mode_any: Flag = _SUBSET.panic_mode_any
    list_as_any: Flag = _SUBSET.list_as_any
