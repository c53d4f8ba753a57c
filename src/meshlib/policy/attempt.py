"""One attempt of a call, as the state machine keeps it: a small ledger that is closed however the attempt ends."""

from __future__ import annotations

from random import Random

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster
from meshlib.errors import AttemptTimeout, DeadlineExceeded, MeshError
from meshlib.policy.classify import NOT_CALLED
from meshlib.policy.outlier import EjectionProbe
from meshlib.policy.record import AttemptRecord

__all__ = ["Attempt"]


class Attempt:
    """One try at one endpoint.

    It tells the endpoint's load, its ejection and the cluster's breaker how it went, and gives back what it holds (its
    place in the endpoint's count, the lease of a probe) exactly once, by `close`.

    Attributes:
        n: its number, from 1.
        deadline, limit: when it is cut, and what that limit is called.
        probe: whether it tests an ejected endpoint or an open circuit.
        hedge, how: as in the record.
        open: whether it is under way, its response's body included.
        sent: whether any byte of its request may have left this process.
        declined: why the mesh of the service answered in the place of its application; None if it did not.
        outcome: as in the record; ``pending`` until all that the caller wants of it is there.
    """

    __slots__ = (
        "_blind",
        "_lease",
        "cluster",
        "deadline",
        "declined",
        "error",
        "finished_at",
        "headers_at",
        "hedge",
        "how",
        "limit",
        "member",
        "n",
        "open",
        "outcome",
        "phase",
        "probe",
        "resent",
        "sent",
        "started_at",
        "status",
    )

    def __init__(
        self,
        n: int,
        cluster: Cluster,
        member: Member,
        now: float,
        deadline: float | None,
        limit: str,
        lease: EjectionProbe | None,
        probe: bool,
        blind: bool,
        hedge: bool = False,
        how: str | None = None,
    ) -> None:
        """Enter it into the endpoint's count.

        Args:
            n: its number.
            cluster: the one that `member` was picked from.
            member: where to.
            now: on the monotonic clock.
            deadline: when it is cut; None for never.
            limit: what that limit is called.
            lease: if it tests an ejected endpoint.
            probe: whether its call tests an open circuit.
            blind: believe nothing of the endpoint: the answer will come from elsewhere (``observe``).
            hedge, how: as in the record.
        """
        self.n = n
        self.cluster = cluster
        self.member = member
        self.started_at = now
        self.deadline = deadline
        self.limit = limit
        self.probe = probe or lease is not None
        self.open = True
        self.hedge = hedge
        self.how = how
        self.sent = False
        self.resent = False
        self.declined: str | None = None
        self.status: int | None = None
        self.headers_at: float | None = None
        self.finished_at: float | None = None
        self.error: MeshError | None = None
        self.phase: str | None = None
        self.outcome = "pending"
        self._blind = blind
        self._lease = lease
        member.node.enter()

    @property
    def called(self) -> bool:
        """Whether the application of the service may have been called."""
        return self.sent and self.declined not in NOT_CALLED

    def answered(self, now: float, retry_after_s: float | None, rng: Random) -> None:
        """Its headers came, with a good status. `completed` follows, now or with the end of the body.

        Args:
            now: on the monotonic clock.
            retry_after_s: what they ask for; with a 429 that is load, though no failure.
            rng: for samples of the cluster.
        """
        if self._blind:
            return
        load, elapsed_s, breaker = self.member.load, now - self.started_at, self.cluster.state.breaker
        load.answered(now, elapsed_s)
        if retry_after_s is not None and self.status == 429:
            load.failed(now, elapsed_s, self.cluster.usual_cost(rng, self.member), retry_after_s)
        if breaker is not None:
            breaker.attempt_succeeded(now)
        if self._lease is not None:
            self._end_probe(now, True)

    def completed(self) -> None:
        """All of it went well: an end to failures in a row."""
        self.outcome = "success"
        if self.member.health.heeds_success and self.cluster.state.outlier is not None and not self._blind:
            at = self.started_at if self.headers_at is None else self.headers_at
            self.cluster.state.outlier.succeeded(self.member, at, self.status)

    def failed(self, now: float, rng: Random, retry_after_s: float = 0.0) -> None:
        """The endpoint, or the way to it, is to blame for how it went."""
        self.outcome = "failure"
        if self._blind:
            return
        usual_s = self.cluster.usual_cost(rng, self.member)
        self.member.load.failed(now, now - self.started_at, usual_s, retry_after_s)
        self._end_probe(now, False)
        outlier = self.cluster.state.outlier
        if outlier is not None:
            error = self.error
            timed_out = isinstance(error, AttemptTimeout | DeadlineExceeded)  # not a connection that took too long
            connected = error is None or self.stage() not in ("pool", "connect", "tls")
            status = self.status if error is None else None
            outlier.failed(self.member, now, status=status, timed_out=timed_out, connected=connected)

    def given_up(self, now: float) -> None:
        """Nobody waits for it any more. That is no failure, but its time so far is a lower bound of its latency."""
        if self.outcome == "pending":
            self.outcome = "cancelled"
            if self.headers_at is None and not self._blind:
                self.member.load.given_up(now, now - self.started_at)

    def refused(self, now: float) -> None:
        """It failed, but not by the endpoint: this process could not send it."""
        self.given_up(now)
        self.outcome = "failure"

    def timed_out(self, service: str) -> AttemptTimeout:
        """The error of an attempt whose time is up."""
        allowed_s = 0.0 if self.deadline is None else self.deadline - self.started_at
        text = f"no answer within {allowed_s:.3g}s ({self.limit} timeout)"
        address = self.member.endpoint.address
        return AttemptTimeout(text, endpoint=address, service=service, phase=self.stage())

    def stage(self) -> str:
        """How far it has come."""
        if self.headers_at is not None:
            return "body"
        return self.phase or ("headers" if self.sent else "connect")

    def close(self, now: float) -> None:
        """It is over, its body included: it is no longer in flight."""
        if self.open:
            self.open = False
            self.finished_at = now
            self.member.node.exit()
            if self._lease is not None:
                self._end_probe(now, None)

    def _end_probe(self, now: float, success: bool | None) -> None:
        """Give back the lease on an ejected endpoint, if it holds one; None: for the next call to take."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.ended(now, success)

    def record(self, began: float, now: float) -> AttemptRecord:
        """What happened to it, `began` being when the call did."""
        end = self.headers_at if self.headers_at is not None and self.error is None else self.finished_at
        told = self.error is not None or self.outcome == "cancelled"
        return AttemptRecord(
            number=self.n,
            cluster=self.cluster.name,
            endpoint=self.member.endpoint.address,
            started_s=self.started_at - began,
            duration_s=(now if end is None else end) - self.started_at,
            outcome=self.outcome,
            status=self.status,
            error=type(self.error).__name__ if self.error is not None else None,
            phase=self.phase if told else None,
            sent=self.sent,
            resent=self.resent,
            refused=self.declined,
            probe=self.probe,
            hedge=self.hedge,
            how=self.how,
        )
