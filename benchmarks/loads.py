"""The loads under which calls are measured: how many at once, to how many endpoints, how large, how encrypted.

The matrix varies one thing at a time around two common loads, 32 calls in flight on a loop and 16 threads: all
combinations of everything would run for a day and be read by nobody.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Load:
    """What every contender of a group is asked to do.

    Attributes:
        in_flight: calls at once.
        endpoints: that the mesh and Envoy balance over.
        addresses: that a bare client, which does not balance, calls in turn.
        reply: bytes of the reply's body; 0 for the small piece of JSON.
        upload: bytes of the request's body; 0 for a GET.
        tls: whether the endpoints want TLS. The hop from httpx to Envoy never has it, as with any sidecar.
        threads: calls are made by threads with synchronous clients, and not on a loop.
        uvloop: the loop is uvloop's.
    """

    in_flight: int = 32
    endpoints: int = 3
    addresses: int = 1
    reply: int = 0
    upload: int = 0
    tls: bool = False
    threads: bool = False
    uvloop: bool = False

    @property
    def path(self) -> str:
        """What is asked for."""
        return "/upload" if self.upload else f"/bytes/{self.reply}" if self.reply else "/orders/42"

    @property
    def is_large(self) -> bool:
        """Whether a client's default limits on connections would be what is measured."""
        return self.in_flight > 100 or self.endpoints > 20


TASKS = Load()
THREADS = Load(in_flight=16, threads=True)

ASYNC_CONTENDERS = ("mesh", "aiohttp", "httpx2", "httpx", "envoy")
SYNC_CONTENDERS = ("mesh", "urllib3", "requests", "httpx2", "httpx")
UVLOOP_CONTENDERS = ("mesh", "aiohttp", "httpx2", "httpx")


def contenders(load: Load) -> tuple[str, ...]:
    """Who is measured under a load."""
    return SYNC_CONTENDERS if load.threads else UVLOOP_CONTENDERS if load.uvloop else ASYNC_CONTENDERS


def _spread(load: Load, endpoints: int) -> Load:
    return replace(load, endpoints=endpoints, addresses=endpoints)


SCENARIOS: dict[str, Load] = {
    **{f"async-{number}": replace(TASKS, in_flight=number) for number in (1, 10, 32, 100, 1000)},
    **{f"async-endpoints-{number}": _spread(TASKS, number) for number in (1, 10, 100, 1000)},
    "async-reply-64k": replace(TASKS, reply=64 * KIB),
    "async-reply-1m": replace(TASKS, reply=MIB),
    "async-upload-64k": replace(TASKS, upload=64 * KIB),
    "async-tls": replace(TASKS, tls=True),
    "async-tls-64k": replace(TASKS, tls=True, reply=64 * KIB),
    "async-uvloop-1": replace(TASKS, in_flight=1, uvloop=True),
    "async-uvloop-32": replace(TASKS, uvloop=True),
    **{f"sync-{number}": replace(THREADS, in_flight=number) for number in (1, 16, 128)},
    **{f"sync-endpoints-{number}": _spread(THREADS, number) for number in (1, 100, 1000)},
    "sync-reply-64k": replace(THREADS, reply=64 * KIB),
    "sync-reply-1m": replace(THREADS, reply=MIB),
    "sync-upload-64k": replace(THREADS, upload=64 * KIB),
    "sync-tls": replace(THREADS, tls=True),
    "sync-tls-64k": replace(THREADS, tls=True, reply=64 * KIB),
}
"""The matrix, by the names for `--rows`."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the matrix.

    Attributes:
        title: what varies.
        column: the heading of its values.
        rows: label and scenario of each.
    """

    title: str
    column: str
    rows: tuple[tuple[str, str], ...]


def _bodies(base: str, style: str) -> tuple[tuple[str, str], ...]:
    return (
        ("87 B of JSON come", base),
        ("64 KiB come", f"{style}-reply-64k"),
        ("1 MiB comes", f"{style}-reply-1m"),
        ("64 KiB are sent", f"{style}-upload-64k"),
        ("87 B come, TLS", f"{style}-tls"),
        ("64 KiB come, TLS", f"{style}-tls-64k"),
    )


TABLES = (
    Table("Calls in flight, async", "in flight", tuple((str(n), f"async-{n}") for n in (1, 10, 32, 100, 1000))),
    Table("Threads, sync", "threads", tuple((str(n), f"sync-{n}") for n in (1, 16, 128))),
    Table(
        "Endpoints, async, 32 in flight",
        "endpoints",
        tuple((str(n), f"async-endpoints-{n}") for n in (1, 10, 100, 1000)),
    ),
    Table("Endpoints, sync, 16 threads", "endpoints", tuple((str(n), f"sync-endpoints-{n}") for n in (1, 100, 1000))),
    Table("Bodies and TLS, async, 32 in flight", "each call", _bodies("async-32", "async")),
    Table("Bodies and TLS, sync, 16 threads", "each call", _bodies("sync-16", "sync")),
    Table(
        "On uvloop",
        "in flight",
        (
            ("1, asyncio", "async-1"),
            ("1, uvloop", "async-uvloop-1"),
            ("32, asyncio", "async-32"),
            ("32, uvloop", "async-uvloop-32"),
        ),
    ),
)
