"""What the processes of a fleet share over Redis: rate limits, and circuit breakers.

One thread per mesh talks to Redis (`meshlib.fleet.errands`); calls wait for its answers, `max_wait` at most. Questions
of many calls go in one round trip. While Redis is unwell (it refuses, breaks off, does not answer, or keeps answering
later than calls wait) nobody waits: calls go on as if there were no limit, which is counted and told as an event, and
the thread looks now and then whether it is back.

The rate limit is GCRA (`meshlib.policy.gcra`) in one script, which runs in Redis as a whole and reads Redis's clock, so
neither races nor clocks that differ between hosts can let more calls through.

The breaker is pybreaker's, with its ``CircuitRedisStorage``; how it is asked and told is in
`meshlib.policy.user_breaker`. Its keys are ``<prefix>:<cluster>:pybreaker:*``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from meshlib.config.settings import ClusterSettings, RedisSettings
from meshlib.errors import ConfigError
from meshlib.fleet.errands import Errand, ErrandThread
from meshlib.policy.admission_settings import FleetBreakerSettings
from meshlib.policy.fleet_gate import FleetRateGate
from meshlib.policy.user_breaker import UserBreakerGate

if TYPE_CHECKING:
    from meshlib.policy.gate import Gate

__all__ = ["RedisLink", "SharedGates"]

GCRA_SCRIPT = """
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local arrival = tonumber(redis.call('GET', KEYS[1]) or now)
arrival = math.min(math.max(arrival, now), now + interval * burst)
local wait = arrival - (burst - 1) * interval - now
if wait > 0.000001 then
  return tostring(wait)
end
arrival = arrival + interval
redis.call('SET', KEYS[1], string.format('%.6f', arrival), 'PX', math.ceil((arrival - now) * 1000) + 1000)
return '0'
"""

_MIN_TIMEOUT_S = 0.25
_SLOW_IN_A_ROW = 5
_LOOK_AGAIN_S = 0.25
_LOOK_AGAIN_MAX_S = 2.0
_MAX_KEY = 120


class _Unwell(Exception):
    """Redis did not do what it was asked to. No error of redis-py, for pybreaker would swallow that."""


class _Take:
    """A call asks for its place in a rate."""

    __slots__ = ("burst", "interval_s", "key")

    def __init__(self, key: bytes, interval_s: float, burst: int) -> None:
        self.key = key
        self.interval_s = interval_s
        self.burst = burst


class RedisLink(ErrandThread):
    """The one connection of a mesh to its fleet's Redis.

    Args:
        settings: where it is.
        on_change: called with whether it is well, and what is wrong, whenever that changes; from the thread.

    Attributes:
        well: whether it answers in time.
    """

    def __init__(self, settings: RedisSettings, on_change: Callable[[bool, str], None]) -> None:
        super().__init__("meshlib-fleet", settings.max_wait_s)
        self.settings = settings
        self.well = True
        self._on_change = on_change
        self._client: Any = None
        self._sha = hashlib.sha1(GCRA_SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._slow = 0
        self._look_again_s = _LOOK_AGAIN_S
        self._busy_since: float | None = None
        self._stuck_s = 2 * _timeout_s(settings)

    def __repr__(self) -> str:
        where = urlsplit(self.settings.url)
        place = where.path if where.scheme == "unix" else f"{where.hostname}:{where.port or 6379}"
        return f"<RedisLink {where.scheme}://{place} {'well' if self.well else 'unwell'}>"

    def submit(self, job: Any) -> Errand | None:
        """Have it done soon; None while that cannot be expected."""
        if not self.well:
            self._start()  # a forked child looks by itself whether it is back
            return None
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._stuck_s:
            return None  # a peer that sends byte after byte is in time with each of them
        return super().submit(job)

    def take(self, name: str, interval_s: float, burst: int) -> Errand | None:
        """Ask for a place in the rate of this name. The result is for how many seconds there is none; 0: there is."""
        text = name.encode("utf-8", "backslashreplace")
        if len(text) > _MAX_KEY:
            text = hashlib.sha256(text).hexdigest().encode()
        return self.submit(_Take(self.settings.prefix.encode() + b":rate:" + text, interval_s, burst))

    def breaker(self, name: str, settings: FleetBreakerSettings) -> Any:
        """A breaker of pybreaker's that is kept in Redis. Takes time, so it is called in the thread alone."""
        import pybreaker

        storage = pybreaker.CircuitRedisStorage(
            pybreaker.STATE_CLOSED, self._connected(), namespace=f"{self.settings.prefix}:{name}"
        )
        return pybreaker.CircuitBreaker(
            fail_max=settings.fail_max,
            reset_timeout=settings.reset_timeout_s,
            success_threshold=settings.success_threshold,
            state_storage=storage,
            name=name,
            throw_new_error_on_trip=False,
        )

    def after_fork(self) -> None:
        """In the child: the connection is the parent's."""
        super().after_fork()
        self._busy_since = None
        if self._client is not None:
            from meshlib.discovery.threads import abandon

            abandon(self._client)
            self._client = None

    def _connected(self) -> Any:
        if self._client is None:
            self._client = _client(self.settings)
        return self._client

    def _patience_s(self, timeout_s: float) -> float:
        return timeout_s if self.well else self._look_again_s

    def _stays(self) -> bool:
        return not self.well and not self._closed

    def _do(self, batch: list[Errand]) -> None:
        if not self.well:
            for errand in batch:
                errand.finish(None)
            self._look()
            return
        self._busy_since = time.monotonic()
        takes = [errand for errand in batch if isinstance(errand.job, _Take)]
        try:
            if takes:
                self._take(takes)
            super()._do([errand for errand in batch if not isinstance(errand.job, _Take)])
        except _Unwell as error:
            for errand in batch:
                if not errand.done:
                    errand.finish(None)
            self._changed(False, str(error))
        finally:
            self._busy_since = None

    def _failed(self, error: Exception) -> None:
        if isinstance(error, _Unwell):
            self._changed(False, str(error))
        else:
            super()._failed(error)

    def _take(self, errands: Sequence[Errand]) -> None:
        client = self._connected()
        began = time.monotonic()
        answers = self._eval(client, errands)
        took_s = time.monotonic() - began
        for errand, answer in zip(errands, answers, strict=True):
            errand.finish(float(answer))
        self._slow = self._slow + 1 if took_s > self.max_wait_s else 0
        if self._slow >= _SLOW_IN_A_ROW:
            raise _Unwell(f"it answers in {took_s * 1000:.0f} ms, and calls wait {self.max_wait_s * 1000:.0f}")

    def _eval(self, client: Any, errands: Sequence[Errand]) -> list[Any]:
        from redis.exceptions import NoScriptError, RedisError

        for attempt in range(3):
            pipeline = client.pipeline(transaction=False)
            for errand in errands:
                job = errand.job
                pipeline.evalsha(self._sha, 1, job.key, f"{job.interval_s:.9f}", job.burst)
            try:
                answers: list[Any] = pipeline.execute()
                return answers
            except NoScriptError:
                client.script_load(GCRA_SCRIPT)
            except (RedisError, OSError, _Unwell) as error:
                # A kept connection may have been closed meanwhile, which says nothing.
                if attempt or "imed out" in str(error) or "imeout" in type(error).__name__:
                    raise _Unwell(self._describe(error)) from None
        raise _Unwell("it does not keep scripts")

    def _look(self) -> None:
        try:
            client = self._connected()
            began = time.monotonic()
            client.ping()
            if time.monotonic() - began > self.max_wait_s:
                began = time.monotonic()
                client.ping()  # the first one may have had to connect
            if time.monotonic() - began > self.max_wait_s:
                raise _Unwell("it is too slow")
        except Exception:
            self._look_again_s = min(_LOOK_AGAIN_MAX_S, self._look_again_s * 2)
            return
        self._changed(True, "")

    def _changed(self, well: bool, detail: str) -> None:
        self._slow = 0
        self._look_again_s = _LOOK_AGAIN_S
        if well is not self.well:
            self.well = well
            self._on_change(well, detail)

    def _describe(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}"
        password = urlsplit(self.settings.url).password
        return text.replace(password, "***") if password else text

    def _ended(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _timeout_s(settings: RedisSettings) -> float:
    """How long Redis may be silent."""
    return max(_MIN_TIMEOUT_S, 4 * settings.max_wait_s)


def _client(settings: RedisSettings) -> Any:
    """A client of redis-py that gives up soon, retries nothing by itself, and says so by `_Unwell`."""
    import redis
    from redis.backoff import NoBackoff
    from redis.exceptions import NoScriptError, RedisError
    from redis.retry import Retry

    base: Any = redis.Redis

    class Client(base):  # type: ignore[misc]
        def execute_command(self, *args: Any, **options: Any) -> Any:
            try:
                return super().execute_command(*args, **options)
            except NoScriptError:
                raise
            except (RedisError, OSError) as error:
                raise _Unwell(f"{type(error).__name__}: {error}") from None

    timeout_s = _timeout_s(settings)
    try:
        client = Client.from_url(
            settings.url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            client_name="meshlib",
        )
        # What follows the "?" of the URL is looked at only where a connection is made of it. This one stays unopened.
        client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    except (TypeError, ValueError) as error:
        raise _Unwell(f"its URL cannot be used: {error}") from None
    return client


class SharedGates:
    """The gates of a mesh that reach beyond its process.

    Args:
        settings: the Redis; None where nothing is shared.
        on_change: see `RedisLink`.

    Raises:
        ConfigError: if what it takes to talk to Redis is not installed.
    """

    def __init__(self, settings: RedisSettings | None, on_change: Callable[[bool, str], None]) -> None:
        self.link = None if settings is None else _link(settings, on_change)
        self._worker: ErrandThread | None = None

    def gates(self, settings: ClusterSettings) -> tuple[list[Gate], list[Gate]]:
        """What a cluster asks before and after its own gates."""
        shared, link, name = settings.fleet, self.link, settings.name
        if shared is None or link is None:
            return [], []
        first: list[Gate] = []
        last: list[Gate] = []
        if shared.circuit_breaker is not None:
            breaker = shared.circuit_breaker
            first.append(UserBreakerGate(lambda: link.breaker(name, breaker), link, "fleet-circuit-breaker"))
        if shared.rate_limit is not None:
            last.append(FleetRateGate(shared.rate_limit, name, link))
        return first, last

    def worker_for(self, breaker: object) -> ErrandThread | None:
        """Where to ask a breaker of the user's own; None if it keeps its state in memory."""
        storage = getattr(breaker, "_state_storage", None)
        if storage is None or type(storage).__name__ == "CircuitMemoryStorage":
            return None
        if self._worker is None:
            self._worker = ErrandThread("meshlib-breakers", RedisSettings("").max_wait_s)
        return self._worker

    def succeed(self, before: SharedGates) -> None:
        """Go on with what asks breakers of the user's own, which need not be those of the Redis before."""
        self._worker, before._worker = before._worker, None

    def close(self) -> None:
        """Do nothing more. Idempotent."""
        for thread in (self.link, self._worker):
            if thread is not None:
                thread.close()


def _link(settings: RedisSettings, on_change: Callable[[bool, str], None]) -> RedisLink:
    try:
        import pybreaker as _pybreaker  # noqa: F401
        import redis as _redis  # noqa: F401
    except ImportError as error:
        text = f'redis: needs an extra, pip install "meshlib-http[redis]" ({error.name} is missing)'
        raise ConfigError(text) from error
    return RedisLink(settings, on_change)
