"""One attempt of a call, as the call's state machine keeps it: a small ledger that is closed however the attempt ends."""

from __future__ import annotations

from random import Random

from meshlib.balance.balancer import Member
from meshlib.balance.cluster import Cluster
from meshlib.errors import MeshError
from meshlib.policy.record import AttemptRecord

__all__ = ["Attempt"]


class Attempt:
    """One try at one endpoint.

    It tells the endpoint's load, its ejection and the cluster's breaker how it went, and gives back what it holds (its
    place in the endpoint's count, the lease of a probe) exactly once, by `close`.

    Attributes:
        n: its number, from 1.
        deadline, limit: when it is cut, and what that limit is called.
        probe: whether it holds the lease on an ejected endpoint.
        open: whether it is under way, its response's body included.
        sent: whether any byte of its request may have left this process.
    """

    __slots__ = (
        "_blind",
        "_rng",
        "cluster",
        "deadline",
        "error",
        "finished_at",
        "headers_at",
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
        rng: Random,
        *,
        deadline: float | None,
        limit: str,
        probe: bool,
        blind: bool,
    ) -> None:
        """
        Args:
            blind: believe nothing of the endpoint: the answer will come from elsewhere (``observe``).
        """
        self.n = n
        self.cluster = cluster
        self.member = member
        self.started_at = now
        self.deadline = deadline
        self.limit = limit
        self.probe = probe
        self.open = True
        self.sent = False
        self.resent = False
        self.status: int | None = None
        self.headers_at: float | None = None
        self.finished_at: float | None = None
        self.error: MeshError | None = None
        self.phase: str | None = None
        self.outcome = "pending"
        self._rng = rng
        self._blind = blind
        member.node.enter()

    def succeeded(self, now: float, retry_after_s: float | None, *, whole: bool) -> None:
        """Its headers came, with a good status.

        Args:
            now: on the monotonic clock.
            retry_after_s: what they ask for; with a 429 that is load, though no failure.
            whole: whether this is all that is to come; if not, `completed` follows with the end of the body.
        """
        self.outcome = "success"
        if self._blind:
            return
        load, elapsed_s = self.member.load, now - self.started_at
        if self.status == 429 and retry_after_s is not None:
            load.failed(now, elapsed_s, self.cluster.median_latency(now, self._rng), retry_after_s)
        else:
            load.answered(now, elapsed_s)
        if self.cluster.state.breaker is not None:
            self.cluster.state.breaker.attempt_succeeded(now)
        self.end_probe(now, True)
        if whole:
            self.completed(now)

    def completed(self, now: float) -> None:
        """All of it went well: an end to failures in a row."""
        if self.cluster.state.outlier is not None and not self._blind:
            self.cluster.state.outlier.succeeded(self.member, now)

    def failed(self, now: float, retry_after_s: float = 0.0) -> None:
        """The endpoint, or the way to it, is to blame for how it went."""
        self.outcome = "failure"
        if self._blind:
            return
        median_s = self.cluster.median_latency(now, self._rng)
        self.member.load.failed(now, now - self.started_at, median_s, retry_after_s)
        outlier = self.cluster.state.outlier
        if outlier is not None:
            self.end_probe(now, False)
            outlier.failed(self.member, now, len(self.cluster.members))

    def given_up(self, now: float) -> None:
        """Nobody waits for it any more. That is no failure, but its time so far is a lower bound of its latency."""
        if self.outcome == "pending":
            self.outcome = "cancelled"
            if not self._blind:
                self.member.load.given_up(now, now - self.started_at)

    def close(self, now: float) -> None:
        """It is over, its body included: it is no longer in flight."""
        if self.open:
            self.open = False
            self.finished_at = now
            self.member.node.exit()
            self.end_probe(now, None)

    def end_probe(self, now: float, success: bool | None) -> None:
        """Give back the lease on an ejected endpoint, if this attempt holds one; None: for the next call to take."""
        if self.probe and self.cluster.state.outlier is not None:
            self.cluster.state.outlier.probe_ended(self.member, now, success)

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
            probe=self.probe,
        )
