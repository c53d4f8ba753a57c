"""One call on its way: what the sync and the async driver share. No I/O, no waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from meshlib.adapters.names import Lookout
from meshlib.adapters.plane import DataPlane
from meshlib.balance.endpoint import Endpoint
from meshlib.config.settings import ClusterSettings, TlsSettings
from meshlib.context import current_scope
from meshlib.dataclass import dataclass, field, replace
from meshlib.errors import MeshError
from meshlib.net.wire import AsyncWireResponse, Headers, Progress, SyncWireResponse, Target, WireLimits, WireRequest
from meshlib.policy.actions import Action, Start
from meshlib.policy.call import Call
from meshlib.policy.classify import OVERLOAD_STATUSES, asks_for_peace, parse_retry_after
from meshlib.policy.record import Record
from meshlib.policy.retry import asked_by
from meshlib.propagation import outgoing_headers
from meshlib.routing.override_settings import OVERRIDE_HEADER

if TYPE_CHECKING:
    from meshlib.adapters.shaping import Shaping
    from meshlib.net.connection_cap import ConnectionCap

__all__ = ["NO_CAPS", "Caps", "Destination", "Exchange", "PhaseCaps", "make_destination"]

OURS = Lookout(
    b"x-meshlib-deadline-ms",
    b"x-meshlib-body-deadline-ms",
    b"x-envoy-expected-rq-timeout-ms",
    b"x-envoy-attempt-count",
    b"x-meshlib-criticality",
    b"x-meshlib-hedge",
    b"x-meshlib-load",
    OVERRIDE_HEADER.encode("ascii"),
)
"""Headers that the mesh alone sets: what a handler copied over from the request it serves is replaced."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where attempts at a member go: what `Member.target` holds.

    Attributes:
        target: for the wire.
        host: the ``Host`` header; None for the one that the caller used.
    """

    target: Target
    host: bytes | None = None
    _secure: Target | None = field(default=None, init=False, repr=False, compare=False)

    def secure(self) -> Target:
        """The same for a caller who wrote ``https``, where the configuration does not say how to encrypt."""
        target = self._secure
        if target is None:
            target = self.target if self.target.tls is not None else replace(self.target, tls=TlsSettings())
            object.__setattr__(self, "_secure", target)
        return target


@dataclass(frozen=True, slots=True)
class PhaseCaps:
    """Limits on the phases of each attempt, in seconds, given through the client; None leaves them to the mesh."""

    connect_s: float | None = None
    read_s: float | None = None
    write_s: float | None = None
    pool_s: float | None = None


NO_CAPS = PhaseCaps()


def make_destination(cluster: ClusterSettings, endpoint: Endpoint, caps: Caps | None = None) -> Destination:
    """Where attempts at an endpoint of a cluster go; `caps` has the limits on the connections of each service."""
    tls = cluster.tls
    # A service that is one host at one port is named after both.
    own_name = cluster.service.partition(":")[0]
    server_name = own_name if tls is None or tls.server_name is None else tls.server_name
    cap = None if caps is None or cluster.limits.max_connections is None else caps.of(cluster)
    target = Target(endpoint, tls, server_name, cluster.pool, cluster.http2, cap)
    if cluster.host_header == "service":
        return Destination(target)
    host = endpoint.authority if cluster.host_header == "endpoint" else cluster.host_header
    return Destination(target, host.encode("latin-1"))


class Caps:
    """The limits on the connections of each service that has one."""

    def __init__(self) -> None:
        self._caps: dict[str, ConnectionCap] = {}

    def of(self, cluster: ClusterSettings) -> ConnectionCap | None:
        """That of a cluster's service; the subsets of a service share it, as they share its connections."""
        from meshlib.net.connection_cap import ConnectionCap

        maximum = cluster.limits.max_connections
        if maximum is None:
            return None
        cap = self._caps.setdefault(cluster.service, ConnectionCap(maximum))
        if cluster.subset is None:
            cap.maximum = maximum
        return cap


class Exchange:
    """One call: the state machine, the request, and what is under way for it.

    Attributes:
        call: the state machine.
        plane: what it runs on.
    """

    __slots__ = (
        "_begun",
        "_body",
        "_caps",
        "_headers",
        "_in_memory",
        "_method",
        "_preview",
        "_secure",
        "_server_name",
        "_shaping",
        "_target",
        "_trailers",
        "_url",
        "call",
        "plane",
    )

    def __init__(
        self,
        plane: DataPlane,
        call: Call,
        method: bytes,
        target: bytes,
        headers: Headers,
        body: Any,
        caps: PhaseCaps = NO_CAPS,
        secure: bool = False,
        server_name: str | None = None,
        preview: Callable[[int, Headers], Any] | None = None,
        url: Any = None,
        trailers: Headers | None = None,
    ) -> None:
        """Prepare a call.

        Args:
            plane: what it runs on.
            call: not yet begun.
            method: as in the request line.
            target: as in the request line.
            headers: complete, as the client library made them.
            body: bytes, or one of `meshlib.adapters.body`.
            caps: limits on each attempt's phases.
            secure: whether the caller asked for ``https``.
            server_name: for SNI and for the verification of the peer's certificate, if the caller gave one.
            preview: makes the client library's response, without a body, for a tenacity ``retry`` object to look at.
            url: as the caller wrote it, in the form of the client library.
            trailers: to send after a chunked body; may be filled in while it is sent.
        """
        self.plane = plane
        self.call = call
        self._method = method
        self._target = target
        self._body = body
        self._in_memory = isinstance(body, bytes)
        self._caps = caps
        self._secure = secure
        self._server_name = server_name
        self._preview = preview
        self._url = url
        self._trailers = trailers
        if plane.amends:
            headers, target = _amended(plane, headers, target)
            self._target = target
        self._shaping: Shaping | None = None
        if call.facts.route.shapes:
            from meshlib.adapters.shaping import Shaping

            self._shaping = Shaping(headers, target)
        self._headers = _without_ours(headers) if OURS.sees_any(headers) else headers

    def anew(self, call: Call) -> None:
        """Go on with another call in place of one that was never begun."""
        self.call = call
        self._shaping = None
        if call.facts.route.shapes:
            from meshlib.adapters.shaping import Shaping

            self._shaping = Shaping(self._headers, self._target)

    def started(self, start: Start) -> tuple[Target, WireRequest, WireLimits, Progress]:
        """What to give the wire for this attempt."""
        destination = start.member.target
        assert isinstance(destination, Destination)
        added = start.headers
        if (reported := start.member.load.reported) is not None:
            added.append((b"x-meshlib-load", reported.asks))
        always = len(added)  # names in `OURS`, which were left out from the start
        shaping = self._shaping
        if shaping is not None and shaping.for_backend(self.call):
            self._headers, self._target = _without_ours(shaping.headers), shaping.target
        if destination.host is not None and (shaping is None or not shaping.rehosted):
            added.append((b"host", destination.host))
        scope = current_scope()
        if scope.criticality is not None or scope.baggage or scope.override is not None:
            for name, value in outgoing_headers(scope, None).items():
                added.append((name.encode("ascii"), value.encode("ascii")))
            if scope.override is not None:
                added += self.plane.replacements.passed_on(scope.override)
        progress = Progress()
        progress.handle = self.plane.observer.attempt_started(self.call, start, added)
        # What the mesh says replaces what a handler copied over from the request that it serves.
        headers = self._headers
        if len(added) > always:
            said = {name for name, _ in added}
            headers = [pair for pair in headers if pair[0].lower() not in said]
        facts, caps = self.call.facts, self._caps
        request = WireRequest(
            self._method,
            self._target,
            [*headers, *added],
            self._body,
            bool(facts.safe) and (self._in_memory or self.replayable),
            self._url,
            self._trailers,
        )
        if facts.route.mirrors and start.n == 1:
            self._mirror(request)
        connect_s, idle_s = destination.target.pool.connect_timeout_s, facts.body_idle_s
        if caps is NO_CAPS:
            limits = WireLimits(start.deadline, connect_s, None, None, None, idle_s, start.body_deadline)
        else:
            limits = WireLimits(
                deadline=start.deadline,
                connect_s=_least(connect_s, caps.connect_s),
                pool_s=caps.pool_s,
                write_s=caps.write_s,
                read_s=caps.read_s,
                body_idle_s=_least(idle_s, caps.read_s),
                body_deadline=start.body_deadline,
            )
        target = destination.secure() if self._secure else destination.target
        if self._server_name is not None and target.tls is not None:
            target = replace(target, server_name=self._server_name)
        return target, request, limits, progress

    def _mirror(self, request: WireRequest) -> None:
        """Copy a request for the mirrors of its route."""
        mirrors = self.plane.mirrors
        if mirrors is not None:
            # An endpoint's own name for itself is not that of a mirror.
            host = next((value for name, value in self._headers if name.lower() == b"host"), None)
            mirrors().copy(self.call, request, host, self._secure)

    @property
    def in_memory(self) -> bool:
        """Whether the body is bytes, so that several attempts can send it at once."""
        return self._in_memory

    @property
    def replayable(self) -> bool:
        """Whether the body can be produced again, as things stand."""
        return self._in_memory or bool(self._body.replayable)

    def answered(
        self, start: Start, response: SyncWireResponse | AsyncWireResponse, progress: Progress
    ) -> list[Action]:
        """The headers of an attempt's response are there, and perhaps its body with them."""
        call, status, n = self.call, response.status, start.n
        now = self.plane.clock.now()
        attempt = call.attempts[n - 1]
        attempt.resent = progress.resent
        if not self._in_memory:
            call.replayable = self.replayable
        member = attempt.member
        if member.load.reported is not None:
            member.load.reported.read(response.headers, now)
        if member.health.hears is not None:
            member.health.hears(response.headers)
        if status < 429 and not call.facts.policy.retry.looks_closely:
            actions = call.headers(now, n, status)
        else:
            actions = self._judged(now, n, response)
        handle = progress.handle
        if handle is not None:
            progress.handle, progress.http_version = None, response.http_version
            self.plane.observer.attempt_ended(handle, call, n, status, None, progress)
        if response.content is not None and attempt.open:
            actions += call.body_end(now, n)
        return actions

    def _judged(self, now: float, n: int, response: SyncWireResponse | AsyncWireResponse) -> list[Action]:
        """The headers of a response that may be a failure; or whether it is one, a tenacity object says."""
        call, status = self.call, response.status
        retry_after_s, overloaded, preview = None, False, None
        policy = call.facts.policy.retry
        if status >= 429 or policy.looks_closely:
            overloaded = asks_for_peace(response.headers)
            if status in OVERLOAD_STATUSES:
                value = next((value for name, value in response.headers if name.lower() == b"retry-after"), None)
                retry_after_s = parse_retry_after(value, self.plane.clock.wall())
        if policy.retry is not None and self._preview is not None:
            preview = self._preview(status, response.headers)
        reset_s = None
        if policy.rate_limited_backoff is not None:
            reset_s = asked_by(policy.rate_limited_backoff, response.headers, self.plane.clock.wall())
        actions = call.headers(
            now,
            n,
            status,
            retry_after_s=retry_after_s,
            overloaded=overloaded,
            response=preview,
            answer=response.headers,
            reset_s=reset_s,
        )
        if call.journal.no_retry is not None or (overloaded and status >= 429):
            self._pass_on_overload(overloaded)
        return actions

    def failed(self, start: Start, error: MeshError, progress: Progress, phase: str = "") -> list[Action]:
        """An attempt failed on the wire."""
        call, now = self.call, self.plane.clock.now()
        error.name_service(call.facts.service)
        attempt = call.attempts[start.n - 1]
        attempt.resent = progress.resent
        if progress.bytes_written or not self.replayable:
            call.bytes_written(now, start.n)
        call.replayable = self.replayable
        actions = call.error(now, start.n, error, phase or progress.phase)
        self._end_attempt(start.n, error, progress)
        return actions

    def cancelled(self, error: BaseException, progress: Progress | None = None) -> None:
        """The caller gave up, or its own code failed: let go of everything.

        Args:
            error: what it was.
            progress: of the last attempt, if that is under way.
        """
        n = len(self.call.attempts)
        self.abandoned(error, {n: progress} if n and progress is not None else {})

    def abandoned(self, error: BaseException, under_way: Mapping[int, Progress]) -> None:
        """The same, with the progress of each attempt that is under way, by its number."""
        call, now = self.call, self.plane.clock.now()
        for n, progress in under_way.items():
            attempt = call.attempts[n - 1]
            attempt.phase = progress.phase
            attempt.sent = attempt.sent or progress.bytes_written
        call.cancelled(now)
        for n, progress in under_way.items():
            self._end_attempt(n, error, progress)

    def given_up(self, n: int, progress: Progress) -> None:
        """An attempt was cancelled, as its call asked for: another was faster, or the time is up."""
        attempt = self.call.attempts[n - 1]
        attempt.phase, attempt.resent = progress.phase, progress.resent
        attempt.sent = attempt.sent or progress.bytes_written
        self._end_attempt(n, None, progress)

    def ended(self) -> None:
        """The call's outcome is known."""
        call = self.call
        ended = call.journal.ended
        self.plane.observer.call_ended(call, self.plane.clock.now() if ended is None else ended)
        if call.journal.error is not None:
            self._pass_on_overload()
            self.forget_frames()
        elif len(call.attempts) > 1:
            self.forget_frames()

    def _pass_on_overload(self, said: bool = False) -> None:
        """Have who called this process told not to repeat the request, if overload was `said`, or is why it failed."""
        request = current_scope().request
        if request is not None and not request.overloaded and (said or self.call.journal.overloaded):
            request.overloaded = True

    def forget_frames(self) -> None:
        """Keep of the errors what they say, and not where they were raised.

        A traceback holds every frame up to the program's first, and those hold this exchange, the request and its body:
        a circle that only the garbage collector could break, and most calls fail just when there are many.
        """
        call = self.call
        for attempt in call.attempts:
            if attempt.error is not None:
                attempt.error = attempt.error.without_frames()
        if call.journal.error is not None:
            call.journal.error = call.journal.error.without_frames()

    def edited(self, headers: Headers) -> Headers:
        """The response's headers, with the route's edits, and the cookies that keep a caller at its endpoint."""
        if self.call.facts.route.reshapes:
            from meshlib.adapters.shaping import edit_response

            headers = edit_response(self.call, headers)
        traits = self.call.traits
        if traits is not None and (traits.set_cookies or traits.affinity is not None):
            from meshlib.policy.sticky import response_cookies

            headers = [*headers, *((b"set-cookie", value) for value in response_cookies(traits))]
        return headers

    def record(self) -> Record:
        """What happened so far."""
        return self.call.record(self.plane.clock.now())

    def _end_attempt(self, n: int, error: BaseException | None, progress: Progress) -> None:
        handle, progress.handle = progress.handle, None
        if handle is not None:
            self.plane.observer.attempt_ended(handle, self.call, n, None, error, progress)


def _without_ours(headers: Headers) -> Headers:
    return [pair for pair in headers if pair[0].lower() not in OURS.names]


def _amended(plane: DataPlane, headers: Headers, target: bytes) -> tuple[Headers, bytes]:
    """A request without its override, which hops further on get in another way, and with its path in normal form."""
    settings = plane.settings
    if settings.overrides is not None:
        name = settings.overrides.header.encode("ascii")  # what a handler copied over was not verified
        headers = [pair for pair in headers if pair[0].lower() != name]
    if settings.path_normalization != "none":
        from meshlib.routing.normalize import normalize_path

        path, mark, query = target.partition(b"?")
        normal = normalize_path(path.decode("latin-1"), settings.path_normalization) if path[:1] == b"/" else None
        if normal is not None:
            target = normal.encode("latin-1") + mark + query
    return headers, target


def _least(one: float | None, other: float | None) -> float | None:
    if one is None or other is None:
        return one if other is None else other
    return min(one, other)
