"""A WSGI application for a real server: answers with its body, and tells how often each body has come."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

_counts: Counter[str] = Counter()
_lock = threading.Lock()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    name = body.decode() or environ["PATH_INFO"]
    with _lock:
        if name == "/most":
            answer = str(max(_counts.values(), default=0)).encode()
        else:
            _counts[name] += 1
            answer = name.encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
