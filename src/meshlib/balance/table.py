"""The balancers by name. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from meshlib.balance.balancer import MakeBalancer
from meshlib.balance.least_request import least_request
from meshlib.balance.peak_ewma import peak_ewma
from meshlib.balance.random import random_choice
from meshlib.balance.round_robin import round_robin
from meshlib.balance.settings import BalancerName

__all__ = ["BALANCERS"]

BALANCERS: Mapping[BalancerName, MakeBalancer] = MappingProxyType(
    {
        "peak_ewma": peak_ewma,
        "least_request": least_request,
        "round_robin": round_robin,
        "random": random_choice,
    }
)
