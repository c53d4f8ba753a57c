"""The control thread calls functions, soon and later, with and without a loop."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from meshlib.discovery.control import ControlPlane
from meshlib.errors import MeshClosed
from tests.discovery.support import until
from tests.discovery.test_control import run_script


@pytest.fixture(params=["without a loop", "with a loop"])
def control(request: pytest.FixtureRequest) -> Iterator[ControlPlane]:
    plane = ControlPlane()
    if request.param == "with a loop":
        plane.run_sync(lambda: asyncio.sleep(0), 5)
    yield plane
    plane.close()


def test_functions_are_called_in_order_on_the_thread(control: ControlPlane) -> None:
    called: list[tuple[int, str]] = []

    def note(number: int) -> Callable[[], None]:
        return lambda: called.append((number, threading.current_thread().name))

    control.call(note(0))
    for number in range(1, 100):
        control.call_soon(note(number))
    until(lambda: len(called) == 100)
    assert called == [(number, "meshlib-control") for number in range(100)]


def test_functions_need_no_loop() -> None:
    control = ControlPlane()
    called = threading.Event()
    control.call(called.set)
    assert called.wait(5)
    assert control.started
    assert not control.looping
    control.close()
    assert "meshlib-control" not in {thread.name for thread in threading.enumerate()}


def test_functions_from_many_threads_are_each_called_once_while_the_loop_comes() -> None:
    control = ControlPlane()
    called: list[int] = []
    barrier = threading.Barrier(9)

    def add(thread: int) -> None:
        barrier.wait()
        for number in range(500):
            control.call(lambda each=thread * 500 + number: called.append(each))

    threads = [threading.Thread(target=add, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    barrier.wait()
    control.run_sync(lambda: asyncio.sleep(0), 5)
    for thread in threads:
        thread.join()
    control.close()
    assert sorted(called) == list(range(4000))


def test_a_function_sees_none_of_the_callers_context_nor_of_another_functions(control: ControlPlane) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    variable.set("a request's deadline")
    seen: list[str] = []

    def look() -> None:
        seen.append(variable.get())
        variable.set("left behind")

    control.call(look)
    control.call(look)
    until(lambda: len(seen) == 2)
    assert seen == ["nothing", "nothing"]


@pytest.mark.parametrize("error", [LookupError, SystemExit])
def test_a_function_that_fails_is_logged_and_ends_nothing(
    control: ControlPlane, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def fail() -> None:
        raise error("its own fault")

    called = threading.Event()
    with caplog.at_level(logging.ERROR, "meshlib"):
        control.call(fail)
        control.call(called.set)
        assert called.wait(5)
    assert "its own fault" in caplog.text


def test_a_function_that_adds_itself_for_ever_does_not_hold_up_the_close(control: ControlPlane) -> None:
    times: list[int] = []

    def again() -> None:
        times.append(1)
        try:
            control.call_soon(again)
        except RuntimeError:
            pass  # it is closed

    control.call(again)
    until(lambda: len(times) > 10)
    control.close()
    assert "meshlib-control" not in {thread.name for thread in threading.enumerate()}


def test_what_was_given_before_the_close_is_called_and_nothing_can_be_given_after(control: ControlPlane) -> None:
    called: list[int] = []
    for number in range(50):
        control.call(lambda each=number: called.append(each))
    control.close()
    assert called == list(range(50))
    with pytest.raises(MeshClosed):
        control.call(lambda: None)
    with pytest.raises(MeshClosed):
        control.call_every(1.0, lambda: None)
    with pytest.raises(RuntimeError, match="does not run"):
        control.call_soon(lambda: None)


def test_something_is_called_again_and_again_also_after_it_failed(
    control: ControlPlane, caplog: pytest.LogCaptureFixture
) -> None:
    times: list[str] = []

    def now() -> None:
        times.append(threading.current_thread().name)
        if len(times) == 2:
            raise LookupError("once")

    with caplog.at_level(logging.ERROR, "meshlib"):
        control.call_every(0.01, now)
        until(lambda: len(times) > 4)
    assert set(times) == {"meshlib-control"}
    assert caplog.text.count("LookupError: once") == 1


def test_what_is_called_again_and_again_goes_on_when_the_loop_comes() -> None:
    control = ControlPlane()
    times: list[int] = []
    control.call_every(0.01, lambda: times.append(1))
    until(lambda: len(times) > 2)
    control.run_sync(lambda: asyncio.sleep(0), 5)
    before = len(times)
    until(lambda: len(times) > before + 2)
    control.close()
    ended = len(times)
    control.close()
    assert len(times) == ended


def test_a_timer_fires_once_unless_it_is_cancelled(control: ControlPlane) -> None:
    fired: list[str] = []

    def set_two() -> None:
        control.call_later(0.01, lambda: fired.append("cancelled")).cancel()
        control.call_later(0.01, lambda: fired.append("kept"))

    control.call(set_two)
    until(lambda: fired)
    control.call_every(0.05, lambda: fired.append("later"))
    until(lambda: "later" in fired)
    assert fired[0] == "kept"
    assert fired.count("kept") == 1
    assert "cancelled" not in fired


def test_a_timer_that_was_handed_to_the_loop_can_be_cancelled() -> None:
    control = ControlPlane()
    fired: list[str] = []
    timers = []
    control.call(lambda: timers.append(control.call_later(0.3, lambda: fired.append("cancelled"))))
    until(lambda: timers)
    control.run_sync(lambda: asyncio.sleep(0), 5)
    control.call(timers[0].cancel)
    control.call(lambda: control.call_later(0.4, lambda: fired.append("last")))
    until(lambda: fired)
    control.close()
    assert fired == ["last"]


def test_what_closes_the_plane_from_its_own_thread_is_not_waited_for(control: ControlPlane) -> None:
    closed = threading.Event()
    control.call(lambda: (control.close(), closed.set()))
    assert closed.wait(5)
    until(lambda: "meshlib-control" not in {thread.name for thread in threading.enumerate()})


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_calls_its_own_functions_and_not_its_parents(control: ControlPlane) -> None:
    called: list[int] = []
    control.call_every(0.01, lambda: called.append(os.getpid()))
    until(lambda: called)
    pid = os.fork()
    if pid == 0:
        try:
            called.clear()
            assert not control.started
            own = threading.Event()
            control.call(own.set)
            assert own.wait(5)
            assert not control.looping
            assert control.run_sync(_one, 5) == 1
            control.close()
            os._exit(0 if not called else 2)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    before = len(called)
    until(lambda: len(called) > before)


async def _one() -> int:
    return 1


def test_under_gevent_functions_are_called_in_a_real_thread_before_and_after_the_loop_comes() -> None:
    pytest.importorskip("gevent")
    printed = run_script("""
        import gevent.monkey; gevent.monkey.patch_all()
        import threading, time
        from meshlib.discovery.control import ControlPlane

        control = ControlPlane()
        threads = []
        control.call_every(0.005, lambda: threads.append(threading.get_native_id()))

        def block(so_many):
            # Without yielding to any hub.
            end = time.perf_counter() + 20
            while len(threads) < so_many and time.perf_counter() < end:
                pass
            return len(threads) >= so_many

        print(block(6), control.looping)
        async def nothing():
            pass
        control.run_sync(nothing, 20)
        print(block(len(threads) + 6), control.looping, threading.get_native_id() in threads, len(set(threads)))
        control.close()
        print("closed")
    """)
    assert printed.split() == ["True", "False", "True", "True", "False", "1", "closed"]


def test_an_interpreter_that_exits_with_a_thread_without_a_loop_says_nothing() -> None:
    printed = run_script("""
        import sys
        from meshlib.discovery.control import ControlPlane

        control = ControlPlane()
        control.call_every(0.001, lambda: None)
        print("asyncio" in sys.modules)
    """)
    assert printed == "False\n"
