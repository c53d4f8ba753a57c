"""Probes of load, on the control thread: what `meshlib.balance.prequal` wants to know, and no call waits for.

A pick leaves word of whom it wants probed (`meshlib.balance.probing`), and the first of them wakes this. It then looks
again every few milliseconds as long as there is more, so that many calls a second cost one wake-up in each such time.
A probe that fails leaves no trace: an endpoint of which nothing is heard is in no pool. One that is answered without a
report is the last for a minute (`meshlib.balance.reported.QUIET_S`): whoever is asked may know nothing of all this.

All of it runs on the control thread; only `_after_fork` does not, for it runs when there is no such thread.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from functools import partial
from random import Random
from typing import Any, Protocol

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster
from meshlib.balance.probe_pool import ProbePool
from meshlib.balance.probing import Probing
from meshlib.balance.reported import QUIET_S
from meshlib.balance.settings import PrequalSettings
from meshlib.config.views import ServiceView
from meshlib.discovery.threads import renew_in_child
from meshlib.errors import MeshClosed
from meshlib.net.wire import Headers

__all__ = ["LINGER_S", "Ask", "Control", "LoadProbes", "Tell"]

Ask = Callable[[str, Member, float], Awaitable[Headers | None]]
"""Asks a member of a service, by its name, for at most so many seconds. Gives the headers of the answer, if any."""

Tell = Callable[[str, str, int, int], None]
"""Called with a service, a cluster of it, how many endpoints say nothing of their load, and how many there are."""


class Control(Protocol):
    """What is needed of the control plane."""

    def call_soon(self, function: Callable[[], object]) -> None:
        """Have `function` called on the control thread, if that runs."""

    def call_later(self, delay_s: float, function: Callable[[], object]) -> object:
        """Have it called in so many seconds."""

    def submit(self, work: Callable[[], Coroutine[Any, Any, None]]) -> object:
        """Run a coroutine there."""


LINGER_S = 0.005
_COUNT_S = 0.1  # many answers are counted at once: to count goes through all endpoints
_AT_ONCE = 64

_log = logging.getLogger("meshlib")


class LoadProbes:
    """The probes of one mesh.

    Args:
        control: where they run.
        ask: sends one.
        clock: monotonic seconds.
        rng: rounds how often an answer is used.
        tell: called when most endpoints of a cluster turn out to say nothing, and when that is over.
    """

    def __init__(self, control: Control, ask: Ask, *, clock: Callable[[], float], rng: Random, tell: Tell) -> None:
        self.control = control
        self.ask = ask
        self.clock = clock
        self.rng = rng
        self.tell = tell
        self._followed: dict[str, ServiceView] = {}
        self._sessions: dict[str, list[_Session]] = {}
        renew_in_child(self)

    def __repr__(self) -> str:
        return f"<LoadProbes {sum(map(len, self._sessions.values()))} clusters>"

    def follow(self, views: Mapping[str, ServiceView]) -> None:
        """The services in use are these now, by name."""
        for name in self._sessions.keys() - views.keys():
            self._followed.pop(name, None)
            for session in self._sessions.pop(name):
                session.probing.wake = None
        for view in views.values():
            if self._followed.get(view.name) is view and not any(map(_is_lazy, view.clusters.values())):
                continue
            self._followed[view.name] = view
            known = {session.probing: session for session in self._sessions.get(view.name, ())}
            sessions = [
                known.get(probing) or _Session(self, view.name, cluster, probing)
                for cluster in view.clusters.values()
                for probing in probings(cluster)
            ]
            if sessions or known:
                self._sessions[view.name] = sessions
            for session in sessions:
                session.cluster = view.clusters.get(session.subset, session.cluster)
                session.probing.wake = session.wake

    def _after_fork(self) -> None:
        # What was heard is the child's first knowledge; what is wanted is the parent's business.
        for sessions in self._sessions.values():
            for session in sessions:
                session.probing.wake = None
                session.probing.renew()
        self._sessions.clear()
        self._followed.clear()


def probings(cluster: Cluster) -> Iterator[Probing]:
    """Where the balancers of a cluster leave word; nowhere, if it has another policy."""
    if cluster.state.load_balancing.policy != "prequal":
        return
    found: set[int] = set()
    for member in cluster.members:
        reported = member.load.reported
        if reported is not None and reported.probing is not None and id(reported.probing) not in found:
            found.add(id(reported.probing))
            yield reported.probing


def _is_lazy(cluster: Cluster) -> bool:
    """Whether balancers of the cluster may be made after it."""
    return cluster.state.load_balancing.policy == "prequal" and (
        cluster.priorities is not None or cluster.subsets is not None
    )


class _Session:
    """The probes that the balancers of one cluster want.

    Attributes:
        probing: where they leave word.
        cluster: as it is now.
        subset: of the service, that it is; None for the whole.
    """

    def __init__(self, probes: LoadProbes, service: str, cluster: Cluster, probing: Probing) -> None:
        self.probing = probing
        self.cluster = cluster
        self.subset = cluster.name.partition("/")[2] or None
        self._probes = probes
        self._service = service
        self._under_way = 0
        self._budget = 0.0
        self._budget_at = probes.clock()
        self._mostly_quiet = self._to_count = False

    @property
    def settings(self) -> PrequalSettings:
        return self.cluster.state.load_balancing.prequal

    def wake(self) -> None:
        """There is something to do. In the thread of whoever picks."""
        self._probes.control.call_soon(self._work)

    def _work(self) -> None:
        if self.probing.wake is None:
            return
        self._begin()
        self._probes.control.call_later(LINGER_S, self._look)

    def _look(self) -> None:
        if not self.probing.rest():
            self._work()

    def _begin(self) -> None:
        """Begin as many of those wanted as there may be; the others are forgotten."""
        settings, now = self.settings, self._probes.clock()
        most = max(1.0, float(settings.pool_size))
        earned = max(0.0, now - self._budget_at) * settings.max_probes_per_s
        self._budget, self._budget_at = min(most, self._budget + earned), now
        for pool, member in self.probing.take():
            if self._budget < 1.0 or self._under_way >= _AT_ONCE:
                continue
            self._budget -= 1.0
            self._under_way += 1
            try:
                self._probes.control.submit(partial(self._probe, pool, member))
            except MeshClosed:
                return

    async def _probe(self, pool: ProbePool, member: Member) -> None:
        try:
            headers = await self._probes.ask(self._service, member, self.settings.timeout_s)
        except Exception:
            _log.debug("a probe of %s, %s, failed", self._service, member.endpoint.address, exc_info=True)
            return
        finally:
            self._under_way -= 1
        reported, now = member.load.reported, self._probes.clock()
        if headers is None or reported is None:
            return
        was_quiet = reported.quiet_until > now
        if reported.hear(headers, now):
            reported.quiet_until = now
            pool.add(member, reported.in_flight, reported.latency_s, now, self._probes.rng)
        elif not was_quiet:
            reported.quiet_until = now + QUIET_S
        if (was_quiet is not (reported.quiet_until > now) or self._mostly_quiet) and not self._to_count:
            self._to_count = True
            self._probes.control.call_later(_COUNT_S, self._count)

    def _count(self) -> None:
        """Say so if most of the endpoints are quiet, and when they are no more."""
        self._to_count = False
        members, now = self.cluster.members, self._probes.clock()
        quiet = sum(1 for each in members if each.load.reported is not None and each.load.reported.quiet_until > now)
        mostly = 2 * quiet > len(members)
        if mostly is not self._mostly_quiet:
            self._mostly_quiet = mostly
            self._probes.tell(self._service, self.cluster.name, quiet, len(members))
