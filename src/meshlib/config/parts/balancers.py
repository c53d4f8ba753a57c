"""What is written for single balancers, and for fleets too large for every client to know every server."""

from __future__ import annotations

import re
import socket
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from meshlib.balance import settings
from meshlib.config import shown
from meshlib.config.fields import Amount, Count, Interval, Many, Part, Percent, Positive, Span, Text, reject

__all__ = ["Aperture", "LeastRequest", "Prequal", "ServerWeights", "Subsetting"]

_LEAST = settings.LeastRequestSettings()
_WEIGHTS = settings.ServerWeightSettings()
_APERTURE = settings.ApertureSettings()
_PREQUAL = settings.PrequalSettings()
_SUBSETTING = settings.SubsettingSettings()
_ORDINAL = re.compile(r"-(\d{1,9})$", re.ASCII)
_METRIC = re.compile(r"(?:application|cpu|mem)_utilization|(?:named_metrics|utilization)\..+")


def _instance(value: Any) -> Any:
    """A number; ``hostname`` is the one at the end of this machine's name, as in a StatefulSet of Kubernetes."""
    if isinstance(value, bool):
        reject("is not a number", kind="type")
    if value != "hostname":
        return value
    name = socket.gethostname().partition(".")[0]
    ordinal = _ORDINAL.search(name)
    if ordinal is None:
        reject(f"stands for the number at the end of this machine's name, as in checkout-3, and {name!r} has none")
    return int(ordinal[1])


def _metric(value: str) -> str:
    if not _METRIC.fullmatch(value):
        reject(
            "is no metric: application_utilization, cpu_utilization, mem_utilization, or a name after "
            "'named_metrics.' or 'utilization.' is expected"
        )
    return value


Instance = Annotated[int, BeforeValidator(_instance), Field(ge=0), shown.Also("hostname")]
_Update = Annotated[Interval, Field(ge=0.1)]


class LeastRequest(Part):
    """Of the balancer ``least_request``.

    Attributes:
        selection: ``n_choices``: the best of some that are drawn; ``full_scan``: of all.
        choice_count: how many are drawn.
        active_request_bias: where weights differ, ``weight / (in flight + 1) ** bias``.
    """

    compiles_to: ClassVar = settings.LeastRequestSettings

    selection: Literal["n_choices", "full_scan"] = _LEAST.selection
    choice_count: Annotated[Count, Field(ge=2, le=100)] = _LEAST.choice_count
    active_request_bias: Annotated[Amount, Field(le=10)] = _LEAST.active_request_bias


class ServerWeights(Part):
    """Of the balancer ``server_weights``.

    Attributes:
        blackout: for how long an endpoint must have reported before its weight counts.
        expiration: how long its weight counts after its last report.
        update: how often the schedule is made anew.
        error_penalty: what a share of errors of 1 adds to the utilization.
        metrics: what the utilization is taken from, ``named_metrics.queue``; of several the largest counts.
        load: what two endpoints that have their turn are compared by; null to take the first.
    """

    compiles_to: ClassVar = settings.ServerWeightSettings

    blackout: Span = _WEIGHTS.blackout_s
    expiration: Interval = _WEIGHTS.expiration_s
    update: _Update = _WEIGHTS.update_s
    error_penalty: Amount = _WEIGHTS.error_penalty
    metrics: Many[Annotated[Text, BeforeValidator(_metric)]] = _WEIGHTS.metrics
    load: Literal["least_request", "peak_ewma"] | None = _WEIGHTS.load


class Aperture(Part):
    """Of the balancer ``aperture``.

    Attributes:
        instance: the number of this client among its peers, from 0; or ``hostname``.
        of: how many of them there are.
        size: how many servers a client calls at least.
        load: what two servers are compared by.
    """

    compiles_to: ClassVar = settings.ApertureSettings

    instance: Instance | None = _APERTURE.instance
    of: Annotated[Count, Field(ge=1)] | None = _APERTURE.of
    size: Annotated[Count, Field(ge=2)] = _APERTURE.size
    load: Literal["least_request", "peak_ewma"] = _APERTURE.load


class Prequal(Part):
    """Of the balancer ``prequal``.

    Attributes:
        probes: for each call, of endpoints drawn by chance; need not be whole.
        removals: for each call, of answers from the pool.
        pool_size: how many answers are kept.
        max_age: for how long.
        delta: by how much an answer is used more often than would keep the pool as full as it is.
        hot_percent: the quantile of the requests in flight above which an endpoint is hot.
        timeout: of a probe.
        min_endpoints: with fewer than these the balancer is ``peak_ewma``.
        max_probes_per_s: of one cluster by this process, however many calls there are.
    """

    compiles_to: ClassVar = settings.PrequalSettings

    probes: Annotated[Positive, Field(le=16)] = _PREQUAL.probes
    removals: Annotated[Amount, Field(le=16)] = _PREQUAL.removals
    pool_size: Annotated[Count, Field(ge=2, le=1000)] = _PREQUAL.pool_size
    max_age: Interval = _PREQUAL.max_age_s
    delta: Amount = _PREQUAL.delta
    hot_percent: Percent = _PREQUAL.hot_percent
    timeout: Interval = _PREQUAL.timeout_s
    min_endpoints: Annotated[Count, Field(ge=2)] = _PREQUAL.min_endpoints
    max_probes_per_s: Positive = _PREQUAL.max_probes_per_s


class Subsetting(Part):
    """Which of the servers a client knows, whatever the balancer.

    Attributes:
        kind: ``random`` or ``rounds``.
        size: how many.
        seed: of ``random``; unless given, one of this process's own.
        instance: of ``rounds``: the number of this client among its peers, from 0; or ``hostname``.
    """

    compiles_to: ClassVar = settings.SubsettingSettings

    kind: Literal["random", "rounds"] = _SUBSETTING.kind
    size: Annotated[Count, Field(ge=1)] = _SUBSETTING.size
    seed: Annotated[Count, Field(ge=0, lt=2**64)] | None = _SUBSETTING.seed
    instance: Instance | None = _SUBSETTING.instance
