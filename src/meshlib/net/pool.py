"""Which connection serves which request: the bookkeeping of one pool, without I/O, clocks, locks or threads.

A pool holds connections to one target. A request *acquires* and is given one of three things:

* an `Entry`: a connection to use, of which it now holds one use;
* ``None``: leave to open a connection; it must answer with `connected` or `connect_failed`;
* a `Ticket`: a place in the queue. The ticket is granted one of the former two by whoever gives something back.

Whatever was given is given back exactly once, by `release`, `discard`, `connect_failed` or `cancel`. What that sets
free goes straight to the first in the queue, so nobody who comes later overtakes it and nobody looks over all
connections:

* `_spare` is a stack of the connections that can take one more request. HTTP/1.1 takes one at a time, so there it is
  the stack of idle connections; HTTP/2 takes as many as its peer allows. The last one used is the first one taken, so
  that the others grow old and are closed.
* `_queue` is in order of arrival; leaving it, from any place, costs the same however long it is.

What the caller has to do outside of its lock is left in `to_wake` (tickets that were granted) and `to_close`
(connections that nobody uses any more). Callers serialise all methods; the counts may be read from any thread.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from meshlib.config.settings import PoolSettings
from meshlib.dataclass import dataclass
from meshlib.errors import MeshClosed, PoolTimeout
from meshlib.net.wire import Target

if TYPE_CHECKING:
    from meshlib.net.connection_cap import ConnectionCap

__all__ = [
    "KEEP_EMPTY_S",
    "Entry",
    "Pool",
    "PoolFull",
    "PoolStats",
    "Poolable",
    "Ticket",
    "pool_full",
    "pool_name",
    "waited_too_long",
]

KEEP_EMPTY_S = 300.0
"""A pool without connections is given up after so long. A call that was under way when its endpoint left may have made
one anew, which nobody else would ever miss."""


class Poolable(Protocol):
    """What a pool must know of a connection."""

    @property
    def capacity(self) -> int:
        """How many requests it can serve at once now; 0 when it takes no more."""
        ...


C = TypeVar("C", bound=Poolable)


class PoolFull(Exception):
    """All connections are busy and as many requests wait as may."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """The numbers of one pool at one moment.

    Attributes:
        address: of the endpoint.
        server_name: the TLS identity, or the service; may be empty.
        open: connections, those being opened included.
        idle: connections that serve no request.
        busy: requests that hold a connection or are opening one.
        pending: requests that wait for one.
    """

    address: str
    server_name: str
    open: int
    idle: int
    busy: int
    pending: int


class Entry(Generic[C]):
    """One connection in a pool."""

    __slots__ = ("connection", "idle_since", "is_spare", "retired", "served", "uses")

    def __init__(self, connection: C, now: float) -> None:
        self.connection = connection
        self.uses = 0
        self.served = 0
        self.idle_since = now
        self.is_spare = False
        self.retired = False
        """Takes no further request, and is closed when the last one ends."""


class Ticket(Generic[C]):
    """A place in the queue. Shells subclass it with a way to wake the one who waits."""

    __slots__ = ("entry", "error", "granted")

    def __init__(self) -> None:
        self.granted = False
        self.entry: Entry[C] | None = None
        """What was granted: a connection, or None for leave to open one."""
        self.error: MeshClosed | None = None
        """Why nothing will be granted any more, if the pool was closed."""

    def wake(self) -> None:
        """Tell the one who waits. Called once, without any lock held."""
        raise NotImplementedError


class Pool(Generic[C]):
    """The connections to one target.

    Args:
        name: for people: service and address.
        settings: bounds and idle times; may be replaced at any time.
        multiplexed: whether one connection may serve several requests. While the first one is being opened, further
            requests then wait for it rather than open one each.
        cap: on the connections of all pools of the service together; None for none.
    """

    __slots__ = (
        "__weakref__",
        "_cap",
        "_queue",
        "_spare",
        "busy",
        "connecting",
        "draining",
        "empty_since",
        "entries",
        "idle",
        "multiplexed",
        "name",
        "open",
        "settings",
        "to_close",
        "to_wake",
    )

    def __init__(
        self, name: str, settings: PoolSettings, *, multiplexed: bool = False, cap: ConnectionCap | None = None
    ) -> None:
        self.name = name
        self._cap = cap
        if cap is not None:
            cap.enter(self)
        self.settings = settings
        self.multiplexed = multiplexed
        self.entries: set[Entry[C]] = set()
        self.open = 0
        self.idle = 0
        self.busy = 0
        self.connecting = 0
        self.draining = False
        self.empty_since: float | None = None
        self.to_wake: list[Ticket[C]] = []
        self.to_close: list[C] = []
        self._spare: deque[Entry[C]] = deque()
        self._queue: OrderedDict[Ticket[C], None] = OrderedDict()

    @property
    def pending(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def __repr__(self) -> str:
        pending = f", {len(self._queue)} pending" if self._queue else ""
        draining = ", draining" if self.draining else ""
        return f"<Pool {self.name} [{self.busy} busy, {self.idle} idle{pending}{draining}]>"

    # Taking

    def acquire(self, now: float, resendable: bool) -> Entry[C] | Literal[False] | None:
        """Take a connection; None for leave to open one; False if the request has to wait.

        Args:
            now: the monotonic clock, in seconds.
            resendable: whether the request may be sent twice. One that may not is given no connection that the server
                may just be about to close.
        """
        spare, settings = self._spare, self.settings
        idle_s = settings.idle_s
        while spare and spare[0].uses == 0 and now - spare[0].idle_since >= idle_s:
            self._retire(spare[0])
        max_age = idle_s if resendable else settings.idle_unsafe_s
        while spare:
            entry = spare[-1]
            uses, capacity = entry.uses, entry.connection.capacity
            if uses >= capacity:
                self._unspare(entry)
                if capacity <= 0:
                    self._retire(entry)
                continue
            if uses == 0:
                if now - entry.idle_since >= max_age:
                    # It is the youngest, so all the others are too old as well.
                    break
                self.idle -= 1
            self.busy += 1
            entry.uses = uses + 1
            if uses + 1 >= capacity:
                entry.is_spare = False
                spare.pop()
            return entry
        if self.multiplexed and self.connecting and not self._may_connect_more():
            return False
        if self.open >= self.settings.max_connections or not self._reserve():
            if not spare or spare[0].uses:
                return False
            # Only idle ones that are too old for this request are left: one of them makes room.
            self._retire(spare[0])
            if not self._reserve():
                return False
        self._start_connect()
        return None

    def enqueue(self, ticket: Ticket[C]) -> None:
        """Wait, after `acquire` said so.

        Raises:
            PoolFull: if as many wait as may.
        """
        if len(self._queue) >= self.settings.max_pending:
            raise PoolFull
        self._queue[ticket] = None

    def cancel(self, ticket: Ticket[C], now: float) -> None:
        """Leave the queue; what the ticket was granted meanwhile goes to the next one."""
        if not ticket.granted:
            self._queue.pop(ticket, None)
        elif ticket.error is None:
            if ticket.entry is None:
                self.connect_failed(now)
            else:
                self.release(ticket.entry, now)

    # Opening

    def connected(self, connection: C, now: float) -> Entry[C]:
        """The connection is open; the caller holds one use of it."""
        entry = Entry(connection, now)
        self.entries.add(entry)
        self.connecting -= 1
        entry.uses = 1
        if connection.capacity <= 1:
            self.multiplexed = False  # the peer speaks HTTP/1.1
        else:
            self._spare.append(entry)
            entry.is_spare = True
        self._serve_queue(now)
        return entry

    def connect_failed(self, now: float) -> None:
        """It could not be opened, or the caller gave up."""
        self.connecting -= 1
        self.busy -= 1
        self.open -= 1
        self._serve_queue(now)

    # Giving back

    def release(self, entry: Entry[C], now: float) -> None:
        """The request is done and the connection can take another one."""
        self.busy -= 1
        uses = entry.uses = entry.uses - 1
        entry.served += 1
        if uses == 0:
            self.idle += 1
            entry.idle_since = now
        capacity = entry.connection.capacity
        if entry.retired or capacity <= 0:
            self._retire(entry)
        elif not entry.is_spare and uses < capacity:
            self._spare.append(entry)
            entry.is_spare = True
        if self._queue:
            self._serve_queue(now)
        if self.draining and not self._queue:
            self._retire(entry)

    def discard(self, entry: Entry[C], now: float) -> None:
        """The request is done and the connection must not be used again."""
        entry.retired = True
        self.release(entry, now)

    def replace(self, entry: Entry[C]) -> bool:
        """The connection proved dead before it was used. True: open another one in its place; False: acquire again."""
        self.busy -= 1
        entry.uses -= 1
        if entry.uses == 0:
            self.idle += 1
        self._retire(entry)
        if entry.uses == 0 and self._reserve():
            self._start_connect()
            return True
        return False

    # Ending

    def expire(self, now: float) -> None:
        """Close whatever has been idle for too long, wherever it is in the stack."""
        for entry in [e for e in self._spare if e.uses == 0 and now - e.idle_since >= self.settings.idle_s]:
            self._retire(entry)

    def give_up(self, now: float) -> bool:
        """Begin to drain if it has been empty for `KEEP_EMPTY_S`; whether that is so. To be asked now and then."""
        if self.open or self._queue:
            self.empty_since = None
        elif self.empty_since is None:
            self.empty_since = now
        elif now - self.empty_since >= KEEP_EMPTY_S:
            self.draining = True
        return self.draining

    def drain(self) -> None:
        """Close what is idle now, and the rest as it becomes idle."""
        self.draining = True
        if not self._queue:
            for entry in list(self.entries):
                self._retire(entry)

    def close(self, error: MeshClosed) -> None:
        """Drain, and fail all who wait with `error`."""
        while self._queue:
            ticket, _ = self._queue.popitem(last=False)
            ticket.granted = True
            ticket.error = error
            self.to_wake.append(ticket)
        self.drain()

    def stats(self, address: str, server_name: str) -> PoolStats:
        """The numbers now."""
        return PoolStats(address, server_name, self.open, self.idle, self.busy, len(self._queue))

    # Parts

    def _unspare(self, entry: Entry[C]) -> None:
        entry.is_spare = False
        if self._spare[-1] is entry:
            self._spare.pop()
        elif self._spare[0] is entry:
            self._spare.popleft()
        else:
            self._spare.remove(entry)

    def _reserve(self) -> bool:
        if self._cap is not None:
            return self._cap.reserve(self)
        self.open += 1
        return True

    def _start_connect(self) -> None:
        self.connecting += 1
        self.busy += 1

    def _may_connect_more(self) -> bool:
        # A multiplexed connection under way is expected to serve all who wait, up to what a peer usually allows.
        return len(self._queue) >= 100 * self.connecting

    def _retire(self, entry: Entry[C]) -> None:
        entry.retired = True
        if entry.is_spare:
            self._unspare(entry)
        if entry.uses == 0 and entry in self.entries:
            self.entries.discard(entry)
            self.open -= 1
            self.idle -= 1
            self.to_close.append(entry.connection)

    def _serve_queue(self, now: float) -> None:
        while self._queue:
            granted = self.acquire(now, resendable=True)
            if granted is False:
                return
            ticket, _ = self._queue.popitem(last=False)
            ticket.granted = True
            ticket.entry = granted
            self.to_wake.append(ticket)


def pool_name(target: Target) -> str:
    """The service's name, if it is known, and the address."""
    address = target.endpoint.address
    return f"{target.server_name} {address}" if target.server_name else address


def pool_full(book: Pool[Any], target: Target) -> PoolTimeout:
    """The error for a queue with no place left."""
    return PoolTimeout(
        f"all {book.open} connections to {target.endpoint.address} are busy and {book.pending} requests wait already "
        "(max_connections, max_pending)",
        endpoint=target.endpoint.address,
    )


def waited_too_long(book: Pool[Any], target: Target) -> PoolTimeout:
    """The error for one that waited in vain."""
    return PoolTimeout(
        f"none of the {book.open} connections to {target.endpoint.address} came free in time, {book.pending} requests "
        "wait (max_connections)",
        endpoint=target.endpoint.address,
    )
