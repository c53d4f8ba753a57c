"""Prequal: servers are probed beside the calls, and called is the one that would answer soonest with what it has to do.

For each call `probes` servers, drawn by chance, are asked what they have in flight and how long requests take there at
about that many. Nothing waits for them: the call goes by the answers to earlier ones (`meshlib.balance.probe_pool`).
What servers say with the answers to calls renews what the pool has of them. Source: Wydrowski et al., "Load is not what
you should balance: Introducing Prequal", NSDI 2024.

Where the pool has too little to choose from, and with fewer than `min_endpoints` endpoints, ``peak_ewma`` picks (in the
paper chance does). So it does, in the end, with servers that say nothing of their load.

The paper knows no weights. Here a server of twice the weight is probed twice as often, and so gets up to twice the
calls if it has as little in flight; what it says of itself counts for more than its weight.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import Random
from typing import TYPE_CHECKING

from meshlib.balance.balancer import Balancer, Member, Usable, is_even
from meshlib.balance.peak_ewma import peak_ewma
from meshlib.balance.probe_pool import ProbePool
from meshlib.balance.probing import Probing
from meshlib.balance.reported import Reported
from meshlib.balance.settings import LoadBalancing

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = ["Prequal", "prequal", "stands_in"]


def prequal(members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> Balancer:
    """By probes; by peak EWMA where there are too few members for it."""
    if len(members) < settings.prequal.min_endpoints:
        return peak_ewma(members, settings, now, rng)
    return Prequal(members, settings, now, rng)


def stands_in(members: Sequence[Member], settings: LoadBalancing, now: float) -> str | None:
    """Why ``peak_ewma`` picks among these members, in words; None where Prequal does."""
    least = settings.prequal.min_endpoints
    if len(members) < least:
        return f"peak_ewma, as there are fewer than {least} endpoints"
    quiet = 0
    for member in members:
        reported = member.load.reported
        if reported is None or reported.probing is None or reported.quiet_until > now:
            quiet += 1
    if 2 * quiet > len(members):
        return f"peak_ewma mostly, as {quiet} of {len(members)} endpoints do not say what they have in flight"
    return None


class Prequal:
    """By the pool, else by ``peak_ewma``.

    Attributes:
        pool: what was heard.
    """

    __slots__ = ("_count", "_cumulative", "_instead", "_members", "_owed", "_probes", "_probing", "pool")

    def __init__(self, members: Sequence[Member], settings: LoadBalancing, now: float, rng: Random) -> None:
        self.pool = ProbePool(settings.prequal, len(members))
        self._instead = peak_ewma(members, settings, now, rng)
        self._members = members
        self._count = len(members)
        self._cumulative = None if is_even(members) else list(accumulate(member.weight for member in members))
        self._probes = settings.prequal.probes
        self._owed = 0.0
        self._probing = _probing_of(members)
        self._remember(settings.prequal.max_age_s, settings.prequal.pool_size, now, rng)

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        picked = self.pool.pick(now, usable)
        if picked is None:
            picked = self._instead.pick(now, rng, usable, traits)
        if picked is not None and picked.load.reported is not None:
            picked.load.reported.pool = self.pool
        if self._probing.wake is not None:
            self._ask(now, rng, usable)
        return picked

    def _ask(self, now: float, rng: Random, usable: Usable | None) -> None:
        """Have some probed, each once."""
        owed = self._owed + self._probes
        wanted = min(int(owed), self._count)
        self._owed = owed - int(owed)
        members, count, cumulative, probing = self._members, self._count, self._cumulative, self._probing
        drawn: list[int] = []
        for _ in range(2 * wanted):
            if len(drawn) >= wanted:
                break
            if cumulative is None:
                at = int(rng.random() * count)
            else:
                at = min(bisect(cumulative, rng.random() * cumulative[-1]), count - 1)
            if at not in drawn:
                drawn.append(at)
                member = members[at]
                reported = member.load.reported
                if reported is not None and reported.quiet_until <= now and (usable is None or usable(member)):
                    probing.want(self.pool, member)
        probing.tell()

    def _remember(self, max_age_s: float, places: int, now: float, rng: Random) -> None:
        """What was heard for the balancer before this one, over endpoints of which some have changed."""
        heard = [
            (reported.at, at, reported)
            for at, member in enumerate(self._members)
            if (reported := member.load.reported) is not None and 0.0 <= now - reported.at < max_age_s
        ]
        for when, at, reported in sorted(heard)[-places:]:
            self.pool.add(self._members[at], reported.in_flight, reported.latency_s, when, rng)


def _probing_of(members: Sequence[Member]) -> Probing:
    """That of the members' cluster: what the first of them has that was a member before, or a new one."""
    found: Probing | None = None
    for member in members:
        if member.load.reported is not None and member.load.reported.probing is not None:
            found = member.load.reported.probing
            break
    probing = Probing() if found is None else found
    for member in members:
        reported = member.load.reported
        if reported is None:
            reported = member.load.reported = Reported()
        if reported.probing is not probing:
            reported.probe(probing)
    return probing
