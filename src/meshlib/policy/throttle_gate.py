"""The throttles as gates: each attempt in a cluster is an answer that its throttle learns from."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from meshlib.context import Criticality
from meshlib.errors import LimitExceeded, MeshError
from meshlib.policy.admission_settings import NackSettings, SuccessRateThrottleSettings, ThrottleAlgorithm
from meshlib.policy.gate import PlainGate
from meshlib.policy.keys import criticality_of, reader_of
from meshlib.policy.nack_throttle import NackThrottle
from meshlib.policy.sample import Sample, samples
from meshlib.policy.success_rate_throttle import SuccessRateThrottle
from meshlib.policy.throttle import Throttle

if TYPE_CHECKING:
    from meshlib.policy.facts import Ready
    from meshlib.policy.placement import Placement

__all__ = ["ThrottleGate"]


class ThrottleGate(PlainGate):
    """The throttle of one cluster.

    Attributes:
        throttle: which learns and decides.
        readers: what it must know of a request.
    """

    __slots__ = ("_admit", "_ended", "_percent", "_rng", "readers", "throttle")

    name = "throttle"

    def __init__(self, settings: ThrottleAlgorithm, now: float, rng: Random) -> None:
        self._rng = rng
        self.throttle: Throttle | SuccessRateThrottle | NackThrottle
        self._admit: Callable[[float, int], bool]
        self._ended: Callable[[float, int, Sample], None]
        self._percent: Callable[[float, int], float]
        if isinstance(settings, SuccessRateThrottleSettings):
            rate = self.throttle = SuccessRateThrottle(settings, now)
            self._admit = lambda now, _: rate.admit(now, rng)
            self._ended = lambda now, _, sample: rate.ended(now, sample.status is not None and sample.status < 500)
            self._percent = lambda now, _: rate.rejection_percent(now)
        elif isinstance(settings, NackSettings):
            nack = self.throttle = NackThrottle(settings, now)
            self._admit = lambda now, _: nack.admit(now, rng)
            self._ended = lambda now, _, sample: nack.ended(now, sample.declined)
            self._percent = lambda now, _: nack.rejection_percent(now)
        else:
            sre = self.throttle = Throttle(settings, now)
            self._admit = lambda now, criticality: sre.admit(now, criticality, rng)
            self._ended = lambda now, criticality, sample: sre.ended(now, criticality, sample.accepted)
            self._percent = sre.rejection_percent
        self.readers = (reader_of(None),)

    @property
    def rejected(self) -> int:
        """Calls that it refused."""
        return self.throttle.rejected

    def rejection_percent(self, now: float, criticality: int) -> float:
        """Of a hundred calls of this criticality, how many it would refuse now."""
        return self._percent(now, criticality)

    def ask(self, now: float, call: Placement) -> MeshError | Ready | None:
        """See `meshlib.policy.gate.Gate`."""
        criticality = criticality_of(call)
        if self._admit(now, criticality):
            return None
        percent = self._percent(now, criticality)
        text = (
            f"throttled: it declines so much of what it gets that {percent:.0f} % of calls like this one "
            f"({criticality.name.lower()}) are not sent"
        )
        return LimitExceeded(text, gate=self.name, service=call.facts.service)

    def judged(self, now: float, call: Placement, success: bool | None) -> None:
        """Learn from the answers."""
        criticality = criticality_of(call)
        for sample in samples(now, call):
            self._ended(now, criticality, sample)

    def note(self, now: float) -> str | None:
        """Of which share it would refuse calls that are critical, as most are."""
        percent = self._percent(now, Criticality.CRITICAL)
        return f"its throttle refuses {percent:.0f} % of critical calls" if percent else None

    def renew_lock(self) -> None:
        """After a fork, in the child."""
        self.throttle.renew_lock()
