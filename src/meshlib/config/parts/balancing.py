"""How endpoints are chosen, as it is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from meshlib.balance import settings
from meshlib.config.fields import Amount, Flag, Interval, Many, OrFalse, OrNone, Part, Percent, Positive, Text
from meshlib.config.parts.balancers import Aperture, LeastRequest, Prequal, ServerWeights, Subsetting
from meshlib.config.parts.hashing import HashBalance, Ring, SessionAffinity, TableSize
from meshlib.config.parts.places import Distribute, FailoverOrFlag, MetadataSubsets, Place, SlowStart, ZoneAware

__all__ = ["LoadBalancing"]

_BALANCING = settings.LoadBalancing()


class LoadBalancing(Part):
    """How endpoints are chosen.

    Attributes:
        policy: the balancer: ``peak_ewma``, ``least_request``, ``round_robin``, ``random``, ``ring_hash``, ``maglev``,
            ``server_weights``, ``aperture`` or ``prequal``.
        decay: of the moving average of latency.
        default_latency: what an endpoint is thought to take before it has answered.
        panic_percent: with fewer healthy endpoints than this, all are used; 0 for never.
        fail_on_panic: fail then instead.
        overprovisioning_percent: how much of the load the healthy can carry, in percent of their share.
        weighted_priority_health: reckon the health of a priority by weights, not by numbers of endpoints.
        failover: true for the nearest endpoints first; or a list of where regions fail over to, besides.
        failover_priority: labels of endpoints, the most important first: those that share them are the first choice.
        locality_weights: by place; a locality in none gets no calls.
        distribute: what share of the calls goes where, by where they come from.
        zone_aware: calls stay in their zone; see its class.
        slow_start: newcomers begin with a part of their weight; see its class.
        subset: metadata of calls choose among endpoints; see `MetadataSubsets`.
        least_request, server_weights, aperture, prequal: of the balancers of these names; see their classes.
        ring: of ``ring_hash``; see its class.
        table_size: of ``maglev``, a prime.
        hash_key: what these two hash of an endpoint: its ``address`` or its ``hostname``; its metadata ``hash_key``
            stands in place of it.
        hash_balance_percent: of the average load, what an endpoint may have before these two pass calls on.
        session_affinity: calls stay at one endpoint, by a cookie; see its class; false for none.
        subsetting: which of the endpoints this client knows at all; see its class; null for all.
    """

    compiles_to: ClassVar = settings.LoadBalancing

    policy: settings.BalancerName = _BALANCING.policy
    decay: Interval = _BALANCING.decay_s
    default_latency: Interval = _BALANCING.default_latency_s
    panic_percent: Percent = _BALANCING.panic_percent
    fail_on_panic: Flag = _BALANCING.fail_on_panic
    overprovisioning_percent: Annotated[Positive, Field(ge=100)] = _BALANCING.overprovisioning_percent
    weighted_priority_health: Flag = _BALANCING.weighted_priority_health
    failover: FailoverOrFlag = False
    failover_priority: Many[Text] = ()
    locality_weights: Mapping[Place, Amount] = Field(default_factory=dict)
    distribute: Many[Distribute] = ()
    zone_aware: OrNone[ZoneAware] = None
    slow_start: OrNone[SlowStart] = None
    subset: OrNone[MetadataSubsets] = None
    least_request: LeastRequest = LeastRequest()
    server_weights: ServerWeights = ServerWeights()
    aperture: Aperture = Aperture()
    prequal: Prequal = Prequal()
    ring: Ring = Ring()
    table_size: TableSize = _BALANCING.table_size
    hash_key: Literal["address", "hostname"] = _BALANCING.hash_key
    hash_balance_percent: HashBalance = _BALANCING.hash_balance_percent
    session_affinity: OrFalse[SessionAffinity] | None = None
    subsetting: OrNone[Subsetting] = None
