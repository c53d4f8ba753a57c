"""What a call inherits, wherever it runs: nested, in tasks, threads and executors, in generators, under decorators."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

import pytest

from meshlib import context
from meshlib.context import (
    ContextExecutor,
    Criticality,
    HeldScope,
    Scope,
    ServedRequest,
    carry,
    criticality,
    current,
    current_scope,
    decorate,
    detached,
    scoped,
    timeout,
)
from tests.clock import Clock
from tests.server.standin import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(context, "monotonic", clock)
    return clock


def remaining() -> float | None:
    return current().remaining


def test_without_a_deadline_there_is_none() -> None:
    assert remaining() is None
    assert current().criticality is None
    assert current().baggage == {}


def test_a_timeout_counts_down_and_ends(clock: Clock) -> None:
    with timeout("2s"):
        assert remaining() == 2.0
        clock.now += 0.5
        assert remaining() == 1.5
        clock.now += 5
        assert remaining() == 0.0
    assert remaining() is None


def test_what_nobody_waits_for_is_cancelled(clock: Clock) -> None:
    request = ServedRequest(clock.now + 3)
    with serving(request):
        assert current().cancelled == ""
        with timeout("1s"):
            clock.now += 1
            assert current().cancelled == "deadline"
        assert current().cancelled == ""
        request.cancelled = "disconnect"
        assert (current().cancelled, remaining()) == ("disconnect", 2.0)
        with detached():
            assert current().cancelled == ""
        request.close()
        assert (current().cancelled, remaining()) == ("disconnect", None)


@pytest.mark.parametrize("closed_before", [True, False])
@pytest.mark.parametrize("left_s", [None, -1.0, 5.0])
def test_a_request_that_leaves_a_thread_behind_is_over_for_good(
    clock: Clock, closed_before: bool, left_s: float | None
) -> None:
    request = ServedRequest(None if left_s is None else clock.now + left_s)
    if closed_before:
        request.close()
    request.abandon("disconnect", clock.now)
    request.close()
    with serving(request):
        assert (current().cancelled, remaining()) == ("disconnect", 0.0)


@pytest.mark.parametrize(("outer", "inner"), [(2, 1), (1, 2)])
def test_nested_the_earlier_deadline_holds(clock: Clock, outer: float, inner: float) -> None:
    with timeout(outer):
        with timeout(inner):
            assert remaining() == 1.0
        assert remaining() == outer


def test_one_object_may_be_entered_many_times(clock: Clock) -> None:
    limit = timeout("2s")
    with limit:
        clock.now += 1
        with limit:
            assert remaining() == 1.0
    clock.now += 10
    with limit:
        assert remaining() == 2.0
    assert remaining() is None


def test_detached_leaves_every_deadline_and_keeps_the_rest(clock: Clock) -> None:
    request = ServedRequest(clock.now + 1)
    with serving(request, criticality=Criticality.SHEDDABLE, baggage={"tenant": "t1"}), timeout("2s"):
        with detached():
            assert remaining() is None
            assert current().criticality is Criticality.SHEDDABLE
            assert current().baggage == {"tenant": "t1"}
            with timeout("5s"):
                assert remaining() == 5.0
        assert remaining() == 1.0


def test_an_error_inside_restores_the_scope(clock: Clock) -> None:
    with pytest.raises(KeyError), timeout("2s"):
        raise KeyError
    assert remaining() is None


@pytest.mark.parametrize("limit", ["soon", -1, float("nan")])
def test_what_is_no_duration_is_refused_at_once(limit: str | float) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        timeout(limit)


def test_the_deadline_of_a_request_ends_with_the_request(clock: Clock) -> None:
    request = ServedRequest(clock.now + 3)
    with serving(request):
        assert remaining() == 3.0
        request.close()
        assert remaining() is None


def test_a_deadline_set_in_code_outlives_the_request(clock: Clock) -> None:
    request = ServedRequest(clock.now + 1)
    with serving(request), timeout("2s"):
        assert remaining() == 1.0
        request.close()
        assert remaining() == 2.0


def test_what_was_inherited_before_a_request_does_not_count(clock: Clock) -> None:
    with scoped(lambda scope: replace(scope, baggage={"a": "1"})), timeout("2s"), serving(ServedRequest()):
        assert remaining() is None
        assert current().baggage == {}


# Decorators


def test_a_decorated_function_gets_its_time_at_each_call(clock: Clock) -> None:
    @timeout("2s")
    def work() -> float | None:
        """Doc."""
        return remaining()

    assert work() == 2.0
    clock.now += 100
    assert work() == 2.0
    assert (work.__name__, work.__doc__) == ("work", "Doc.")
    assert remaining() is None


async def test_a_decorated_coroutine_function_runs_inside(clock: Clock) -> None:
    @timeout("2s")
    async def work() -> float | None:
        await asyncio.sleep(0)
        return remaining()

    pending = work()
    clock.now += 100
    assert await pending == 2.0
    assert remaining() is None


def test_a_decorated_generator_has_one_deadline_while_its_body_runs(clock: Clock) -> None:
    @timeout("2s")
    def work() -> Iterator[float | None]:
        yield remaining()
        yield remaining()

    values = work()
    clock.now += 100
    assert next(values) == 2.0
    assert remaining() is None
    clock.now += 0.5
    assert next(values) == 1.5
    assert next(values, "end") == "end"
    assert remaining() is None


def test_a_decorated_generator_takes_what_is_sent_and_thrown_and_returns() -> None:
    cleaned: list[bool] = []

    @timeout("2s")
    def work() -> Generator[str, str, str]:
        try:
            got = yield "ready"
            try:
                yield f"got {got}"
            except KeyError:
                yield "caught"
            return "done"
        finally:
            cleaned.append(current_scope().own_deadline is not None)

    values = work()
    assert next(values) == "ready"
    assert values.send("it") == "got it"
    assert values.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration, match="done"):
        next(values)
    abandoned = work()
    next(abandoned)
    abandoned.close()
    assert cleaned == [True, True]


async def test_a_decorated_async_generator_has_one_deadline_while_its_body_runs(clock: Clock) -> None:
    @timeout("2s")
    async def work() -> AsyncIterator[float | None]:
        yield remaining()
        await asyncio.sleep(0)
        yield remaining()

    seen = []
    async for value in work():
        seen.append(value)
        assert remaining() is None
        clock.now += 0.5
    assert seen == [2.0, 1.5]


async def test_a_decorated_async_generator_takes_what_is_sent_and_thrown_and_is_closed() -> None:
    cleaned: list[bool] = []

    @timeout("2s")
    async def work() -> AsyncGenerator[str, str]:
        try:
            got = yield "ready"
            try:
                yield f"got {got}"
            except KeyError:
                yield "caught"
        finally:
            cleaned.append(current_scope().own_deadline is not None)

    values = work()
    assert await anext(values) == "ready"
    assert await values.asend("it") == "got it"
    assert await values.athrow(KeyError()) == "caught"
    with pytest.raises(StopAsyncIteration):
        await anext(values)
    abandoned = work()
    await anext(abandoned)
    await abandoned.aclose()
    assert cleaned == [True, True]


async def test_two_generators_side_by_side_keep_their_own_deadlines(clock: Clock) -> None:
    async def work() -> AsyncIterator[float | None]:
        while True:
            yield remaining()

    short, long = timeout("1s")(work)(), timeout("9s")(work)()
    assert [await anext(short), await anext(long), await anext(short), await anext(long)] == [1.0, 9.0, 1.0, 9.0]
    await short.aclose()  # type: ignore[attr-defined]
    await long.aclose()  # type: ignore[attr-defined]


def test_the_manager_of_a_decorator_is_made_once_per_call() -> None:
    made: list[str] = []

    @contextmanager
    def inside() -> Iterator[None]:
        yield

    def manager() -> AbstractContextManager[None]:
        made.append("one")
        return inside()

    assert decorate(lambda: "result", manager)() == "result"
    assert made == ["one"]


def test_an_async_generator_closed_in_another_context_is_survived(clock: Clock) -> None:
    async def values() -> AsyncIterator[int]:
        with timeout("2s"):
            yield 1

    async def main() -> None:
        generator = values()
        await asyncio.create_task(anext(generator))  # type: ignore[arg-type]
        await generator.aclose()  # type: ignore[attr-defined]
        assert remaining() is None

    asyncio.run(main())


# Tasks, threads, executors


async def test_a_task_inherits_and_changes_nothing_outside(clock: Clock) -> None:
    async def inner() -> float | None:
        async with timeout("1s"):
            await asyncio.sleep(0)
            return remaining()

    async with timeout("2s"):
        task = asyncio.create_task(inner())
        assert await task == 1.0
        assert remaining() == 2.0
        assert await asyncio.to_thread(remaining) == 2.0


async def test_many_tasks_share_one_object(clock: Clock) -> None:
    limit = timeout("2s")

    async def work(own: float) -> float | None:
        async with limit, timeout(own):
            await asyncio.sleep(0)
            return remaining()

    assert await asyncio.gather(*(work(n / 10) for n in range(1, 21))) == [pytest.approx(n / 10) for n in range(1, 21)]


async def test_a_task_that_outlives_its_request_loses_the_deadline(clock: Clock) -> None:
    request = ServedRequest(clock.now + 3)
    answered = asyncio.Event()

    async def left_running() -> tuple[float | None, float | None]:
        before = remaining()
        await answered.wait()
        return before, remaining()

    with serving(request, baggage={"tenant": "t1"}):
        task = asyncio.create_task(left_running())
        await asyncio.sleep(0)
    request.close()
    answered.set()
    assert await task == (3.0, None)


INHERITED = 2.0 if getattr(sys.flags, "thread_inherit_context", 0) else None
"""What two seconds are to a plain thread: Python 3.14 without a GIL has it begin in its starter's context."""


def in_a_thread(function: Callable[[], object]) -> object:
    result: list[object] = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


def test_a_thread_inherits_what_python_gives_it_and_all_by_carry(clock: Clock) -> None:
    with timeout("2s"):
        assert in_a_thread(remaining) == INHERITED
        carried = carry(remaining)
        assert in_a_thread(carried) == 2.0
    assert in_a_thread(carried) == 2.0
    assert carried() == 2.0
    assert remaining() is None


def test_a_carried_function_runs_in_many_threads_at_once(clock: Clock) -> None:
    together = threading.Barrier(4, timeout=10)

    def work(own: float) -> float | None:
        with timeout(own):
            together.wait()
            return remaining()

    with timeout("2s"):
        carried = carry(work)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(carried, [0.5, 1, 1.5, 9])) == [0.5, 1.0, 1.5, 2.0]


def test_a_context_executor_carries_the_context_of_each_submitter(clock: Clock) -> None:
    with ContextExecutor(1) as pool:
        with timeout("2s"):
            bounded = pool.submit(remaining)
            mapped = pool.map(lambda _: remaining(), range(2))
        free = pool.submit(remaining)
        assert bounded.result(10) == 2.0
        assert list(mapped) == [2.0, 2.0]
        assert free.result(10) is None


def test_a_context_executor_passes_arguments_and_errors_on() -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise KeyError(args, kwargs)

    with ContextExecutor(1) as pool:
        error = pool.submit(fail, 1, fn=2).exception(10)
    assert isinstance(error, KeyError)
    assert error.args == ((1,), {"fn": 2})


async def test_a_context_executor_as_the_executor_of_a_loop(clock: Clock) -> None:
    with ContextExecutor(1) as pool, timeout("2s"):
        assert await asyncio.get_running_loop().run_in_executor(pool, remaining) == 2.0


async def test_a_context_executor_as_the_default_of_a_loop(clock: Clock) -> None:
    loop = asyncio.get_running_loop()
    with timeout("2s"):
        assert await loop.run_in_executor(None, remaining) == INHERITED
        pool = ContextExecutor.install(loop, max_workers=1)
        assert await loop.run_in_executor(None, remaining) == 2.0
        assert await asyncio.to_thread(remaining) == 2.0
    assert await loop.run_in_executor(None, remaining) is None
    await loop.shutdown_default_executor()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(remaining)


def test_a_copied_context_has_the_scope_and_keeps_its_changes_to_itself(clock: Clock) -> None:
    def leave_open() -> float | None:
        timeout("1s").__enter__()
        return remaining()

    with timeout("2s"):
        assert contextvars.copy_context().run(leave_open) == 1.0
        assert remaining() == 2.0
    assert current_scope() == Scope()


# Work in pieces


def test_a_held_scope_holds_in_each_piece_and_not_between(clock: Clock) -> None:
    held = HeldScope(timeout("2s"))
    for passed in (0.0, 0.5, 0.5):
        clock.now += passed
        assert remaining() is None
        held.run(remaining)
    assert held.run(remaining) == 1.0
    with timeout("9s"):
        assert held.run(remaining) == 1.0
        assert remaining() == 9.0


def test_what_a_piece_leaves_open_holds_in_the_next_and_ends_there(clock: Clock) -> None:
    def chunks() -> Iterator[float | None]:
        yield remaining()
        with timeout("1s"):
            yield remaining()
            yield remaining()
        yield remaining()

    held, values = HeldScope(timeout("5s")), chunks()
    seen = []
    for _ in range(4):
        with timeout("9s"):
            seen.append(held.run(next, values))
            assert remaining() == 9.0
    assert seen == [5.0, 1.0, 1.0, 5.0]
    assert remaining() is None


async def test_an_async_piece_goes_on_where_the_one_before_it_left_off(clock: Clock) -> None:
    async def chunks() -> AsyncIterator[float | None]:
        with timeout("1s"):
            yield remaining()
            await asyncio.sleep(0)
            yield remaining()
        yield remaining()

    held, values = HeldScope(timeout("5s")), chunks()
    with timeout("9s"):
        assert [await held.run_async(anext, values) for _ in range(3)] == [1.0, 1.0, 5.0]
        with pytest.raises(StopAsyncIteration):
            await held.run_async(anext, values)
        assert remaining() == 9.0


def test_a_piece_that_fails_leaves_nothing_behind() -> None:
    def fail() -> None:
        timeout("1s").__enter__()
        raise KeyError

    with pytest.raises(KeyError):
        HeldScope(timeout("5s")).run(fail)
    assert current_scope() == Scope()


@pytest.mark.parametrize("value", [Criticality.SHEDDABLE, "sheddable", "SHEDDABLE"], ids=repr)
def test_criticality_is_said_for_a_block_and_replaces_what_was_inherited(value: Criticality | str) -> None:
    assert str(Criticality.SHEDDABLE_PLUS) == f"{Criticality.SHEDDABLE_PLUS}" == "sheddable_plus"
    with criticality(Criticality.CRITICAL_PLUS):
        with criticality(value):
            assert current().criticality is Criticality.SHEDDABLE

        @criticality(value)
        def work() -> Criticality | None:
            return current().criticality

        assert work() is Criticality.SHEDDABLE
        assert current().criticality is Criticality.CRITICAL_PLUS
    assert current().criticality is None


def test_a_criticality_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="'urgent' is not one of sheddable, sheddable_plus, critical, critical_plus"):
        criticality("urgent")
