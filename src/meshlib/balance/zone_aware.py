"""Zone-aware routing: calls stay in the caller's zone as far as its endpoints can carry what its callers send.

Where the zone has at least as large a share of the endpoints as of the callers, all stays; else as much as makes the
load even, and the rest goes where there is capacity to spare::

    local(Z), upstream(Z) = shares of callers and of healthy endpoints in zone Z, in 1/10000
    stays here            = upstream(here) / local(here)
    to spare(Z)           = max(0, upstream(Z) - local(Z)), in proportion to which the rest is spread

Source: Envoy's ``load_balancer_impl.cc`` (``ZoneAwareLoadBalancerBase``), whose integer arithmetic this is. As there,
it is for priority 0 alone, and off in small clusters, in panic, and where the callers are not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from meshlib.balance.endpoint import Endpoint, Health, Locality
from meshlib.balance.locality import parse_locality
from meshlib.balance.settings import ZoneAwareSettings
from meshlib.dataclass import dataclass

__all__ = ["Callers", "ZoneRouting", "zone_routing"]

_WHOLE = 10_000


@dataclass(frozen=True, slots=True)
class Callers:
    """The processes that call, this one among them: how many there are in each locality, and how many are healthy."""

    total: Mapping[Locality, int]
    healthy: Mapping[Locality, int]

    @classmethod
    def count(cls, endpoints: Iterable[Endpoint]) -> Callers:
        """Count the endpoints of the service that calls."""
        total: dict[Locality, int] = {}
        healthy: dict[Locality, int] = {}
        for endpoint in endpoints:
            total[endpoint.locality] = total.get(endpoint.locality, 0) + 1
            if endpoint.health is Health.HEALTHY:
                healthy[endpoint.locality] = healthy.get(endpoint.locality, 0) + 1
        return cls(total, healthy)

    @classmethod
    def given(cls, counts: Mapping[str, float]) -> Callers | None:
        """The callers as they are counted by hand; None if they are not."""
        if not counts:
            return None
        local = {parse_locality(text): int(count) for text, count in counts.items()}
        return cls(local, local)

    def panicking(self, panic_percent: float) -> bool:
        """Whether so few are healthy that their places say nothing."""
        return 100 * sum(self.healthy.values()) < panic_percent * sum(self.total.values())


@dataclass(frozen=True, slots=True)
class ZoneRouting:
    """Where calls go, while health stays what it is.

    Attributes:
        here: the index of the caller's own locality; None if the service has nothing there.
        stays: how many of 10 000 calls stay there.
        residual: capacity to spare, each locality's and all before it.
    """

    here: int | None
    stays: int
    residual: tuple[int, ...]

    def choose(self, rng: Random) -> int:
        """The index of the locality for a call."""
        if self.here is not None and (self.stays >= _WHOLE or int(rng.random() * _WHOLE) < self.stays):
            return self.here
        last = self.residual[-1]
        if last == 0:  # by rounding
            return int(rng.random() * len(self.residual))
        point = int(rng.random() * last)
        return next(index for index, until in enumerate(self.residual) if point < until)

    def may_choose(self, index: int) -> bool:
        """Whether a locality gets any calls."""
        if index == self.here:
            return self.stays > 0
        if self.here is not None and self.stays >= _WHOLE:
            return False
        spare = self.residual[index] - (self.residual[index - 1] if index else 0)
        return spare > 0 or self.residual[-1] == 0


def zone_routing(
    settings: ZoneAwareSettings,
    here: Locality,
    upstream: Sequence[tuple[Locality, int]],
    local: Callers,
) -> ZoneRouting | None:
    """Work out where calls go; None if zones do not count.

    Args:
        settings: of the service that is called.
        here: where this process runs.
        upstream: the localities that the service has, and how many healthy endpoints are in each.
        local: the callers.
    """
    force = settings.force_local_zone
    callers = sum(local.healthy.values())
    healthy = sum(count for _, count in upstream)
    if len(upstream) < 2 or not local.total.get(here) or healthy < max(1, settings.min_cluster_size):
        return None
    if len(local.total) < 2 and force is None:
        return None
    shares = [
        (_WHOLE * local.healthy.get(locality, 0) // callers if count and callers else 0, _WHOLE * count // healthy)
        for locality, count in upstream
    ]
    index = next((index for index, (locality, _) in enumerate(upstream) if locality == here), None)
    stays = 0
    if index is not None:
        from_here, in_here = shares[index]
        if (in_here > 0 and in_here >= from_here) or (force is not None and upstream[index][1] >= max(1, force)):
            return ZoneRouting(index, _WHOLE, (0,) * len(upstream))
        stays = in_here * _WHOLE // from_here if from_here else 0
    residual, so_far = [], 0
    for at, (callers_share, upstream_share) in enumerate(shares):
        if at != index:
            so_far += max(0, upstream_share - callers_share)
        residual.append(so_far)
    return ZoneRouting(index, stays, tuple(residual))
