"""Sends copies of requests to mirrors, beside the calls: what becomes of them no caller ever notices.

A copy is taken when the call's first attempt goes out, as that is sent: with the route's edits, and to the same path.
It is a call of its own over the mirror's cluster (its balancer, limits, outlier detection and breaker), with one
attempt, no retries, and the route's timeout; it begins and ends on the control plane's loop, so that neither the end of
the caller's task nor that of its loop is any of its business. The response is read and thrown away.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from meshlib.adapters import async_driver
from meshlib.adapters.body import AsyncBufferedBody, BufferedBody
from meshlib.adapters.exchange import Destination, Exchange
from meshlib.config.views import EndpointsWaiter
from meshlib.dataclass import dataclass, field
from meshlib.errors import MeshError
from meshlib.net.wire import AsyncWire, Headers, Progress, Target, WireLimits, WireRequest
from meshlib.policy.actions import Start
from meshlib.policy.budget import make_budget
from meshlib.policy.call import Call
from meshlib.policy.facts import CallFacts
from meshlib.policy.mirror import MirrorCounts, MirrorOutcome, MirrorRoom, drawn, unsampled
from meshlib.policy.settings import BudgetSettings, CallPolicy, RetryPolicy
from meshlib.policy.traits import read_traits, readers_of
from meshlib.routing.actions import Mirror
from meshlib.routing.fields import HeaderFields
from meshlib.routing.match import RequestView
from meshlib.routing.override_settings import OVERRIDE_HEADER
from meshlib.routing.route import Backend, Route

if TYPE_CHECKING:
    from asyncio import Task

    from meshlib.adapters.plane import DataPlane

__all__ = ["LONGEST_S", "Mirrors"]

_log = logging.getLogger("meshlib")

LONGEST_S: Final = 30.0
"""How long a copy may take where its route has no timeout: a mirror that hangs must not gather copies for ever."""

_NO_RETRIES = RetryPolicy(max_retries=0)
_OF_THE_CALL = frozenset(
    {
        b"x-meshlib-deadline-ms",
        b"x-meshlib-body-deadline-ms",
        b"x-envoy-expected-rq-timeout-ms",
        b"x-envoy-attempt-count",
    }
)
"""Headers of the attempt that is copied; the copy has its own."""

_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


@dataclass(slots=True, eq=False)
class _Copy:
    """One request on its way to one mirror.

    Attributes:
        mirror: where to.
        call: that it is a copy of a request of.
        host: that the caller wrote, or the route.
        secure: whether the caller asked for ``https``.
        size: of the body.
    """

    mirror: Mirror
    call: Call
    request: WireRequest
    host: bytes | None
    secure: bool
    size: int = field(default=0)


class Mirrors:
    """Sends copies, as many at once as there is room for; the rest are counted and not sent.

    Attributes:
        counts: what became of them.
        room: for those under way and in line.
    """

    def __init__(
        self,
        plane: DataPlane,
        *,
        run: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
        wire: Callable[[], AsyncWire],
    ) -> None:
        """Send nothing yet.

        Args:
            plane: the mesh's data plane.
            run: has a coroutine run elsewhere.
            wire: gives the last hop, in the loop where that is.
        """
        self.counts = MirrorCounts()
        self.room = MirrorRoom()
        self._plane = plane
        self._run = run
        self._wire = wire
        self._queue: deque[_Copy] = deque()
        self._pumping = False

    def __repr__(self) -> str:
        return f"<Mirrors [{self.room.at_once} under way, {self.room.held} bytes]>"

    def copy(self, call: Call, request: WireRequest, host: bytes | None, secure: bool) -> None:
        """Send copies of a request to those mirrors of its route that get one. Never raises, and never waits.

        Args:
            call: whose first attempt goes out.
            request: as it goes out.
            host: to send in place of the ``Host`` that it has; None to leave that.
            secure: whether the caller asked for ``https``.
        """
        try:
            mirrors = call.facts.route.mirrors
            chance = 0.0 if all(mirror.percent >= 100.0 for mirror in mirrors) else self._plane.rng.random()
            for mirror in drawn(mirrors, chance):
                if self._plane.mode_of(mirror.service) != "on":
                    self.counts.add(mirror.cluster, "off")
                    continue
                copy = _Copy(mirror, call, request, host, secure)
                body = request.body
                if isinstance(body, bytes):
                    self._send(copy, body)
                elif isinstance(body, (BufferedBody, AsyncBufferedBody)) and request.trailers is None:
                    body.when_known(partial(self._send, copy))
                else:
                    self.counts.add(mirror.cluster, "body")
        except Exception:
            _log.debug("a request could not be copied", exc_info=True)

    def _send(self, copy: _Copy, body: bytes | None) -> None:
        """Put a copy in line; `body` is None if it was not kept."""
        cluster = copy.mirror.cluster
        if body is None:
            self.counts.add(cluster, "body")
            return
        copy.size = len(body)
        if not self.room.take(copy.size):
            self.counts.add(cluster, "too_many")
            return
        request = copy.request
        headers = request.headers
        if not isinstance(request.body, bytes):  # its length is known by now
            headers = [pair for pair in headers if pair[0].lower() not in _FRAMING]
            headers.append((b"content-length", b"%d" % len(body)))
        copy.request = WireRequest(request.method, request.target, headers, body, request.resendable)
        copy.call.journal.mirrored = (*copy.call.journal.mirrored, cluster)
        self._queue.append(copy)
        # Whoever empties the line says so before it looks at it for the last time, so nothing is left in it.
        if not self._pumping:
            self._pumping = True
            try:
                self._run(self._pump)
            except Exception as error:  # the mesh was closed, or the process can have no thread
                _log.debug("nothing can be mirrored: %s", error)
                self.close()

    async def _pump(self) -> None:
        """Begin what is in line, and see it through."""
        import asyncio

        async with asyncio.TaskGroup() as tasks:
            while True:
                with suppress(IndexError):
                    while True:
                        copy = self._queue.popleft()
                        tasks.create_task(self._make(copy)).add_done_callback(partial(self._done, copy))
                self._pumping = False
                if not self._queue:
                    return
                self._pumping = True

    def _done(self, copy: _Copy, task: Task[MirrorOutcome]) -> None:
        # Not in the task itself, which may be cancelled before it begins.
        self.room.give(copy.size)
        self.counts.add(copy.mirror.cluster, "cancelled" if task.cancelled() else task.result())

    async def _make(self, copy: _Copy) -> MirrorOutcome:
        """Make the call that a copy is."""
        import asyncio

        try:
            exchange = self._exchange(copy)
            limit_s = exchange.call.facts.policy.timeout_s
            async with asyncio.timeout(None if limit_s is None else 2.0 * limit_s):
                await _drive(exchange, self._wire())
        except Exception as error:
            cluster = copy.mirror.cluster
            _log.debug("a copy to %s failed: %s", cluster, error, exc_info=not isinstance(error, MeshError))
            return "failed"
        return "answered"

    def _exchange(self, copy: _Copy) -> _MirrorExchange:
        plane, mirror, live = self._plane, copy.mirror, copy.call
        plane.service(mirror.service)
        of, request = live.facts, copy.request
        timeout_s = LONGEST_S if of.policy.timeout_s is None else of.policy.timeout_s
        policy = CallPolicy(
            timeout_s=timeout_s,
            per_try_timeout_s=None,
            body_idle_s=of.policy.body_idle_s,
            retry=_NO_RETRIES,
            endpoint_wait_s=min(of.policy.endpoint_wait_s, timeout_s),
            hash_on=of.policy.hash_on,
        )
        route = Route(f"{of.route.name} (mirror)", (Backend(mirror.service, mirror.subset),), policy)

        def clusters() -> tuple[Any, ...]:
            return (plane.snapshots.service(mirror.service).clusters[mirror.subset],)

        facts = CallFacts(
            mirror.service,
            of.method,
            route,
            policy,
            clusters,
            make_budget(BudgetSettings(), int),
            lambda: EndpointsWaiter(plane.snapshots, (mirror.service,)),
            safe=of.safe,
            scheme=of.scheme,
            host=of.host,
            port=of.port,
            readers=readers_of(policy, [cluster.state for cluster in clusters()], plane.rng),
        )
        call = Call(facts, plane.rng, live.path, live.query)
        if facts.readers:
            view = RequestView(of.method, live.path, live.query, HeaderFields(request.headers))
            call.traits = read_traits(facts.readers, view, None)
        return _MirrorExchange(plane, call, copy, self._left_out())

    def _left_out(self) -> frozenset[bytes]:
        """Headers that a copy does not have: those of the attempt, and what leads a request elsewhere."""
        overrides = self._plane.settings.overrides
        header = OVERRIDE_HEADER if overrides is None else overrides.header
        return _OF_THE_CALL | {header.encode("ascii")}

    def close(self) -> None:
        """Forget what has not begun. What has, ends with the loop that it is in."""
        with suppress(IndexError):
            while True:
                copy = self._queue.popleft()
                self.room.give(copy.size)
                self.counts.add(copy.mirror.cluster, "cancelled")
        self._pumping = False

    def after_fork(self) -> None:
        """In the child: the copies are the parent's, who sends them."""
        self._queue.clear()
        self._pumping = False
        self.room.after_fork()
        self.counts.renew_lock()


class _MirrorExchange(Exchange):
    """The call that a copy is. It has no spans, and tells nobody how it ended."""

    __slots__ = ("_copied", "_copy")

    def __init__(self, plane: DataPlane, call: Call, copy: _Copy, left_out: frozenset[bytes]) -> None:
        request = copy.request
        super().__init__(plane, call, request.method, request.target, [], request.body)
        self._copy = copy
        headers = [pair for pair in request.headers if pair[0].lower() not in left_out]
        if copy.host is not None:
            headers = _with_host(headers, copy.host)
        self._copied = unsampled(headers)

    def started(self, start: Start) -> tuple[Target, WireRequest, WireLimits, Progress]:
        """What to give the wire: the request as it was copied, with headers of this attempt."""
        destination, copied = start.member.target, self._copy.request
        assert isinstance(destination, Destination)
        own = [pair for pair in start.headers if pair[0] != b"x-meshlib-body-deadline-ms"]  # it has no more for that
        headers = [*self._copied, *own]
        if destination.host is not None:
            headers = _with_host(headers, destination.host)
        request = WireRequest(copied.method, copied.target, headers, copied.body, copied.resendable)
        limits = WireLimits(
            start.deadline,
            destination.target.pool.connect_timeout_s,
            body_idle_s=self.call.facts.body_idle_s,
            body_deadline=start.deadline,
        )
        target = destination.secure() if self._copy.secure else destination.target
        return target, request, limits, Progress()

    def ended(self) -> None:
        """Keep no frames of errors; nobody else is told."""
        if self.call.journal.error is not None:
            self.forget_frames()


def _with_host(headers: Headers, host: bytes) -> Headers:
    return [(b"host", host), *(pair for pair in headers if pair[0].lower() != b"host")]


async def _drive(exchange: _MirrorExchange, wire: AsyncWire) -> None:
    """Make the call, and read its response to the end.

    Raises:
        MeshError: if it failed.
    """
    response, body = await async_driver.drive(exchange, wire)
    if body is not None:
        return
    call, clock, n = exchange.call, exchange.plane.clock, len(exchange.call.attempts)
    try:
        async for _ in response.body:
            pass
        call.body_end(clock.now(), n)
    except MeshError as error:
        call.error(clock.now(), n, error, "body")
        raise
    finally:
        call.cancelled(clock.now(), n)  # where it is not over
        await response.aclose()
