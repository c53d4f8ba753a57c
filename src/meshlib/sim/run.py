"""Drives real calls over real cluster states, in virtual time: what production does, without wires and waiting.

`Caller` is what any client of a simulation does; `Simulation` is one over a cluster state made by hand, and
`meshlib.sim.client.Client` one that is configured as a mesh is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint
from meshlib.context import Criticality
from meshlib.errors import MeshError
from meshlib.policy.actions import Action, Cancel, Deliver, Fail, Start
from meshlib.policy.budget import Budget, make_budget
from meshlib.policy.call import Call, CallState
from meshlib.policy.facts import CallFacts, Ready
from meshlib.policy.record import Record
from meshlib.policy.settings import BudgetSettings, CallPolicy
from meshlib.propagation import CRITICALITY
from meshlib.routing.route import Backend, Route
from meshlib.sim.clock import Timer, VirtualClock
from meshlib.sim.network import Answer, Exchange, Network
from meshlib.sim.tally import Tally

__all__ = ["Caller", "Driver", "Simulation", "arrivals"]


def arrivals(clock: VirtualClock, rng: Random, per_second: float, for_s: float, start: Callable[[], object]) -> None:
    """Call `start` at random moments (a Poisson process) from now on, for as long."""
    end = clock.now + for_s

    def arrive() -> None:
        start()
        following()

    def following() -> None:
        if (at := clock.now + rng.expovariate(per_second)) < end:
            clock.at(at, arrive)

    following()


class Driver:
    """Carries out one call. `done` is called once, at its end, with the error if there is one."""

    def __init__(
        self,
        simulation: Caller,
        call: Call,
        done: Callable[[Driver, MeshError | None], None],
        criticality: Criticality | None = None,
    ) -> None:
        self.call = call
        self._simulation = simulation
        self._criticality = criticality
        self._done: Callable[[Driver, MeshError | None], None] | None = done
        self._under_way: dict[int, Exchange] = {}
        self._wakeup: Timer | None = None
        self._token: Ready | None = None

    def begin(self) -> None:
        """Start the call."""
        self.call.may_hedge()
        self._carry_out(self.call.begin(self._simulation.clock.now))

    def give_up(self) -> None:
        """The caller goes away."""
        self._carry_out(self.call.cancelled(self._simulation.clock.now))

    def _carry_out(self, actions: Sequence[Action]) -> None:
        error: MeshError | None = None
        for action in actions:
            match action:
                case Start():
                    self._start(action)
                case Cancel():
                    exchange = self._under_way.pop(action.n, None)
                    if exchange is not None:
                        exchange.gone = True
                case Deliver():
                    body_s = self._simulation.body_s
                    self._simulation.clock.after(body_s, lambda n=action.n: self._body_end(n))  # type: ignore[misc]
                case Fail():
                    error = action.error
        self._wait()
        if self._done is not None and self.call.state in (CallState.DELIVERED, CallState.DONE):
            done, self._done = self._done, None
            done(self, error)

    def _start(self, start: Start) -> None:
        simulation, n = self._simulation, start.n
        clock = simulation.clock
        simulation.tally.attempts[int(clock.now)] += 1
        headers = start.headers
        if self._criticality is not None:
            headers = [*headers, (CRITICALITY.encode(), self._criticality.name.lower().encode())]
        exchange = Exchange(clock, simulation.rng, self.call.path, headers, lambda answer: self._answered(n, answer))
        self._under_way[n] = exchange
        if simulation.network.send(start.member.endpoint.address, exchange):
            self.call.bytes_written(clock.now, n)

    def _answered(self, n: int, answer: Answer) -> None:
        self._under_way.pop(n, None)
        call, now = self.call, self._simulation.clock.now
        if answer.error is not None:
            self._carry_out(call.error(now, n, answer.error, answer.phase))
            return
        status, retry_after_s = answer.status or 200, answer.retry_after_s
        reported = call.attempts[n - 1].member.load.reported
        if reported is not None:
            reported.read(answer.headers, now)
        self._carry_out(
            call.headers(
                now, n, status, retry_after_s=retry_after_s, overloaded=answer.overloaded, answer=answer.headers
            )
        )
        if call.state is CallState.RUNNING and call.attempts[n - 1].open:  # it wants the body too
            self._simulation.clock.after(self._simulation.body_s, lambda: self._body_end(n))

    def _body_end(self, n: int) -> None:
        self._carry_out(self.call.body_end(self._simulation.clock.now, n))

    def _wait(self) -> None:
        clock, wake_at, token = self._simulation.clock, self.call.next_wakeup, self.call.wait_on
        if self._wakeup is not None and (wake_at is None or self._wakeup.at != wake_at):
            self._wakeup.cancel()
            self._wakeup = None
        if wake_at is not None and self._wakeup is None:
            self._wakeup = clock.at(wake_at, self._timer)
        if token is not None and token is not self._token:
            token.on_ready(self._ready)
        self._token = token

    def _timer(self) -> None:
        self._wakeup = None
        self._carry_out(self.call.timer(self._simulation.clock.now))

    def _ready(self) -> None:
        # Through the clock, for this may come in the midst of another call's event.
        self._simulation.clock.after(0.0, self._woken)

    def _woken(self) -> None:
        self._carry_out(self.call.woken(self._simulation.clock.now))


class Caller(ABC):
    """The calls of one client. Several may share a clock and a network.

    Attributes:
        clock, rng, network: all time, all chance, and what is at the addresses.
        body_s: how long a response's body takes after its headers.
        tally: what came of the calls.
        records: of all calls that ended, in the order of their ends, if they are kept.
        running: calls that have not ended, as far as their caller sees them.
    """

    def __init__(
        self,
        network: Network,
        *,
        clock: VirtualClock,
        rng: Random,
        body_s: float = 0.0,
        tally: Tally | None = None,
        keep_records: bool = True,
    ) -> None:
        """A client that has made no call.

        Args:
            network: what is at the addresses.
            clock, rng: all time and all chance.
            body_s: how long a response's body takes after its headers.
            tally: to be shared with other clients; None for one of its own.
            keep_records: whether to make a record of each call.
        """
        self.clock = clock
        self.rng = rng
        self.network = network
        self.body_s = body_s
        self.tally = Tally() if tally is None else tally
        self.records: list[Record] = []
        self.running = 0
        self._keep_records = keep_records

    @property
    @abstractmethod
    def clusters(self) -> Sequence[Cluster]:
        """The clusters that it calls, as they are now."""

    @abstractmethod
    def make(self, path: str, safe: bool, criticality: Criticality | None) -> Call:
        """A call that has not begun."""

    def call(
        self,
        give_up_after_s: float | None = None,
        *,
        deadline_s: float | None = None,
        safe: bool = True,
        path: str = "/",
        criticality: Criticality | None = None,
    ) -> Driver:
        """Begin a call now.

        Args:
            give_up_after_s: when the caller goes away.
            deadline_s: what the caller has left, as it would be inherited.
            safe: whether it may be repeated.
            path: what to ask for.
            criticality: of the request that it is made for.
        """
        now = self.clock.now
        call = self.make(path, safe, criticality)
        call.inherited = None if deadline_s is None else now + deadline_s
        driver = Driver(self, call, self._ended, criticality)
        self.tally.begun[int(now)] += 1
        self.running += 1
        driver.begin()
        if give_up_after_s is not None:
            self.clock.after(give_up_after_s, driver.give_up)
        return driver

    def load(self, per_second: float, for_s: float, start: Callable[[], object] | None = None) -> None:
        """Have calls begin at random moments (a Poisson process), and run until they are all through."""
        end = self.clock.now + for_s
        arrivals(self.clock, self.rng, per_second, for_s, self.call if start is None else start)
        self.clock.run(end)
        self.clock.run()

    @property
    def in_flight(self) -> int:
        """What is still counted as under way anywhere here: calls, their places, and attempts."""
        return self.running + sum(
            cluster.state.limit.in_flight
            + cluster.state.limit.pending
            + sum(member.node.in_flight for member in cluster.members)
            for cluster in self.clusters
        )

    def attempts(self) -> Counter[str]:
        """How many attempts each endpoint had."""
        return Counter({address: endpoint.attempts for address, endpoint in self.network.endpoints.items()})

    def outcomes(self) -> Counter[str]:
        """How the calls ended: statuses and names of errors."""
        return Counter(record.error or str(record.status or record.outcome) for record in self.records)

    def _ended(self, driver: Driver, error: MeshError | None) -> None:
        journal, now = driver.call.journal, self.clock.now
        self.running -= 1
        good = error is None and journal.status is not None and journal.status < 500
        self.tally.ended(now, good, now - (now if journal.began is None else journal.began))
        if self._keep_records:
            self.records.append(driver.call.record(now))


class Simulation(Caller):
    """Calls to one service over one cluster, whose parts are given.

    Attributes:
        state, cluster: the live state, and the endpoints as they are now; assign `cluster` to change them.
        budget: of retries.
        route: that all calls take.
    """

    def __init__(
        self,
        state: ClusterState,
        endpoints: Sequence[Endpoint],
        network: Network,
        *,
        clock: VirtualClock,
        rng: Random,
        policy: CallPolicy = CallPolicy(),
        budget: Budget | None = None,
        **kept: Any,
    ) -> None:
        """A client that has made no call.

        Args:
            state: of the cluster.
            endpoints: of the service.
            network: what is at their addresses.
            clock, rng: all time and all chance.
            policy: how to call.
            budget: of retries; None for the default one.
            kept: see `Caller`.
        """
        super().__init__(network, clock=clock, rng=rng, **kept)
        self.state = state
        self.cluster: Cluster = state.view(endpoints, clock.now, rng)
        self.budget = make_budget(BudgetSettings()) if budget is None else budget
        self.route = Route("default", (Backend(state.name),), policy)
        self._facts = {safe: self._facts_of(safe) for safe in (False, True)}

    @property
    def clusters(self) -> Sequence[Cluster]:
        return (self.cluster,)

    def make(self, path: str, safe: bool, criticality: Criticality | None) -> Call:
        return Call(self._facts[safe], self.rng, path)

    def _facts_of(self, safe: bool) -> CallFacts:
        return CallFacts(
            service=self.state.name,
            method="GET" if safe else "POST",
            route=self.route,
            policy=self.route.policy,
            clusters=lambda: (self.cluster,),
            budget=self.budget,
            safe=safe,
        )
