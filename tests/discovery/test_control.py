"""The control plane: one thread, one loop, started when needed and gone when closed."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import pytest

from meshlib.discovery.control import ControlPlane, ThreadsUnavailable
from meshlib.errors import MeshClosed, MeshError
from tests.discovery.support import until


async def current_thread() -> str:
    return threading.current_thread().name


def test_the_thread_starts_at_first_use_and_not_at_construction(control: ControlPlane) -> None:
    assert not control.started
    assert "not started" in repr(control)
    assert control.run_sync(current_thread, 5) == "meshlib-control"
    assert control.started


def test_a_coroutine_and_a_coroutine_function_are_both_taken(control: ControlPlane) -> None:
    assert control.submit(current_thread()).result(5) == "meshlib-control"
    assert control.submit(current_thread).result(5) == "meshlib-control"


def test_work_sees_none_of_the_callers_context(control: ControlPlane) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
    variable.set("a request's deadline")

    async def look() -> str:
        return variable.get()

    assert control.run_sync(look, 5) == "nothing"


def test_many_threads_share_one_loop(control: ControlPlane) -> None:
    loops: list[object] = []

    async def which() -> None:
        loops.append(asyncio.get_running_loop())

    threads = [threading.Thread(target=lambda: control.run_sync(which, 5)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loops) == 16
    assert len(set(loops)) == 1


def test_run_sync_that_takes_too_long_is_cancelled(control: ControlPlane) -> None:
    cancelled = threading.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError, match=r"no result from the control plane within 0\.05 s"):
        control.run_sync(hang, 0.05)
    assert cancelled.wait(5)


def test_run_sync_on_the_control_thread_is_refused(control: ControlPlane) -> None:
    async def inside() -> None:
        control.run_sync(current_thread(), 1)

    with pytest.raises(RuntimeError, match="wait for itself"):
        control.run_sync(inside, 5)


def test_an_error_is_raised_to_the_one_who_waits(control: ControlPlane) -> None:
    async def fail() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        control.run_sync(fail, 5)


def test_an_error_that_nobody_waits_for_is_logged(control: ControlPlane, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise LookupError("nobody looks")

    with caplog.at_level(logging.ERROR, "meshlib"):
        control.submit(fail)
        until(lambda: "nobody looks" in caplog.text)


def test_an_error_in_a_task_that_was_lost_is_logged(control: ControlPlane, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise LookupError("a lost task")

    async def lose() -> None:
        task = asyncio.get_running_loop().create_task(fail())
        await asyncio.wait([task])

    with caplog.at_level(logging.ERROR, "meshlib"):
        control.run_sync(lose, 5)
        gc.collect()
        until(lambda: "a lost task" in caplog.text)


def test_close_cancels_awaits_and_joins_and_may_be_repeated() -> None:
    control = ControlPlane()
    ended: list[str] = []

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append("cleaned up")

    future = control.submit(hang)
    control.run_sync(current_thread, 5)
    control.close()
    control.close()
    assert ended == ["cleaned up"]
    assert future.cancelled()
    assert "meshlib-control" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(MeshClosed):
        control.run_sync(current_thread(), 1)


def test_a_task_that_a_timer_starts_while_the_plane_closes_is_ended_too() -> None:
    control = ControlPlane()
    ended: list[str] = []

    async def late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("late")

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            loop = asyncio.get_running_loop()
            loop.call_later(0.01, lambda: tasks.append(loop.create_task(late())))
            await asyncio.sleep(0.05)

    tasks: list[asyncio.Task[None]] = []
    control.submit(slow_to_end)
    control.run_sync(current_thread, 5)
    control.close()
    assert len(tasks) == 1
    assert tasks[0].cancelled() or ended == ["late"]


def test_close_before_first_use_starts_nothing() -> None:
    control = ControlPlane()
    control.close()
    assert not control.started


def test_a_task_that_ignores_cancellation_does_not_hold_up_the_close(caplog: pytest.LogCaptureFixture) -> None:
    control = ControlPlane()
    release = threading.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                pass

    control.submit(stubborn)
    control.run_sync(current_thread, 5)
    with caplog.at_level(logging.WARNING, "meshlib"):
        control.close(timeout_s=0.1)
    assert "did not end within 0.1 s" in caplog.text
    release.set()


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_its_own_thread_and_leaves_the_parents_alone(control: ControlPlane) -> None:
    parent = control.run_sync(_loop_id, 5)
    pid = os.fork()
    if pid == 0:
        try:
            assert not control.started
            assert control.generation == 1
            assert control.run_sync(_pid, 5) == os.getpid()
            control.close()
            os._exit(0)
        except BaseException:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert control.generation == 0
    assert control.run_sync(_loop_id, 5) == parent

    async def timers_still_fire() -> bool:
        await asyncio.sleep(0.01)
        return True

    assert control.run_sync(timers_still_fire, 5)


async def _loop_id() -> int:
    return id(asyncio.get_running_loop())


async def _pid() -> int:
    return os.getpid()


@pytest.mark.parametrize("options", [{}, {b"master": True}, {"http": b":80"}])
def test_uwsgi_without_threads_is_a_clear_error(monkeypatch: pytest.MonkeyPatch, options: dict[object, object]) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(opt=options))
    with pytest.raises(ThreadsUnavailable, match="enable-threads") as caught:
        ControlPlane().run_sync(current_thread, 1)
    assert isinstance(caught.value, MeshError)
    assert isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize("options", [{b"enable-threads": True}, {"threads": b"4"}])
def test_uwsgi_with_threads_is_fine(
    monkeypatch: pytest.MonkeyPatch, control: ControlPlane, options: dict[object, object]
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", types.SimpleNamespace(opt=options))
    assert control.run_sync(current_thread, 5)


def run_script(script: str, *, timeout_s: float = 30) -> str:
    """Run `script` in a fresh interpreter and return what it printed."""
    source = Path(__file__).resolve().parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(source)}
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr, done.stderr
    return done.stdout


def test_under_gevent_the_control_thread_is_a_real_thread() -> None:
    pytest.importorskip("gevent")
    printed = run_script("""
        import gevent.monkey; gevent.monkey.patch_all()
        import asyncio, threading, time, gevent
        from meshlib.discovery.control import ControlPlane

        control = ControlPlane()
        main = threading.get_native_id()

        async def work():
            # A name is resolved in a thread of the executor: that, too, has to be a real one.
            await asyncio.get_running_loop().getaddrinfo("localhost", 80)
            while len(greenlet_ran) < 10:
                await asyncio.sleep(0.01)
            return threading.get_native_id()

        greenlet_ran = []
        def beside():
            for _ in range(10):
                gevent.sleep(0.01)
                greenlet_ran.append(1)
        other = gevent.spawn(beside)
        print(control.run_sync(work, 20) != main, len(greenlet_ran))

        # The loop goes on while this thread blocks without yielding to any hub.
        counted = []
        async def count():
            while True:
                counted.append(1)
                await asyncio.sleep(0.005)
        control.submit(count)
        end = time.perf_counter() + 20
        while len(counted) < 6 and time.perf_counter() < end:
            pass
        print(len(counted) > 5)
        control.close()
        print("closed")
    """)
    assert printed.split() == ["True", "10", "True", "closed"]


def test_an_interpreter_that_exits_with_a_running_plane_says_nothing() -> None:
    printed = run_script("""
        import asyncio
        from meshlib.discovery.control import ControlPlane

        control = ControlPlane()
        async def hang():
            await asyncio.Event().wait()
        control.submit(hang)
        print("end")
    """)
    assert printed == "end\n"
