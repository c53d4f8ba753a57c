"""The balancers by name. A new one is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import cast

from meshlib.balance.balancer import MakeBalancer
from meshlib.balance.settings import BalancerName

__all__ = ["BALANCERS", "find_balancer"]

BALANCERS: Mapping[BalancerName, str] = MappingProxyType(
    {
        "peak_ewma": "peak_ewma:peak_ewma",
        "least_request": "least_request:least_request",
        "round_robin": "round_robin:round_robin",
        "random": "random:random_choice",
    }
)
"""By name, the module of this package and the function in it that makes one. Only what is used is loaded."""


@cache
def find_balancer(name: BalancerName) -> MakeBalancer:
    """What makes the balancer of this name."""
    module, _, function = BALANCERS[name].partition(":")
    return cast(MakeBalancer, getattr(import_module(f"meshlib.balance.{module}"), function))
