"""The protocol of a balancer: one file per balancer, and one line in `meshlib.balance.table`.

A balancer is made for one immutable list of members, by the function in its file, and picks among them. It may keep
state of its own (a position, a schedule); that state starts anew when the list changes. Which members may be picked at
all (health, ejection, endpoints already tried) is decided elsewhere and comes in as `usable`; it is None on the usual
path, where all may.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from meshlib.balance.endpoint import Endpoint, Health
from meshlib.balance.health import EndpointHealth
from meshlib.balance.load import EndpointNode, Load
from meshlib.balance.settings import LoadBalancing
from meshlib.dataclass import dataclass, field

if TYPE_CHECKING:
    from meshlib.policy.traits import Traits

__all__ = [
    "OUTSIDE",
    "RESAMPLES",
    "Balancer",
    "MakeBalancer",
    "Member",
    "Usable",
    "draw_two",
    "is_even",
    "kept",
    "leaves_out",
    "not_ejected",
    "pick_two",
    "pick_uniform",
    "untried",
]

RESAMPLES = 32
"""How often a random pick is repeated when it hits a member that may not be used. At least half of a cluster may be
used (else panic uses all), so the chance that a long list must be walked after all is 1 in 2**32."""


MemberState: TypeAlias = Literal["unhealthy", "draining", "failed", "ejected", "degraded", "healthy"]


@dataclass(slots=True, eq=False)
class Member:
    """An endpoint as a member of one cluster. Attributes that change live in the shared parts.

    Attributes:
        endpoint: as discovery reported it.
        node: what is counted per endpoint, over all clusters.
        load: its cost, in this cluster.
        health: its outlier state, in this cluster.
        target: where the wire sends attempts for it; opaque here.
    """

    endpoint: Endpoint
    node: EndpointNode
    load: Load
    health: EndpointHealth
    target: object = None
    weight: float = field(init=False)

    def __post_init__(self) -> None:
        self.weight = self.endpoint.weight

    @property
    def state(self) -> MemberState:
        """``unhealthy``, ``draining``, ``failed`` (its active check), ``ejected``, ``degraded`` or ``healthy``."""
        reported, health = self.endpoint.health, self.health
        if reported not in (Health.HEALTHY, Health.DEGRADED):
            return "draining" if reported is Health.DRAINING else "unhealthy"
        if health.active_failed or health.ejected:
            return "failed" if health.active_failed else "ejected"
        return "degraded" if health.active_degraded or reported is Health.DEGRADED else "healthy"

    def after_fork(self) -> None:
        """In the child: attempts and balancers of the parent are not ours."""
        self.node.after_fork()
        if self.load.reported is not None:
            self.load.reported.pool = None

    def __repr__(self) -> str:
        ejected = ", ejected" if self.health.ejected else ""
        return f"<Member {self.endpoint.address} weight {self.weight:g}, {self.node.in_flight} in flight{ejected}>"


Usable: TypeAlias = Callable[[Member], bool]


class Balancer(Protocol):
    """Picks a member."""

    def pick(self, now: float, rng: Random, usable: Usable | None, traits: Traits | None = None) -> Member | None:
        """Pick a member; None only if `usable` holds for none.

        Args:
            now: on the monotonic clock.
            rng: the source of all randomness.
            usable: which may be picked; None for all.
            traits: what was read of the request, for balancers that look at it; None for nothing.
        """
        ...


MakeBalancer: TypeAlias = Callable[[Sequence[Member], LoadBalancing, float, Random], Balancer]
"""Makes a balancer over members, of which there is at least one, as it is set to be, at a time."""


def not_ejected(member: Member) -> bool:
    """Whether outlier detection lets a member be picked."""
    return not member.health.ejected


def untried(tried: Sequence[Member], allowed: Usable | None) -> Usable:
    """Tells the members that a call has not tried, among those that are allowed; None for all."""
    # By node: the same endpoint may be a member of several clusters that one call tries.
    nodes = [member.node for member in tried]
    if allowed is None:
        return lambda member: member.node not in nodes
    return lambda member: member.node not in nodes and allowed(member)


def is_even(members: Sequence[Member]) -> bool:
    """Whether all weights are the same."""
    weight = members[0].weight
    return all(member.weight == weight for member in members)


OUTSIDE = "outside the subset"
"""How a member was picked that the balancer leaves out: only for want of those that it does not."""


def leaves_out(balancer: object, member: Member) -> bool:
    """Whether a balancer has some of the members for its own (a subset, an aperture), and this is none of them."""
    holds = getattr(balancer, "holds", None)
    return holds is not None and not holds(member)


def kept(balancer: object, members: Sequence[Member]) -> int:
    """How many of the members that it was made for a balancer has for its own: of its subset or aperture, or all."""
    size: int | None = getattr(balancer, "size", None)
    return len(members) if size is None else size


def draw_two(count: int, rng: Random) -> tuple[int, int]:
    """Two different indexes below `count`, which is at least 2, each pair as likely.

    One random number gives both: its whole part, once it is multiplied, and what is left of it. Of its 53 bits the
    second index has those that the first one leaves, 36 among 100 000, so chances are even to a millionth.
    """
    drawn = rng.random() * count
    one = int(drawn)
    other = int((drawn - one) * (count - 1))
    return one, other + (other >= one)


def pick_uniform(members: Sequence[Member], rng: Random, usable: Usable | None) -> Member | None:
    """One member at random, each as likely as any other."""
    count = len(members)
    if usable is None:
        return members[int(rng.random() * count)]
    for _ in range(min(count, RESAMPLES)):
        member = members[int(rng.random() * count)]
        if usable(member):
            return member
    left = [member for member in members if usable(member)]
    return left[int(rng.random() * len(left))] if left else None


def pick_two(members: Sequence[Member], rng: Random, usable: Usable | None) -> tuple[Member, Member] | None:
    """Two different members at random (the same one twice, if there is only one); None if there is none."""
    count = len(members)
    if usable is None:
        if count == 1:
            return members[0], members[0]
        one, other = draw_two(count, rng)
        return members[one], members[other]
    first = pick_uniform(members, rng, usable)
    if first is None:
        return None
    for _ in range(min(count, RESAMPLES)):
        second = members[int(rng.random() * count)]
        if second is not first and usable(second):
            return first, second
    left = [member for member in members if member is not first and usable(member)]
    return first, left[int(rng.random() * len(left))] if left else first
