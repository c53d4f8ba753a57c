"""The addresses of a host's name, within a deadline.

Nothing can interrupt ``getaddrinfo``, which may take half a minute where a name server is silent. So a name is looked
up in a thread of its own, and who waits for it waits no longer than he may; those that ask for a name that is being
looked up already wait for the same answer. The threads are daemons: an executor's would hold up the end of a loop, or
of the process. Addresses that are written as numbers need none of this. No answer is kept: that is the system's affair.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, TypeAlias

from meshlib.net.connection import DeadlinePassed, has_passed
from meshlib.net.fork import after_fork
from meshlib.net.steps import Bell, Steps, Wait

if TYPE_CHECKING:
    from asyncio import Future as LoopFuture
    from concurrent.futures import Future

__all__ = ["AddressInfo", "lookup_async", "lookup_steps", "lookup_sync", "pause"]

AddressInfo: TypeAlias = tuple[Any, Any, int, str, Any]
"""As ``getaddrinfo`` gives it: family, kind, protocol, canonical name, address."""

_Answer: TypeAlias = list[AddressInfo] | OSError


def lookup_sync(host: str, port: int, deadline: float | None) -> list[AddressInfo]:
    """The addresses of `host`, in the system's order of preference.

    Raises:
        DeadlinePassed: if they were not known by `deadline`.
        OSError: if there are none.
    """
    found = _as_number(host, port)
    if found is not None:
        return found
    if deadline is None:
        return _found(_ask(host, port))
    try:
        asked = _lookups.ask(host, port)
    except RuntimeError:  # no thread can be started, as at the end of the process
        return _found(_ask(host, port))
    try:
        answer = asked.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        raise DeadlinePassed from None
    return _found(answer)


def lookup_steps(host: str, port: int, deadline: float | None, bell: Bell) -> Steps[list[AddressInfo]]:
    """`lookup_sync` in steps.

    Raises:
        DeadlinePassed: if they were not known by `deadline`.
        OSError: if there are none.
    """
    found = _as_number(host, port)
    if found is not None:
        return found
    try:
        asked = _lookups.ask(host, port)
    except RuntimeError:
        return _found(_ask(host, port))
    heard = Wait({bell.fileno(): select.POLLIN}, deadline)
    asked.add_done_callback(lambda _: bell.ring())
    while not asked.done():
        if has_passed(deadline):
            raise DeadlinePassed
        yield heard
    return _found(asked.result())


async def lookup_async(host: str, port: int, deadline: float | None) -> list[AddressInfo]:
    """`lookup_sync` for the running loop; may be cancelled at any point.

    Raises:
        DeadlinePassed: if they were not known by `deadline`.
        OSError: if there are none.
    """
    from asyncio import get_running_loop

    found = _as_number(host, port)
    if found is not None:
        return found
    loop = get_running_loop()
    try:
        asked = _lookups.ask(host, port)
    except RuntimeError as error:
        raise OSError(f"its name cannot be looked up: {error}") from error
    known = loop.create_future()

    def wake(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(_end, known)

    asked.add_done_callback(wake)
    await pause(known, deadline)
    if not asked.done():
        raise DeadlinePassed
    return _found(asked.result())


async def pause(until_done: LoopFuture[None], until: float | None) -> None:
    """Wait for a future, or until a point on the monotonic clock."""
    timer = None
    if until is not None:
        timer = until_done.get_loop().call_later(max(0.0, until - time.monotonic()), _end, until_done)
    try:
        await until_done
    finally:
        if timer is not None:
            timer.cancel()


def _end(future: LoopFuture[None]) -> None:
    if not future.done():
        future.set_result(None)


def _as_number(host: str, port: int) -> list[AddressInfo] | None:
    answer = _ask(host, port, socket.AI_NUMERICHOST)
    if isinstance(answer, socket.gaierror):
        return None
    return _found(answer)


def _ask(host: str, port: int, flags: int = 0) -> _Answer:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    except OSError as error:
        return error.with_traceback(None)
    except ValueError:
        # A label that is empty or too long, or a null character: registries hold what people enter.
        return OSError(f"{host!r} is not the name of a host")


def _found(answer: _Answer) -> list[AddressInfo]:
    if isinstance(answer, OSError):
        raise type(answer)(*answer.args)  # a copy: several may have waited, and each adds its own frames
    return answer


class _Lookups:
    """The lookups under way."""

    def __init__(self) -> None:
        self.after_fork_in_child()
        after_fork(self)

    def ask(self, host: str, port: int) -> Future[_Answer]:
        """The answer to come; never an exception.

        Raises:
            RuntimeError: if no thread can be started.
        """
        from concurrent.futures import Future  # by those alone that look for names

        key = (host, port)
        with self._lock:
            answer = self._under_way.get(key)
            if answer is None:
                answer = Future()
                threading.Thread(target=self._run, args=(key, answer), name=f"lookup {host}", daemon=True).start()
                self._under_way[key] = answer
        return answer

    def _run(self, key: tuple[str, int], answer: Future[_Answer]) -> None:
        found: _Answer = OSError("the lookup of its name broke off")
        try:
            found = _ask(*key)
        finally:
            with self._lock:
                # Before anybody is told: who asks again after that is to get a new answer.
                self._under_way.pop(key, None)
            answer.set_result(found)

    def after_fork_in_child(self) -> None:
        """Start anew: the threads are the parent's."""
        self._lock = threading.Lock()
        self._under_way: dict[tuple[str, int], Future[_Answer]] = {}


_lookups = _Lookups()
