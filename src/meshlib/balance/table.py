"""The balancers by name. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from random import Random
from types import MappingProxyType
from typing import cast

from meshlib.balance.balancer import Balancer, MakeBalancer, Member
from meshlib.balance.settings import BalancerName, LoadBalancing

__all__ = ["BALANCERS", "find_balancer"]

BALANCERS: Mapping[BalancerName, str] = MappingProxyType(
    {
        "peak_ewma": "peak_ewma:peak_ewma",
        "least_request": "least_request:least_request",
        "round_robin": "round_robin:round_robin",
        "random": "random:random_choice",
        "server_weights": "server_weights:server_weights",
        "aperture": "aperture:aperture",
        "prequal": "prequal:prequal",
        "ring_hash": "ring_hash:ring_hash",
        "maglev": "maglev:maglev",
    }
)
"""By name, the module of this package and the function in it that makes one. Only what is used is loaded."""


@cache
def find_balancer(name: BalancerName) -> MakeBalancer:
    """What makes the balancer of this name; over this client's subset of the members, if the settings ask for one."""
    module, _, function = BALANCERS[name].partition(":")
    make = cast(MakeBalancer, getattr(import_module(f"meshlib.balance.{module}"), function))

    def made(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
        if settings.subsetting is None:
            return make(members, settings, now, rng)
        from meshlib.balance.subsetting import subset

        return subset(make, members, settings, now, rng)

    return made
