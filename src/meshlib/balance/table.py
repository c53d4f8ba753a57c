"""The balancers by name. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from meshlib.balance.balancer import Balancer
from meshlib.balance.least_request import LeastRequest
from meshlib.balance.peak_ewma import PeakEwma
from meshlib.balance.random import RandomChoice
from meshlib.balance.round_robin import RoundRobin
from meshlib.policy.settings import BalancerName

__all__ = ["BALANCERS"]

BALANCERS: Mapping[BalancerName, type[Balancer]] = MappingProxyType(
    {
        "peak_ewma": PeakEwma,
        "least_request": LeastRequest,
        "round_robin": RoundRobin,
        "random": RandomChoice,
    }
)
