"""The shadows of a cluster: as they are written, laid over what is live there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from meshlib.config.lay import lay_over, name_in
from meshlib.dataclass import replace
from meshlib.policy.settings import BreakerSettings, ShadowSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshlib.balance.cluster import ClusterState
    from meshlib.config.model import Shadow
    from meshlib.config.settings import ClusterSettings
    from meshlib.policy.gates import Gates

__all__ = ["shadow_of", "shadowed"]


def shadow_of(cluster: ClusterSettings, written: Sequence[Shadow]) -> ShadowSettings | None:
    """What is written of shadows, one level over the other, over what is live; None if nothing is."""
    live = ShadowSettings(
        cluster.breaker if isinstance(cluster.breaker, BreakerSettings) else None,
        cluster.outlier,
        cluster.throttle,
        cluster.limits,
        cluster.bulkhead,
        cluster.rate_limit,
        cluster.load_balancing,
    )
    shadow = live
    for part in written:
        shadow = lay_over(shadow, part)
    none = ShadowSettings()
    given = {name_in(none, field) for part in written for field in part.model_fields_set}
    shadow = replace(shadow, **{each.name: None for each in fields(none) if each.name not in given})
    return None if shadow == none else shadow


def shadowed(settings: ClusterSettings, gates: Gates, now: float) -> tuple[Callable[..., ClusterState], Gates]:
    """What makes the state of a cluster with shadows, and its gates, those of its shadows among them."""
    from meshlib.balance.shadow import ShadowedState
    from meshlib.policy.shadow import Shadows

    written: Any = settings.shadow
    # Of its own, and the same each time: to draw a seed from the mesh's would change what that draws for live calls.
    rng = Random(settings.name)
    balancing = written.load_balancing
    if balancing is not None and balancing.subsetting not in (None, settings.load_balancing.subsetting):
        from meshlib.balance.subsetting import with_seed

        written = replace(written, load_balancing=with_seed(balancing, rng))
    shadows = Shadows(written, gates, settings.limits, settings.bulkhead, now, rng)
    return partial(ShadowedState, shadows=shadows), shadows.gates
