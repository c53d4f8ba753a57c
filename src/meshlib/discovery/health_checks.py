"""Active checks of the endpoints of services in use, on the control thread.

They begin when a service is first published and end with its watch; a mesh whose services have none starts nothing.
Each endpoint has a timer, and while it is checked a task. At most `max_concurrent` checks of a service are under way at
once; further ones wait their turn. What is found is noted in the endpoint's health, in each cluster that it belongs to.

All of it runs on the control thread; only `_after_fork` does not, for it runs when there is no such thread.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from random import Random

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import ClusterState
from meshlib.config.views import ServiceView
from meshlib.discovery.control import ControlPlane
from meshlib.discovery.control_thread import Timer
from meshlib.discovery.threads import abandon, renew_in_child
from meshlib.errors import MeshClosed
from meshlib.net.health_probe import HealthProbe
from meshlib.policy.health_check import (
    Checkup,
    Finding,
    FirstRound,
    HealthCheckSettings,
    first_delay_s,
    next_delay_s,
    says_goodbye,
)

__all__ = ["HealthChecks", "Tell"]

Tell = Callable[[str, str, Checkup, str], None]
"""Called with a service, an endpoint's address, its state, which has just changed, and what was wrong in words."""

_log = logging.getLogger("meshlib")
_CALM_S = 20e-6
"""How long, for each endpoint, is between two times that clusters are made anew: that takes about a tenth of it."""


class HealthChecks:
    """The active checks of one mesh.

    Args:
        control: where they run.
        probe_of: makes the probe of a member of a service, by its name, with these settings.
        clock: monotonic seconds.
        rng: for jitter.
        tell: called at each change of an endpoint's state.
    """

    def __init__(
        self,
        control: ControlPlane,
        probe_of: Callable[[str, Member, HealthCheckSettings], HealthProbe],
        *,
        clock: Callable[[], float],
        rng: Random,
        tell: Tell,
    ) -> None:
        self._control = control
        self._probe_of = probe_of
        self._clock = clock
        self._rng = rng
        self._tell = tell
        self._services: dict[str, _ServiceChecks] = {}
        renew_in_child(self)

    def __repr__(self) -> str:
        return f"<HealthChecks {sum(len(service.sessions) for service in self._services.values())} endpoints>"

    def follow(self, view: ServiceView) -> None:
        """The endpoints of a service are these now."""
        settings = view.settings.clusters[None].health_check
        service = self._services.get(view.name)
        if service is not None and service.settings != settings:
            service = None
            self.forget(view.name)
            if settings is None:
                _acquit(view)
        if settings is None:
            return
        if service is None:
            service = self._services[view.name] = _ServiceChecks(self, view.name, settings)
        service.follow(view)

    def forget(self, name: str) -> None:
        """The service is no longer in use."""
        service = self._services.pop(name, None)
        if service is not None:
            service.end()

    def look(self) -> None:
        """See whether services that had no traffic have some by now: then they are checked more often."""
        for service in self._services.values():
            service.look()

    def close(self) -> None:
        """End all."""
        for name in list(self._services):
            self.forget(name)

    def _after_fork(self) -> None:
        # What was found is the child's first knowledge; timers, tasks and connections are the parent's.
        for service in self._services.values():
            service.pause()


class _Session:
    """The checks of one endpoint.

    Attributes:
        checkup: its state.
        members: it, in each cluster that it belongs to.
        timer: until the next check; None while it waits its turn or is under way.
        busy: whether it waits its turn or is under way.
        gone: whether the endpoint has left.
    """

    __slots__ = ("busy", "checkup", "gone", "members", "probe", "timer")

    def __init__(self, checkup: Checkup, probe: HealthProbe) -> None:
        self.checkup = checkup
        self.probe = probe
        self.members: list[tuple[ClusterState, Member]] = []
        self.timer: Timer | None = None
        self.busy = False
        self.gone = False

    @property
    def address(self) -> str:
        return self.members[0][1].endpoint.address

    @property
    def shown(self) -> tuple[bool, bool]:
        """What is noted in its health: failed, and degraded."""
        health = self.members[0][1].health
        return health.active_failed, health.active_degraded

    def end(self) -> None:
        """Its endpoint has left, or the service is no longer in use."""
        self.gone = True
        for _, member in self.members:
            member.health.hears = None
        if self.timer is not None:
            self.timer.cancel()
        if not self.busy:
            self.probe.close()


class _ServiceChecks:
    """The checks of one service.

    Attributes:
        sessions: by the endpoint's key.
    """

    def __init__(self, checks: HealthChecks, name: str, settings: HealthCheckSettings) -> None:
        self.sessions: dict[tuple[str, str, int], _Session] = {}
        self._checks = checks
        self._name = name
        self.settings = settings
        self._round = FirstRound()
        self._checked = 0
        self._traffic = False
        self._changed: dict[int, ClusterState] = {}
        self._spreading: Timer | None = None
        self._spread_at = float("-inf")
        self._waiting: deque[_Session] = deque()
        self._under_way = 0

    def follow(self, view: ServiceView) -> None:
        """The endpoints are these now."""
        members: dict[tuple[str, str, int], list[tuple[ClusterState, Member]]] = {}
        for cluster in view.clusters.values():
            for member in cluster.members:
                members.setdefault(member.endpoint.key, []).append((cluster.state, member))
        for key in self.sessions.keys() - members.keys():
            self.sessions.pop(key).end()
        for key, ones in members.items():
            session = self.sessions.get(key)
            if session is None:
                probe = self._checks._probe_of(self._name, ones[0][1], self.settings)
                session = self.sessions[key] = _Session(Checkup(self.settings), probe)
            session.members = ones
            for _, member in ones:
                member.health.hears = partial(self._hears, session)
        self._checked = sum(session.checkup.checked for session in self.sessions.values())
        self._round.look(self._checked, len(self.sessions))
        self.look()
        self._reckon(self.sessions.values())
        for session in list(self.sessions.values()):
            if session.timer is None and not session.busy:
                self._later(session, first_delay_s(self.settings, self._checks._rng))

    def end(self) -> None:
        """The service is no longer in use."""
        self._waiting.clear()
        if self._spreading is not None:
            self._spreading.cancel()
        for session in self.sessions.values():
            session.end()
        self.sessions.clear()

    def pause(self) -> None:
        """Stop where this is; `follow` goes on."""
        self._waiting.clear()
        self._under_way = 0
        self._spreading = None
        for session in self.sessions.values():
            if session.busy:  # its task, which will never run here, still holds what it was doing
                abandon(session.probe)
                session.probe = self._checks._probe_of(self._name, session.members[0][1], self.settings)
            else:
                session.probe.abandon()
            session.timer, session.busy = None, False

    def look(self) -> None:
        """Note whether there was a call by now."""
        if self._traffic:
            return
        sessions = self.sessions.values()
        self._traffic = any(_was_called(member) for session in sessions for _, member in session.members)
        if self._traffic:
            for session in sessions:
                if session.timer is not None and session.checkup.checked:
                    session.timer.cancel()
                    self._later(session, self.settings.interval_s * self._checks._rng.random())

    def _hears(self, session: _Session, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """An endpoint has answered a call. In the thread of whoever made it."""
        if says_goodbye(headers):
            with suppress(RuntimeError):  # the control thread does not run any more
                self._checks._control.call_soon(partial(self._told_to_go, session))

    def _told_to_go(self, session: _Session) -> None:
        if session.gone:
            return
        before = session.shown
        session.checkup.told_to_go()
        self._reckon([session])
        if session.shown != before:
            self._checks._tell(self._name, session.address, session.checkup, "it has asked to be left alone")

    def _later(self, session: _Session, delay_s: float) -> None:
        if delay_s > 0:
            session.timer = self._checks._control.call_later(delay_s, partial(self._is_due, session))
        else:
            self._is_due(session)

    def _is_due(self, session: _Session) -> None:
        session.timer = None
        session.busy = True
        self._waiting.append(session)
        self._begin()

    def _begin(self) -> None:
        """Begin as many of those that wait as there may be."""
        while self._waiting and self._under_way < self.settings.max_concurrent:
            session = self._waiting.popleft()
            if session.gone:
                session.probe.close()
                continue
            self._under_way += 1
            try:
                self._checks._control.submit(partial(self._check, session))
            except MeshClosed:
                return

    async def _check(self, session: _Session) -> None:
        try:
            finding, wrong = await session.probe.check()
        except Exception as error:
            _log.exception("a check of %s, %s, failed", self._name, session.address)
            finding, wrong = Finding.NO_ANSWER, str(error) or type(error).__name__
        finally:
            session.busy = False
            self._under_way -= 1
        if session.gone:
            session.probe.close()
        else:
            self._found(session, finding, wrong)
        self._begin()

    def _found(self, session: _Session, finding: Finding, wrong: str) -> None:
        checkup, before = session.checkup, session.shown
        known = checkup.checked
        transition = checkup.found(finding)
        self._note(session, finding)
        self._checked += not known
        over = not known and self._round.look(self._checked, len(self.sessions))
        self._reckon(self.sessions.values() if over else [session])
        if session.shown != before:
            self._checks._tell(self._name, session.address, checkup, wrong)
        delay_s = next_delay_s(self.settings, finding, transition, self._traffic, self._checks._rng)
        self._later(session, delay_s)

    def _note(self, session: _Session, finding: Finding) -> None:
        """Count the check, and tell outlier detection of one that was passed by one that is well."""
        now, passed = self._checks._clock(), finding in (Finding.PASSED, Finding.DEGRADED)
        for state, member in session.members:
            if state.active is not None:
                state.active.checked(passed)
            if passed and not session.checkup.failed and state.outlier is not None:
                state.outlier.passed_check(member.health, now)

    def _reckon(self, sessions: Iterable[_Session]) -> None:
        """Note in the health of these endpoints what is known of them."""
        now = self._checks._clock()
        for session in sessions:
            failed, degraded = self._round.leaves_out(session.checkup), session.checkup.degraded
            for state, member in session.members:
                if state.active is None:
                    continue
                state.active.newcomers_fail = self._round.over and self.settings.initial == "failed"
                returns = member.health.active_failed and not failed
                if state.active.found(member.health, failed=failed, degraded=degraded):
                    self._changed[id(state)] = state
                    if returns and state.load_balancing.slow_start is not None:
                        member.health.joined_at = now
        if self._changed and self._spreading is None:
            wait_s = self._spread_at + len(self.sessions) * _CALM_S - now
            if wait_s > 0:
                self._spreading = self._checks._control.call_later(min(wait_s, 1.0), self._spread)
            else:
                self._spread()

    def _spread(self) -> None:
        """Have the clusters made anew in which anything has changed."""
        self._spreading = None
        self._spread_at = self._checks._clock()
        changed, self._changed = self._changed, {}
        for state in changed.values():
            state.health_changed()


def _acquit(view: ServiceView) -> None:
    """Nobody checks these endpoints any more: what was found of them no longer counts."""
    for cluster in view.clusters.values():
        for member in cluster.members:
            member.health.active_failed = member.health.active_degraded = False
            member.health.hears = None
        cluster.state.health_changed()


def _was_called(member: Member) -> bool:
    return member.load.has_answered or member.load.penalty_s > 0 or member.node.in_flight > 0
