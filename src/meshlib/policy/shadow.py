"""Shadows: policies that run beside the live ones, decide nothing, and tell how often they would have differed.

A shadow is the policy itself, with settings of its own, asked at the same place and at the same moment as its live
counterpart (or where that would be, if there is none), so by calls that the gates before it have let in. It refuses
nobody, has nobody wait, and changes nothing that is live. It is told what it would have seen: of a call that it would
have refused it is told no outcome, and of a call that the live one refused there is none. So a shadow with the settings
of the live policy never differs, unless chance is part of the decision.

    policy              a decision is            it differs if
    circuit_breaker     a call                   one would have refused it, and the other does not
    throttle            a call                   the same
    limits, rate_limit  a call                   the same; that it would have waited is counted apart
    outlier_detection   a pick of an endpoint    it is one that would have been out; so is an ejection that would not
                                                 have been made
    load_balancing      a pick of an endpoint    it is another

Each kind is a module of its own: `shadow_breaker`, `shadow_gate` and `shadow_outlier` here, `meshlib.balance.shadow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from meshlib.policy.comparison import Comparison
from meshlib.policy.gates import Gates, make_gates
from meshlib.policy.settings import LimitSettings, ShadowSettings
from meshlib.policy.shadow_breaker import ShadowBreaker
from meshlib.policy.shadow_gate import PickNotes, ShadowGate
from meshlib.policy.shadow_outlier import ShadowOutlier

if TYPE_CHECKING:
    from meshlib.balance.tiers import Here
    from meshlib.policy.admission_settings import BulkheadSettings
    from meshlib.policy.gate import Gate
    from meshlib.policy.placement import Placement

__all__ = ["Shadows"]


class Shadows:
    """Those of one cluster.

    Attributes:
        gates: of the cluster, those of its shadows among them.
        comparisons: of each.
        breaker, outlier: None where there is none.
        load_balancing: of the balancer; None where there is none.
        picks: what the balancer counts in.
        here: what endpoints are compared with, where places count to the balancer.
        rng: for what shadows draw, so that it disturbs nobody.
    """

    __slots__ = ("breaker", "comparisons", "gates", "here", "load_balancing", "outlier", "picks", "rng")

    def __init__(
        self,
        settings: ShadowSettings,
        gates: Gates,
        live: LimitSettings,
        divided: BulkheadSettings | None,
        now: float,
        rng: Random,
    ) -> None:
        """Put them beside the gates of a cluster.

        Args:
            settings: of the shadows.
            gates: of the cluster.
            live, divided: the settings of its limit: one that is shadowed in part is otherwise as it is.
            now: on the monotonic clock.
            rng: of their own.
        """
        self.rng = rng
        self.here: Here | None = None
        self.comparisons: list[Comparison] = []
        self.load_balancing = settings.load_balancing
        self.picks = self._new("load_balancing") if settings.load_balancing is not None else None
        self.outlier: ShadowOutlier | None = None
        if settings.outlier is not None:
            self.outlier = ShadowOutlier(settings.outlier, self._new("outlier_detection", "ejected", "spared"), rng)
        self.breaker: ShadowBreaker | None = None
        before, after = list(gates.before), list(gates.after)
        if settings.rate_limit is not None:
            made = make_gates(LimitSettings(), None, None, settings.rate_limit, now, rng)
            _put(after, "rate-limit", 0, made.after, self._new("rate_limit", "refused", "let_in", "waited"))
        if settings.limits is not None or settings.bulkhead is not None:
            limits, bulkhead = settings.limits or live, settings.bulkhead or divided
            made = make_gates(limits, None, bulkhead, None, now, rng)
            comparison = self._new("limits", "refused", "let_in", "waited")
            chain = (*made.before, made.limit)
            at = next((index for index, gate in enumerate(before) if gate.name == "adaptive"), len(before))
            before.insert(at, ShadowGate(chain, gates.limit, comparison))
        if settings.throttle is not None:
            made = make_gates(LimitSettings(), settings.throttle, None, None, now, rng)
            names = [gate.name for gate in before]
            at = next((names.index(name) for name in ("shadow-limits", "adaptive") if name in names), len(before))
            _put(before, "throttle", at, made.before, self._new("throttle", "refused", "let_in"))
        if settings.breaker is not None:
            self.breaker = ShadowBreaker(settings.breaker, now, self._new("circuit_breaker", "refused", "let_in"))
            before.insert(0, self.breaker)
        if self.picks is not None or self.outlier is not None:
            before.insert(0, PickNotes())
        self.comparisons.reverse()
        self.gates = Gates(gates.limit, tuple(before), tuple(after))

    def _new(self, policy: str, *words: str) -> Comparison:
        comparison = Comparison(policy, *words)
        self.comparisons.append(comparison)
        return comparison

    def circuit_refused(self, now: float, call: Placement) -> None:
        """The live circuit breaker has refused a call."""
        if self.breaker is not None:
            self.breaker.refused(now, call)

    def state_of(self, comparison: Comparison) -> str:
        """How things are with a shadow, in words; empty where there is nothing to say."""
        if comparison.policy == "circuit_breaker" and self.breaker is not None:
            return self.breaker.breaker.state.value
        if comparison.policy == "outlier_detection" and self.outlier is not None:
            out = [f"{each.endpoint.address} ({each.health.ejected_for})" for each in self.outlier.detector.ejected]
            return f"out: {', '.join(out)}" if out else ""
        return ""

    def renew_locks(self) -> None:
        """After a fork, in the child: those that are no gates; the cluster knows of the gates."""
        if self.outlier is not None:
            self.outlier.renew_lock()
        for comparison in self.comparisons:
            comparison.renew_lock()


def _put(gates: list[Gate], name: str, otherwise: int, chain: Sequence[Gate], comparison: Comparison) -> None:
    """Put a shadow before the gate of this name; where there is none, at that place."""
    at = next((index for index, gate in enumerate(gates) if gate.name == name), None)
    live = None if at is None else gates[at]
    gates.insert(otherwise if at is None else at, ShadowGate(chain, live, comparison))
