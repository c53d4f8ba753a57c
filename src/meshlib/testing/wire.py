"""The last hop of a fixture's calls: to a served application, in this process, in time that is set by hand.

What happens to one attempt is written once, as a generator that says what it needs next: time to pass, the request's
body, the application's answer. The sync and the async wire differ only in how they provide it.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import httpx

from meshlib.adapters.httpx_errors import from_httpx
from meshlib.errors import AttemptTimeout, BodyBroken, ConnectFailed, ConnectTimeout, MeshError, PoolTimeout, WireError
from meshlib.net.wire import AsyncWireResponse, Progress, SyncWireResponse, Target, WireLimits, WireRequest
from meshlib.testing.clock import SettableClock, aside
from meshlib.testing.faults import make_error
from meshlib.testing.received import ReceivedRequest
from meshlib.testing.services import Instance, Registry

__all__ = ["AsyncFixtureWire", "Loops", "SyncFixtureWire"]

T = TypeVar("T")
_ROUNDING_S = 1e-6  # what adding a timeout to the clock and taking the clock off again may lose


@dataclass(frozen=True, slots=True)
class _Sleep:
    """Let time pass."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class _ReadBody:
    """Give the request's body."""


@dataclass(frozen=True, slots=True)
class _Serve:
    """Give the application's response."""

    instance: Instance
    request: ReceivedRequest


_Steps: TypeAlias = "Generator[_Sleep | _ReadBody | _Serve, Any, tuple[httpx.Response, MeshError | None]]"


class _Desk:
    """What both wires know."""

    def __init__(self, registry: Registry, clock: SettableClock) -> None:
        self._registry = registry
        self._clock = clock

    def _attempt(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> _Steps:
        """One attempt. Ends in the response, and what its body breaks off with."""
        address = target.endpoint.address
        instance = self._registry.at(target.endpoint)
        progress.phase = "connect"
        if instance is None or not instance.alive:
            raise ConnectFailed(f"cannot connect to {address}: refused (the test killed it)", endpoint=address)
        trouble = instance.faults.meet(instance.name)
        failure = trouble.failure
        error = None if failure is None or failure.error is None else make_error(failure.error, address)
        if isinstance(error, (ConnectFailed, PoolTimeout)):
            if isinstance(error, ConnectTimeout):
                yield _Sleep(self._least(limits.connect_s, self._left_s(limits)) or 0.0)
            raise error
        progress.phase = "write"
        body = yield _ReadBody()
        progress.bytes_written = True
        progress.phase = "headers"
        received = self._received(instance, target, request, body)
        self._registry.calls.append(received)

        limit_s = self._least(limits.read_s, self._left_s(limits))
        if trouble.hangs or isinstance(error, AttemptTimeout):
            if limit_s is None:
                raise RuntimeError(f"{instance.name} hangs, and the call has no timeout: it would wait for ever")
            yield _Sleep(limit_s)
            raise _time_is_up(address, limits, limit_s)
        response = None if failure is None else failure.response
        arrived_at = begun_at = self._clock.now()
        if response is None and (error is None or isinstance(error, BodyBroken)):
            response, begun_at = yield _Serve(instance, received)
        yield from self._come_late(address, limits, limit_s, begun_at - arrived_at, trouble.delay_s)
        if response is None:
            assert error is not None
            raise error
        if received.method == "HEAD":
            response = httpx.Response(response.status_code, headers=response.headers.raw, stream=httpx.ByteStream(b""))
        progress.answered = True
        return response, error

    def _come_late(
        self, address: str, limits: WireLimits, limit_s: float | None, spent_s: float, delay_s: float
    ) -> Generator[_Sleep, Any, None]:
        """Let a slow answer come late, or not in time. The application has done its work all the same, as it has where
        the caller of a real one gives up.
        """
        if limit_s is not None and spent_s + delay_s >= limit_s - _ROUNDING_S:
            yield _Sleep(max(0.0, limit_s - spent_s))
            raise _time_is_up(address, limits, limit_s)
        if delay_s:
            yield _Sleep(delay_s)

    def _received(self, instance: Instance, target: Target, request: WireRequest, body: bytes) -> ReceivedRequest:
        headers = httpx.Headers(request.headers)
        scheme = "http" if target.tls is None else "https"
        url = f"{scheme}://{headers.get('host', target.endpoint.address)}{request.target.decode('ascii')}"
        method = request.method.decode("ascii")
        at = self._clock.elapsed
        return ReceivedRequest(method, httpx.URL(url), headers, body, instance.service, instance.name, at)

    def _left_s(self, limits: WireLimits) -> float | None:
        return None if limits.deadline is None else max(0.0, limits.deadline - self._clock.now())

    @staticmethod
    def _least(one: float | None, other: float | None) -> float | None:
        return min((limit for limit in (one, other) if limit is not None), default=None)

    def _raised(self, instance: Instance, error: Exception) -> httpx.Response:
        """What the caller sees of an exception of the application: a broken connection, a 500, or the exception."""
        address = instance.endpoint.address
        if isinstance(error, MeshError):
            # One that was made for a call has its record: it is of a call that the application made, and a server
            # answers 500 to it. One without is what the function wants to happen to this attempt.
            if isinstance(error, WireError) and error.record is None:
                raise make_error(error, address)
            return httpx.Response(500, text=f"{type(error).__name__}: {error}")
        if isinstance(error, httpx.TransportError):
            raise from_httpx(error, address) from error
        if instance.raise_errors:
            raise error
        return httpx.Response(500, text="Internal Server Error")

    def _check_body(self, stream: Any, since: float, limits: WireLimits, address: str) -> None:
        """See that a body that is still being made comes in time."""
        if isinstance(stream, httpx.ByteStream):
            return
        now = self._clock.now()
        late = limits.body_deadline is not None and now > limits.body_deadline
        if late or (limits.body_idle_s is not None and now - since > limits.body_idle_s):
            raise AttemptTimeout(f"{address} did not send the body in time", phase="body", endpoint=address)


class Loops:
    """Runs asynchronous applications for callers in threads: an event loop per thread, kept for the fixture's life."""

    def __init__(self) -> None:
        self._local = threading.local()
        self._runners: list[asyncio.Runner] = []
        self._beside: set[asyncio.Task[None]] = set()

    def run(self, work: Awaitable[T], context: Context) -> T:
        """Run `work` to its end."""

        async def whole() -> T:
            return await work

        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._runner().run(whole(), context=context)
        # Sync code that is called from a running loop keeps it from going on: this needs another loop, which can only
        # run in another thread.
        result: T = _in_thread(lambda: _run_once(whole(), context))
        return result

    def beside(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` beside what a caller does: in its loop, or for one without at once, to its end, in no time."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.run(work(), aside())
        else:
            task = loop.create_task(work(), context=Context())
            self._beside.add(task)
            task.add_done_callback(self._beside.discard)

    def close(self) -> None:
        """Cancel what still runs."""
        if not self._runners:
            return
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._close()
        else:
            _in_thread(self._close)

    def _close(self) -> None:
        while self._runners:
            self._runners.pop().close()

    def _runner(self) -> asyncio.Runner:
        runner: asyncio.Runner | None = getattr(self._local, "runner", None)
        if runner is None or runner not in self._runners:
            runner = self._local.runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
            self._runners.append(runner)
        return runner


def _run_once(work: Any, context: Context) -> Any:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work, context=context)


def _in_thread(function: Any) -> Any:
    outcome: list[Any] = []
    failed: list[BaseException] = []

    def target() -> None:
        try:
            outcome.append(function())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=target, name="meshlib-testing", daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return outcome[0]


class SyncFixtureWire(_Desk):
    """Attempts from threads."""

    def __init__(self, registry: Registry, clock: SettableClock, loops: Loops) -> None:
        super().__init__(registry, clock)
        self._loops = loops

    def send(self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress) -> SyncWireResponse:
        """Send one attempt and return when the response's headers are there."""
        with self._clock.waiting():
            steps = self._attempt(target, request, limits, progress)
            given: Any = None
            while True:
                try:
                    step = steps.send(given)
                except StopIteration as end:
                    response, broken = end.value
                    break
                if isinstance(step, _Sleep):
                    self._clock.sleep(step.delay_s)
                elif isinstance(step, _ReadBody):
                    given = request.body if isinstance(request.body, bytes) else b"".join(request.body)
                else:
                    given = self._serve(step)
        body = self._body(response, broken, limits, target.endpoint.address)
        return SyncWireResponse(response.status_code, list(response.headers.raw), body, body.close)

    def _serve(self, step: _Serve) -> tuple[httpx.Response, float]:
        begun = _Begun(self._clock)
        try:
            with self._clock.working() as inside:
                answer = inside.run(step.instance.app, step.request, begun)
                response = self._loops.run(answer, inside) if inspect.isawaitable(answer) else answer
        except Exception as error:
            response = self._raised(step.instance, error)
        return response, begun.at or self._clock.now()

    def _body(
        self, response: httpx.Response, broken: MeshError | None, limits: WireLimits, address: str
    ) -> Generator[bytes, None, None]:
        stream = response.stream
        if not isinstance(stream, httpx.SyncByteStream):
            content = self._loops.run(_joined(stream), Context())
            stream = httpx.ByteStream(content)
        since = self._clock.now()
        for chunk in stream:
            self._check_body(stream, since, limits, address)
            if broken is not None:
                yield chunk[: len(chunk) // 2]
                break
            yield chunk
            since = self._clock.now()
        if broken is not None:
            raise broken


class AsyncFixtureWire(_Desk):
    """Attempts from event loops."""

    async def send(
        self, target: Target, request: WireRequest, limits: WireLimits, progress: Progress
    ) -> AsyncWireResponse:
        """Send one attempt and return when the response's headers are there; may be cancelled at any point."""
        with self._clock.waiting():
            steps = self._attempt(target, request, limits, progress)
            given: Any = None
            while True:
                try:
                    step = steps.send(given)
                except StopIteration as end:
                    response, broken = end.value
                    break
                if isinstance(step, _Sleep):
                    await self._clock.asleep(step.delay_s)
                elif isinstance(step, _ReadBody):
                    given = request.body if isinstance(request.body, bytes) else await _joined(request.body)
                else:
                    given = await self._serve(step)
        body = self._body(response, broken, limits, target.endpoint.address)
        return AsyncWireResponse(response.status_code, list(response.headers.raw), body, body.aclose)

    async def _serve(self, step: _Serve) -> tuple[httpx.Response, float]:
        begun = _Begun(self._clock)
        try:
            with self._clock.working() as inside:
                answer = inside.run(step.instance.app, step.request, begun)
                if inspect.isawaitable(answer):
                    response = await asyncio.get_running_loop().create_task(_awaited(answer), context=inside)
                else:
                    response = answer
        except Exception as error:
            response = self._raised(step.instance, error)
        return response, begun.at or self._clock.now()

    async def _body(self, response: httpx.Response, broken: MeshError | None, limits: WireLimits, address: str) -> Any:
        since = self._clock.now()
        async for chunk in _chunks_of(response.stream):
            self._check_body(response.stream, since, limits, address)
            if broken is not None:
                yield chunk[: len(chunk) // 2]
                break
            yield chunk
            since = self._clock.now()
        if broken is not None:
            raise broken


class _Begun:
    """Notes when the headers of a response were there; what an application does behind its response takes no time."""

    __slots__ = ("_clock", "at")

    def __init__(self, clock: SettableClock) -> None:
        self._clock = clock
        self.at: float | None = None

    def __call__(self) -> None:
        if self.at is None:
            self.at = self._clock.now()


def _time_is_up(address: str, limits: WireLimits, limit_s: float) -> AttemptTimeout:
    why = f"within {limit_s:g} s (read timeout)" if limit_s == limits.read_s else "before the attempt's deadline"
    return AttemptTimeout(f"{address} sent no response {why}", phase="headers", endpoint=address)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


async def _chunks_of(stream: Any) -> AsyncIterator[bytes]:
    if hasattr(stream, "__aiter__"):
        async for chunk in stream:
            yield chunk
    else:
        for chunk in stream:
            yield chunk


async def _joined(stream: Any) -> bytes:
    return b"".join([chunk async for chunk in _chunks_of(stream)])
