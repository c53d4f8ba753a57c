"""One observable instrument, and what it may read of a mesh."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

from meshlib.balance.cluster import Cluster
from meshlib.balance.endpoint import Locality
from meshlib.dataclass import dataclass
from meshlib.propagation import Ignored
from meshlib.telemetry import semconv

if TYPE_CHECKING:
    from meshlib.net.pool import PoolStats
    from meshlib.policy.fault import ActiveFaults
    from meshlib.policy.hedge import Hedging
    from meshlib.policy.serving_queue import ServingQueue

__all__ = ["Attributes", "Gauge", "Observed", "Observing", "Reading", "Serves", "of_cluster"]

Attributes: TypeAlias = tuple[tuple[str, str | int], ...]
Reading: TypeAlias = tuple[Attributes, float]


class Counted(Protocol):
    """What was not taken in of requests."""

    @property
    def untrusted(self) -> int:
        """Requests whose mesh headers were ignored because of where they came from."""
        ...


class Reads(Protocol):
    """What reads incoming requests."""

    @property
    def counts(self) -> Counted:
        """What was not taken as it came."""
        ...


class Admits(Protocol):
    """What lets requests in."""

    @property
    def queue(self) -> ServingQueue:
        """Who is served, waits and is refused."""
        ...


class Queues(Protocol):
    """The accept queues of this process."""

    @property
    def waiting(self) -> int:
        """Connections that wait to be accepted."""
        ...

    @property
    def limit(self) -> int:
        """How many may."""
        ...


class Serves(Protocol):
    """What this process serves."""

    @property
    def admission(self) -> Admits | None:
        """What lets requests in; None where any number is served."""
        ...

    @property
    def intake(self) -> Reads:
        """What reads incoming requests."""
        ...

    @property
    def backlog(self) -> Queues | None:
        """Connections that wait to be accepted; None where that is not known."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that are being served."""
        ...

    @property
    def busy_s(self) -> float:
        """How long all requests together took that have ended."""
        ...

    @property
    def outcomes(self) -> Mapping[tuple[str, str], int]:
        """How many requests ended how, and why."""
        ...


class Observed(Protocol):
    """What can be observed of a mesh. Called from the threads of metric readers; each answer is of one moment."""

    def now(self) -> float:
        """The time on the mesh's own monotonic clock."""
        ...

    def locality(self) -> Locality | None:
        """Where this process runs; None if nobody said."""
        ...

    def clusters(self) -> Iterable[Cluster]:
        """The clusters of the current snapshot."""
        ...

    def budgets(self) -> Mapping[str, tuple[float, int]]:
        """What is left of the retry budget of each service, and how many retries it refused."""
        ...

    def faults(self) -> Mapping[str, ActiveFaults]:
        """What was injected, for each service that has faults to inject."""
        ...

    def hedgings(self) -> Mapping[tuple[str, str], tuple[Hedging, float | None]]:
        """What the hedged calls of each route share, by service and route, and how long they wait for an answer."""
        ...

    def mirrors(self) -> Mapping[tuple[str, str], int]:
        """Copies for mirrors, by cluster and by what became of them."""
        ...

    def overrides(self) -> Mapping[tuple[str, str], int]:
        """Calls that an override asked to replace, by service and outcome."""
        ...

    def pools(self) -> Iterable[PoolStats]:
        """The pools of connections, sync and async."""
        ...

    def ages(self) -> Mapping[str, float]:
        """For each service with endpoints, how long nobody has vouched for them, in seconds."""
        ...

    def ignored(self) -> Ignored | None:
        """The incoming header values that were left out; None if this mesh serves nothing."""
        ...

    def serving(self) -> Serves | None:
        """What this process serves; None if it serves nothing through this mesh."""
        ...


class Observing(Protocol):
    """An observer: what it observes, and what it counts itself."""

    observed: Observed | None

    def retries(self) -> dict[str, int]:
        """Attempts beyond the first of their call, by cluster."""
        ...


@dataclass(frozen=True, slots=True)
class Gauge:
    """One observable instrument.

    Attributes:
        name, unit, description: as exported.
        kind: ``counter`` (only grows), ``updown`` (adds up over attributes) or ``gauge`` (does not).
        read: gives its readings.
        merge: makes one of two readings with the same attributes.
    """

    name: str
    unit: str
    description: str
    kind: str
    read: Callable[[Observing, Observed], Iterator[Reading]]
    merge: Callable[[float, float], float] = float.__add__


def of_cluster(cluster: Cluster) -> Attributes:
    """The attributes by which a cluster is told from others."""
    return ((semconv.SERVER_ADDRESS, cluster.name.partition("/")[0]), (semconv.CLUSTER, cluster.name))
