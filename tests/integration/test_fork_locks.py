"""A child that is forked while other threads hold every lock of a mesh is not held up by any of them."""

from __future__ import annotations

import gc
import os
import signal
import threading
import traceback
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest

from meshlib import Mesh
from meshlib.discovery.control_thread import ControlThread
from tests.adapters.support import address, origins

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

LOCKS = (type(threading.Lock()), type(threading.RLock()))
# A control thread is the parent's alone: its locks are held as long as there is nothing to do.
ELSEWHERE = (type, ModuleType, FrameType, CodeType, threading.Thread, ControlThread)
HOMES = ("meshlib", "builtins", "collections", "functools", "types", "_functools")


def locks_of(root: object) -> dict[int, tuple[Any, str]]:
    """All locks that can be reached from an object through those of the mesh, and whose they are."""
    found: dict[int, tuple[Any, str]] = {}
    seen: set[int] = set()
    todo: list[tuple[Any, str]] = [(root, "")]
    while todo:
        each, owner = todo.pop()
        if id(each) in seen or isinstance(each, ELSEWHERE):
            continue
        seen.add(id(each))
        home = type(each).__module__.partition(".")[0]
        if isinstance(each, LOCKS):
            found[id(each)] = each, owner
        elif isinstance(each, FunctionType):
            todo += [(cell, owner) for cell in each.__closure__ or ()]
        elif home in HOMES:
            owner = f"{owner} > {type(each).__name__}" if home == "meshlib" else owner
            todo += [(referred, owner) for referred in gc.get_referents(each)]
    return found


BALANCING: list[dict[str, Any]] = [
    {"policy": "peak_ewma"},
    {"policy": "round_robin", "slow_start": {"window": "5s"}},
    {"policy": "least_request", "locality_weights": {"a": 1, "b": 2}},
    {"policy": "maglev"},
    {"policy": "server_weights"},
    {"policy": "prequal", "prequal": {"min_endpoints": 2}},
]


def everything(balancing: dict[str, Any]) -> dict[str, Any]:
    return {
        "load_balancing": {**balancing, "session_affinity": {"cookie": "session"}},
        "health_check": {"http": {"path": "/health"}},
        "hedge": {"after": "p95"},
        "fault": {"delay": {"fixed": "1ms", "percent": 5}},
        "limits": {"max_in_flight": 100, "high": {"max_in_flight": 5}, "adaptive": {}, "max_connections": 50},
        "throttle": {},
        "rate_limit": {"by": "header:x-user", "each": {"rate": 1000}, "total": {"rate": 10000}},
        "outlier_detection": {"success_rate": {}, "consecutive_5xx": 5},
        "retry_budget": {"kind": "rate"},
        "shadow": {
            "circuit_breaker": {"min_calls": 5},
            "throttle": {"algorithm": "nack"},
            "limits": {"max_in_flight": 3},
            "rate_limit": {"total": {"rate": 5}},
            "outlier_detection": {"consecutive_errors": 2},
            "load_balancing": {"policy": "random"},
        },
    }


def endpoint(place: int, where: str) -> dict[str, Any]:
    return {"address": where, "locality": {"region": "ab"[place]}, "weight": place + 1}


def held_up(mesh: Mesh) -> str:
    """What in this process, which was forked, waits for a lock of its parent's; empty for nothing."""
    stuck = sorted({owner for lock, owner in locks_of(mesh).values() if lock.locked()})
    with mesh.client("orders") as client:
        for user in range(3):
            client.get("/child", headers={"x-user": str(user)})
    mesh.plan("GET", "http://orders/x")
    str(mesh.status())
    return "\n".join(stuck)


@pytest.mark.parametrize("balancing", BALANCING, ids=lambda balancing: balancing["policy"])
def test_no_lock_that_was_held_when_a_child_was_forked_holds_it_up(balancing: dict[str, Any]) -> None:
    with origins(None, None) as (_, servers):
        places = [endpoint(place, address(server)) for place, server in enumerate(servers)]
        orders = {"endpoints": places, **everything(balancing)}
        with Mesh({"discovery": [], "services": {"orders": orders}}) as mesh, mesh.client("orders") as client:
            for user in range(4):
                client.get("/x", headers={"x-user": str(user)})
            ready, go, held = threading.Event(), threading.Event(), []

            def hold() -> None:
                held.extend(lock for lock, _ in locks_of(mesh).values() if lock.acquire(timeout=5))
                ready.set()
                go.wait(20)
                for lock in held:
                    lock.release()

            holder = threading.Thread(target=hold)
            holder.start()
            assert ready.wait(20)
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                signal.alarm(10)
                try:
                    os.write(write, held_up(mesh).encode())
                    os._exit(0)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
            os.close(write)
            go.set()
            with os.fdopen(read) as pipe:
                told = pipe.read()
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert told == ""
            assert len(held) > 20
            holder.join(20)
