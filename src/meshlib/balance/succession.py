"""What a cluster keeps when its settings change: all that the change does not govern.

The old state stays with the calls that began in it; what both share (loads, ejections, counts) hears of all calls.
"""

from __future__ import annotations

from collections.abc import Callable

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import ClusterState
from meshlib.balance.endpoint import Endpoint
from meshlib.balance.health import EndpointHealth
from meshlib.dataclass import dataclass

__all__ = ["Kept", "succeed"]


@dataclass(frozen=True, slots=True)
class Kept:
    """Which parts of a cluster's settings are the same as before.

    Attributes:
        balancing, breaker, outlier, checks, affinity: whether that part is.
    """

    balancing: bool
    breaker: bool
    outlier: bool
    checks: bool
    affinity: bool


def succeed(
    old: ClusterState, new: ClusterState, same: Kept, target_of: Callable[[Endpoint], object] | None = None
) -> None:
    """Give `new`, which has no members yet, what `old` knows.

    Args:
        old: the cluster's state until now.
        new: its state from now on.
        same: what did not change.
        target_of: what the wire needs to send to an endpoint from now on.
    """
    new.panics = old.panics
    if same.balancing:
        new.load_balancing = old.load_balancing  # with the seed of its own that it may have drawn
    if same.affinity:
        new.sessions = old.sessions
    if same.checks:
        new.active = old.active
    if new.limit is not old.limit:
        new.limit.rejected = old.limit.rejected
    _succeed_breaker(old, new, same.breaker)
    _succeed_outlier(old, new, same.outlier)
    with old._lock:
        members, new._left = dict(old._members), dict(old._left)
    new._members = {key: _member(member, new, same, target_of) for key, member in members.items()}


def _succeed_breaker(old: ClusterState, new: ClusterState, same: bool) -> None:
    if old.breaker is None or new.breaker is None:
        return
    if same:
        new.breaker = old.breaker
        return
    # It begins closed. The counts go on, and whoever watches them sees that an open circuit is no longer so.
    new.breaker.rejected = old.breaker.rejected
    new.breaker.changes = old.breaker.changes + (not old.breaker.closed)


def _succeed_outlier(old: ClusterState, new: ClusterState, same: bool) -> None:
    before, now = old.outlier, new.outlier
    if before is None or now is None:
        return
    if same:
        new.outlier = before
        before.report_to(new._ejected)
        return
    now.ejections, now.overflow = before.ejections, before.overflow
    now.detected, now.enforced = dict(before.detected), dict(before.enforced)


def _member(old: Member, new: ClusterState, same: Kept, target_of: Callable[[Endpoint], object] | None) -> Member:
    load = old.load if same.balancing else old.load.again(new.load_balancing.decay_s)
    health = old.health
    if not same.outlier:
        health = EndpointHealth()
        health.active_failed, health.active_degraded = old.health.active_failed, old.health.active_degraded
        health.joined_at, health.hears = old.health.joined_at, old.health.hears
    if new.active is None:
        health.active_failed = health.active_degraded = False
        health.hears = None
    member = Member(old.endpoint, old.node, load, health)
    member.target = None if target_of is None else target_of(old.endpoint)
    return member
