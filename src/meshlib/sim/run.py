"""Drives real calls over real cluster states, in virtual time: what production does, without wires and waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from meshlib.balance.cluster import Cluster, ClusterState
from meshlib.balance.endpoint import Endpoint
from meshlib.errors import MeshError
from meshlib.policy.actions import Action, Cancel, Deliver, Fail, Start
from meshlib.policy.budget import RetryBudget
from meshlib.policy.call import Call, CallState
from meshlib.policy.facts import CallFacts, Ready
from meshlib.policy.record import Record
from meshlib.policy.settings import BudgetSettings, CallPolicy
from meshlib.routing.route import Backend, Route
from meshlib.sim.clock import Timer, VirtualClock
from meshlib.sim.network import Answer, Network

__all__ = ["Driver", "Simulation"]


class Driver:
    """Carries out one call. `done` is called once, at its end, with the error if there is one."""

    def __init__(self, simulation: Simulation, call: Call, done: Callable[[Driver, MeshError | None], None]) -> None:
        self.call = call
        self._simulation = simulation
        self._done: Callable[[Driver, MeshError | None], None] | None = done
        self._under_way: dict[int, Timer | None] = {}
        self._wakeup: Timer | None = None
        self._token: Ready | None = None

    def begin(self) -> None:
        """Start the call."""
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
                    timer = self._under_way.pop(action.n, None)
                    if timer is not None:
                        timer.cancel()
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
        simulation = self._simulation
        answer = simulation.network.answer(start.member.endpoint.address, simulation.rng)
        if answer.after_s is None:
            self.call.bytes_written(simulation.clock.now, start.n)
            self._under_way[start.n] = None
        else:
            self._under_way[start.n] = simulation.clock.after(answer.after_s, lambda: self._answered(start.n, answer))

    def _answered(self, n: int, answer: Answer) -> None:
        self._under_way.pop(n, None)
        call, now = self.call, self._simulation.clock.now
        if answer.sent:
            call.bytes_written(now, n)
        if answer.error is not None:
            self._carry_out(call.error(now, n, answer.error, answer.phase))
        else:
            self._carry_out(call.headers(now, n, answer.status or 200, retry_after_s=answer.retry_after_s))
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


class Simulation:
    """Calls to one service, over one cluster.

    Attributes:
        state, cluster: the live state, and the endpoints as they are now; assign `cluster` to change them.
        body_s: how long a response's body takes after its headers.
        records: of all calls that ended, in the order of their ends.
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
        budget: RetryBudget | None = None,
        body_s: float = 0.0,
    ) -> None:
        self.clock = clock
        self.rng = rng
        self.network = network
        self.state = state
        self.cluster: Cluster = state.view(endpoints, clock.now, rng)
        self.budget = RetryBudget(BudgetSettings()) if budget is None else budget
        self.route = Route("default", (Backend(state.name),), policy)
        self.body_s = body_s
        self.records: list[Record] = []

    def call(
        self, give_up_after_s: float | None = None, *, deadline_s: float | None = None, safe: bool = True
    ) -> Driver:
        """Begin a call now.

        Args:
            give_up_after_s: when the caller goes away.
            deadline_s: what the caller has left, as it would be inherited.
            safe: whether it may be repeated.
        """
        facts = CallFacts(
            service=self.state.name,
            method="GET" if safe else "POST",
            route=self.route,
            policy=self.route.policy,
            clusters=lambda: (self.cluster,),
            budget=self.budget,
            safe=safe,
        )
        inherited = None if deadline_s is None else self.clock.now + deadline_s
        driver = Driver(self, Call(facts, self.rng, inherited=inherited), self._ended)
        driver.begin()
        if give_up_after_s is not None:
            self.clock.after(give_up_after_s, driver.give_up)
        return driver

    def load(self, per_second: float, for_s: float, start: Callable[[], object] | None = None) -> None:
        """Have calls begin at random moments (a Poisson process), and run until they are all through."""
        begin = self.call if start is None else start
        end = self.clock.now + for_s

        def arrive() -> None:
            begin()
            if (at := self.clock.now + self.rng.expovariate(per_second)) < end:
                self.clock.at(at, arrive)

        self.clock.after(self.rng.expovariate(per_second), arrive)
        self.clock.run(end)
        self.clock.run()

    def attempts(self) -> Counter[str]:
        """How many attempts each endpoint had."""
        return Counter({address: endpoint.attempts for address, endpoint in self.network.endpoints.items()})

    def outcomes(self) -> Counter[str]:
        """How the calls ended: statuses and names of errors."""
        return Counter(record.error or str(record.status or record.outcome) for record in self.records)

    def _ended(self, driver: Driver, error: MeshError | None) -> None:
        self.records.append(driver.call.record(self.clock.now))
