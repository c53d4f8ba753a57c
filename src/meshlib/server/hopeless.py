"""Refusing at once what cannot finish in time, by how long requests of its kind take.

A request with 20 ms left, of a kind of which only one in twenty is done in 80 ms, will almost surely be work for
nobody: its caller will have gone before there is an answer. To refuse it costs nothing, and leaves its time to requests
that can still be answered, which is what brings a service back after it has fallen behind.

For each kind the times of the last `SAMPLES` requests that were answered are kept, from their beginning to that of the
response, which is not cut once it has begun; and a low percentile of them is the floor: a request with less time left
is refused. Only answers count: what was cancelled or failed would have taken longer, or says nothing. And only those to
trusted peers, whose deadlines these are: a stranger could ask for what takes long, or for a thousand paths. So the
floor errs on the side of serving, and so does all else: what is not known well, or has not been seen for `FORGET_S`, is
served; and once in a while a request below the floor is served, too, so that it is learnt that things have become
faster.

A kind is a method and a route. Which route a request takes is only known behind it, by the framework's template
(``/users/{name}``); in front of it there is the path. So the paths that were seen lead to the templates, with numbers,
identifiers and the like left out; what the framework has no template for is one kind for each such path. Both tables
are bounded, and what was not used for longest makes place.

This is pure: `now` comes in.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from math import inf, isfinite
from typing import TYPE_CHECKING, Any, Final

from meshlib.net.fork import after_fork

if TYPE_CHECKING:
    from meshlib.config.server_settings import HopelessSettings

__all__ = ["FORGET_S", "SAMPLES", "Hopeless", "path_kind", "template_of"]

SAMPLES: Final = 64
FORGET_S: Final = 60.0
_KINDS = 256
_PATHS = 1024
_LONGEST_PATH = 512
_LONG = 8
_RENEW = 8


class Hopeless:
    """What is known of the times that requests take, by kind.

    Args:
        settings: which percentile, of how many at least, and how often one is served all the same.
    """

    def __init__(self, settings: HopelessSettings) -> None:
        self.settings = settings
        self._kinds: dict[str, _Times] = {}
        self._routes: dict[str, str] = {}
        self._lock = threading.Lock()
        after_fork(self)

    def refuses(self, path_kind: str, left_s: float, now: float) -> bool:
        """Whether a request with so much time left is not worth beginning.

        Args:
            path_kind: from `path_kind`.
            left_s: until its deadline.
            now: on the clock of `took`.
        """
        with self._lock:
            times = self._kinds.get(self._routes.get(path_kind, path_kind))
            if times is None or not left_s < times.floor_s or not 0.0 <= now - times.seen_at < FORGET_S:
                return False
            if 0.0 <= now - times.let_in_at < self.settings.probe_interval_s:
                return True
            times.let_in_at = now
            return False

    def took(self, path_kind: str, template: str, took_s: float, now: float) -> None:
        """A request was answered.

        Args:
            path_kind: from `path_kind`.
            template: of the route that it took; empty where the framework has none.
            took_s: from its beginning to that of the response.
            now: as for `refuses`.
        """
        if not path_kind or not isfinite(took_s):
            return
        kind = f"{path_kind.partition(' ')[0]} {template}" if template else path_kind
        with self._lock:
            if template and self._routes.get(path_kind) != kind:
                _keep(self._routes, path_kind, kind, _PATHS)
            times = self._kinds.pop(kind, None)
            if times is None or not 0.0 <= now - times.seen_at < FORGET_S:
                times = _Times(now)
            _keep(self._kinds, kind, times, _KINDS)
            times.add(max(0.0, took_s), now, self.settings)

    def floor_s(self, path_kind: str) -> float:
        """Below which a request is refused; 0 where too little is known."""
        with self._lock:
            times = self._kinds.get(self._routes.get(path_kind, path_kind))
            return 0.0 if times is None else times.floor_s

    def after_fork_in_child(self) -> None:
        """A lock may be held by a thread that is not there any more."""
        self._lock = threading.Lock()


class _Times:
    """The times of one kind, in a ring."""

    __slots__ = ("_count", "_ring", "floor_s", "let_in_at", "seen_at")

    def __init__(self, now: float) -> None:
        self.floor_s = 0.0
        self.let_in_at = -inf
        self.seen_at = now
        self._ring: list[float] = []
        self._count = 0

    def add(self, took_s: float, now: float, settings: HopelessSettings) -> None:
        self.seen_at = now
        if len(self._ring) < SAMPLES:
            self._ring.append(took_s)
        else:
            self._ring[self._count % SAMPLES] = took_s
        self._count += 1
        # A floor that falls is known at once, and one that rises soon enough.
        first = self._count == settings.min_samples
        if first or (self._count > settings.min_samples and (took_s < self.floor_s or self._count % _RENEW == 0)):
            self.floor_s = sorted(self._ring)[int(len(self._ring) * settings.percentile / 100.0)]


def path_kind(method: str, path: str) -> str:
    """What requests of this method and path have in common as far as can be seen from outside: ``GET /orders/*``.

    Numbers, and longer segments with a digit in them (identifiers, dates, hashes), count as parameters.

    Returns:
        Text; empty for a path that is longer than any that is written by hand.
    """
    if len(path) > _LONGEST_PATH:
        return ""
    segments = (
        "*" if segment.isdigit() or (len(segment) >= _LONG and any(map(str.isdigit, segment))) else segment
        for segment in path.split("/")
    )
    return f"{method} {'/'.join(segments)}"


def template_of(request: Mapping[str, Any]) -> str:
    """The template of the route that a request took, by what the framework left behind; empty if it is not known.

    Args:
        request: the ASGI scope (Starlette, FastAPI) or the WSGI environ (Flask).
    """
    path = getattr(request.get("route"), "path", None)
    if isinstance(path, str):
        return f"{request.get('root_path', '')}{path}"
    rule = getattr(getattr(request.get("werkzeug.request"), "url_rule", None), "rule", None)
    return f"{request.get('SCRIPT_NAME', '')}{rule}" if isinstance(rule, str) else ""


def _keep(table: dict[str, Any], key: str, value: Any, most: int) -> None:
    """Put `value` last, and take away what was not used for longest where there are too many."""
    table.pop(key, None)
    if len(table) >= most:
        del table[next(iter(table))]
    table[key] = value
