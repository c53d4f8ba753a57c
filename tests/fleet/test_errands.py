"""The thread that does for calls what takes time."""

from __future__ import annotations

import threading
from typing import Any

from meshlib.fleet.errands import Errand, ErrandThread
from tests.peers.process import wait_until


def result_of(errand: Errand | None) -> Any:
    assert errand is not None
    ready = threading.Event()
    errand.on_ready(ready.set)
    assert ready.wait(10)
    return errand.result


def test_it_does_what_it_is_given_and_a_job_that_fails_has_no_result() -> None:
    thread = ErrandThread("test-errands", 0.02)
    assert result_of(thread.submit(lambda: threading.current_thread().name)) == "test-errands"
    assert result_of(thread.submit(lambda: 1 / 0)) is None
    assert result_of(thread.submit(lambda: "after")) == "after"
    thread.close()


def test_who_has_left_is_not_called() -> None:
    thread, go, called = ErrandThread("test-errands", 0.02), threading.Event(), []
    errand = thread.submit(lambda: go.wait(10))
    assert errand is not None
    errand.on_ready(lambda: called.append(True))
    errand.leave()
    go.set()
    wait_until(lambda: errand.done, "it is done")
    assert called == []
    thread.close()


def test_with_too_much_to_do_it_takes_nothing_more() -> None:
    thread, go = ErrandThread("test-errands", 0.02), threading.Event()
    taken = [thread.submit(lambda: go.wait(10)) for _ in range(1500)]
    assert 1000 <= sum(errand is not None for errand in taken) < 1500
    go.set()
    last = [errand for errand in taken if errand is not None][-1]
    assert result_of(last) is True
    thread.close()


def test_closed_it_leaves_nobody_waiting_and_takes_nothing() -> None:
    thread, go = ErrandThread("test-errands", 0.02), threading.Event()
    first = thread.submit(lambda: go.wait(10))
    second = thread.submit(lambda: "done")
    thread.close()
    thread.close()
    go.set()
    assert result_of(first) is True
    assert result_of(second) in (None, "done")
    assert thread.submit(lambda: "late") is None
    wait_until(lambda: not thread._running, "its end")


def test_sixteen_threads_each_get_their_own_answers() -> None:
    thread, wrong = ErrandThread("test-errands", 0.02), []

    def work(index: int) -> None:
        found = [result_of(thread.submit(lambda turn=turn: (index, turn))) for turn in range(30)]
        wrong.extend(each for turn, each in enumerate(found) if each != (index, turn))

    threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []
    thread.close()


def test_even_a_fault_of_its_own_does_not_end_it() -> None:
    class Faulty(ErrandThread):
        broken = True

        def _do(self, batch: list[Errand]) -> None:
            if self.broken and batch:
                raise RuntimeError("a fault")
            super()._do(batch)

    thread = Faulty("test-errands", 0.02)
    assert result_of(thread.submit(lambda: "lost")) is None
    thread.broken = False
    assert result_of(thread.submit(lambda: "done")) == "done"
    thread.close()
